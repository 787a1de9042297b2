"""A recipe: everything about training that changes a student's weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic.fields import FieldInfo

from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.core import graph
from pipeline.core.methods import Choice, Use, available, find
from pipeline.core.settings import RunSettings
from pipeline.core.stage import NAME, Input, Instance, Plan, StageParams, gate_of
from pipeline.kinds.augmentation import Augmentation
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.feed import Feed
from pipeline.kinds.network import HIDDEN
from pipeline.kinds.objective import AGAINST, JUDGED, Objective
from pipeline.kinds.origin import Dtype
from pipeline.model.folder import CAUSAL


class Adapter(Choice):
    """Low-rank adapters instead of all weights; merged when the student is saved (Hu et al. 2021). With `dora` a
    weight's length is learnt apart from its direction (Liu et al. 2024, arXiv 2402.09353). With `base: nf4` the weights
    beside them are in four bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), and are saved as they were then."""

    rank: PositiveInt
    alpha: PositiveFloat
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dora: bool = False
    base: Literal["nf4"] | None = None

    @model_validator(mode="after")
    def _plain_beside_four_bits(self) -> Adapter:
        if self.base is not None and self.dora:
            raise ValueError("beside weights in four bits (`base: nf4`) adapters are plain: leave `dora` out")
        return self


class Pacing(Choice):
    """A curriculum: the rows of a step are drawn from those of the lowest ranks, of which there are more at every step.

    At the share t of all steps these are begin + (1 - begin) f(t / full) of all rows, and from `full` on all of them; f
    is `linear`, the square `root`, which adds most of them early, or a `step`, which adds them all at `full`. There are
    as many steps, and as many rows in each, as without pacing, so that one is the other's control.

    Paper: Wu et al. 2021 (When do curricula work?, arXiv 2012.03107), table 2, their a and b; easy first is Bengio et
    al. 2009.
    Differs: the control is the usual training, in which every row comes once an epoch.
    """

    by: Literal["linear", "root", "step"] = "linear"
    begin: float = Field(default=0.2, gt=0, le=1)
    full: float = Field(default=0.5, gt=0, le=1)

    def share(self, done: float) -> float:
        """The share of the rows that are drawn from, after a share of the steps."""
        if done >= self.full or self.by == "step":
            return 1.0 if done >= self.full else self.begin
        return self.begin + (1 - self.begin) * (done / self.full) ** (0.5 if self.by == "root" else 1)


class HeldOut(Choice):
    """Rows that are not trained on: all those of a share of the prompts, drawn by name.

    Every `every` steps, and after the last, the loss on them goes into the curve. What is saved is the student that did
    best there, or the last one; with `patience` the training ends after so many looks that brought nothing better. With
    `answers` so many of their prompts are answered greedily, and the share that their verifiers call right is told too.
    """

    share: float = Field(default=0.05, gt=0, lt=1)
    every: PositiveInt = 50
    keep: Literal["best", "last"] = "best"
    patience: PositiveInt | None = None
    answers: NonNegativeInt = 0
    max_tokens: PositiveInt = 64


class Recipe(StageParams):
    """Optimizer and schedule: linear warm-up, constant, then linear decay over the last `decay_share` of the steps.

    Weights learn in float32; `dtype` is what they are kept in, and then run in: unset, the student's own. With
    `keep_moments` AdamW's are kept beside them, twice their size, for `influence.gradient`. `gradient_checkpointing`
    computes what is between a model's blocks anew on the way back, for less memory and about a third more time. With
    `average` what is saved is the moving average of the student over its steps, with this decay. `trainable` are names
    or patterns of names, such as `lm_head` and `*.mlp.*`: only such modules of the student learn.
    """

    epochs: PositiveFloat
    batch_rows: PositiveInt = 32
    accumulate: PositiveInt = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 20
    decay_share: float = Field(default=0.5, ge=0, le=1)
    max_grad_norm: PositiveFloat = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    dtype: Dtype | None = None
    adapter: Adapter | None = None
    trainable: tuple[str, ...] = ()
    gradient_checkpointing: bool = False
    average: float | None = Field(default=None, ge=0, lt=1)
    held_out: HeldOut | None = None
    keep_moments: bool = False
    pacing: Pacing | None = None
    seed: int

    @model_validator(mode="after")
    def _of_all_weights(self) -> Recipe:
        if self.keep_moments and (self.optimizer != "adamw" or self.adapter is not None or self.trainable):
            raise ValueError(
                "keep_moments is of AdamW on all weights: say `optimizer: adamw`, and neither `adapter` nor `trainable`"
            )
        if self.adapter is not None and self.trainable:
            raise ValueError("an adapter learns in the place of all weights: say `adapter` or `trainable`, not both")
        return self


class Term(Choice):
    """One term of the weighted sum: an objective, whose output it judges, against whom, at which head and places.

    `against` unset is the shadow if there is one, else the live teacher, else the stored signals; `start` is the
    student as it began. `reference` is the second model of an objective that reads one. `where` unset is `labelled` for
    an objective that reads targets and no others, else `all`. With `still` the states that the head is given do not
    move for it: the head learns, and what makes its states does not.
    """

    weight: float = 1.0
    use: Use[Objective]
    of: str = "student"
    against: str | None = None
    reference: str | None = None
    head: str = "main"
    where: Literal["labelled", "unlabelled", "all"] | None = None
    still: bool = False


class Turn(Choice):
    """Which parts learn from which terms, for how many steps in a row; turns follow each other, again and again."""

    trains: tuple[str, ...] = ("student",)
    steps: PositiveInt = 1
    learning_rate: PositiveFloat | None = None
    objectives: tuple[Term, ...] = Field(min_length=1)


class Follow(Choice):
    """A shadow of the student: the average of its steps, or with `every: epoch, decay: 0` the student of the last
    epoch."""

    every: Literal["step", "epoch"] = "step"
    decay: float = Field(ge=0, lt=1)


class Feeding(Choice):
    """Where the rows of a step come from, if not from the table alone."""

    use: Use[Feed]


class StudentParams(Recipe):
    """A recipe with what it is applied to: the rows, the model it starts from, what it learns from.

    `objectives` alone is one turn that trains the student. `beside` are further parts, and whose weights each begins
    with. `augment` are made one after the other in every step. `on_bad_row: drop` leaves out rows whose stored
    log-probabilities are no numbers. Entries of one `arm` differ in nothing but their seeds; the report joins them into
    one line.
    """

    of: str
    student: str
    arm: str | None = Field(default=None, pattern=NAME)
    objectives: tuple[Term, ...] = ()
    turns: tuple[Turn, ...] = ()
    beside: dict[str, Literal["student", "teacher"]] = Field(default={})
    shadow: Follow | None = None
    feed: Feeding | None = None
    augment: tuple[Use[Augmentation], ...] = ()
    on_bad_row: Literal["fail", "drop"] = "fail"

    @model_validator(mode="after")
    def _one_or_the_other(self) -> StudentParams:
        if bool(self.objectives) == bool(self.turns):
            raise ValueError("write either `objectives:` or `turns:`, with at least one entry")
        return self

    def all_turns(self) -> tuple[Turn, ...]:
        """The turns; objectives alone are one."""
        return self.turns or (Turn(objectives=self.objectives),)

    def terms(self) -> list[Term]:
        """The terms of all turns."""
        return [term for turn in self.all_turns() for term in turn.objectives]

    def leaders(self) -> list[str]:
        """The augmentations that have something to learn, as turns name them."""
        return [use.name.rpartition(".")[2] for use in self.augment if use.method.traits.get("learns")]

    def crosses(self) -> bool:
        """Whether all that looks at the teacher takes one of other tokens."""
        looks = [t for t in self.terms() if t.use.method.traits["teacher"] != "none" and t.against in (None, "teacher")]
        others = [*self.beside.values(), *(role for term in self.terms() for role in (term.of, term.reference))]
        alone = "teacher" not in others and self.feed is None
        return alone and bool(looks) and all("across" in term.use.method.traits for term in looks)

    def inputs(self) -> dict[str, Input]:
        return {
            "rows": Input(self.of, SIGNALS if self.of.startswith("signals/") else EXAMPLES),
            "gates": gate_of(self.of),
            "student": Input(f"models/{self.student}"),
        }

    def output(self, instance: str) -> str:
        return f"models/{instance}"

    def begins(self) -> str:
        return self.student

    def methods(self) -> list[Use]:
        return [*(term.use for term in self.terms()), *([self.feed.use] if self.feed else []), *self.augment]

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.student: frozenset({"gradients"})}

    def gives(self) -> frozenset[str]:
        return frozenset({*LOCAL, "moments"} if self.keep_moments else LOCAL)

    def names(self, kind: str) -> frozenset[str] | None:
        # A student is run as the model that it begins as.
        return None if kind in ("backend", "network") else frozenset()

    def check(self, plan: Plan) -> list[str]:
        live = hasattr(self, "teacher")
        stored = self.of.startswith("signals/")
        parts, leaders = {"student", *self.beside}, self.leaders()
        roles = parts | {"start"} | ({"teacher"} if live else set()) | ({"shadow"} if self.shadow else set())
        network = find("network", declared_network(plan, self.student))
        texts = []
        for turn in self.all_turns():
            for name in set(turn.trains) - parts - {*leaders}:
                texts.append(f"trains {name!r}, which is no part; there are {', '.join(sorted({*parts, *leaders}))}")
        for name in leaders:
            if leaders.count(name) > 1 or name in self.beside:
                texts.append(
                    f"augment: {name!r} names two modules that learn; leave one out, or rename it in `beside:`"
                )
        for name, begins in self.beside.items():
            if name in RESERVED or not re.fullmatch(NAME, name):
                texts.append(f"beside.{name}: a part's name is a lower-case word, and none of {', '.join(RESERVED)}")
            if begins == "teacher" and not live:
                texts.append(f"beside.{name} begins as the teacher, and there is none: move the entry to `distill:`")
        for term in self.terms():
            traits, name = term.use.method.traits, term.use.name
            called = {term.use.arguments[n] for n, f in arguments_of(term.use).items() if "role" in f.metadata}
            for role in {term.of, term.against, term.reference, *called} - roles - {None}:
                texts.append(f"{name} names {role!r}; there are {', '.join(sorted(roles))}")
            there = {"main", *graph.heads_of(plan, self.student)}
            if term.head not in there:
                texts.append(
                    f"{name} is of the head {term.head!r}, and {self.student} has {', '.join(sorted(there))}: give it "
                    f"one by an entry of build, for example "
                    f"`{{base: {self.student}, donor: {self.student}, use: heads.add, head: {term.head}}}`"
                )
            if "reference" in traits["reads"] and term.reference is None:
                texts.append(
                    f"{name} looks at a second model beside the teacher, and the term names none: say `reference:` and "
                    f"one of {', '.join(sorted(roles))}"
                )
            if "reference" not in traits["reads"] and term.reference is not None:
                texts.append(f"{name} looks at no second model: leave out `reference: {term.reference}`")
            shown = {*network.traits["gives"], *ALWAYS}
            # Whoever shows one distribution beside the student's shows two.
            unseen = set(traits["reads"]) - shown - ({"reference"} if "teacher" in shown else set())
            if unseen:
                others = [n for n in available("network") if unseen <= set(find("network", n).traits["gives"])]
                texts.append(
                    f"{name} reads {', '.join(sorted(unseen))}, which a {network.name} such as {self.student} does not "
                    f"show; {', '.join(others) or 'no network'} does"
                )
            if "look" in traits["reads"] and self.gradient_checkpointing:
                texts.append(
                    f"{name} looks at the student again inside, which cannot be computed anew: leave out "
                    f"`gradient_checkpointing`"
                )
            if "links_2E" in traits["reads"] and term.where not in (None, "all"):
                texts.append(f"{name} is of links, whose ends are any places: leave out `where: {term.where}`")
            if "networks" in traits["reads"] and term.where not in (None, "all"):
                texts.append(f"{name} plays with every place: leave out `where: {term.where}`")
            against = term.against is not None or self.shadow is not None or live
            if traits["teacher"] in LIVE and not against:
                texts.append(
                    f"{name} {LIVE[traits['teacher']]}, so it needs a live model: say `shadow:`, `against: start`, or "
                    f"move the entry to `distill:` with a `teacher:`"
                )
            elif traits["teacher"] not in ("none", *LIVE) and not against and not stored:
                texts.append(
                    f"{name} compares with a teacher's distribution, and {self.of} holds none: say "
                    f"`of: signals/<examples>/<probe>`, or move the entry to `distill:` with a `teacher:`"
                )
            if "across" in traits and (term.against not in (None, "teacher") or self.shadow is not None):
                texts.append(f"{name} is told by a teacher of other tokens alone: say `against: teacher`")
        texts += self._lacks_texts(live)
        texts += self._lacks_temperatures(plan, live)
        texts += [f"{name} reads the teacher's tap {tap!r}; {text}" for name, tap, text in self._lacks_taps(plan, live)]
        if self.pacing is not None and not any(self._is_control(i.params) for s in TRAINING for i in plan.of(s)):
            texts.append(
                "pacing: there is no entry like this one without it, which tells what the order does; add one that "
                "differs in nothing else"
            )
        texts += self.unsplit(plan.settings)
        teachers = graph.teachers_of(graph.told(plan), self.of)
        if live:
            live_one: str = self.teacher  # type: ignore[attr-defined]
            teachers |= graph.terms(graph.told(plan), [live_one])
        texts += graph.forbidden(teachers)
        if self.adapter is not None and self.adapter.base is not None and network.name != CAUSAL:
            texts.append(f"adapter.base: {self.student} is a {network.name}, and four bits are for a language model")
        if self.feed and stored and not self.feed.use.method.traits.get("keeps_signals", False):
            texts.append(f"{self.feed.use.name} draws rows that the stored signals are not of: use `distill:`")
        for use in self.augment:
            lacks = set(use.method.traits["takes"]) - set(network.traits["takes"])
            if lacks:
                texts.append(f"{use.name} changes {', '.join(sorted(lacks))}, which a {network.name} is not shown")
            if HIDDEN in use.method.traits["takes"] and self.held_out is not None:
                texts.append(
                    f"held_out: {use.name} hides nothing of rows that are held out, so they would have no loss"
                )
            if stored and not live and not use.method.traits["keeps_signals"]:
                texts.append(
                    f"{use.name} makes rows that the stored signals are not of: use `distill:`, whose teacher looks at "
                    f"what is made"
                )
        if self.feed and not live and self.feed.use.method.traits.get("asks_teacher", False):
            texts.append(
                f"{self.feed.use.name} samples with a teacher, and there is none: move the entry to `distill:`"
            )
        return texts

    def undivided(self, settings: RunSettings) -> list[str]:
        """What of it several ranks cannot do as one process does."""
        if settings.ranks == 1:
            return []
        found = [f"{self.feed.use.name} draws rows from the student as it learns"] if self.feed else []
        found += [f"{use.name} makes others of rows that stand together" for use in self.augment]
        for term in self.terms():
            traits, name = term.use.method.traits, term.use.name
            if traits.get("whole") or not (traits.get("alone", True) or traits["item"] == "set"):
                found.append(f"{name} holds all rows of a step against each other")
            elif "networks" in traits["reads"]:
                found.append(f"{name} draws what it plays with for rows that stand together")
        return found

    def unsplit(self, settings: RunSettings) -> list[str]:
        """What of it needs the student whole, where `shard` lays it over the ranks."""
        if not settings.shard:
            return []
        if settings.ranks == 1:
            return ["run.shard: there is one rank, and nothing to lay a student over: write `ranks`, or leave it out"]
        needs = {
            "adapter": self.adapter is not None,
            "average": self.average is not None,
            "shadow": self.shadow is not None,
            "optimizer: muon": self.optimizer == "muon",
            "keep_moments": self.keep_moments,
            "held_out: {keep: best}": self.held_out is not None and self.held_out.keep == "best",
            "a turn in which the student rests": any("student" not in turn.trains for turn in self.all_turns()),
        }
        found = [f"{name} needs the student whole" for name, needed in needs.items() if needed]
        for term in self.terms():
            if term.of == "student" and "look" in term.use.method.traits["reads"]:
                found.append(f"{term.use.name} looks at the student again inside")
        found += self.undivided(settings)
        return [f"run.shard: {text}: leave that out, or write `shard: false`" for text in found]

    def _lacks_texts(self, live: bool) -> list[str]:
        """What is amiss with `texts`, which is for objectives across tokenizers and for no other."""
        across = [term.use.name for term in self.terms() if "across" in term.use.method.traits]
        named = getattr(self, "texts", None)
        if across and not live:
            return [f"{across[0]} asks a live teacher: move the entry to `distill:` with a `teacher:`"]
        if across and named is None:
            return [f"{across[0]} cuts the answers anew for the teacher: say `texts:`, the responses that were packed"]
        if across and self.feed is not None:
            return [f"{self.feed.use.name} draws rows that {across[0]} has no text of: leave `feed` out"]
        return [] if across or named is None else ["texts: no objective reads them; leave it out"]

    def _is_control(self, other: StageParams) -> bool:
        """Whether another entry is this one in random order."""
        plain = {"pacing": None, "arm": None}
        return other.model_copy(update={"arm": None}) == self.model_copy(update=plain)

    def _lacks_temperatures(self, plan: Plan, live: bool) -> list[str]:
        """Terms that compare with stored signals at a temperature that these were not taken at."""
        texts = []
        for probe in [] if live or self.shadow is not None else self._probes(plan):
            stored = {1.0, *probe.params.temperatures}  # type: ignore[attr-defined]
            texts += [
                f"{term.use.name} asks for temperature {t:g}, and probe.{probe.name} takes signals at "
                f"{', '.join(f'{s:g}' for s in sorted(stored))}: let it say `temperatures: [1, {t:g}]`"
                for term in self.terms()
                if "teacher" in term.use.method.traits["reads"] and term.against is None
                for t in [term.use.arguments.get("temperature", 1.0)]
                if isinstance(t, int | float) and t not in stored
            ]
        return texts

    def _probes(self, plan: Plan) -> list[Instance]:
        """The entries of probe whose signals are trained on: one, or of a folder several teachers'."""
        return [i for i in plan.of("probe") if graph.inside(i.output, self.of)]

    def _lacks_taps(self, plan: Plan, live: bool) -> list[tuple[str, str, str]]:
        """Terms whose taps of a teacher are not in the stored signals, with what would mend it."""
        if live or self.shadow is not None:
            return []
        tables = [i.output for i in plan.instances.values() if graph.inside(i.output, self.of)]
        held = [graph.taps_of(plan, table) for table in tables]
        probes, stored = self._probes(plan), held[0].intersection(*held) if held else frozenset[str]()
        return [
            (term.use.name, tap, f"let {'probe.' + probes[0].name if probes else 'a probe'} say `taps: [{tap}]`")
            for term in self.terms()
            if "teacher_features" in term.use.method.traits["reads"] and term.against is None
            for name, field in arguments_of(term.use).items()
            if "teacher_tap" in field.metadata and (tap := term.use.arguments[name]) not in stored
        ]


# The stages that train.
TRAINING = ("train", "distill")
# What an objective does with a teacher that stored signals cannot stand for, by its trait `teacher`.
LIVE = {"all": "compares all outcomes", "live": "is answered by the teacher"}
# Names that mean something else among the roles.
RESERVED = ("student", "teacher", "shadow", "start", JUDGED, AGAINST)
# What every network's view holds.
ALWAYS = {"weight_N", "example_N", "length_B", "set_B", "reward_B", "own", "step", "settled_NS"}


def arguments_of(use: Use[Any]) -> Mapping[str, FieldInfo]:
    """The arguments of a method, as they are declared."""
    return use.method.arguments.model_fields


def declared_network(plan: Plan, model: str) -> str:
    """The network of a model, as the entry that makes it says; a causal language model where it does not."""
    named = graph.named_by_model(plan, model, "network")
    return next(iter(named)) if len(named) == 1 else CAUSAL
