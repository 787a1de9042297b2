"""A row under our names: nested columns, templates, numbers."""

from __future__ import annotations

import pytest

from pipeline.text.columns import NoColumn, fields_of, filled, look, number_text

ROW = {
    "q": "what?", "a.b": "dotted", "a": {"b": "nested", "c": [1, {"d": "deep"}]}, "choices": ["x", "y"], "n": 3,
    "f": 2.0, "nothing": None, "data": {"question": {"text": "why?"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("q", "what?"), ("a.b", "dotted"), ("a.c.0", 1), ("a.c.1.d", "deep"), ("choices.1", "y"), ("nothing", None),
        ("data.question.text", "why?"), ("n", 3), ("a.c", [1, {"d": "deep"}]), ("data.question", {"text": "why?"}),
    ],
)  # fmt: skip
def test_a_column_is_found_by_its_path(path: str, found: object) -> None:
    assert look(ROW, path) == found


@pytest.mark.parametrize(
    "path", ["x", "a.x", "choices.2", "choices.-1", "q.0", "n.0", "nothing.a", "", "a.", "data.text"]
)
def test_what_is_not_there_is_named(path: str) -> None:
    with pytest.raises(NoColumn, match="has no column"):
        look(ROW, path)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{q}", "what?"), ("Q: {q} {n}", "Q: what? 3"), ("{{{q}}}", "{what?}"), ("{f} of {n}", "2 of 3"),
        ("A. {choices.0}\nB. {choices.1}", "A. x\nB. y"), ("{data.question.text}", "why?"), ("{a.b}", "dotted"),
        ("{a.c.1.d}!", "deep!"), ("{q}{q}", "what?what?"), ("%s {q} \\n", "%s what? \\n"),
    ],
)  # fmt: skip
def test_a_template_is_filled(template: str, said: str) -> None:
    assert filled(template, ROW) == said


@pytest.mark.parametrize(
    "template", ["{}", "{q!r}", "{q:>10}", "{q", "q}", "{q.{n}}", "{0!s}", "{:d}", "{ {q}", "{!r}"]
)
def test_a_template_that_names_no_column_is_refused(template: str) -> None:
    with pytest.raises(ValueError):
        assert all(look(ROW, field) for field in fields_of(template))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (42.0, "42"), (7, "7"), (-0.5, "-0.5"), (1e300, "1e+300"), (True, None), ("42", None), (None, None),
        (-3.0, "-3"), (2.0**60, str(2.0**60)), (0.1, "0.1"), (float("nan"), "nan"), (12_500.0, "12500"),
    ],
)  # fmt: skip
def test_numbers_are_written_plainly(value: object, said: str | None) -> None:
    assert number_text(value) == said
