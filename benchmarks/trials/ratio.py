"""Trials of a share between labels and teacher that is learnt, where the labels are right and a third of the teacher is
not. Rows are many for the steps, so that what a step does to the others tells of unseen ones."""

from __future__ import annotations

import torch

from benchmarks.trials.logits import HARD, MEASURES, Valued, agrees, said, trained, world
from benchmarks.trials.trial import FIGURES, trial
from pipeline.kinds.objective import DenseTeacher, View, first_look

ROWS, UNSEEN, BROKEN = 2500, 3000, 0.3


@trial(
    "objective schedule.tgeo", "objective divergence.forward", after="TGeo-KD",
    control="half of both everywhere, equal steps", measure=MEASURES[agrees],
)  # fmt: skip
def tgeo_of_right_labels(seed: int) -> FIGURES:
    """A controller weighs right labels and a teacher that is wrong at a third of places better than half and half."""
    rows, unseen = world(seed, ROWS, broken=BROKEN), world(seed, UNSEEN)
    half = {Valued("divergence.forward", temperature=1.5, times_tau_squared=True): 0.5, HARD: 0.5}
    ours = trained(seed, rows, {Valued("schedule.tgeo"): 1.0})
    return agrees(ours, unseen), agrees(trained(seed, rows, half), unseen)


@trial(
    "objective schedule.tgeo", after="TGeo-KD", control="where the teacher is wrong", measure="alpha where it is right",
)  # fmt: skip
def tgeo_trusts_beside_right_labels(seed: int) -> FIGURES:
    """Where the labels are right the controller comes to trust a teacher less where it is wrong."""
    rows, whole = world(seed, ROWS, broken=BROKEN), world(seed, ROWS)
    value = Valued("schedule.tgeo")
    net = trained(seed, rows, {value: 1.0})
    view = View(
        student_NV=said(net, rows),
        features={"last": net[:-1](rows.points_ND).detach()},
        target_N=rows.target_N,
        teacher=DenseTeacher(rows.teacher_NV),
        example_N=torch.arange(ROWS) // 8,
        weight_N=torch.ones(ROWS),
        own=value.own,
    )
    alpha_N = value.objective(first_look(value.objective, view, value.reads)).metrics["alpha"]
    wrong_N = (rows.teacher_NV != whole.teacher_NV).any(1)
    return float(alpha_N[~wrong_N].mean()), float(alpha_N[wrong_N].mean())
