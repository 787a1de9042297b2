"""Trials of what is said of a network before it is trained: which of several will be the best student."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.backend import PLAIN, Reading, Tokens, Want
from pipeline.kinds.evaluator import Exam, Item
from pipeline.nets.pictures import Conv, ConvConfig
from pipeline.sources.shapes import one

SHAPES = ("square", "disc", "cross", "saltire", "triangle", "diamond")
TEACHER = (32, 64)
STUDENTS = (
    (4,), (8,), (16,), (32,), (4, 4), (4, 16), (8, 8), (16, 8), (16, 16), (8, 32),
    (4, 4, 8), (4, 8, 16), (8, 8, 8), (16, 8, 16), (16, 16, 16),
)  # fmt: skip
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Pictures:
    """Pictures [N, 1, 12, 12], and which shape each shows."""

    shown: torch.Tensor
    shape_N: torch.Tensor

    @classmethod
    def drawn(cls, seed: int, rows: int) -> Pictures:
        given = [row.columns for row in one(rows=rows, seed=seed, noise=70, shapes=SHAPES)]
        shown = np.stack([columns["inputs"]["image"] for columns in given]).astype(np.float32)
        named = [SHAPES.index(str(columns["reference"])) for columns in given]
        return cls(torch.from_numpy(shown).permute(0, 3, 1, 2) / 127.5 - 1, torch.tensor(named))


def network(seed: int, widths: Sequence[int]) -> Conv:
    torch.manual_seed(seed)
    return Conv(ConvConfig(widths=tuple(widths), num_labels=len(SHAPES)))


def learnt(net: Conv, seed: int, pictures: Pictures, steps: int, teacher: nn.Module | None = None) -> Conv:
    """A network after so many steps on the classes, or on a teacher's distribution."""
    dice, optimizer = torch.Generator().manual_seed(seed), torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        some = torch.randint(len(pictures.shown), (64,), generator=dice)
        logits = net(pictures.shown[some])
        if teacher is None:
            loss = nn.functional.cross_entropy(logits, pictures.shape_N[some])
        else:
            with torch.no_grad():
                told = (teacher(pictures.shown[some]) / TEMPERATURE).log_softmax(1)
            said = (logits / TEMPERATURE).log_softmax(1)
            loss = nn.functional.kl_div(said, told, log_target=True, reduction="batchmean") * TEMPERATURE**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@dataclass
class Looking:
    """A network as an evaluator sees it (`kinds/evaluator.py`)."""

    name: str
    net: Conv
    pictures: Pictures
    folder: Path = Path()
    dtype: str = "float32"

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        return [Tokens(f"{i}", [SHAPES.index(text or "")], [0]) for i, text in enumerate(texts)]

    def read(self, tokens: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        states: list[torch.Tensor] = []
        hook = self.net.classifier.register_forward_pre_hook(lambda _, given: states.append(given[0]))
        with torch.no_grad():
            logs = self.net(self.pictures.shown).log_softmax(1).numpy()
        hook.remove()
        order = np.argsort(-logs, 1)
        for i, asked in enumerate(tokens):
            top = order[i : i + 1]
            yield Reading(asked.id, logs[i, top[0, :1]], top, logs[i, top], embedding=states[0][i].numpy())


@functools.cache
def searched(seed: int) -> np.ndarray:
    """Of every student how far it is from the teacher before either is trained, the relation alone, how many parameters
    it has, and what share of unseen pictures it gets right once it has learnt from the teacher, [students, 4]."""
    lessons, few, unseen = (Pictures.drawn(10 * seed + i, rows) for i, rows in enumerate((1500, 400, 1000)))
    asked = Pictures(few.shown[:128], few.shape_N[:128])
    items = [Item(f"{i}", [], "d", reference=SHAPES[int(shape)]) for i, shape in enumerate(asked.shape_N)]
    judge = built("evaluator", "similarity.diswot")
    blank, teacher = network(seed, TEACHER), learnt(network(seed, TEACHER), seed, lessons, 200)
    found = []
    for number, widths in enumerate(STUDENTS):
        student = network(100 * seed + number, widths)
        marks = list(judge(Exam(items, Looking("s", student, asked), Looking("t", blank, asked))))
        size = sum(weight.numel() for weight in student.parameters())
        learnt(student, seed, few, 150, teacher)
        with torch.no_grad():
            right = float((student(unseen.shown).argmax(1) == unseen.shape_N).float().mean())
        apart, relation = (np.mean([m.metric if name is None else m.quantities[name] for m in marks])
                           for name in (None, "relation"))  # fmt: skip
        found.append((float(apart), float(relation), size, 100 * right))
    return np.array(found)


def ranked(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """Spearman's correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(one_N, other_N).statistic)


SIZE, RANKS = "the number of parameters", "rank correlation with the share of pictures right after distillation"


@trial("evaluator similarity.diswot", after="DisWOT", control=SIZE, measure=RANKS)
def untrained(seed: int) -> FIGURES:
    """How like an untrained teacher an untrained student sees pictures ranks fifteen students."""
    found = searched(seed)
    return ranked(-found[:, 0], found[:, 3]), ranked(found[:, 2], found[:, 3])


@trial("evaluator similarity.diswot", after="DisWOT", control=SIZE, measure=RANKS)
def untrained_relation(seed: int) -> FIGURES:
    """Of that, how pictures lie to each other alone ranks them."""
    found = searched(seed)
    return ranked(-found[:, 1], found[:, 3]), ranked(found[:, 2], found[:, 3])


@trial(
    "evaluator similarity.diswot", after="DisWOT", control="one of the fifteen by chance",
    measure="percent right of 1,000 unseen",
)  # fmt: skip
def untrained_choice(seed: int) -> FIGURES:
    """The student that sees pictures most as the teacher does, before either is trained, is a better one."""
    found = searched(seed)
    return float(found[found[:, 0].argmin(), 3]), float(found[:, 3].mean())
