"""Methods: one function each, found by name.

`use: family.name` in `params.yaml` means function `name` in `pipeline/<kind>s/<family>.py`. The function's keyword
arguments are the method's parameters, its docstring names the paper, and the folder is the registry: nothing is
listed twice. A user's own method is one function in `pipeline/<kind>s/mine.py`.

    @scorer(reads=("answer",))
    def agreement(*, normalise: Literal["none", "number"] = "none") -> Scorer: ...
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic_core import PydanticCustomError

from pipeline.errors import Refused

ROOT = Path(__file__).parents[1]
KINDS = {
    "origin": "origins",
    "source": "sources",
    "verifier": "verifiers",
    "backend": "backends",
    "scorer": "scorers",
    "reader": "readers",
    "selector": "selectors",
    "objective": "objectives",
    "network": "networks",
    "feed": "feeds",
}


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
        return f"pipeline.{KINDS[self.kind]}.{self.name.split('.')[0]}"

    @property
    def about(self) -> str:
        return inspect.cleandoc(self.factory.__doc__ or "")


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
    names = []
    for file in sorted((ROOT / KINDS[kind]).glob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(_is_marker(d, kind) for d in node.decorator_list):
                names.append(f"{file.stem}.{node.name}")
    return tuple(names)


def _is_marker(decorator: ast.expr, kind: str) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == kind


@functools.cache
def find(kind: str, name: str) -> Method:
    """The method of a kind with this name; an unknown name lists what exists and the nearest."""
    if name not in available(kind):
        near = difflib.get_close_matches(name, available(kind), 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise Refused(f"no {kind} is called {name!r}{hint} There are: {', '.join(available(kind)) or 'none'}")
    family, function_name = name.split(".")
    function = getattr(importlib.import_module(f"pipeline.{KINDS[kind]}.{family}"), function_name)
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


class Use(BaseModel):
    """A method that a parameter names, with validated arguments. Subclasses fix the kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]
    name: str
    arguments: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Use:
        try:
            method = self.method
        except Refused as error:
            raise PydanticCustomError("method", "{text}", {"text": str(error)}) from error
        unknown = self.arguments.keys() - method.arguments.model_fields.keys()
        if unknown:
            takes = ", ".join(method.arguments.model_fields) or "no parameters"
            text = f"{self.name} has no parameter {', '.join(sorted(map(repr, unknown)))}; it takes {takes}"
            raise PydanticCustomError("method", "{text}", {"text": text})
        filled = method.arguments.model_validate(self.arguments)
        self.arguments.update(filled.model_dump(mode="json"))
        return self

    @property
    def method(self) -> Method:
        return find(self.kind, self.name)

    def build(self) -> Any:
        """The method, made with its arguments."""
        return self.method.factory(**self.method.arguments.model_validate(self.arguments).model_dump())


class UseOrigin(Use):
    kind = "origin"


class UseSource(Use):
    kind = "source"


class UseScorer(Use):
    kind = "scorer"


class UseReader(Use):
    kind = "reader"


class UseSelector(Use):
    kind = "selector"


class UseObjective(Use):
    kind = "objective"


class UseFeed(Use):
    kind = "feed"


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
        return {**own, "use": {"name": given["use"], "arguments": rest}}
