"""Objectives over logits against cross-entropy on the same rows at equal steps, and choices of tokens against chance.

Rows are places with a known truth: a small teacher's distribution over outcomes, from which labels were drawn; the
student is narrower than its teacher, and learns by the objective itself, as the trainer calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.core.methods import find
from pipeline.kinds.objective import DenseTeacher, Loss, Step, View, first_look
from pipeline.tables import ids

V, D, STEPS, BATCH = 24, 16, 200, 64
CONTROL = "cross-entropy on the same rows, equal steps"
AGREES = "likeliest outcome as in truth, unseen places"


@dataclass(frozen=True)
class World:
    """Places: their inputs, the logits of the truth, what was drawn from it, and the teacher's logits."""

    points_ND: torch.Tensor
    truth_NV: torch.Tensor
    target_N: torch.Tensor
    teacher_NV: torch.Tensor


def world(seed: int, count: int, broken: float = 0.0, false: float = 0.0) -> World:
    """A teacher is the truth with noise; `broken` of it is another's, and `false` of the labels are chance."""
    fixed, rng = ids.generator(seed, "logits", "world"), ids.generator(seed, "logits", "rows", count)
    layers = [torch.from_numpy(fixed.normal(size=s) / np.sqrt(s[0])).float() for s in ((D, 48), (48, V))]
    points = torch.from_numpy(rng.normal(size=(count, D))).float()
    truth = 5 * torch.tanh(points @ layers[0] * 1.5) @ layers[1]
    p = truth.softmax(1).numpy().astype(np.float64)
    drawn = (p.cumsum(1) / p.sum(1, keepdims=True) > rng.random((count, 1))).argmax(1)
    chance = rng.random(count) < false
    drawn[chance] = rng.integers(V, size=int(chance.sum()))
    teacher = truth + 0.7 * torch.from_numpy(rng.normal(size=(count, V))).float()
    wrong = torch.from_numpy(rng.random(count) < broken)
    teacher[wrong] = teacher[wrong].roll(1, 1)
    return World(points, truth, torch.from_numpy(drawn), teacher)


def student(seed: int) -> nn.Sequential:
    """A narrow network with random weights."""
    torch.manual_seed(ids.seed_of(seed, "logits", "student"))
    return nn.Sequential(nn.Linear(D, 24), nn.Tanh(), nn.Linear(24, V))


Valued = Callable[[View], torch.Tensor]


def term(name: str, **arguments: Any) -> Valued:
    """An objective of these arguments as a mean over the places of a step."""
    objective, reads = built("objective", name, **arguments), find("objective", name).traits["reads"]

    def value(view: View) -> torch.Tensor:
        loss: Loss = objective(first_look(objective, view, reads).restrict(reads))
        return (loss.value_N * loss.weight_N).mean()

    return value


def trained(seed: int, rows: World, terms: dict[Valued, float], reference: nn.Module | None = None) -> nn.Sequential:
    """A student after as many steps as any other, on the same batches."""
    torch.set_num_threads(1)
    net = student(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    rng = ids.generator(seed, "logits", "batches")
    for number in range(STEPS):
        at = torch.from_numpy(rng.integers(len(rows.points_ND), size=BATCH))
        points = rows.points_ND[at]
        states = net[:-1](points)
        view = View(
            student_NV=net[-1](states),
            features={"last": states},
            target_N=rows.target_N[at],
            teacher=DenseTeacher(rows.teacher_NV[at]),
            example_N=torch.arange(BATCH) // 8,
            weight_N=torch.ones(BATCH),
            step=Step(number, STEPS, 0, 1),
        )
        if reference is not None:
            with torch.no_grad():
                view = replace(view, reference=DenseTeacher(reference(points)))
        optimizer.zero_grad()
        torch.stack([share * value(view) for value, share in terms.items()]).sum().backward()
        optimizer.step()
        schedule.step()
    return net


def agrees(net: nn.Module, unseen: World) -> float:
    """How often its likeliest outcome is that of the truth."""
    with torch.no_grad():
        return float((net(unseen.points_ND).argmax(1) == unseen.truth_NV.argmax(1)).float().mean())


def accepted(net: nn.Module, unseen: World) -> float:
    """How much of a draft of its own the teacher accepts: the sum of the lesser of the two."""
    with torch.no_grad():
        both = net(unseen.points_ND).softmax(1), unseen.teacher_NV.softmax(1)
        return float(torch.minimum(*both).sum(1).mean())


def beside(seed: int, *names: tuple[str, dict[str, Any], float]) -> FIGURES:
    """Accuracy of a student of these terms, beside that of one of cross-entropy."""
    ours = trained(seed, world(seed, 300), {term(name, **arguments): share for name, arguments, share in names})
    return agrees(ours, world(seed, 3000)), of_labels(seed)


@cache
def of_labels(seed: int) -> float:
    """Accuracy of a student of cross-entropy."""
    return agrees(trained(seed, world(seed, 300), {HARD: 1.0}), world(seed, 3000))


HARD = term("supervised.cross_entropy")
CE = ("supervised.cross_entropy", {}, 1.0)


def against_cross_entropy(
    name: str, method: str, after: str, claim: str, *terms: tuple[str, dict[str, Any], float]
) -> None:
    """One more trial, of the same world."""

    def run(seed: int) -> FIGURES:
        return beside(seed, *terms)

    run.__name__, run.__doc__ = name, claim
    globals()[name] = trial(
        f"objective {method}", "objective supervised.cross_entropy", after=after, control=CONTROL, measure=AGREES
    )(run)


for made in (
    ("forward_kl", "divergence.forward", "KD", "The teacher's distribution teaches more than its draws."),
    ("adaptive_kl", "divergence.adaptive", "AKL", "Forward and reverse KL by head and tail teach more than labels."),
    ("variation", "divergence.tvd", "DistiLLM", "The total variation from a teacher teaches more than labels."),
    ("alpha", "divergence.alpha", "alpha divergence", "A divergence between the two KL teaches more than labels."),
    ("bd_kd", "divergence.balanced", "BD-KD", "Forward and reverse KL by who is surer teach more than labels."),
    ("dkd", "divergence.decoupled", "DKD", "Target and other outcomes apart teach more than labels."),
    ("mixup_std", "divergence.standardised", "mixup study", "Logits over their deviation teach more than labels."),
    ("first", "divergence.trusted", "FIRST", "Five calibrated probabilities teach more than labels."),
    ("pld", "ranking.pld", "PLD", "The teacher's ranking teaches more than labels."),
    ("bild", "ranking.bild", "BiLD", "Differences of logits teach more than labels."),
    ("dbild", "ranking.dbild", "Switch-KD", "Differences of logits up to a knee teach more than labels."),
    ("hinge", "ranking.hinge", "DistillKit", "Pairs of the likeliest by a margin teach more than labels."),
    ("logistic", "ranking.logistic", "DistillKit", "Pairs of the likeliest by order teach more than labels."),
    ("gated", "tokens.gated", "TSD-KD", "A gated divergence teaches more than labels."),
):  # fmt: skip
    against_cross_entropy(*made, (made[1], {}, 1.0))
against_cross_entropy(
    "nkd", "divergence.nkd", "NKD", "Other outcomes among themselves, beside labels, teach more than labels.", CE,
    ("divergence.nkd", {}, 1.0),
)  # fmt: skip


def by_chance(share: float, seed: int) -> Valued:
    """Forward KL at places by chance, as many as a choice takes."""
    rng, forward = ids.generator(seed, "logits", "chance"), built("objective", "divergence.forward")

    def value(view: View) -> torch.Tensor:
        chosen = torch.from_numpy(rng.random(BATCH).argsort()[: round(share * BATCH)])
        return forward(view).value_N[chosen].mean()

    return value


@trial(
    "objective tokens.adaspec",
    "objective divergence.forward",
    after="AdaSPEC",
    control="as many places by chance",
    measure="accepted of a draft, unseen places",
)
def adaspec(seed: int) -> FIGURES:
    """Places that a distilled reference could learn are worth more than as many by chance."""
    rows, unseen = world(seed, 300, broken=0.3), world(seed, 3000)
    reference = trained(seed + 1000, rows, {term("divergence.forward"): 1.0})
    ours = trained(seed, rows, {term("tokens.adaspec"): 1.0}, reference)
    return accepted(ours, unseen), accepted(trained(seed, rows, {by_chance(0.4, seed): 1.0}), unseen)


@trial(
    "objective tokens.entropy",
    "objective divergence.forward",
    after="TSD-KD",
    control="forward KL alone, equal steps",
    measure=AGREES,
)
def tsd_entropy(seed: int) -> FIGURES:
    """Less entropy at the least sure tenth helps beside forward KL."""
    rows, unseen, soft = world(seed, 300), world(seed, 3000), term("divergence.forward")
    ours = trained(seed, rows, {soft: 1.0, term("tokens.entropy"): 0.1})
    return agrees(ours, unseen), agrees(trained(seed, rows, {soft: 1.0}), unseen)


@trial(
    "objective tokens.indirect",
    "objective divergence.forward",
    after="TSD-KD",
    control="forward KL alone, equal steps",
    measure=AGREES,
)
def tsd_indirect(seed: int) -> FIGURES:
    """The student's own candidates in the teacher's order help beside forward KL."""
    rows, unseen, soft = world(seed, 300), world(seed, 3000), term("divergence.forward")
    ours = trained(seed, rows, {soft: 1.0, term("tokens.indirect"): 0.1})
    return agrees(ours, unseen), agrees(trained(seed, rows, {soft: 1.0}), unseen)


@trial(
    "objective divergence.tvd_pp",
    "objective divergence.tvd",
    after="TVD++",
    control="the total variation, equal steps",
    measure="accepted of a draft, unseen places",
)
def tvd_pp(seed: int) -> FIGURES:
    """A draft that learns by normalised rewards is accepted more often than one of the plain distance."""
    rows, unseen = world(seed, 300), world(seed, 3000)
    ours, plain = (trained(seed, rows, {term(f"divergence.{name}"): 1.0}) for name in ("tvd_pp", "tvd"))
    return accepted(ours, unseen), accepted(plain, unseen)


@trial(
    "objective schedule.tgeo",
    "objective divergence.forward",
    after="TGeo-KD",
    control="half of both everywhere, equal steps",
    measure=AGREES,
)
def tgeo(seed: int) -> FIGURES:
    """A controller weighs labels and a teacher that is wrong at a third of the places better than half and half."""
    given = {"broken": 0.3, "false": 0.3}
    rows, unseen = world(seed, 300, **given), world(seed, 3000)
    objective = built("objective", "schedule.tgeo")
    torch.manual_seed(ids.seed_of(seed, "logits", "controller"))
    own = objective.modules({"last": 24, "outcomes": V}, {})
    controller = torch.optim.AdamW(own.parameters(), lr=1e-2)
    reads = find("objective", "schedule.tgeo").traits["reads"]

    def value(view: View) -> torch.Tensor:
        # What was left of the last step: the trainer moves both at once.
        controller.step()
        controller.zero_grad()
        return objective(first_look(objective, replace(view, own=own), reads)).value_N.mean()

    half = {term("divergence.forward", temperature=1.5, times_tau_squared=True): 0.5, HARD: 0.5}
    return agrees(trained(seed, rows, {value: 1.0}), unseen), agrees(trained(seed, rows, half), unseen)


@trial(
    "objective supervised.contrastive",
    after="QCRD",
    control="the same rows without the negatives",
    measure=AGREES,
)
def qcrd(seed: int) -> FIGURES:
    """Wrong answers that are unlearnt up to a margin teach beside right ones."""
    rows, unseen = world(seed, 300), world(seed, 3000)

    def value(beta: float) -> Valued:
        objective = built("objective", "supervised.contrastive", beta=beta)

        def of(view: View) -> torch.Tensor:
            log_q = view.student_NV.log_softmax(1)
            wrong = (view.target_N * 7 + 1) % V
            both = [log_q.gather(1, each[:, None])[:, 0] for each in (view.target_N, wrong)]
            pairs = View(
                logprob_N=torch.cat(both),
                example_N=torch.arange(2 * BATCH),
                length_B=torch.ones(2 * BATCH, dtype=torch.long),
                set_B=torch.arange(BATCH).repeat(2),
                reward_B=torch.cat([torch.ones(BATCH), torch.zeros(BATCH)]),
                weight_N=torch.ones(2 * BATCH),
            )
            return objective(pairs).value_N.mean()

        return of

    ours, plain = (trained(seed, rows, {value(beta): 1.0}) for beta in (0.2, 0.0))
    return agrees(ours, unseen), agrees(plain, unseen)
