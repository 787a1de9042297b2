"""Speculative decoding of two real models: the answer is the target's, and as much is taken as is expected."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.asking.examine import Subject
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.evaluators.acceptance import ALL, _whole
from pipeline.kinds.backend import Tokens
from pipeline.kinds.evaluator import Exam, Item, Mark
from pipeline.model.chat import Chat
from pipeline.model.load import load
from pipeline.model.speculative import decode

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded"
ASKED = ["add 12 7", "mul 3 4", "rev abc", "sort dbca", "mod 17 5", "shift abc 2"]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exam]:
    """The base drafts for the teacher."""
    place = tmp_path_factory.mktemp("models")
    folders = {}
    for name in ("base", "teacher"):
        folders[name] = place / name
        folders[name].mkdir()
        card = find("origin", "local.embedded").factory(name=name)(folders[name])
        (folders[name] / "model.json").write_text(json.dumps(card), "utf-8")
    nothing = {"solution": None, "inputs": None, "truth": None}
    pool = pa.Table.from_pylist([
        {"prompt_id": f"p{i}", "messages": [{"role": "user", "content": text}], **nothing}
        for i, text in enumerate(ASKED)
    ])  # fmt: skip
    how = How(RunSettings(device="cpu"), place, "compare@x")
    asked = [Item(row["prompt_id"], row["messages"], "d") for row in pool.to_pylist()]
    yield Exam(asked, *(Subject(name, folders[name], pool, how) for name in ("base", "teacher")), max_tokens=24)


def marks(exam: Exam, name: str, **arguments: object) -> list[Mark]:
    return list(find("evaluator", name).factory(**arguments)(exam))


@pytest.mark.parametrize("ahead", [1, 4])
def test_the_answer_is_the_targets_own(exam: Exam, ahead: int) -> None:
    greedy = [answer.content for [answer] in exam.other.answers(exam.greedy)]
    found = marks(exam, "acceptance.decoded", ahead=ahead, temperature=0.0, seed=0)
    assert [mark.content for mark in found] == greedy
    for mark in found:
        told = mark.quantities
        assert (
            told["accepted"] <= told["proposed"] and told["calls"] <= told["tokens"] <= told["accepted"] + told["calls"]
        )
    assert sum(m.quantities["calls"] for m in found) < sum(m.quantities["tokens"] for m in found)


def test_a_model_takes_all_that_it_proposes_itself(exam: Exam) -> None:
    alone = Exam(exam.items, exam.other, exam.other, exam.max_tokens)
    assert {mark.metric for mark in marks(alone, "acceptance.decoded", ahead=3, temperature=1.0, seed=1)} == {1.0}
    assert [m.metric for m in marks(alone, "acceptance.expected", ahead=3, seed=1)] == pytest.approx([1.0] * len(ASKED))


def test_as_much_is_taken_as_is_expected(exam: Exam) -> None:
    """Whether a proposal is taken is a coin whose chance is the sum of the smaller probabilities at its place."""
    folders = [model.folder for model in (exam.model, exam.other)]
    draft, target = (load(folder, "float32") for folder in folders)
    chat, tokens, taken = Chat(folders[0] / "tokenizer"), [], []
    for item in exam.items:
        for seed in range(6):
            prompt = chat.prompt(item.messages)
            found = decode(
                draft, target, prompt, chat.end_ids, max_tokens=24, ahead=3, temperature=1.0, seed=100 * seed
            )
            places = [len(prompt) + place for place in found.judged]
            tokens.append(Tokens(f"{item.prompt_id}-{seed}", [*prompt, *found.token_ids], places))
            taken.append(list(found.judged.values()))
    chances = []
    with exam.model.open() as one, exam.other.open() as two:
        own, theirs = ({r.id: r for r in backend.read(tokens, ALL)} for backend in (one, two))
        for asked in tokens:
            p, q = (_whole(found[asked.id]) for found in (own, theirs))
            chances.append(np.minimum(p, q).sum(1))
    flat, seen = np.concatenate(chances), np.concatenate(taken)
    assert len(flat) == len(seen) > 150 and 0.3 < flat.mean() < 0.99
    error = math.sqrt((flat * (1 - flat)).sum()) / len(flat)
    assert abs(seen.mean() - flat.mean()) < 3 * error


def test_the_expectation_is_the_mean_over_the_targets_own_tokens(exam: Exam) -> None:
    found = marks(exam, "acceptance.expected", ahead=4, seed=0)
    for mark in found:
        told = mark.quantities
        assert mark.metric == pytest.approx(told["accepted"] / told["tokens"]) and 0 < mark.metric < 1
        assert told["block"] == pytest.approx((1 - mark.metric**5) / (1 - mark.metric))


def test_models_of_other_tokens_are_refused(exam: Exam, tmp_path: Path) -> None:
    other = exam.other
    shutil.copytree(other.folder / "tokenizer", tmp_path / "tokenizer")
    template = tmp_path / "tokenizer" / "chat_template.jinja"
    template.write_text(template.read_text("utf-8") + "!", "utf-8")
    moved = Subject("other", tmp_path, pa.table({}), How(RunSettings(), tmp_path, "x"))
    moved.dtype = "float32"
    with pytest.raises(Refused, match="compare models of one tokenizer and chat template"):
        marks(Exam(exam.items, exam.model, moved), "acceptance.decoded", ahead=1, temperature=0.0, seed=0)
