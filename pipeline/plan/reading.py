"""`params.yaml` as text: read as YAML 1.1 here, and as YAML 1.2 by DVC; where the two differ, it is refused.

So is a key that stands twice in one mapping, of which each reader would keep another, or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from pipeline.core import shipped
from pipeline.errors import Refused


class Given(dict[str, Any]):
    """The parameters, and what is wrong with the text that they were read from, in sentences."""

    faults: tuple[str, ...] = ()


# It is written as any mapping is.
yaml.SafeDumper.add_representer(Given, yaml.SafeDumper.represent_dict)


def recipe(named: Path) -> Path:
    """The file that is meant by `recipes/taid.yaml`, or by `taid`: one here, or else one of those that are shipped."""
    folders = (Path("recipes"), shipped.place() / "recipes")
    for file in (named, *(folder / name for folder in folders for name in (named.name, f"{named.name}.yaml"))):
        if file.is_file():
            return file
    there = ", ".join(sorted({f"recipes/{file.name}" for folder in folders for file in folder.glob("*.yaml")}))
    raise Refused(f"there is no file {named}; the recipes are {there or 'none'}")


def load(path: Path, *, careful: bool = True) -> Given:
    """The parameters as a mapping; a syntax error names its line. Only if `careful` is the text looked at as DVC reads
    it, which a stage need not do after `plan`."""
    try:
        text = path.read_text("utf-8")
        found = yaml.safe_load(text)
        # In a value that cannot be, such as the 30th of February, PyYAML raises what Python does.
        faults = tuple(faults_of(text, found)) if careful else ()
    except FileNotFoundError as error:
        raise Refused(f"{path} is missing. `stillhouse use recipes/<file>` puts a complete one in place.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(f"{path} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise Refused(f"{path} must be a mapping of sections, such as `ingest:` and `train:`.")
    given = Given(found)
    given.faults = faults
    return given


def faults_of(text: str, found: object) -> Iterator[str]:
    """Keys that stand twice, and values that DVC reads otherwise; `found` is how they are read here."""
    twice = dict(_twice(yaml.compose(text, yaml.SafeLoader), (), set()))
    for path, lines in twice.items():
        yield f"{path}: stands {len(lines)} times, in lines {' and '.join(map(str, lines))}; rename or delete one"
    from ruamel.yaml import YAML, YAMLError

    reader = YAML(typ="safe")
    reader.allow_duplicate_keys = True
    try:
        other = reader.load(text)
    except (YAMLError, ValueError) as error:
        yield f"DVC cannot read the file (YAML 1.2): {' '.join(str(error).split())}"
        return
    for path, one, two in _differing(found, other, (), set()):
        if not any(path == key or path.startswith(f"{key}.") for key in twice):
            yield (
                f"{path}: is {_shown(one)} as YAML 1.1 reads it, and {_shown(two)} as DVC does (YAML 1.2). Write what "
                f"is meant so that both agree: {_advice(one, two)}"
            )


def _twice(node: yaml.Node | None, way: tuple[object, ...], seen: set[int]) -> Iterator[tuple[str, list[int]]]:
    """The keys of every mapping that stand in it more than once, each with its lines."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, inner in enumerate(node.value):
            yield from _twice(inner, (*way, i), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[object, list[int]] = {}
    for key, value in node.value:
        name = _key(key)
        lines.setdefault(name, []).append(key.start_mark.line + 1)
        yield from _twice(value, (*way, name), seen)
    for name, places in lines.items():
        if len(places) > 1:
            yield _path((*way, name)), places


def _key(node: yaml.Node) -> object:
    if not isinstance(node, yaml.ScalarNode):
        return f"{node.tag} in line {node.start_mark.line + 1}"
    if node.tag == "tag:yaml.org,2002:merge":
        return node.value
    return yaml.constructor.SafeConstructor().construct_object(node)


def _differing(
    one: Any, two: Any, way: tuple[object, ...], seen: set[tuple[int, int]]
) -> Iterator[tuple[str, object, object]]:
    """Where two readings differ: the path and both values. An anchor that is used often is looked at once."""
    if isinstance(one, dict | list):
        if (id(one), id(two)) in seen:
            return
        seen.add((id(one), id(two)))
    if isinstance(one, dict) and isinstance(two, dict):
        known = {(type(key), key) for key in two}
        lost = [key for key in one if (type(key), key) not in known]
        known = {(type(key), key) for key in one}
        other = [key for key in two if (type(key), key) not in known]
        for a, b in zip(lost, other, strict=False):
            yield _path((*way, a)), a, b
        for key in (key for key in one if key in two and key not in lost):
            yield from _differing(one[key], two[key], (*way, key), seen)
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from _differing(a, b, (*way, i), seen)
    elif not _same(one, two):
        yield _path(way), one, two


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return math.isnan(two)
    # ruamel has types of its own below date and datetime.
    alike = (isinstance(one, date) and isinstance(two, date)) or type(one) is type(two)
    return alike and one == two


def _path(way: tuple[object, ...]) -> str:
    return ".".join(map(str, way))


def _shown(value: object) -> str:
    return f"the text {value!r}" if isinstance(value, str) else f"{value!r}"


def _advice(one: object, two: object) -> str:
    """How to write either reading."""
    ways = []
    for value in (one, two):
        if isinstance(value, str):
            ways.append(f"`{yaml.safe_dump(value, default_style=chr(39)).strip()}`")
        elif isinstance(value, bool):
            ways.append(f"`{str(value).lower()}`")
        elif isinstance(value, int):
            ways.append(f"`{value}`")
        elif isinstance(value, float) and math.isfinite(value):
            text = repr(value)
            ways.append(f"`{text if '.' in text else text.replace('e', '.0e')}`")
    return " or ".join(dict.fromkeys(ways)) or "put it in quotes"
