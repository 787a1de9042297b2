"""What a micro-batch costs: every term of a turn, each over the items that it stands for.

The head is applied to chunks of places, and a chunk's gradient formed before the next one is made (`chunks.py`), for
every objective of places that stand alone, or that settles after a first look what they have to know of each other. Any
other is given all logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipeline.errors import Refused
from pipeline.kinds.network import Network, Played, Seen
from pipeline.kinds.objective import (
    AGAINST,
    JUDGED,
    LOGITS,
    LOOKS,
    DenseTeacher,
    Objective,
    OtherTeacher,
    Reduced,
    Shown,
    Step,
    View,
    first_look,
    settled,
)
from pipeline.model.taps import put
from pipeline.training.chunks import BLOCK, loss_in_chunks
from pipeline.training.places import Places
from pipeline.training.reduce import Sums, reduce

# Logits that are no more than a chunk is worth, such as those of pictures: made all at once.
FEW = 1 << 12
# The logarithm of what a token within a group has at least.
LEAST = math.log(1e-8)


@dataclass
class Term:
    """One objective of the weighted sum: whose output it judges, against whom, on which places, and what it declares.

    `item` is what a value stands for, `per` the unit that its sum is divided by the number of; `alone` says that an
    item's value depends on no other item, `whole` that a set's depends on other sets; `first`, `second` and `chooses`
    are about its first look. `across` is how it aligns a teacher of other tokens. `own` are the modules that are
    trained with it. For one that is `still` the states of the model that it judges stand still, and its head learns.
    """

    weight: float
    objective: Objective
    reads: frozenset[str]
    item: str = "place"
    per: str = "place"
    alone: bool = True
    whole: bool = False
    first: frozenset[str] = frozenset()
    second: frozenset[str] = frozenset()
    chooses: bool = False
    across: str | None = None
    of: str = "student"
    against: str | None = None
    reference: str | None = None
    head: str = "main"
    where: str = "all"
    still: bool = False
    own: nn.Module | None = None
    name: str = ""
    sums: Sums = field(default_factory=Sums)

    @property
    def plays(self) -> bool:
        """Whether it calls networks in place of looking at what they said."""
        return "networks" in self.reads

    def in_chunks(self) -> bool:
        """Whether it can do without the logits of all places at once."""
        free = self.alone or hasattr(self.objective, "measure")
        return bool(LOGITS & self.reads) and not LOOKS & self.reads and self.item == "place" and free

    def beside(self) -> dict[str, str]:
        """The models whose logits it is shown with those that it judges, by field of the view."""
        named = {"teacher": self.against, "reference": self.reference}
        return {field: role for field, role in named.items() if role is not None and field in self.reads}

    def taps(self, role: str) -> tuple[str, ...]:
        """The taps that it asks of a role."""
        found: list[str] = []
        if role == self.of and "features" in self.reads:
            found += getattr(self.objective, "taps", ())
        if role == self.against and {"teacher_features", "teacher_look"} & self.reads:
            found += getattr(self.objective, "teacher_taps", ())
        return tuple(found)

    def stepped(self, step: Step, items: float) -> Reduced:
        """Tell an objective with memory what the step that was just made came to; returns it."""
        reduced, self.sums = self.sums.reduced(items), Sums()
        if hasattr(self.objective, "update"):
            self.objective.update(step, reduced)
        return reduced


@dataclass(frozen=True)
class Role:
    """A model that takes part: what it is, how it is looked at, and whether it learns in this turn."""

    module: nn.Module
    network: Network
    learns: bool


def loss_of(
    terms: Sequence[Term],
    inputs: Mapping[str, torch.Tensor],
    places: Places,
    roles: Mapping[str, Role],
    step: Step,
    totals: Mapping[str, float],
) -> torch.Tensor:
    """The weighted sum of all terms on one micro-batch; `totals` are the items of the whole step, by unit."""
    seen = {name: _look(role, inputs, _taps(terms, name)) for name, role in roles.items() if wanted(terms, name)}
    device = places.target_N.device
    total = torch.zeros((), device=device)
    chunked: dict[tuple[str, str, bool], list[Term]] = {}

    def shown(of: str, still: bool) -> Mapping[str, Seen]:
        return {**seen, of: seen[of].still()} if still else seen

    for term in terms:
        if term.across is not None:
            judged = shown(term.of, term.still)[term.of]
            total = total + _across(term, term.across, judged, places, roles, step, totals)
        elif term.in_chunks():
            chunked.setdefault((term.of, term.head, term.still), []).append(term)
        else:
            told = _view(term, places, shown(term.of, term.still), step)
            view = replace(told, **_looks(term, inputs, places, roles))
            if term.plays:
                view = replace(view, networks=_calls(term, roles), draws=places.draws)
            if "truth" in term.reads:
                view = replace(view, truth=_truth(term, roles, places))
            view = first_look(term.objective, view, term.reads)
            total = total + _valued(term, view, totals)
    for (of, name, still), together in chunked.items():
        total = total + _in_chunks(together, name, places, shown(of, still), step, totals)
    return total


def wanted(terms: Sequence[Term], role: str) -> bool:
    """Whether terms have a model looked at."""
    looking = [term for term in terms if not term.plays]
    return any(role == term.of or role in term.beside().values() or _compares(term, role) for term in looking)


def _calls(term: Term, roles: Mapping[str, Role]) -> dict[str, Callable[..., torch.Tensor]]:
    """The models that a play may call."""
    named = {**{name: name for name in roles}, JUDGED: term.of, **({AGAINST: term.against} if term.against else {})}
    return {name: cast(Played, roles[role].network).calls(roles[role].module) for name, role in named.items()}


def _truth(term: Term, roles: Mapping[str, Role], places: Places) -> torch.Tensor:
    """What the judged model is to make."""
    made = cast(Played, roles[term.of].network).made
    if made not in places.truth:
        raise Refused(
            f"{term.name} learns arrays called {made!r}, and the rows have none (`outputs`): pack what a model made, "
            f"or what `local.solutions` answers where a source gives a `truth`"
        )
    return places.truth[made]


def _compares(term: Term, role: str) -> bool:
    return role == term.against and bool({"teacher_features", "reference_N"} & term.reads)


def _taps(terms: Sequence[Term], role: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tap for term in terms for tap in term.taps(role)))


def _look(role: Role, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
    if role.learns:
        return role.network.look(role.module, inputs, taps)
    with torch.no_grad():
        return role.network.look(role.module, inputs, taps)


def _looks(term: Term, inputs: Mapping[str, torch.Tensor], places: Places, roles: Mapping[str, Role]) -> dict[str, Any]:
    """The fields by which a term looks at a model again."""
    named = {"look": term.of, "teacher_look": term.against}
    return {
        field: partial(_again, term, roles[role], inputs, places)
        for field, role in named.items()
        if field in term.reads and role is not None
    }


def _again(
    term: Term,
    role: Role,
    inputs: Mapping[str, torch.Tensor],
    places: Places,
    states: Mapping[str, torch.Tensor],
    taps: Sequence[str] = (),
) -> Shown:
    """A model's look at the batch with other states at the places that a term stands on."""
    network, chosen = cast(Any, role.network), _stands(term, places.target_N)
    if not hasattr(network, "put"):
        raise Refused(f"{term.name}: a {type(network).__name__} has no places that states can be put at; take another")

    def made(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def at_places(now_ND: torch.Tensor) -> torch.Tensor:
            new_ND = now_ND.clone()
            new_ND[chosen] = states[name].to(now_ND.dtype)
            return new_ND

        return lambda output: network.put(output, inputs, at_places)  # type: ignore[no-any-return]

    with put(role.module, {name: made(name) for name in states}):
        seen = role.network.look(role.module, inputs, taps)
    features = {name: value[chosen] for name, value in seen.features.items()}
    return Shown(
        features,
        lambda: _target_logprob(seen, term.head, places.target_N)[chosen],
        lambda: _wide(_head(seen, term.head)(seen.states_ND[chosen])),
    )


def _valued(term: Term, view: View, totals: Mapping[str, float]) -> torch.Tensor:
    """A term's share of the step's loss; what it came to is kept for `Term.stepped`."""
    loss = term.objective(view.restrict(term.reads))
    term.sums.add(loss)
    return term.weight * reduce([loss], totals[term.per])


def _in_chunks(
    terms: Sequence[Term],
    head: str,
    places: Places,
    seen: Mapping[str, Seen],
    step: Step,
    totals: Mapping[str, float],
) -> torch.Tensor:
    """Terms that judge one head of one model, whose logits are made once for all of them."""
    settled_NS = _first_looks([t for t in terms if hasattr(t.objective, "measure")], head, places, seen, step)

    def of(some: Sequence[Term], at_M: torch.Tensor | None = None) -> torch.Tensor:
        def value(at: slice | torch.Tensor, logits: Mapping[str, torch.Tensor]) -> torch.Tensor:
            views = [_view(t, places, seen, step, at, logits, settled_NS.get(id(t.objective))) for t in some]
            parts = [_valued(term, view, totals) for term, view in zip(some, views, strict=True)]
            return sum(parts, start=torch.zeros((), device=places.target_N.device))

        return _chunks(some, head, seen, value, at_M)

    after = [replace(term, reads=term.reads - term.first) for term in terms]
    together = [term for term in after if not term.chooses]
    total = of(together) if together else torch.zeros((), device=places.target_N.device)
    for term in after:
        if term.chooses:
            total = total + of([term], settled_NS[id(term.objective)].any(1).nonzero()[:, 0])
    return total


def _chunks(
    terms: Sequence[Term],
    head: str,
    seen: Mapping[str, Seen],
    value: Callable[[slice | torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor],
    at_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """The sum of `value` over chunks of all places, or of some, with the logits that the terms read, by role."""
    beside = [role for term in terms for role in term.beside().values()]
    judged = [term.of for term in terms if torch.is_grad_enabled() or "student_NV" in term.reads]
    roles = list(dict.fromkeys(judged + beside))

    def of(logits_CV: torch.Tensor, at: slice, *frozen_CV: torch.Tensor) -> torch.Tensor:
        return value(at if at_M is None else at_M[at], dict(zip(roles, (logits_CV, *frozen_CV), strict=True)))

    (states_ND, module), *frozen = [
        (seen[role].states_ND if at_M is None else seen[role].states_ND[at_M], _head(seen[role], head))
        for role in roles
    ]
    looks = any(hasattr(term.objective, "measure") for term in terms)
    if not looks and len(states_ND) * getattr(module, "out_features", math.inf) <= FEW:
        with torch.no_grad():
            frozen_NV = [each(states) for states, each in frozen]
        return of(module(states_ND), slice(0, len(states_ND)), *frozen_NV)
    modules = [term.own for term in terms if term.own is not None]
    others: list[torch.Tensor] = [p for each in modules for p in each.parameters() if p.requires_grad]
    if any("features" in term.reads for term in terms):
        others += [each for each in seen[terms[0].of].features.values() if each.requires_grad]
    return loss_in_chunks(states_ND, module, of, frozen=frozen, others=others)


def _first_looks(
    terms: Sequence[Term], head: str, places: Places, seen: Mapping[str, Seen], step: Step
) -> dict[int, torch.Tensor]:
    """What objectives settle for all places, by their identity."""
    if not terms:
        return {}
    looking = [replace(term, reads=term.reads - term.second) for term in terms]
    pieces: list[list[torch.Tensor]] = [[] for _ in terms]

    def look(at: slice | torch.Tensor, logits: Mapping[str, torch.Tensor]) -> torch.Tensor:
        for term, measured in zip(looking, pieces, strict=True):
            shown = _view(term, places, seen, step, at, logits).restrict(term.reads)
            measured.append(cast(Any, term.objective).measure(shown))
        return torch.zeros((), device=places.target_N.device)

    with torch.no_grad():
        # No place at all has numbers too, none of them.
        look(slice(0, 0), {role: _head(each, head)(each.states_ND[:0]) for role, each in seen.items()})
        _chunks(looking, head, seen, look)
    measured = zip(terms, pieces, strict=True)
    return {id(term.objective): _settled(term, torch.cat(each), places, seen, step) for term, each in measured}


def _settled(
    term: Term, measured_NM: torch.Tensor, places: Places, seen: Mapping[str, Seen], step: Step
) -> torch.Tensor:
    """What a term settles for the places that it stands on, at all places of the batch."""
    view = _view(replace(term, reads=term.reads - LOGITS), places, seen, step)
    made_NS = settled(term.objective, measured_NM, view, term.reads)
    whole_NS = made_NS.new_zeros(len(places.target_N), made_NS.shape[1])
    whole_NS[_stands(term, places.target_N)] = made_NS
    return whole_NS


def _stands(term: Term, target_N: torch.Tensor) -> slice | torch.Tensor:
    """The places that a term stands on."""
    if term.where == "all":
        return slice(None)
    return (target_N >= 0) if term.where == "labelled" else (target_N < 0)


def _view(
    term: Term,
    places: Places,
    seen: Mapping[str, Seen],
    step: Step,
    at: slice | torch.Tensor = slice(None),
    logits: Mapping[str, torch.Tensor] | None = None,
    settled_NS: torch.Tensor | None = None,
) -> View:
    """What a term sees of some places, all of them if none are named; `logits` are those that are made, by role."""
    judged, against = seen.get(term.of), None if term.against is None else seen.get(term.against)
    target_N = places.target_N[at]
    chosen = _stands(term, target_N)

    def logits_of(role: str) -> torch.Tensor:
        if logits is None:
            head = seen[role].heads[term.head] if role == term.of else _head(seen[role], term.head)
            return _wide(head(seen[role].states_ND[at]))[chosen]
        return _wide(logits[role])[chosen]

    fields: dict[str, Any] = {}
    if "teacher" in term.reads and places.teacher is not None:
        fields["teacher"] = places.teacher.at(at).at(chosen)
    with torch.no_grad():
        dense = {field: logits_of(role) for field, role in term.beside().items()}
    if "student_NV" in term.reads:
        dense["student_NV"] = logits_of(term.of)
    # Columns that only some of the models have are padding of their embeddings.
    width = min((each.shape[1] for each in dense.values()), default=0)
    for name, each in dense.items():
        fields[name] = each[:, :width] if name == "student_NV" else DenseTeacher(each[:, :width])
    if "logprob_N" in term.reads:
        assert judged is not None
        fields["logprob_N"] = _target_logprob(judged, term.head, places.target_N)[at][chosen]
    if "reference_N" in term.reads:
        with torch.no_grad():
            known = places.reference_N if against is None else _target_logprob(against, term.head, places.target_N)
        assert known is not None
        fields["reference_N"] = known[at][chosen]
    if "features" in term.reads:
        assert judged is not None
        fields["features"] = {name: value[at][chosen] for name, value in judged.features.items()}
    if "teacher_features" in term.reads:
        features = places.features if against is None else against.features
        fields["teacher_features"] = {name: value[at][chosen] for name, value in features.items()}
    if "links_2E" in term.reads:
        fields["links_2E"] = places.links_2E
    if settled_NS is not None:
        fields["settled_NS"] = settled_NS[at][chosen]
    if "length_B" in term.reads:
        standing_N = places.example_N[_stands(term, places.target_N)]
        fields["length_B"] = torch.bincount(standing_N, minlength=len(places.weight_B))
    example_N = places.example_N[at][chosen]
    return View(
        target_N=target_N[chosen],
        example_N=example_N,
        weight_N=places.weight_B[example_N],
        set_B=places.set_B,
        reward_B=places.reward_B,
        own=term.own,  # type: ignore[arg-type]
        step=step,
        **fields,
    )


def _head(seen: Seen, name: str) -> nn.Module:
    """A head by name; a model that is compared with may have its own alone."""
    return seen.heads.get(name, seen.heads["main"])


def _across(
    term: Term,
    by: str,
    judged: Seen,
    places: Places,
    roles: Mapping[str, Role],
    step: Step,
    totals: Mapping[str, float],
) -> torch.Tensor:
    """A term that compares with a teacher of other tokens, at the ends of their groups, some of them after others."""
    read, role = places.beside, roles[term.against or "teacher"]
    assert read is not None
    with torch.no_grad():
        heard = role.network.look(role.module, read.inputs, ())
        groups_G4 = read.groups[by]
        before_G = _before(heard, term.head, read.target_M, groups_G4[:, 2:])
    own_before_G = _before(judged, term.head, places.target_N, groups_G4[:, :2])
    last_G, other_last_G = groups_G4[:, 1] - 1, groups_G4[:, 3] - 1
    example_G = places.example_N[last_G]

    settled_GS: torch.Tensor | None = None

    def view(at: slice, logits_CV: torch.Tensor | None, logits_CU: torch.Tensor | None) -> View:
        fields: dict[str, Any] = {}
        if logits_CV is not None and logits_CU is not None:
            other = OtherTeacher(logits_CU, before_G[at], own_before_G[at], read.outcome_U)
            fields = {"student_NV": logits_CV, "other": other}
        if settled_GS is not None:
            fields["settled_NS"] = settled_GS[at]
        return View(
            target_N=places.target_N[last_G[at]],
            example_N=example_G[at],
            weight_N=places.weight_B[example_G[at]],
            step=step,
            **fields,
        )

    states_GD, head = judged.states_ND[last_G], judged.heads[term.head]
    frozen = [(heard.states_ND[other_last_G], _head(heard, term.head))]
    if hasattr(term.objective, "measure"):
        pieces = []

        def look(logits_CV: torch.Tensor, at: slice, logits_CU: torch.Tensor) -> torch.Tensor:
            shown = view(at, logits_CV, logits_CU).restrict(term.reads)
            pieces.append(cast(Any, term.objective).measure(shown))
            return logits_CV.new_zeros(())

        with torch.no_grad():
            # No place at all has numbers too, none of them.
            look(head(states_GD[:0]), slice(0, 0), *(module(states[:0]) for states, module in frozen))
            loss_in_chunks(states_GD, head, look, frozen=frozen)
        settled_GS = settled(term.objective, torch.cat(pieces), view(slice(None), None, None), term.reads)

    def value(logits_CV: torch.Tensor, at: slice, logits_CU: torch.Tensor) -> torch.Tensor:
        return _valued(term, view(at, logits_CV, logits_CU), totals)

    others = [own_before_G] if own_before_G.requires_grad else []
    return loss_in_chunks(states_GD, head, value, frozen=frozen, others=others)


def _before(seen: Seen, head: str, target_N: torch.Tensor, from_to_G2: torch.Tensor) -> torch.Tensor:
    """The log-probability [G] of all that stands in a group but its last token, each not below LEAST."""
    sizes_G = from_to_G2[:, 1] - from_to_G2[:, 0] - 1
    if not sizes_G.any():
        return torch.zeros(len(sizes_G), device=target_N.device)
    group_I = torch.repeat_interleave(torch.arange(len(sizes_G), device=target_N.device), sizes_G)
    into_I = torch.arange(len(group_I), device=target_N.device) - (sizes_G.cumsum(0) - sizes_G)[group_I]
    said_N = _target_logprob(seen, head, target_N).clamp_min(LEAST)
    return said_N.new_zeros(len(sizes_G)).index_add(0, group_I, said_N[from_to_G2[group_I, 0] + into_I])


def _target_logprob(seen: Seen, head_name: str, target_N: torch.Tensor) -> torch.Tensor:
    """The log-probability [N] of every target, a chunk of places at a time, forwards and backwards."""
    head = _head(seen, head_name)

    def of(states_CD: torch.Tensor, target_C: torch.Tensor) -> torch.Tensor:
        return _wide(head(states_CD)).log_softmax(1).gather(1, target_C[:, None])[:, 0]

    rows = BLOCK[seen.states_ND.device.type]
    pieces = zip(seen.states_ND.split(rows), target_N.clamp_min(0).split(rows), strict=True)
    if torch.is_grad_enabled() and seen.states_ND.requires_grad:
        return torch.cat([checkpoint(of, *piece, use_reentrant=False) for piece in pieces])
    return torch.cat([of(*piece) for piece in pieces])


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
