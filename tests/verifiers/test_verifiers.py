"""Every verifier: what it reads out of a text, and what it holds to be equal."""

import threading

import pytest

from pipeline.core.methods import shipped
from pipeline.errors import Refused
from pipeline.kinds.verifier import answer_of, metric_of, reference_of, same, spelled, verifier_named
from tests.verifiers import forms, verdicts

READS = {
    "text.marked": [("6*7=42#42", "42"), ("a#b# c ", "c"), ("no mark", None), ("empty#", None)],
    "text.line": [("\n  Paris. \nbecause", "paris"), ("New\tYork!", "new york"), (" \n", None)],
    "text.exact": [(" As it is. ", "As it is."), ("", None)],
    "dense.pixels": [(" a \n b c\n", "a\nb c"), ("a\n\nb", None), ("", None)],
    "dense.points": [(" 1  2 \n?", "1 2\n?"), ("1 2\n3", None), ("1 nan", None), ("", None)],
    "shapes.caption": [
        ("rrr.....\nrrr.....\nrrr.....\n" + "........\n" * 5, "red square top left"),
        ("rrr.....\nrrr.....\nrr......\n" + "........\n" * 5, None),
        ("........\n" * 8, None),
        ("red square top left", None),
    ],
    "programs.answer": [
        ("count red =  2", "count red = 2"),
        ("I see.\n2 ", "2"),
        ("a = b = c", "a = b = c"),
        ("= 2", None),
        ("", None),
    ],
    "graph.nodes": [(" a \n b c\n", "a\nb c"), ("a\n\nb", None), ("", None)],
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
    "clouds.chamfer": [("points 2 x 2", None)],
    "clouds.sliced_wasserstein": [("points 2 x 2", None)],
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
    "dense.pixels": [
        ("a\nb", "a\nb", True),
        ("a\nb\nb", "a\na\nb", True),
        ("a\na\na", "a\nb\nb", False),
        ("a", "a\nb", False),
        ("?\nb", "a\nb", True),
        ("?", "a", False),
    ],
    "dense.points": [
        ("1 1\n2 2", "1 2\n2 2", True),
        ("1 1\n2 2", "1 1\n2 4", False),
        ("1 1", "1 1\n2 2", False),
        ("?", "1 1", True),
    ],
    "shapes.caption": [
        ("red square top left", "red square top left", True),
        ("red square top left", "red square", False),
    ],
    "programs.answer": [
        ("count red = 2", "2 | red square 0 0; red cross 1 0", True),
        ("2", "2 | red square 0 0; red cross 1 0", True),
        ("count cross = 2", "2 | red square 0 0; red cross 1 0", False),
        ("count cross = 1", "2 | red square 0 0; red cross 1 0", False),
        ("count red = 2", "2", False),
    ],
    "graph.nodes": [
        ("a\nb", "a\nb", True),
        ("a\nb", "b\na", False),
        ("a\nb", "a\nb\nc", False),
        ("a\nb", "?\nb", True),
        ("a\nb", "?\nc", False),
    ],
    "text.choice": [("B", "(B)", True), ("B", "C", False)],
    "numeric.last": [("1200", "1,200.0", True), ("0.1", "0.10", True), ("1", "2", False), ("1", "one", False)],
    "clouds.chamfer": [("a", "a", False)],
    "clouds.sliced_wasserstein": [("a", "a", False)],
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


NUMBERS = [row for rows in forms.NUMBERS.values() for row in rows]


@pytest.mark.parametrize(("text", "number", "expression"), NUMBERS)
def test_a_written_form(text: str, number: str | None, expression: str | None) -> None:
    assert (answer_of("numeric.last", text), answer_of("symbolic.math", text)) == (number, expression)


@pytest.mark.parametrize(("decimal", "text", "number"), forms.DECIMALS)
def test_a_decimal_sign_is_a_parameter(decimal: str, text: str, number: str | None) -> None:
    assert answer_of(f"numeric.last {{decimal: {decimal}}}", text) == number


@pytest.mark.parametrize(("text", "letter"), forms.LETTERS)
def test_a_letter(text: str, letter: str | None) -> None:
    assert answer_of("text.choice", text) == letter


@pytest.mark.parametrize(("text", "expression"), forms.EXPRESSIONS)
def test_the_final_expression(text: str, expression: str | None) -> None:
    assert answer_of("symbolic.math", text) == expression


@pytest.mark.parametrize(("name", "text", "answer"), [(n, *case) for n, cases in forms.TEXTS.items() for case in cases])
def test_a_text(name: str, text: str, answer: str | None) -> None:
    assert answer_of(name, text) == answer


@pytest.mark.parametrize(("verifier", "reference", "kept"), verdicts.REFERENCES)
def test_a_reference(verifier: str, reference: str, kept: str | None) -> None:
    assert reference_of(verifier, reference) == kept


@pytest.mark.parametrize(("verifier", "one", "other", "are_one"), verdicts.SAME)
def test_two_answers(verifier: str, one: str, other: str, are_one: bool) -> None:
    assert same(verifier, one, other) is are_one


@pytest.mark.parametrize(("verifier", "reference", "answer", "right"), verdicts.CASES)
def test_a_public_report(verifier: str, reference: str, answer: str, right: int) -> None:
    """From a text to the metric, with the reference as ingest keeps it."""
    assert metric_of(verifier, answer_of(verifier, answer), reference_of(verifier, reference)) == right


@pytest.mark.parametrize("number", [text for text, number, _ in NUMBERS if number is not None])
def test_a_number_is_read_alike_in_any_long_text(number: str) -> None:
    """It is looked for from the end, in pieces."""
    alone = answer_of("numeric.last", number)
    for words in (10, 200, 5000):
        assert answer_of("numeric.last", "so it goes on " * words + "\n" + number) == alone
    if number[0] in "0123456789":
        assert answer_of("numeric.last", "so it goes on and is " * 200 + number) == alone


def test_an_expression_is_read_in_any_thread() -> None:
    """The limit of time is kept by a signal, which only the main thread gets."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(verifier_named("symbolic.math").equal("y+1", "1+y")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_row_names_a_verifier_with_parameters() -> None:
    assert spelled("text.choice", {"choices": 10, "index_from": None}) == "text.choice"
    assert spelled("text.choice", {"choices": 4, "index_from": 0}) == "text.choice {choices: 4, index_from: 0}"
    for wrong in ("text.choice {choices: 40}", "text.choice {letters: 4}", "text.choice {", "text.line {a: 1}"):
        with pytest.raises(Refused, match="it takes"):
            verifier_named(wrong)
