"""Methods: one function each, found by name.

`use: family.name` in `params.yaml` means function `name` in `pipeline/<kind>s/<family>.py`. The function's keyword
arguments are the method's parameters, its docstring names the paper, and the folder is the registry: nothing is
listed twice. A user's own method is one function in `pipeline/<kind>s/mine.py`, or in `methods/<kind>s/mine.py` of a
workspace.

A kind is a file too: `pipeline/kinds/<kind>.py` says what its methods are given and give, by a type that is named as
the kind, and has their marker. Nothing else lists the kinds.

    @scorer(reads=("answer",))
    def agreement(*, normalise: Literal["none", "number"] = "none") -> Scorer: ...
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError

from pipeline.core.identity import MINE, OWN
from pipeline.display import nearest
from pipeline.errors import Refused

ROOT = Path(__file__).parents[1]
# Kind -> the folder of its families.
KINDS = {file.stem: f"{file.stem}s" for file in sorted((ROOT / "kinds").glob("[a-z]*.py"))}

K = TypeVar("K")


@dataclass(frozen=True)
class Method:
    """A function that a parameter may name, with what it declares about itself."""

    kind: str
    name: str
    factory: Callable[..., Any]
    arguments: type[BaseModel]
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return module_of(self.kind, self.name)

    @property
    def finds(self) -> tuple[str, ...]:
        """The kinds of methods that it finds by a name: in a column that it reads, such as a row's verifier, or where
        its trait `finds` says."""
        return tuple(kind for kind in KINDS if kind in (*self.traits.get("reads", ()), *self.traits.get("finds", ())))

    @property
    def told(self) -> dict[str, Any]:
        """Its traits that are words, numbers or lists: what a plan holds, for whoever reads that without the code."""
        plain = {name: list(t) if isinstance(t, tuple | frozenset) else t for name, t in self.traits.items()}
        return {name: trait for name, trait in plain.items() if isinstance(trait, str | bool | int | float | list)}

    @property
    def about(self) -> str:
        return inspect.cleandoc(self.factory.__doc__ or "")


def module_of(kind: str, name: str) -> str:
    """The module of a method's family."""
    return f"pipeline.{KINDS[kind]}.{name.split('.')[0]}"


def marker(kind: str) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """The decorator of a kind: it notes what a method declares about itself."""

    def marker(**traits: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def mark(function: Callable[..., Any]) -> Callable[..., Any]:
            function.__stillhouse__ = (kind, traits)  # type: ignore[attr-defined]
            return function

        return mark

    return marker


class _Lazy(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> types.ModuleType:
    """A module that is imported when it is first used, so that naming a method does not load torch."""
    return _Lazy(name)


@functools.cache
def available(kind: str) -> tuple[str, ...]:
    """The names of all methods of a kind, read from the files without importing them."""
    return tuple(name for file in _families(kind) for name in _named(kind, file))


def _named(kind: str, file: Path) -> list[str]:
    """The names of the methods of a family."""
    # A file that cannot be read has no methods; `find` says so to whoever names one of it.
    read = _read(file)
    nodes = [] if isinstance(read, str) else [node for node in read.body if isinstance(node, ast.FunctionDef)]
    return [f"{file.stem}.{node.name}" for node in nodes if any(_is_marker(d, kind) for d in node.decorator_list)]


def shipped(kind: str) -> tuple[str, ...]:
    """The names of the methods of a kind that are not the user's own."""
    return tuple(name for name in available(kind) if not name.startswith(f"{MINE}."))


def _families(kind: str) -> list[Path]:
    shipped, own = (ROOT / KINDS[kind]).glob("*.py"), (OWN / KINDS[kind]).glob(f"{MINE}.py")
    return sorted({file.stem: file for file in (*shipped, *own)}.values(), key=lambda file: file.stem)


def _read(file: Path) -> ast.Module | str:
    """The syntax tree of a family, or in one sentence what is wrong with its text."""
    try:
        return ast.parse(file.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        shown = file.relative_to(ROOT.parent) if file.is_relative_to(ROOT.parent) else file
        return f"{shown} is no Python ({line}{getattr(error, 'msg', error)})"


def _is_marker(decorator: ast.expr, kind: str) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == kind


@functools.cache
def find(kind: str, name: str) -> Method:
    """The method of a kind with this name; an unknown name lists what exists and the nearest."""
    family = name.split(".")[0]
    file = next((file for file in _families(kind) if file.stem == family), None)
    if file is None or name not in _named(kind, file):
        hint = nearest(name, available(kind), 0.4) or "."
        unread = "".join(f". {text}: mend it" for text in map(_read, _families(kind)) if isinstance(text, str))
        raise Refused(f"no {kind} is called {name!r}{hint} There are: {', '.join(available(kind)) or 'none'}{unread}")
    if file.is_relative_to(OWN):
        room = importlib.import_module(f"pipeline.{KINDS[kind]}")
        room.__path__ = [str(file.parent.absolute()), *room.__path__]
    function_name = name.split(".")[1]
    function = getattr(importlib.import_module(module_of(kind, name)), function_name)
    marked, traits = function.__stillhouse__
    if marked != kind:
        raise Refused(f"{name} is a {marked}, not a {kind}")
    return Method(kind, name, function, _arguments(function), traits)


def _arguments(function: Callable[..., Any]) -> type[BaseModel]:
    """The keyword-only arguments of a function, as a strict pydantic model."""
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            fields[name] = (hints[name], ... if parameter.default is parameter.empty else parameter.default)
    # A backend is given `how`, which is no parameter of a user.
    config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    return create_model(function.__name__, __config__=config, **fields)


def _told(method: Method, beside: Sequence[str], fault: ErrorDetails) -> InitErrorDetails:
    """A fault of a method's arguments; of one that there is not, with what the method and its entry take."""
    kind: str | PydanticCustomError = PydanticCustomError("argument", "{text}", {"text": fault["msg"]})
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        name, takes = str(fault["loc"][-1]), list(method.arguments.model_fields)
        near = nearest(name, [*takes, *beside])
        text = f"{method.name} has no parameter {name!r}{near + ' It' if near else '; it'} takes "
        text += ", ".join(takes) or "no parameters"
        text += f", and this entry {', '.join(beside)}" if beside else ""
        kind = PydanticCustomError("method", "{text}", {"text": text})
    return {"type": kind, "loc": fault["loc"], "input": fault["input"]}


class Use(BaseModel, Generic[K]):
    """A method that a parameter names, with its arguments, checked and filled: `use: Use[Scorer]`.

    The type says the kind: it is the file in `kinds/` that the type stands in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arguments: dict[str, Any] = {}

    @classmethod
    def kind(cls) -> str:
        """The kind of the methods that may be named here."""
        [of] = cls.__pydantic_generic_metadata__["args"]
        return of.__module__.rpartition(".")[2]

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        # Below another key than `use`: the name alone, or `{use: name, parameter: value}`.
        given = {"name": given} if isinstance(given, str) else given
        if isinstance(given, Mapping) and "use" in given:
            given = {"name": given["use"], "arguments": {k: v for k, v in given.items() if k != "use"}}
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            return given
        try:
            method = find(cls.kind(), given["name"])
        except Refused as error:
            raise PydanticCustomError("method", "{text}", {"text": str(error)}) from error
        beside = given.get("beside", [])
        given = {key: value for key, value in given.items() if key != "beside"}
        try:
            made = method.arguments.model_validate(given.get("arguments", {}))
        except ValidationError as error:
            faults = [_told(method, beside, fault) for fault in error.errors()]
            raise ValidationError.from_exception_data(method.name, faults) from error
        return {**given, "arguments": made.model_dump(mode="json")}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": list(available(cls.kind()))}

    @property
    def method(self) -> Method:
        return find(self.kind(), self.name)

    def build(self) -> K:
        """The method, made with its arguments."""
        return self.method.factory(**self.method.arguments.model_validate(self.arguments).model_dump())


class Choice(BaseModel):
    """Parameters that may name a method: keys that the class does not declare are the method's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, given: Any) -> Any:
        if "use" not in cls.model_fields or not isinstance(given, dict) or not isinstance(given.get("use"), str):
            return given
        names = {field.alias or name for name, field in cls.model_fields.items()}
        own = {k: v for k, v in given.items() if k in names and k != "use"}
        rest = {k: v for k, v in given.items() if k not in names}
        return {**own, "use": {"name": given["use"], "arguments": rest, "beside": sorted(names - {"use"})}}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler.resolve_ref_schema(handler(schema))
        if "use" in cls.model_fields:
            made["additionalProperties"] = True
        return made
