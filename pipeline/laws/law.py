"""A law, the arguments that it is tried with, and which laws a method breaks, in words.

A file of this room has the laws of a kind: `cases(method)`, what they are tried on, and `LAWS`, from each law to
whether it applies to a case. A law is a function whose first sentence says what holds, and whose rest what to do where
it does not; it raises where it is broken.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pipeline.core.methods import Method, find
from pipeline.errors import Refused

# Values that an argument is given, the first that its type and its bounds allow.
TRIED = (0.5, 2.0, 0.9, 0.3, 1, 0, "text")


class Broken(AssertionError):
    """A law does not hold; the text says what was seen."""


def must(holds: bool, seen: str) -> None:
    """Raise `Broken` unless it holds."""
    if not holds:
        raise Broken(seen)


def kinds() -> tuple[str, ...]:
    """The kinds that have laws for one method."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in ("__init__", "law")))


def arguments(method: Method, marked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The defaults of a method; others in their place, all together; every other choice of words alone.

    What has no default is made up.

    `marked`: what an argument of a marked type, such as an expression of SQL, is given.
    """
    fields = method.arguments.model_fields
    needed = {name: _value(method, name, field, marked) for name, field in fields.items() if field.is_required()}
    yield needed
    free = {name: field for name, field in fields.items() if not field.is_required() and not _mark(field, marked)}
    words = {
        name: get_args(field.annotation) for name, field in free.items() if get_origin(field.annotation) is Literal
    }
    other = {name: _other(field) for name, field in free.items() if name not in words}
    other = {name: value for name, value in other.items() if value is not None}
    if other:
        yield {**needed, **other}
    for name, choices in words.items():
        yield from ({**needed, name: choice} for choice in choices if choice != fields[name].default)


def build(method: Method, given: Mapping[str, Any]) -> Any:
    """A method, made with these arguments."""
    return method.factory(**method.arguments.model_validate(given).model_dump())


def broken(kind: str, name: str) -> Iterator[str]:
    """A sentence for every law of its kind that a method breaks: the law, what was seen, and what to do."""
    if kind not in kinds():
        raise Refused(f"a method alone cannot be held to the laws of a {kind}; {', '.join(kinds())} can")
    laws, method = importlib.import_module(f"pipeline.laws.{kind}"), find(kind, name)
    try:
        cases = list(laws.cases(method))
    except Exception as error:
        yield f"{kind} {name} cannot be tried: {_line(error)}"
        return
    for law, applies in laws.LAWS.items():
        for case in filter(applies, cases):
            try:
                law(case)
            except Exception as error:
                yield f"{kind} {name} breaks a law: {told(law)} ({case}: {_line(error)})"
                break


def told(law: Callable[..., None]) -> str:
    """A law in its own words."""
    return " ".join(inspect.cleandoc(law.__doc__ or law.__name__.replace("_", " ")).split())


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "it does not hold"
    return text if isinstance(error, AssertionError | Refused) else f"{type(error).__name__}: {text}"


def _value(method: Method, name: str, field: FieldInfo, marked: Mapping[str, Any]) -> Any:
    found = _mark(field, marked) or _other(field)
    if found is None:
        raise Refused(f"its parameter {name!r} has no default, and no value for it can be made up; give it one")
    return found


def _mark(field: FieldInfo, marked: Mapping[str, Any]) -> Any:
    """What a field of a marked type is given, or a mapping to one."""
    *_, inner = None, *get_args(field.annotation)
    for marks in (field.metadata, getattr(inner, "__metadata__", ())):
        found = next((marked[mark] for mark in marks if isinstance(mark, str) and mark in marked), None)
        if found is not None:
            return found if marks is field.metadata else {found: found}
    return None


def _other(field: FieldInfo) -> Any:
    """A value that is allowed and not the default; None if there is none to be made up."""
    of: Any = field.annotation
    choices = [not field.default] if of is bool else list(get_args(of)) if get_origin(of) is Literal else list(TRIED)
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[of, *field.metadata] if field.metadata else of)
    for choice in choices:
        try:
            value = adapter.validate_python(choice, strict=not isinstance(choice, int | float))
        except ValidationError:
            continue
        if value != field.default:
            return value
    return None
