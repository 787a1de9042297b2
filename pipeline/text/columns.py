"""A given row under our names: columns renamed, taken out of others, put together by a template."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter


class NoColumn(ValueError):
    """A row has no such column; the text says which."""


def look(row: Mapping[str, object], path: str) -> object:
    """A column by its name, or what lies in one: `data.question`, `choices.0`."""
    if path in row:
        return row[path]
    found: object = row
    for word in path.split("."):
        if isinstance(found, Mapping) and word in found:
            found = found[word]
        elif isinstance(found, list) and word.isdecimal() and int(word) < len(found):
            found = found[int(word)]
        else:
            raise NoColumn(f"has no column {path!r}")
    return found


def fields_of(template: str) -> list[str]:
    """The columns that a template names in braces; raises ValueError for what is no column."""
    fields = []
    for _, field, form, conversion in Formatter().parse(template):
        if field is None:
            continue
        if not field or form or conversion:
            raise ValueError(f"in braces stands a column and nothing else, not {{{field}}}; a brace is written twice")
        fields.append(field)
    return fields


def filled(template: str, row: Mapping[str, object]) -> str:
    """A template with the row's columns in its braces: texts as they are, numbers as they are written."""
    made = []
    for text, field, _, _ in Formatter().parse(template):
        made.append(text)
        if field is not None:
            made.append(_written(look(row, field), field))
    return "".join(made)


def _written(value: object, field: str) -> str:
    number = number_text(value)
    if number is not None:
        return number
    if not isinstance(value, str):
        raise NoColumn(f"the template needs text in the column {field!r}, not {type(value).__name__}")
    return value


def number_text(value: object) -> str | None:
    """A number as a person writes it; None for what is no number. A float without a fraction is a whole number: that is
    how Parquet and pandas give a column of whole numbers with a gap."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)
