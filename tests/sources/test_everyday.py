"""Everyday tasks: right answers that a second source confirms, questions that never leak, and their baseline."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pipeline.core.methods import Use
from pipeline.errors import Refused
from pipeline.kinds.source import Source
from pipeline.kinds.verifier import verifier_named
from pipeline.sources import everyday
from pipeline.tables import ids
from pipeline.text.intake import Intake


def rows(n: int = 400, **arguments: object) -> list[dict]:
    use = Use[Source](name="everyday.tasks", arguments={"rows": n, "seed": 5, **arguments})
    return [given.columns for given in use.build()]


def right_answer(task: str, question: str) -> str:
    """The answer worked out from the question alone."""
    last = question.rstrip("?").split()[-1]
    if task == "extract_number":
        [count] = re.findall(rf"(\d+) {last}\b(?!\?)", question)
        return count
    if task == "next_number":
        return str(int(last) + 1)
    if task == "number_words":
        words = question.removeprefix("Write in digits: ")
        [number] = [n for n in range(1, 1000) if everyday.in_words(n) == words]
        return str(number)
    return (everyday.PLURALS if task == "plural" else everyday.PASTS)[last]


def test_every_reference_is_the_right_answer_and_its_verifier_says_so() -> None:
    for row in rows():
        reference = row["reference"]
        assert reference == right_answer(row["domain"], row["messages"][-1]["content"])
        judge = verifier_named(row["verifier"])
        assert judge.equal(judge.parse(f"{reference}.") or "", reference)
        assert not judge.equal(judge.parse(f"1{reference}") or "", reference)


def test_the_word_lists_agree_with_the_rules_of_inflect() -> None:
    inflect = pytest.importorskip("inflect")
    engine = inflect.engine()
    differing = {word for word, plural in everyday.PLURALS.items() if engine.plural_noun(word) != plural}
    # Its rules make `thiefs`.
    assert differing == {"thief"}
    words = {n: engine.number_to_words(n, andword="and") for n in range(1, 1000)}
    assert {n: everyday.in_words(n) for n in words} == words


def test_pasts_are_formed_by_the_rule_of_their_list() -> None:
    assert [everyday.PASTS[w] for w in ("walk", "dance", "study", "stop", "go", "teach")] == [
        "walked", "danced", "studied", "stopped", "went", "taught",
    ]  # fmt: skip
    lists = (everyday.ADD_ED, everyday.ADD_D, everyday.Y_TO_IED, everyday.DOUBLED, everyday.STRONG[::2])
    assert sum(map(len, lists)) == len(everyday.PASTS), "a verb stands in two lists"


def test_questions_differ_and_are_dealt_evenly() -> None:
    made = rows(403)
    assert len({ids.prompt_id(row["messages"]) for row in made}) == 403
    assert sorted(Counter(row["domain"] for row in made).values()) == [80, 80, 81, 81, 81]
    assert made == rows(403)
    assert made != rows(403, seed=6)


def test_worked_turns_are_never_asked() -> None:
    for row in rows(650):
        *shown, question = (turn["content"] for turn in row["messages"] if turn["role"] == "user")
        assert len(shown) == 3 and question not in shown


def test_a_group_never_has_two_sides() -> None:
    """The two questions about one scene share their group, and no group spans two tasks."""
    made = rows(650)
    assert all(row["group"].startswith(row["domain"]) for row in made)
    for row in made:
        if row["domain"] == "extract_number":
            assert row["messages"][-1]["content"].startswith(row["group"].removeprefix("extract_number "))


def test_the_commonest_answer_is_a_baseline_that_never_reads_the_question() -> None:
    plain, constant = rows(650), rows(650, solutions="commonest")
    without = [{k: v for k, v in row.items() if k != "solution"} for row in constant]
    assert without == [{k: v for k, v in row.items() if k != "solution"} for row in plain]
    assert all(row["solution"] == row["reference"] for row in plain)
    for task in everyday.TASKS:
        own = [row for row in constant if row["domain"] == task]
        [answer] = {row["solution"] for row in own}
        counts = Counter(row["reference"] for row in own)
        assert counts[answer] == max(counts.values())
        assert counts[answer] / len(own) < 0.1


def test_all_rows_become_prompts() -> None:
    intake = Intake({}, "everyday", None, None, 10_000)
    use = Use[Source](name="everyday.tasks", arguments={"rows": 50, "seed": 1})
    assert all(isinstance(intake.read(given), dict) for given in use.build())


def test_more_questions_than_there_are_is_refused() -> None:
    with pytest.raises(Refused, match=r"plural has only \d+ different questions, and 500 are asked for"):
        rows(500, tasks=["plural"])
