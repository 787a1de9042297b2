"""Forms: what keeps to a schema or an expression, and texts that no reader of JSON likes."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.core.methods import find
from tests.scorers.scored import scored

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
JSON = [
    ('{"x": 1}', 1, None),
    ('{"x": 1.5}', 0, "at $.x"),
    ('{"x": 1, "y": 2}', 0, "y"),
    ("{}", 0, "required"),
    ('{"x": 1', 0, "it is not JSON"),
    ('```json\n{"x": 1}\n```', 0, "it is not JSON"),
    ("", 0, "it is not JSON"),
    ("[" * 100_000, 0, "cannot be read"),
    ('{"x": ' + "1" * 10_000 + "}", 0, "cannot be read"),
]


def texts(*contents: str | None, error: str | None = None) -> dict[str, list]:
    n = len(contents)
    return {"content": pa.array(contents, pa.string()), "error": pa.array([error] * n, pa.string())}


@pytest.mark.parametrize(("text", "kept", "fault"), JSON, ids=range(len(JSON)))
def test_a_schema(text: str, kept: int, fault: str | None) -> None:
    found = scored("forms.json", texts(text), json_schema=POINT)
    assert found["score"].to_pylist() == [kept]
    [detail] = found["detail"].to_pylist()
    assert detail is None if fault is None else fault in detail


def test_any_json_will_do_without_a_schema() -> None:
    assert scored("forms.json", texts("3", "[]", "no"))["score"].to_pylist() == [1, 1, 0]


def test_an_expression_matches_the_whole_answer() -> None:
    found = scored("forms.regex", texts("ab", "ab!", "", "ab\n"), regex="[ab]+")
    assert found["score"].to_pylist() == [1, 0, 0, 0]
    assert found["detail"].to_pylist()[1] == "it does not match [ab]+"


@pytest.mark.parametrize(("name", "arguments"), [("json", {"json_schema": {}}), ("regex", {"regex": ".*"})])
def test_a_failed_request_has_no_form(name: str, arguments: dict) -> None:
    found = scored(f"forms.{name}", texts(None, error="no route"), **arguments)
    assert found["score"].to_pylist() == [None] and found["detail"].to_pylist() == [None]
    assert scored(f"forms.{name}", texts(), **arguments)["score"].to_pylist() == []


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [("json", {"json_schema": {"type": "point"}}, "not a JSON schema"), ("regex", {"regex": "("}, "not a regular")],
)
def test_what_is_no_form_is_refused(name: str, arguments: dict, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        find("scorer", f"forms.{name}").arguments.model_validate(arguments)
