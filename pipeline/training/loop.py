"""The trainer: parts, turns and terms, from the first step or from a checkpoint, to the same bits.

A *part* is a module that may learn: the student, what stands beside it, an objective's own module. A *turn* names the
parts that learn, for how many steps, from which terms. Plain training is one part and one turn. What a step does
follows from its number alone: its rows, its turn, its random numbers; so a stopped run goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from pipeline.errors import Refused
from pipeline.kinds.augmentation import Augmentation
from pipeline.kinds.feed import Draw, Feed
from pipeline.kinds.network import HIDDEN, LINKS, Network, Played
from pipeline.kinds.objective import Step
from pipeline.tables import ids
from pipeline.tables.lists import lengths, whole
from pipeline.training import shards
from pipeline.training.across import Across
from pipeline.training.batches import POSITIONS, micro_batches
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.optimizers import optimizer_for
from pipeline.training.order import Order
from pipeline.training.places import Places, places
from pipeline.training.ranks import add_gradients, here, over_ranks
from pipeline.training.recipe import Recipe
from pipeline.training.reduce import Sums, items
from pipeline.training.rows import Rows
from pipeline.training.shadow import Shadow
from pipeline.training.terms import Role, Term, loss_of, wanted
from pipeline.training.watch import LOSS, Watch

# The share of its rate that the last step has.
LAST_RATE = 0.02
# Bytes that a whole table may take as its network collates it.
COLLATED = 1 << 27
# What the names of objectives' own modules begin with, among the parts.
OWN = "own:"
# Entries of a parameter's gradient that two terms are compared by.
SKETCH = 1 << 16


@dataclass
class Turn:
    """Which parts learn from which terms, for how many steps in a row; a rate of its own if it has one."""

    trains: tuple[str, ...]
    terms: Sequence[Term]
    steps: int = 1
    learning_rate: float | None = None


@dataclass(frozen=True)
class Pull:
    """How hard a term pulls at the start of a training: its weighted loss, the norm of its weighted gradient on the
    model that it judges, and some entries of that gradient, to compare two by."""

    term: str
    loss: float
    norm: float
    sketch: torch.Tensor

    def cosine(self, other: Pull) -> float:
        """Whether two pull the same way: 1, or against each other: -1; on different models, neither: 0."""
        if len(self.sketch) != len(other.sketch):
            return 0.0
        return float(nn.functional.cosine_similarity(self.sketch, other.sketch, dim=0))


def turn_at(turns: Sequence[Turn], number: int) -> Turn:
    """The turn of a step: turns follow each other, again and again."""
    at = number % sum(turn.steps for turn in turns)
    for turn in turns:
        if at < turn.steps:
            return turn
        at -= turn.steps
    raise AssertionError(at)


def rate_at(recipe: Recipe, step: Step) -> float:
    """The share of the learning rate: linear warm-up, constant, linear decay over the last `decay_share` of steps."""
    warm = min(recipe.warmup_steps, step.of // 2)
    decay = round(recipe.decay_share * step.of)
    if step.number < warm:
        return (step.number + 1) / (warm + 1)
    into = step.number - (step.of - decay)
    return 1.0 if into < 0 else 1.0 - (1.0 - LAST_RATE) * (into + 1) / decay


@dataclass
class Trainer:
    """Parts that learn from rows. `fixed` are models that only look: a live teacher, the student as it began."""

    parts: Mapping[str, nn.Module]
    networks: Mapping[str, Network]
    turns: Sequence[Turn]
    rows: Rows
    recipe: Recipe
    device: str
    fixed: Mapping[str, nn.Module] = field(default_factory=dict)
    feed: Feed | None = None
    draws: Callable[[Step, int, pa.Table, Sequence[Mapping[str, float]]], Draw] | None = None
    shadow: Shadow | None = None
    across: Across | None = None
    watch: Watch | None = None
    augment: Sequence[Augmentation] = ()
    answers: Callable[[nn.Module, pa.Table], Mapping[str, float]] | None = None
    learns: Turn | None = field(default=None, init=False)

    @cached_property
    def average(self) -> Shadow | None:
        """What is saved in the student's place, if the recipe says so."""
        return None if self.recipe.average is None else Shadow("step", self.recipe.average)

    @cached_property
    def split(self) -> bool:
        """Whether the student's blocks lie over the ranks."""
        return shards.is_split(self.parts["student"])

    @property
    def kept(self) -> nn.Module:
        """The student that is looked at and saved."""
        return self.parts["student"] if self.average is None else self.average.module

    def run(
        self,
        checkpoints: Checkpoints,
        every: int,
        progress: Callable[[int, int, str], None],
        report: Callable[[Sequence[Mapping[str, float]]], None] = lambda points: None,
    ) -> list[dict[str, float]]:
        """Train the parts in place, going on from the newest whole checkpoint; returns a point per step."""
        terms = [term for turn in self.turns for term in turn.terms]
        order = self._begin()
        # An objective's own module is no stack of blocks.
        plain = self.recipe.model_copy(update={"optimizer": "adamw"})
        self.optimizers = {
            n: optimizer_for(p, plain if n.startswith(OWN) else self.recipe) for n, p in self.parts.items()
        }
        self.rates = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}
        shadows = {"shadow": self.shadow, "average": self.average}
        followers = {name: shadow for name, shadow in shadows.items() if shadow is not None}
        checkpoints.holds(self.parts, followers, self.optimizers, terms, self.feed)
        curve = checkpoints.resume()
        report(curve)
        for number in range(len(curve), order.steps):
            if self.watch is not None and self.watch.ended(curve):
                break
            epoch, into = divmod(number, order.steps_an_epoch)
            step = Step(number, order.steps, epoch, math.ceil(order.steps / order.steps_an_epoch))
            point = self._step(step, order, curve)
            if not math.isfinite(point["loss"]):
                raise FloatingPointError(f"the loss is {point['loss']} at step {number + 1}")
            curve.append(point)
            for shadow in followers.values():
                shadow.follow(self.parts["student"], ends_epoch=into + 1 == order.steps_an_epoch)
            if self.watch is not None and self.watch.due(number + 1, order.steps):
                point |= self._looked(step)
                if self.watch.given.keep == "best" and self.watch.best(curve) == number:
                    checkpoints.keep_best(self.kept)
            if (number + 1) % every == 0 or number + 1 == order.steps:
                checkpoints.save(curve)
            report([point])
            progress(number + 1, order.steps, f"steps, loss {point['loss']:.4f}")
        for part in self.parts.values():
            part.eval()
        if self.watch is not None and self.watch.given.keep == "best":
            checkpoints.load_best(self.kept)
        return curve

    def pulls(self) -> list[list[Pull]]:
        """How hard every term of every turn pulls on the model that it judges. It changes nothing."""
        return [[self.pull(turn, term) for term in turn.terms] for turn in self.turns]

    def pull(self, turn: Turn, term: Term) -> Pull:
        """How hard a term pulls in a turn, on the rows of the first step, with nothing dropped out."""
        order = self._begin()
        step, rows = Step(0, order.steps, 0, 1), self._rows_at(order, 0)
        self._learn(turn)
        self._rest()
        leaders = self._leaders(turn)
        if term.of not in turn.trains and term.own is None and not leaders:
            return Pull(term.name, math.nan, 0.0, torch.zeros(1))
        loss = self._losses(turn, [term], step, rows)[0]
        term.sums = Sums()
        # A parameter that the term does not reach has its place in the sketch, so that two can be compared.
        judged = leaders or [self.parts[term.of]]
        learnt = (p for part in judged for p in part.parameters() if p.requires_grad)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learnt]
        norm = shards.length(grads)
        parts = [shards.own(grad).flatten() for grad in grads]
        some = [g[:: math.ceil(len(g) / SKETCH)].cpu() for g in parts if len(g)]
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)
        return Pull(term.name, loss, norm, torch.cat(some))

    def _begin(self) -> Order:
        """Put every model where it is trained; returns the order of the rows."""
        self.learns, learning = None, self.learning
        sets = any("set" in (term.item, term.per) for turn in self.turns for term in turn.terms)
        for module in (*self.parts.values(), *self.fixed.values()):
            module.to(self.device)
        for p in (p for part in self.parts.values() for p in part.parameters()):
            p.requires_grad_(id(p) in learning)
        for module in self.fixed.values():
            module.eval().requires_grad_(False)
        if self.shadow is not None:
            self.shadow.begin(self.parts["student"])
        if self.average is not None:
            self.average.begin(self.parts["student"])
        among = slice(None) if self.watch is None else self.watch.trained
        ranks = self.rows.ranks if self.recipe.pacing else None
        return Order(self.rows.prompt_ids[among], self.recipe, sets, None if ranks is None else ranks[among])

    def _rows_at(self, order: Order, step: int) -> pa.Table | np.ndarray:
        """This rank's rows of a step, or their numbers where all are collated."""
        numbers = order.at(step, slice(here().rank, None, here().of))
        chosen = numbers if self.watch is None else self.watch.trained[numbers]
        plain = self.feed is None and self.across is None
        return np.asarray(chosen) if plain and self.collated is not None else self.rows.take(chosen, lean=plain)

    @cached_property
    def collated(self) -> tuple[Mapping[str, torch.Tensor], Places] | None:
        """What the whole table shows, and what stands at its places; nothing where a row hangs on others, or it is
        large."""
        network = self.networks["student"]
        if not getattr(network, "apart", False):
            return None
        size = sum(value.nbytes for value in network.collate(self.rows.take(range(1))).values())
        if size * len(self.rows) > COLLATED:
            return None
        table = self.rows.take(range(len(self.rows)), lean=True)
        return network.collate(table), places(table)

    def _looked(self, step: Step) -> dict[str, float]:
        """How the student that is kept does on the rows that are held out, in a turn in which it learns."""
        assert self.watch is not None
        turn = next(turn for turn in self.turns if "student" in turn.trains)
        self._rest()
        with torch.no_grad():
            loss, _ = self._losses(turn, turn.terms, step, self.rows.take(self._held()), {"student": self.kept})
        for term in turn.terms:
            term.sums = Sums()
        right = {} if self.answers is None else self.answers(self.kept, self.rows.take(self.watch.held))
        return {LOSS: loss, **right}

    def _held(self) -> np.ndarray:
        """This rank's share of the rows that are held out, all those of a prompt together."""
        assert self.watch is not None
        _, prompt = np.unique(self.rows.prompt_ids[self.watch.held], return_inverse=True)
        share: np.ndarray = self.watch.held[prompt % here().of == here().rank]
        return share

    def _learn(self, turn: Turn) -> None:
        """Let the parts of a turn learn, and no other."""
        if turn is self.learns:
            return
        self.learns, learning = turn, self.learning
        for name, part in self.parts.items():
            part.train(name in turn.trains)
            for p in part.parameters():
                p.requires_grad_(name in turn.trains and id(p) in learning)

    def _rest(self) -> None:
        """Let nothing be dropped out."""
        self.learns = None
        for part in self.parts.values():
            part.eval()

    @cached_property
    def learning(self) -> set[int]:
        """What may learn in any turn, told before the first of them."""
        return {id(p) for part in self.parts.values() for p in part.parameters() if p.requires_grad}

    def _step(self, step: Step, order: Order, curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """One step: its rows in micro-batches, forwards and backwards, and the optimizers of the turn's parts."""
        turn, recipe = turn_at(self.turns, step.number), self.recipe
        self._learn(turn)
        # That of all devices looks for them anew in every step, which takes as long as a small model's backward pass.
        seeded = torch.default_generator.manual_seed if self.device == "cpu" else torch.manual_seed
        # What is dropped out of a rank's rows is not what is dropped out of another's.
        seeded(ids.seed_of(recipe.seed, "step", step.number, *(() if here().first else (here().rank,))))
        rows = self._rows_at(order, step.number)
        if self.feed is not None and self.draws is not None and isinstance(rows, pa.Table):
            draw = self.draws(step, recipe.seed, rows, curve)
            made = self.feed(draw)
            rows = rows if made is draw.rows else made
        loss, totals = self._losses(turn, turn.terms, step, rows)
        rate, norms = rate_at(recipe, step), []
        for name in turn.trains:
            norms.append(shards.clip(self.parts[name].parameters(), recipe.max_grad_norm))
            scale = rate * (turn.learning_rate or recipe.learning_rate) / recipe.learning_rate
            for group, own in zip(self.optimizers[name].param_groups, self.rates[name], strict=True):
                group["lr"] = own * scale
            self.optimizers[name].step()
            self.optimizers[name].zero_grad(set_to_none=True)
        came_to: dict[str, float] = {}
        for term in turn.terms:
            key = f"loss.{term.name}"
            came_to[key] = came_to.get(key, 0.0) + term.weight * term.stepped(step, totals[term.per]).value
        return {
            **(came_to if len(turn.terms) > 1 else {}),
            "step": step.number + 1,
            "loss": loss,
            "lr": recipe.learning_rate * rate,
            "grad_norm": math.hypot(*norms),
            "places": totals["place"],
        }

    def _losses(
        self,
        turn: Turn,
        terms: Sequence[Term],
        step: Step,
        rows: pa.Table | np.ndarray,
        instead: Mapping[str, nn.Module] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """The loss of some terms on the rows of a step, whose gradient is added to the parts' where there is any, and
        the step's items, over all ranks; `instead` are models that stand for others."""
        layout = self._layout(turn, rows)
        # To take all rows as they come would copy them for nothing, at the cost of a small model's step.
        batches = [rows] if layout == [[*range(len(rows))]] else [rows.take(some) for some in layout]
        shown = [self._shown(turn, batch, step, number) for number, batch in enumerate(batches)]
        totals = over_ranks(items(p.counts for _, p in shown))
        roles, loss, missing = self._roles(turn, instead or {}), 0.0, self._missing(len(shown))
        for given, found in shown:
            inputs = {name: value.to(self.device) for name, value in given.items()}
            with self._precision():
                part_of_loss = loss_of(terms, inputs, found.to(self.device), roles, step, totals)
            if torch.is_grad_enabled():
                part_of_loss.backward()
            loss += float(part_of_loss.detach())
        for _ in range(missing):
            self._keep_up(terms)
        if torch.is_grad_enabled():
            add_gradients(p for part in self.parts.values() for p in part.parameters() if p.requires_grad)
        return over_ranks({"loss": loss})["loss"], totals

    def _missing(self, batches: int) -> int:
        """How many more micro-batches another rank has, where all have to go through the student together."""
        if not self.split:
            return 0
        return int(max(over_ranks({here().rank: batches}).values())) - batches

    def _keep_up(self, terms: Sequence[Term]) -> None:
        """Go through the student with a row, as far as terms do, to no effect."""
        if not wanted(terms, "student"):
            return
        network, judging = self.networks["student"], [t for t in terms if t.of == "student" and not t.still]
        inputs = {name: value.to(self.device) for name, value in network.collate(self.rows.take(range(1))).items()}
        taps = list(dict.fromkeys(tap for term in judging for tap in term.taps("student")))
        with self._precision():
            seen = network.look(self.parts["student"], inputs, taps)
        last = any(term.in_chunks() or {"student_NV", "logprob_N"} & term.reads for term in judging)
        found = [*(seen.features[tap] for tap in taps), *([seen.states_ND] if last else [])]
        # A block that no gradient comes to waits for none.
        if reached := [each for each in found if each.requires_grad]:
            torch.autograd.backward(reached, [torch.zeros_like(each) for each in reached])

    def _shown(
        self, turn: Turn, batch: pa.Table | np.ndarray, step: Step, number: int
    ) -> tuple[Mapping[str, torch.Tensor], Places]:
        """What a micro-batch shows, and what stands at its places; where it is learnt from, what is made of both."""
        inputs: Mapping[str, torch.Tensor]
        if isinstance(batch, np.ndarray):
            assert self.collated is not None
            every, stand = self.collated
            row_R = torch.from_numpy(batch)
            inputs, found = {name: value[row_R] for name, value in every.items()}, stand.among(row_R)
        else:
            inputs, found = self.networks["student"].collate(batch), places(batch)
        if self.across is not None and isinstance(batch, pa.Table):
            found = self.across.beside(found, batch)
        if LINKS in inputs:
            found = found.linked(inputs[LINKS])
        if self.augment and HIDDEN not in inputs and len(found.target_N) != len(batch):
            raise Refused("rows of several places cannot be made into others; leave out `augment`")
        draw = torch.Generator().manual_seed(ids.seed_of(self.recipe.seed, "augment", step.number, number))
        for augmentation in self.augment if torch.is_grad_enabled() else ():
            made = augmentation(inputs, draw)
            inputs, found = made.inputs, found.of(made.row_R)
        if HIDDEN in inputs:
            found = found.hiding(inputs[HIDDEN])
        if any(term.plays for term in turn.terms):
            chance = torch.Generator().manual_seed(ids.seed_of(self.recipe.seed, "draws", step.number, number))
            found = replace(found, draws=cast(Played, self.networks["student"]).draws(inputs, chance))
        return inputs, found

    def _layout(self, turn: Turn, rows: pa.Table | np.ndarray) -> list[list[int]]:
        """The rows of each micro-batch; sets stay whole, and what depends on all other rows sees them all."""
        if any(term.whole or (not term.alone and term.item != "set") for term in turn.terms):
            return [list(range(len(rows)))]
        grouped = any("set" in (t.item, t.per) for t in turn.terms)
        if isinstance(rows, np.ndarray):
            sets = self.rows.prompt_ids[rows].tolist() if grouped else None
            return micro_batches(np.ones(len(rows), np.int64), POSITIONS[self.device], sets)
        sets = rows["prompt_id"].to_pylist() if grouped else None
        return micro_batches(lengths(whole(rows, "token_ids")), POSITIONS[self.device], sets)

    def _roles(self, turn: Turn, instead: Mapping[str, nn.Module]) -> dict[str, Role]:
        models = {**self.parts, **self.fixed, **instead}
        if self.shadow is not None:
            models["shadow"] = self.shadow.module
        led = bool(self._leaders(turn))
        return {
            name: Role(model, self.networks.get(name, self.networks["student"]), led or name in turn.trains)
            for name, model in models.items()
            if not name.startswith(OWN)
        }

    def _leaders(self, turn: Turn) -> list[nn.Module]:
        """What learns in a turn through every model's look: the modules of augmentations."""
        modules = [getattr(each, "module", None) for each in self.augment]
        return [self.parts[name] for name in turn.trains if any(self.parts[name] is module for module in modules)]

    def _precision(self) -> AbstractContextManager[object]:
        wide = self.recipe.precision == "float32" or self.device == "cpu" or not torch.cuda.is_bf16_supported()
        return nullcontext() if wide else torch.autocast("cuda", torch.bfloat16)
