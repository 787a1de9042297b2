"""Every verifier: what it reads out of a text, and what it holds to be equal."""

import pytest

from pipeline.core.methods import shipped
from pipeline.kinds.verifier import answer_of, metric_of, verifier_named

READS = {
    "text.marked": [("6*7=42#42", "42"), ("a#b# c ", "c"), ("no mark", None), ("empty#", None)],
    "text.line": [("\n  Paris. \nbecause", "paris"), ("New\tYork!", "new york"), (" \n", None)],
    "text.exact": [(" As it is. ", "As it is."), ("", None)],
    "text.choice": [
        ("B", "B"),
        ("(A) is wrong, so the answer is (C).", "C"),
        ("A cat sat.\nAnswer: D", "D"),
        ("so \\boxed{E}", "E"),
        ("**B**) because", "B"),
        ("Answer: A, because (B) is wrong", "A"),
        ("A cat sat on a mat", None),
    ],
    "numeric.last": [
        ("it costs $1,234.50.", "1234.5"),
        ("5-3", "3"),
        ("x = -7", "-7"),
        ("from 2 to \u22124", "-4"),
        ("007.0", "7"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("12345678901234567890123456789012345678901", "12345678901234567890123456789012345678901"),
        ("none", None),
    ],
    "symbolic.math": [
        ("so it is \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("the answer is $x^2+1$.", "x^2+1"),
        ("nothing here", None),
    ],
}
EQUAL = {
    "text.marked": [("42", "42", True), ("42", "... #### 42", True), ("042", "42", False)],
    "text.line": [("paris", "Paris.", True), ("paris", "London", False)],
    "text.exact": [("a", " a ", True), ("a", "A", False)],
    "text.choice": [("B", "(B)", True), ("B", "C", False)],
    "numeric.last": [("1200", "1,200.0", True), ("0.1", "0.10", True), ("1", "2", False), ("1", "one", False)],
    "symbolic.math": [
        ("\\frac{1}{2}", "0.5", True),
        ("x+1", "1+x", True),
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("2", "3", False),
    ],
}


def test_every_verifier_has_cases() -> None:
    assert set(READS) == set(EQUAL) == set(shipped("verifier"))


@pytest.mark.parametrize(("name", "text", "answer"), [(n, *case) for n, cases in READS.items() for case in cases])
def test_reads(name: str, text: str, answer: str | None) -> None:
    assert verifier_named(name).parse(text) == answer


@pytest.mark.parametrize(("name", "answer", "reference", "right"), [(n, *c) for n, cs in EQUAL.items() for c in cs])
def test_equal(name: str, answer: str, reference: str, right: bool) -> None:
    assert verifier_named(name).equal(answer, reference) is right


@pytest.mark.parametrize("name", shipped("verifier"))
def test_nothing_equals_nothing(name: str) -> None:
    assert not verifier_named(name).equal("", "")


def test_without_a_verifier_the_text_is_the_answer() -> None:
    assert answer_of(None, " all of it ") == "all of it"
    assert answer_of(None, "  ") is None
    assert answer_of("text.marked", None) is None


@pytest.mark.parametrize(
    ("verifier", "answer", "reference", "metric"),
    [
        ("numeric.last", "4.0", "4", 1.0),
        ("numeric.last", "5", "4", 0.0),
        ("numeric.last", None, "4", 0.0),
        ("numeric.last", "4", None, None),
        (None, "4", "4", None),
    ],
)
def test_one_metric_for_evaluations_scores_and_rewards(
    verifier: str | None, answer: str | None, reference: str | None, metric: float | None
) -> None:
    assert metric_of(verifier, answer, reference) == metric
