"""Trials of what stands beside a teacher's distribution: relations of tokens, prototypes, and graphs of logits; and of
a feed of own answers that come again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch

from benchmarks.trials import features, sets
from benchmarks.trials.features import ACCURACY, LABELS, PLAIN, SOFT, Case, Term
from benchmarks.trials.sets import LETTERS, RATE, Student, World, percent_right, view
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.contracts import EXAMPLES
from pipeline.core.methods import find
from pipeline.kinds.feed import Draw
from pipeline.kinds.objective import Loss, OtherTeacher, Step, View, first_look


@trial("objective feature.trg", after="TRG", control=PLAIN, measure=ACCURACY)
def token_relations(seed: int) -> FIGURES:
    """A student whose places lie to each other, and to their neighbours, as the teacher's is a better one."""
    return features.beside(seed, (0.1, "feature.trg", {}, "main"))


@trial(
    "transform prototypes.codebook", "objective feature.hidden", after="ProC-KD",
    control="the teacher's states themselves, no prototypes", measure=ACCURACY,
)  # fmt: skip
def prototypes(seed: int) -> FIGURES:
    """Few states that stand for all of the teacher's teach more than each by itself."""
    case = Case.drawn(seed, "prototypes", classes=8, kinds=2, spread=0.9, rows=300, labels=300)
    given = case.taught.signals()
    told = case.taught.by(built("transform", "prototypes.codebook", size=16)(given, given, seed))
    figures = []
    for tap in ("prototype", "last"):
        term: Term = (0.1, "feature.hidden", {"teacher_tap": tap}, "main")
        figures.append(case.score(case.student([LABELS, SOFT, term], told)))
    return figures[0], figures[1]


def looked(name: str, **arguments: Any) -> Callable[[View], Loss]:
    """An objective with its first look."""
    objective, reads = built("objective", name, **arguments), find("objective", name).traits["reads"]
    return lambda given: objective(first_look(objective, given, reads).restrict(reads))


@trial(
    "objective graph.on_logits", "objective across.uld", after="InfiGFusion",
    control="ULD beside cross-entropy on the same answers", measure="percent right",
)  # fmt: skip
def logit_graph(seed: int) -> FIGURES:
    """Which ranks of a teacher of other tokens rise together teaches beside how sure it is."""
    world = World.drawn(seed)
    at, answers, of = sets.sampled(world, seed)
    heard = torch.full((len(at) * 2, LETTERS + 3), -4.0)
    ids = torch.randperm(LETTERS + 3, generator=torch.Generator().manual_seed(seed))
    heard[:, ids[:LETTERS]] = world.teacher[at].flatten(0, 1)
    none = torch.zeros(len(heard))
    other = OtherTeacher(heard, none, none, torch.full((LETTERS + 3,), -1))
    plain = [looked("supervised.cross_entropy"), looked("across.uld")]
    after = []
    for objectives in ([*plain, looked("graph.on_logits")], plain):
        student = Student(seed)
        shown = lambda _, s=student: replace(view(world, s, at, answers, of), other=other)  # noqa: E731
        after.append(percent_right(world, sets.train(student, objectives, shown, sets.AFTER, 0.01)))  # type: ignore[arg-type]
    return after[0], after[1]


@trial(
    "feed sampled.replayed", "objective divergence.skew_forward", after="DistiLLM",
    control="the teacher's answers alone, as many tokens", measure="percent right",
)  # fmt: skip
def replayed(seed: int) -> FIGURES:
    """Own answers, mostly of before, that take the place of a growing share of the teacher's teach a student more."""
    world = World.drawn(seed)
    at, answers, _ = sets.sampled(world, seed)
    feed = built("feed", "sampled.replayed", capacity=2000, every=10, tolerance=0.0)
    after = []
    for own in (True, False):
        student, curve = sets.begun(world, seed), list[dict[str, float]]()
        optimizer = torch.optim.Adam(student.parameters(), RATE)
        objective = looked("divergence.skew_forward")
        order = torch.Generator().manual_seed(seed)

        def sample(prompts: Any, seeds: Any, *_: object, student: Student = student) -> list[list[int]]:
            draw = torch.Generator().manual_seed(seeds[0])
            return student.says(world.points[[prompt[0] for prompt in prompts]], draw).tolist()

        for number in range(sets.AFTER):
            chosen = torch.randint(len(at), (64,), generator=order)
            rows = table(at[chosen], answers[chosen])
            if own:
                step = Step(number, sets.AFTER, 0, 1)
                rows = feed(Draw(step, seed, rows, sample, lambda *_: None, curve))
            tokens = torch.tensor(rows["token_ids"].to_pylist())
            loss = objective(view(world, student, tokens[:, 0], tokens[:, 1:], torch.arange(len(tokens))))
            mean = loss.value_N.mean()
            curve.append({"loss": float(mean.detach())})
            optimizer.zero_grad()
            mean.backward()
            optimizer.step()
        after.append(percent_right(world, student))
    return after[0], after[1]


def table(at: torch.Tensor, answers: torch.Tensor) -> pa.Table:
    """Answers as rows of examples, of which the prompt is the number of a point."""
    rows = [
        {
            "example_id": f"{i}", "prompt_id": f"{point}", "domain": "points", "token_ids": [point, *answer],
            "spans": [{"start": 1, "end": 3}], "weight": 1.0, "template_hash": "", "tokenizer_hash": "",
            "response_ids": [], "verifier": "text.exact", "reference": "",
        }
        for i, (point, answer) in enumerate(zip(at.tolist(), answers.tolist(), strict=True))
    ]  # fmt: skip
    return pa.Table.from_batches([EXAMPLES.rows(rows)])
