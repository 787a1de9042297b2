"""Rules about the form of one text."""

import pytest

from pipeline.core.methods import find
from pipeline.kinds.rule import Judged
from tests.rules.said import found, texts


def judged(name: str, text: str, **arguments: object) -> Judged:
    return find("rule", name).factory(**arguments).judge(text)


def test_length_counts_words_or_characters() -> None:
    pool = texts("one two three", "", "  ", "one", "小明有")
    assert found("form.length", pool, least=2, most=3) == {1: "0 words", 2: "0 words", 3: "1 words"}
    assert found("form.length", pool, most=5, unit="characters") == {
        0: "13 characters",
        1: "0 characters",
        2: "0 characters",
    }
    assert judged("form.length", " a b ").value == 2


def test_repetition_is_the_share_of_runs_that_came_before() -> None:
    assert judged("form.repetition", "a b c a b c") == Judged(0.25)
    assert judged("form.repetition", "a b c A B C", most=0.2).evidence == "0.25 of its runs of 3 words came before"
    assert judged("form.repetition", "苹果苹果苹果苹果", most=0.5).value == pytest.approx(1 - 2 / 6)
    assert judged("form.repetition", "a b") == Judged(0.0) == judged("form.repetition", "")


REFUSES = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but as an AI I have no opinion.",
    "Sorry, I cannot do this.",
    "As a large language model, I do not know.",
    "Unfortunately, I am unable to open links.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Ich kann Ihnen dabei leider nicht helfen.",
    "Désolé, je ne peux pas répondre.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Sinto muito, mas não posso ajudar.",
    "Mi dispiace, ma non posso aiutarti.",
    "很抱歉，我无法回答这个问题。",
    "申し訳ございませんが、お手伝いできません。",
    "죄송하지만 도와드릴 수 없습니다.",
]
ANSWERS = [
    "The answer is 12.",
    "I am sure that it is 4.",
    "She was sorry for her friend.",
    "Canned fruit, as an aid to cooks.",
    "Ich kann das gut verstehen. Das Ergebnis ist 3.",
    "Je suis content.",
    "答案是十二。",
    "x " * 100 + "I'm sorry, but I can't.",
    "",
]


@pytest.mark.parametrize("text", REFUSES)
def test_a_refusal_is_told_by_how_it_begins(text: str) -> None:
    evidence = judged("form.refusal", text).evidence
    assert evidence is not None and evidence.startswith("begins with: ")


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert judged("form.refusal", text) == Judged(0.0)
