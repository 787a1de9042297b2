"""Heads for a model: others beside its own, or another in its place. What reads the text stays as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.methods import find, lazy
from pipeline.core.stage import NAME
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model import heads
from pipeline.model.chat import Chat
from pipeline.model.folder import CAUSAL, PLACES, TOKENIZER_FILES, finish, network_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

CLASSIFIERS = ("classifier.text", "classifier.image")
OF_TEXT = CLASSIFIERS[:1]
Name = Annotated[str, Field(pattern=NAME)]
PartOfOne = Annotated[float, Field(ge=0, le=1)]


def _named(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return (arguments["head"],)


@builder(
    bases=(*CLASSIFIERS, CAUSAL),
    donors=(*CLASSIFIERS, CAUSAL),
    keeps=True,
    random=False,
    heads=_named,
    finds=("network",),
)
def dual(*, head: Name = "kd", share: PartOfOne = 0.5, temperature: PositiveFloat = 1.0) -> Builder:
    """A second head over the same outcomes, which begins as the donor's own head: one for labels, one for a teacher.

    A classifier answers with (1 - share) of its own head's distribution and `share` of the second one's at a
    temperature; a language model with its own head alone, so it says `share: 0`.
    Paper: Kang et al. 2025 (DHO, arXiv 2505.07675), the dual-head student and its interpolated inference; `share` is
    their 1 - alpha, `temperature` their beta.
    Differs: theirs begin both heads at random, which `heads.add` does for the second.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        net = _opened(base)
        second = _copied(_own(_opened(donor)), net, donor)
        return _beside(base, net, out, head, second, heads.Share(share=share, temperature=temperature))

    return make


@builder(bases=(*CLASSIFIERS, CAUSAL), donors=(), keeps=True, random=True, heads=_named, finds=("network",))
def add(
    *,
    head: Name,
    outcomes: PositiveInt | None = None,
    share: PartOfOne = 0.0,
    temperature: PositiveFloat = 1.0,
) -> Builder:
    """A head of random weights beside the model's own, over so many `outcomes`; unset, as many as that has.

    With a `share` a classifier's answers are mixed as `heads.dual` says. A head with M times the model's own outcomes
    has M kinds of each, one after another, and an outcome is the sum of its kinds.
    Paper: none by itself. Müller et al. 2020 (arXiv 2002.03936) and LELP (arXiv 2409.20449) learn subclasses with such
    a head, multi-aspect distillation (arXiv 2501.13341) the answers to further questions.
    Differs: LELP has no other head; here the model's own stays, and a share of 1 silences it.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        net = _opened(base)
        own = _own(net)
        torch.manual_seed(seed)
        made = torch.nn.Linear(own.weight.shape[1], outcomes or own.weight.shape[0])
        return _beside(base, net, out, head, made, heads.Share(share=share, temperature=temperature))

    return make


@builder(bases=(*CLASSIFIERS, CAUSAL), donors=(), keeps=True, random=True, heads=_named, finds=("network",))
def unit(*, head: Name, outcomes: PositiveInt | None = None) -> Builder:
    """As `heads.add`, a head whose weights are prototypes: a row of length 1 for each outcome, and no bias.

    Paper: Asadi et al. 2023 (prototype-sample relation distillation, arXiv 2303.14771): with a head for each task,
    `divergence.forward` at the old ones against the model before is its relation term.
    Differs: with `still: true` a head learns of states that do not move for it, as theirs does, but by any objective,
    such as cross-entropy, where theirs is the cosine.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        net = _opened(base)
        own = _own(net)
        torch.manual_seed(seed)
        made = heads.unit(torch.nn.Linear(own.weight.shape[1], outcomes or own.weight.shape[0], bias=False))
        return _beside(base, net, out, head, made, heads.Share())

    return make


@builder(bases=CLASSIFIERS, donors=CLASSIFIERS, keeps=True, random=True, finds=("network",))
def linear() -> Builder:
    """A head of random weights in place of the model's own, over the outcomes of the donor.

    Paper: Alain and Bengio 2016 (linear classifier probes, arXiv 1610.01644), the layer.
    Differs: what is before it learns with it.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        net = _opened(base)
        torch.manual_seed(seed)
        width, names = _own(net).weight.shape[1], _outcomes(donor)
        return _replaced(base, net, out, torch.nn.Linear(width, len(names)), names)

    return make


@builder(bases=OF_TEXT, donors=(*OF_TEXT, CAUSAL), keeps=True, random=False, finds=("network",))
def prototypes() -> Builder:
    """A head that names the outcome whose own name, as the donor reads it, has the nearest state.

    Logits are 2 <h, p> - |p|^2, which is minus the squared distance up to what all outcomes share.
    Paper: Snell et al. 2017 (prototypical networks, arXiv 1703.05175), section 2.4, the linear form.
    Differs: a prototype is the state of the outcome's name, and not the mean of the states of its examples.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        net, names = _opened(base), _outcomes(base)
        states_VD = _read(names, donor, _own(net))
        return _replaced(base, net, out, _linear(2 * states_VD, -states_VD.square().sum(1)), names)

    return make


@builder(bases=OF_TEXT, donors=(*OF_TEXT, CAUSAL), keeps=True, random=False, finds=("network",))
def from_embeddings(*, temperature: PositiveFloat = 0.1) -> Builder:
    """A head of the outcomes' names as the donor reads them: the unit vectors of their states, over a temperature.

    Paper: Addepalli et al. 2024 (VL2V-ADiP, arXiv 2310.08255), the classifier of text embeddings.
    Differs: the head begins so and may be trained; the base's state is not brought to length 1.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        net, names = _opened(base), _outcomes(base)
        unit_VD = torch.nn.functional.normalize(_read(names, donor, _own(net)), dim=1)
        return _replaced(base, net, out, _linear(unit_VD / temperature, torch.zeros(len(names))), names)

    return make


def _opened(folder: Path) -> Any:
    return find("network", network_of(folder / "tokenizer")).factory().load(folder, "float32")


def _own(net: Any) -> torch.nn.Linear:
    """A model's own head."""
    own = (getattr(net, name) for name in ("classifier", "score") if hasattr(net, name))
    found = net.get_output_embeddings() or next(own, None)
    if type(found) is not torch.nn.Linear:
        raise Refused(f"{type(net).__name__} has no linear head, which could be taken or replaced")
    return found


def _copied(head: torch.nn.Linear, net: Any, donor: Path) -> torch.nn.Linear:
    """A donor's head, for a model whose own has the same shape."""
    own = _own(net)
    if head.weight.shape != own.weight.shape:
        raise Refused(
            f"the head of {donor.name} is {list(head.weight.shape)}, and the base's own {list(own.weight.shape)}: name "
            f"a donor of the same outcomes and width, or the base itself"
        )
    return _linear(head.weight, head.bias)


def _linear(weight_VD: torch.Tensor, bias_V: torch.Tensor | None) -> torch.nn.Linear:
    made = torch.nn.Linear(weight_VD.shape[1], weight_VD.shape[0], bias_V is not None)
    with torch.no_grad():
        made.weight.copy_(weight_VD)
        if bias_V is not None:
            made.bias.copy_(bias_V)
    return made


def _outcomes(folder: Path) -> list[str]:
    form = folder / "tokenizer"
    names: list[str] = find("network", network_of(form)).factory().outcomes(form)
    return names


def _read(names: Sequence[str], donor: Path, own: torch.nn.Linear) -> torch.Tensor:
    """The states [V, D] of some texts as a donor reads them, at the last token or at the place of the whole text."""
    form = donor / "tokenizer"
    network: Any = find("network", network_of(form)).factory()
    net, chat, found = network.load(donor, "float32"), Chat(form), []
    for name in names:
        tokens = torch.tensor([chat.encode(name)])
        at = {"token_ids": tokens, "mask": torch.ones_like(tokens), "at_N": torch.tensor([tokens.shape[1] - 1])}
        with torch.no_grad():
            found.append(network.look(net, at, ("last",)).features["last"][0])
    states_VD = torch.stack(found)
    if states_VD.shape[1] != own.weight.shape[1]:
        raise Refused(
            f"the states of {donor.name} have {states_VD.shape[1]} numbers and the base's head reads "
            f"{own.weight.shape[1]}: name a donor of the base's width"
        )
    return states_VD


def _beside(base: Path, net: Any, out: Path, name: str, made: torch.nn.Linear, share: heads.Share) -> Card:
    """The model with one head more."""
    if name in (heads.MAIN, *heads.of(net)):
        raise Refused(f"{base.name} has a head {name!r} already: write another name as `head:`")
    told = {**heads.shares(net), name: share}
    if sum(each.share for each in told.values()) > 1:
        raise Refused(f"the heads of {base.name} have more than a whole of the answers with a share of {share.share:g}")
    own = _own(net).weight.shape[0]
    if share.share and made.weight.shape[0] % own:
        raise Refused(
            f"a head of {made.weight.shape[0]} outcomes does not name the {own} of {base.name}, so it has no part in "
            f"its answers: write `share: 0`, or a multiple of {own} as `outcomes:`"
        )
    if share.share and network_of(base / "tokenizer") == CAUSAL:
        raise Refused(f"{base.name} is a language model, which answers with its own head alone: write `share: 0`")
    heads.attach(net, {**heads.of(net), name: made}, told)
    return _kept(base, net, out)


def _replaced(base: Path, net: Any, out: Path, made: torch.nn.Linear, names: Sequence[str]) -> Card:
    """The classifier with another head of its own, over these outcomes."""
    if heads.of(net):
        raise Refused(f"{base.name} has heads beside its own, which stand for its outcomes: replace its own head first")
    setattr(net, "classifier" if hasattr(net, "classifier") else "score", made)
    net.config.id2label = dict(enumerate(names))
    net.config.label2id = {name: i for i, name in enumerate(names)}
    places = json.loads((base / PLACES).read_text("utf-8")) | {"outcomes": list(names)}
    return _kept(base, net, out, places)


def _kept(base: Path, net: Any, out: Path, places: Mapping[str, Any] | None = None) -> Card:
    """Write a model into a folder, with the base's tokenizer and precision."""
    dtype = card_of(base)["dtype"]
    find("network", network_of(base / "tokenizer")).factory().save(net.to(getattr(torch, dtype)), out)
    for file in TOKENIZER_FILES:
        if (base / file).exists():
            shutil.copyfile(base / file, out / file)
    if places is not None:
        (out / PLACES).write_text(json.dumps(places, sort_keys=True) + "\n", "utf-8")
    return finish(out, dtype)
