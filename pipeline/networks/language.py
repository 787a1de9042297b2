"""Networks that read and write tokens."""

from __future__ import annotations

import functools
import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.network import HIDDEN, SHAPE, Network, Packed, Seen, network
from pipeline.model import heads
from pipeline.model.chat import Answers, Chat, TrainOn
from pipeline.model.folder import PLACES, SPOKEN, STACKED
from pipeline.model.load import load, positions
from pipeline.model.taps import Taps
from pipeline.networks.classifier import AGAIN, GIVES, IMAGE, TOKENS, Image, Text
from pipeline.networks.masked import looked
from pipeline.tables.ids import Cell
from pipeline.tables.lists import inside, lengths, padded, values, whole
from pipeline.tables.tensors import cell

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

# Widths are multiples of this, so that few shapes occur.
BUCKET = 16
# Models that were looked at, and whether they do more to their logits than their head, such as a soft cap or a scale.
_does_more: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


@network(
    takes=("text",),
    gives=(
        "student_NV",
        "target_N",
        "teacher",
        "logprob_N",
        "reference_N",
        "other",
        "features",
        "teacher_features",
        "look",
        "teacher_look",
    ),
    heads=("main",),
    thoughts=True,
)
def causal() -> Network:
    """A causal language model: places are the loss tokens, and the state before a token predicts it.

    Paper: Radford et al. 2018 (generative pre-training).
    Differs: nothing.
    """
    return Causal()


@network(
    takes=("text", IMAGE),
    gives=AGAIN,
    heads=("main",),
    thoughts=True,
    backend=SPOKEN[STACKED],
)
def stacked() -> Network:
    """A language model that is shown a picture: what a vision tower makes of its patches, projected, stands among the
    states of the tokens. Places are the loss tokens.

    The chat template says where the picture stands; the token that it puts there is repeated, once for each patch. A
    tap of the tower or of the projection is at every place the whole picture's, [N, patches, D].

    Paper: Liu et al. 2023 (LLaVA, arXiv 2304.08485).
    Differs: a prompt shows one picture, as large as the tower's.
    """
    return Stacked()


class Causal:
    """See `causal`."""

    def __init__(self) -> None:
        self.chat = functools.cache(Chat)

    def pack(
        self,
        form: Path,
        messages: Sequence[dict[str, str]],
        answer: str,
        inputs: Cell | None = None,
        reasoning: str | None = None,
        train_on: TrainOn = "answer",
        answers: Answers = "last",
    ) -> Packed:
        if inputs:
            raise Refused(f"is about {', '.join(a['name'] for a in inputs)}, and a language model reads words alone")
        rendered = self.chat(form).example(messages, answer, reasoning, train_on, answers)
        told = rendered.added and f"the template puts {rendered.added!r} before answers, and it is trained on with them"
        return Packed(rendered.token_ids, rendered.spans, told=told)

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        net = load(folder, dtype)
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """token_ids [B, T], padded on the right, which earlier positions cannot see; at_N, the positions in the
        flattened batch whose output predicts the loss tokens."""
        tokens = whole(rows, "token_ids")
        sizes = lengths(tokens)
        width = math.ceil(int(sizes.max()) / BUCKET) * BUCKET
        loss_BT = inside(whole(rows, "spans"), width)
        if loss_BT[:, 0].any():
            raise ValueError("the first token of a sequence is a loss token, and nothing predicts it")
        return {
            "token_ids": torch.from_numpy(padded(values(tokens).to_numpy(), sizes, width).astype(np.int64)),
            "at_N": torch.from_numpy(np.flatnonzero(loss_BT) - 1),
        }

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """The head is given the places alone: the logits of all others are never made."""
        net: Any = model
        head, at_N = net.get_output_embeddings(), inputs["at_N"]
        given: list[torch.Tensor] = []
        # Two places show whether the model does more to its logits than the head; then it must make all of them.
        more = _does_more.get(model)

        def only(_head: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            given.append(arguments[0].flatten(0, 1)[at_N])
            return (given[0] if more else given[0][:2])[None], *arguments[1:]

        with Taps(model, [t for t in taps if t != "last"]) as seen, head.register_forward_pre_hook(only):
            token_ids = inputs["token_ids"]
            logits = net(input_ids=token_ids, position_ids=positions(net, token_ids), use_cache=False).logits[0]
        [states_ND] = given
        if more is None:
            with torch.no_grad():
                _does_more[model] = not torch.allclose(head(states_ND[:2]), logits, rtol=1e-3, atol=1e-3)
            if _does_more[model]:
                return self.look(model, inputs, taps)
        features = {name: self.at_places(value, inputs) for name, value in seen.items()}
        if "last" in taps:
            features["last"] = states_ND
        if more and heads.of(model):
            raise Refused(
                f"{type(net).__name__} does more to its logits than its head does (it caps or scales them), so heads "
                f"beside it cannot be looked at; build on another model"
            )
        if more:
            return Seen(logits, {"main": torch.nn.Identity()}, features)
        return Seen(states_ND, {"main": head, **heads.of(model)}, features)

    def at_places(self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What a module gives of all tokens, [B, T, D], or [B T, D] as a router does, at the places."""
        return (output.flatten(0, 1) if output.dim() > 2 else output)[inputs["at_N"]]

    def put(
        self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor], make: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        all_MD, at_N = output.flatten(0, 1), inputs["at_N"]
        return all_MD.index_copy(0, at_N, make(all_MD[at_N])).view_as(output)

    def width(self, model: torch.nn.Module) -> int:
        net: Any = model
        return int(net.get_output_embeddings().weight.shape[0])

    def save(self, model: torch.nn.Module, out: Path) -> None:
        net: Any = model
        with heads.apart(net):
            net.save_pretrained(out)
        heads.save(net, out)


@network(takes=("text", HIDDEN, SHAPE), gives=GIVES, heads=("main",), backend="network.local")
def masked() -> Network:
    """A masked language model over characters: places are all tokens but the first, of which an augmentation such as
    `masks.places` hides some in every step.

    A token that is hidden is to be found; one that is seen is unknown, so a term looks at the hidden ones with `where:
    labelled` and at the others with `where: unlabelled`. Nothing is hidden when the model is read. The text is the
    contents of all turns, a line each; answers are not read.

    Paper: Devlin et al. 2019 (BERT, arXiv 1810.04805).
    Differs: a hidden token is a learnt vector and not a word, so a classifier of the same tokens can begin with the
    encoder; a model may read several characters as one word (`text.masked`).
    """
    return Masked()


class Masked(Text):
    """See `masked`."""

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        read = self.asked(form, messages, inputs)
        return Packed(read[1:].tolist(), [(0, len(read) - 1)], cell({TOKENS: read}), len(read))

    def places(self, shown: np.ndarray) -> int:
        return len(shown) - 1

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened
        from pipeline.nets.letters import Letters

        net = opened(folder, Letters, dtype)
        heads.load(net, folder)
        return net

    def batch(self, read: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """What `look` needs of texts in tokens, hidden [B, T - 1] beside them."""
        batch = super().batch(read)
        return {**batch, HIDDEN: batch["mask"][:, 1:] - 1}

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap is its output at every place, or at the word of it."""
        net: Any = model
        given = {name: value for name, value in inputs.items() if name != SHAPE}
        with ExitStack() as part:
            if SHAPE in inputs:
                from pipeline.model import elastic

                part.enter_context(elastic.used(net, *inputs[SHAPE][0].tolist()))
            return looked(net, given, inputs[HIDDEN] >= 0, taps, net.config.run)


class Stacked(Causal):
    """See `stacked`."""

    def __init__(self) -> None:
        super().__init__()
        self.image = Image()

    def asked(
        self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None
    ) -> tuple[list[int], np.ndarray]:
        """A conversation in tokens [T], with one for each patch, and the picture."""
        picture = self.image.asked(form, messages, inputs)
        return _patched(form, self.chat(form).prompt(messages, 1))[0], picture

    def pack(
        self,
        form: Path,
        messages: Sequence[dict[str, str]],
        answer: str,
        inputs: Cell | None = None,
        reasoning: str | None = None,
        train_on: TrainOn = "answer",
        answers: Answers = "last",
    ) -> Packed:
        self.image.asked(form, messages, inputs)
        rendered = self.chat(form).example(messages, answer, reasoning, train_on, answers, pictures=1)
        token_ids, more, after = _patched(form, rendered.token_ids)
        spans = [(start + more * (start > after), end + more * (end > after)) for start, end in rendered.spans]
        return Packed(token_ids, spans)

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        transformers.utils.logging.set_verbosity_error()
        auto = transformers.AutoModelForImageTextToText
        net = auto.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """Those of a causal model, and picture [B, C, H, W]."""
        return {**super().collate(rows), **self.image.collate(rows)}

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Pictures as the vision tower takes them."""
        return self.image.given(net, inputs)["pixel_values"]

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        pixels = self.given(model, inputs)

        def show(_model: Any, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return arguments, {**named, "pixel_values": pixels}

        with model.register_forward_pre_hook(show, with_kwargs=True):
            return super().look(model, inputs, taps)

    def at_places(self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if not _of_picture(output, inputs):
            return super().at_places(output, inputs)
        return output[inputs["at_N"] // inputs["token_ids"].shape[1]]

    def put(
        self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor], make: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """A picture becomes what is made of it at the first place of its row."""
        if not _of_picture(output, inputs):
            return super().put(output, inputs, make)
        row_N = inputs["at_N"] // inputs["token_ids"].shape[1]
        first_R = torch.cat([row_N.new_ones(1), row_N.diff()]).nonzero()[:, 0]
        return output.index_copy(0, row_N[first_R], make(output[row_N])[first_R])


def _of_picture(output: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Whether a module gives something of a picture's patches: they are fewer than the tokens they stand among."""
    return output.dim() == 3 and output.shape[1] < inputs["token_ids"].shape[1]


def _patched(form: Path, token_ids: Sequence[int]) -> tuple[list[int], int, int]:
    """Tokens with that of a picture once for each patch, how many that adds, and where it stands."""
    told = json.loads((form / PLACES).read_text("utf-8"))
    found = [at for at, token in enumerate(token_ids) if token == told["image_token"]]
    if len(found) != 1:
        raise Refused(f"its chat template ({form}) puts {len(found)} marks for one picture; correct the template")
    [at] = found
    marks = [told["image_token"]] * told["patches"]
    return [*token_ids[:at], *marks, *token_ids[at + 1 :]], len(marks) - 1, at
