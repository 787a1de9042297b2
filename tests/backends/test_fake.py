"""The fake teacher: made-up answers that say so, and are always the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, GenerateRequest, Sampling, engine_of, open_model
from pipeline.kinds.origin import Origin

SAMPLED, GREEDY = Sampling(1.0, 1.0, 32), Sampling(0.0, 1.0, 32)


def answers(folder: Path, sampling: Sampling, *texts: str, **arguments: float) -> list[Answer]:
    card = Use[Origin](name="fake.words", arguments=arguments).build()(folder)
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    asked = [
        GenerateRequest(f"r{i}", f"p{i}", [{"role": "user", "content": text}], sample=0, seed=i)
        for i, text in enumerate(texts)
    ]
    with open_model(folder, How(RunSettings(), folder, "generate@teacher")) as backend:
        return list(backend.generate(asked, sampling))


def test_an_answer_is_the_prompts_own_words_and_says_that_it_is_fake(tmp_path: Path) -> None:
    for answer in answers(tmp_path, SAMPLED, *["Why is the sky blue?"] * 8):
        first, *rest = str(answer.content).split()
        assert first == "fake:"
        assert rest
        assert set(rest) <= set("Why is the sky blue?".split())
        assert (answer.prompt_tokens, answer.completion_tokens) == (5, 1 + len(rest))


@pytest.mark.parametrize(("sum_", "result"), [("3+4", "7"), ("What is 12 - 20?", "-8"), ("6 * 7 =", "42")])
def test_a_sum_is_answered_rightly_but_for_the_share_that_is_wrong(tmp_path: Path, sum_: str, result: str) -> None:
    def right(wrong: float) -> int:
        return sum(a.content == f"fake: {result}" for a in answers(tmp_path, SAMPLED, *[sum_] * 100, wrong=wrong))

    assert (right(0.0), right(1.0)) == (100, 0)
    assert 55 < right(0.3) < 85


def test_a_numbered_list_is_answered_with_one_as_long_of_its_words_in_their_places(tmp_path: Path) -> None:
    asked = "Here are tasks:\n\n1. add 12 34\n2. add 56 78\n\nWrite 2 new tasks."
    said = {str(answer.content) for answer in answers(tmp_path, SAMPLED, *[asked] * 8)}
    form = r"fake: \n1. add (12|56) (34|78) \n2. add (12|56) (34|78)"
    assert len(said) > 1 and all(re.fullmatch(form, text) for text in said)


def test_greedy_answers_are_one_and_long_ones_are_cut(tmp_path: Path) -> None:
    assert len({answer.content for answer in answers(tmp_path, GREEDY, *["Tell me all."] * 8)}) == 1
    short = answers(tmp_path, Sampling(1.0, 1.0, 2), *["Tell me all."] * 8)
    assert {len(str(answer.content).split()) for answer in short} == {2}
    assert "length" in {answer.finish_reason for answer in short}
    stopped = answers(tmp_path, Sampling(0.0, 1.0, 32, (":",)), "Tell me all.")[0]
    assert (stopped.content, stopped.finish_reason) == ("fake", "stop")
    assert str(answers(tmp_path, SAMPLED, " ")[0].content).startswith("fake: nothing")


def test_another_share_is_another_engine_and_another_delay_is_not() -> None:
    card = {"backend": "fake.words", "wrong": 0.25, "delay_s": 0.0}
    assert engine_of(card) == engine_of({**card, "delay_s": 1.0})
    assert engine_of(card) != engine_of({**card, "wrong": 0.5})


def test_it_cannot_read(tmp_path: Path) -> None:
    answers(tmp_path, GREEDY, "a")
    with (
        open_model(tmp_path, How(RunSettings(), tmp_path, "x")) as backend,
        pytest.raises(Refused, match="cannot read"),
    ):
        backend.read([])
