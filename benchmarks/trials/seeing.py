"""Trials of small models that are shown a picture and asked about it: what a larger one's words and eyes teach them."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.contracts import EXAMPLES
from pipeline.core.methods import find
from pipeline.kinds.objective import OUTCOMES, Step
from pipeline.model.chat import Chat
from pipeline.tables import ids
from pipeline.tables.tensors import cell
from pipeline.training.places import places
from pipeline.training.terms import Role, Term, loss_of

# A picture of four patches, each of one of these colours; a question names a patch, and the answer its colour.
QUESTIONS, COLOURS, SIDE = "abcd", "wxyz", 3
NOISE, LESSONS, KNOWN, UNSEEN = 60.0, 2000, 400, 1000
# Steps, and the rates that are best for the controls on seeds 1 and 2.
STEPS, RATE, PREFER, FURTHER = 300, 1e-2, 1e-3, 1e-3
EYES = "model.multi_modal_projector"
COLUMNS = ("example_id", "prompt_id", "token_ids", "spans", "weight", "reward", "inputs")
ACCURACY = "percent right of 1,000 unseen"
LABELS: tuple[float, str, dict[str, Any]] = (1.0, "supervised.cross_entropy", {})
NETWORK: Any = find("network", "language.stacked").factory()
Given = Sequence[tuple[float, str, dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """Pictures [N, 6, 6, 3] with a question each, and the right answers."""

    pictures: np.ndarray
    questions: np.ndarray
    answers: np.ndarray

    @classmethod
    def drawn(cls, rng: np.random.Generator, shades: np.ndarray, count: int) -> Asked:
        colour = rng.integers(0, len(COLOURS), (count, 2, 2))
        flat = shades[colour].repeat(SIDE, 1).repeat(SIDE, 2)
        seen = np.clip(flat + NOISE * rng.normal(size=flat.shape), 0, 255).astype(np.uint8)
        at = rng.integers(0, len(QUESTIONS), count)
        return cls(seen, at, colour.reshape(count, 4)[np.arange(count), at])

    def rows(self, form: Path, said: Sequence[tuple[int, int, float]]) -> pa.Table:
        """Answers to some of them as examples: which, what is said, and its reward."""
        made = []
        for number, (asked, answer, reward) in enumerate(said):
            inputs = cell({"image": self.pictures[asked]})
            messages = [{"role": "user", "content": QUESTIONS[self.questions[asked]]}]
            packed = NETWORK.pack(form, messages, COLOURS[answer], inputs)
            spans = [{"start": start, "end": end} for start, end in packed.spans]
            told = (f"{number:06d}", f"{asked:06d}", packed.token_ids, spans, 1.0, reward, inputs)
            made.append(dict(zip(COLUMNS, told, strict=True)))
        return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in COLUMNS]))

    def labelled(self, form: Path) -> pa.Table:
        """The right answers."""
        return self.rows(form, [(i, int(answer), 1.0) for i, answer in enumerate(self.answers)])


def fresh(out: Path, width: int, layers: int, tower: int, seed: int) -> Path:
    """The folder of a model with random weights."""
    out.mkdir()
    shape = {"width": width, "layers": layers, "tower": tower, "heads": 2, "context": 32, "seed": seed}
    picture = {"alphabet": QUESTIONS + COLOURS, "size": 2 * SIDE, "patch": SIDE}
    (out / "model.json").write_text(json.dumps(built("origin", "fresh.llava", **shape, **picture)(out)), "utf-8")
    return out


def taught(
    net: Any, table: pa.Table, given: Given, steps: int, rate: float, seed: int, teacher: Any = None, batch: int = 32
) -> Any:
    """A model that has learnt from examples for so many steps; the rows of a question stand together."""
    torch.manual_seed(seed)
    roles = {"student": Role(net, NETWORK, True)} | ({"teacher": Role(teacher, NETWORK, False)} if teacher else {})
    terms = [_term(each, net, teacher) for each in given]
    learns = [*net.parameters(), *(p for term in terms if term.own is not None for p in term.own.parameters())]
    optimizer = torch.optim.AdamW(learns, rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    prompts, rng = table["prompt_id"].to_numpy(), ids.generator(seed, "seeing", "order")
    first = np.flatnonzero(np.r_[True, prompts[1:] != prompts[:-1]])
    ends = np.r_[first[1:], len(prompts)]
    for step in range(steps):
        chosen = rng.choice(len(first), min(batch, len(first)), replace=False)
        rows = table.take(np.concatenate([np.arange(first[i], ends[i]) for i in chosen]))
        found = places(rows)
        loss = loss_of(terms, NETWORK.collate(rows), found, roles, Step(step, steps, 0, 1), found.counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net.eval()


def _term(given: tuple[float, str, dict[str, Any]], net: Any, teacher: Any) -> Term:
    weight, name, arguments = given
    traits, objective = find("objective", name).traits, built("objective", name, **arguments)
    own, sizes = None, [each.config.text_config.hidden_size for each in (net, teacher) if each is not None]
    if hasattr(objective, "modules"):
        own = objective.modules({EYES: sizes[0], OUTCOMES: 0}, {EYES: sizes[-1]})
    against = "teacher" if teacher is not None and traits["teacher"] != "none" else None
    item = traits["item"]
    return Term(
        weight, objective, frozenset(traits["reads"]), item, traits.get("per", item), traits.get("alone", True),
        traits.get("whole", False), against=against, own=own,
    )  # fmt: skip


def said(net: Any, table: pa.Table) -> np.ndarray:
    """What a model says to each question, as a token."""
    with torch.no_grad():
        seen = NETWORK.look(net, NETWORK.collate(table), ())
        # Every answer is one letter and its end.
        told: np.ndarray = seen.heads["main"](seen.states_ND).argmax(1).numpy()[::2]
    return told


@dataclass(frozen=True)
class World:
    """A teacher that has seen much, an untaught student, what the student is told, and what it is asked."""

    form: Path
    teacher: Any
    student: Any
    known: Asked
    others: Asked
    unseen: pa.Table

    def right(self, net: Any) -> float:
        """The per cent that a model answers rightly."""
        tokens = self.unseen["token_ids"].to_pylist()
        spans = self.unseen["spans"].to_pylist()
        wanted = np.array([row[each[0]["start"]] for row, each in zip(tokens, spans, strict=True)])
        return 100 * float((said(net, self.unseen) == wanted).mean())

    def begun(self) -> Any:
        """A student that has learnt nothing."""
        return copy.deepcopy(self.student)


@functools.cache
def world(seed: int) -> World:
    """The same for all trials of a seed."""
    place = Path(tempfile.mkdtemp(prefix="seeing"))
    rng = ids.generator(seed, "seeing")
    shades = rng.uniform(40, 215, (len(COLOURS), 3))
    lessons, known, others, unseen = (Asked.drawn(rng, shades, n) for n in (LESSONS, KNOWN, 3 * KNOWN, UNSEEN))
    large = fresh(place / "large", 32, 2, 2, seed)
    small = fresh(place / "small", 16, 2, 1, seed + 1)
    form = small / "tokenizer"
    teacher = taught(NETWORK.load(large, "float32"), lessons.labelled(form), [LABELS], 500, 4e-3, seed)
    student = NETWORK.load(small, "float32")
    return World(form, teacher.requires_grad_(False), student, known, others, unseen.labelled(form))


SWITCH = {"tap": EYES, "teacher_tap": EYES}
LOGITS: Given = (LABELS, (1.0, "ranking.dbild", {}))
MIMIC: Given = (LABELS, (1.0, "divergence.forward", {}))


@functools.cache
def mimic(seed: int) -> Any:
    """A student of the labels and of the teacher's distribution."""
    w = world(seed)
    return taught(w.begun(), w.known.labelled(w.form), MIMIC, STEPS, RATE, seed, w.teacher)


@trial(
    "objective exchange.switch", "objective ranking.dbild", after="Switch-KD",
    control="labels and `ranking.dbild` of the same teacher, as many steps", measure=ACCURACY,
)  # fmt: skip
def switch(seed: int) -> FIGURES:
    """What a teacher would say, had it the student's eyes, teaches these to see."""
    w = world(seed)
    given = (*LOGITS, (1.0, "exchange.switch", SWITCH))
    students = (
        taught(w.begun(), w.known.labelled(w.form), terms, STEPS, RATE, seed, w.teacher) for terms in (given, LOGITS)
    )
    first, second = map(w.right, students)
    return first, second


@trial(
    "objective divergence.forward", after="LLaVA-MoD", control="the labels alone, as many steps", measure=ACCURACY,
)  # fmt: skip
def mimics(seed: int) -> FIGURES:
    """What a larger model says of a picture teaches a smaller one more than the labels alone."""
    w = world(seed)
    alone = taught(w.begun(), w.known.labelled(w.form), [LABELS], STEPS, RATE, seed)
    return w.right(mimic(seed)), w.right(alone)


@trial(
    "builder experts.upcycled", "objective routing.balance", after="LLaVA-MoD",
    control="the student that they are made of, as many further steps", measure=ACCURACY,
)  # fmt: skip
def many_experts(seed: int) -> FIGURES:
    """Experts that begin as a student's own layers learn more from the same teacher than these do."""
    w = world(seed)
    with tempfile.TemporaryDirectory() as place:
        base, out = Path(place) / "base", Path(place) / "out"
        shutil.copytree(w.form.parent, base)
        NETWORK.save(mimic(seed), base)
        out.mkdir()
        built("builder", "experts.upcycled")(base, base, out, seed)
        many = NETWORK.load(out, "float32")
    even = [(0.01, "routing.balance", {"tap": f"model.language_model.layers.{i}.mlp.gate"}) for i in range(2)]
    table = w.known.labelled(w.form)
    dense = taught(copy.deepcopy(mimic(seed)), table, MIMIC, STEPS, RATE / 2, seed, w.teacher)
    return w.right(taught(many, table, [*MIMIC, *even], STEPS, RATE / 2, seed, w.teacher)), w.right(dense)


@trial(
    "objective pairs.kto", after="LLaVA-MoD", control="the right answers alone, as many steps", measure=ACCURACY,
)  # fmt: skip
def preferred_to_its_own(seed: int) -> FIGURES:
    """Right answers before a student's own wrong ones, with the teacher as reference, teach it more."""
    w = world(seed)
    own = said(mimic(seed), w.others.labelled(w.form))
    letters = [Chat(w.form).encode(letter)[0] for letter in COLOURS]
    wrong = [
        (i, letters.index(t)) for i, t in enumerate(own) if t in letters and letters.index(t) != w.others.answers[i]
    ]
    right = [(i, int(w.others.answers[i]), 1.0) for i, _ in wrong]
    pairs = sorted([*right, *((i, answer, 0.0) for i, answer in wrong)])
    chosen = taught(
        copy.deepcopy(mimic(seed)),
        w.others.rows(w.form, pairs),
        [(1.0, "pairs.kto", {})],
        100,
        PREFER,
        seed,
        w.teacher,
        16,
    )
    alone = taught(copy.deepcopy(mimic(seed)), w.others.rows(w.form, right), [LABELS], 100, FURTHER, seed, None, 16)
    return w.right(chosen), w.right(alone)
