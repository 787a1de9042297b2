"""The map, `dvc.yaml`, as DVC reads it: the sections that it lets `params.yaml` leave out, and its instances.

Its block `vars` names the sections that need no entry, each as an empty mapping; DVC merges `params.yaml` into it, and
so does `plan`. A new stage is named there and asks no user to edit anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.graph import touching
from pipeline.errors import Refused


@dataclass(frozen=True)
class Entry:
    """One instance as `dvc.yaml` declares it: its command, the paths it reads and those it writes."""

    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def filled(given: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The parameters with the sections that they leave out and the map has; all are missing where there is no map."""
    return _filled(given, read(root)) if (root / "dvc.yaml").exists() else dict(given)


def read(root: Path) -> dict[str, Any]:
    """The map as it is written, with its templates."""
    # Every stage reads the map when it starts; libyaml takes a tenth of the time.
    return yaml.load((root / "dvc.yaml").read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _filled(given: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for block in drawn.get("vars", []):
        defaults |= block
    full = [section for section, entries in defaults.items() if entries != {}]
    if full:
        raise Refused(f"dvc.yaml: vars.{full[0]}: is a default and must be empty; entries belong in params.yaml")
    return {**defaults, **given}


def entries(given: Mapping[str, Any], root: Path) -> dict[str, Entry]:
    """`dvc.yaml` with its templates filled from these parameters, by label (`train@kd`), upstream first."""
    drawn = read(root)
    sections = _filled(given, drawn)
    found = {}
    for stage, declared in drawn["stages"].items():
        if "foreach" not in declared:
            found[stage] = _entry(declared, {})
            continue
        for key, item in sections[declared["foreach"].strip("${}")].items():
            found[f"{stage}@{key}"] = _entry(declared["do"], {"key": key, "item": item})
    return {label: found[label] for label in _ordered(found)}


def _entry(declared: Mapping[str, Any], values: Mapping[str, Any]) -> Entry:
    def paths(section: str) -> tuple[str, ...]:
        listed = [next(iter(p)) if isinstance(p, dict) else p for p in declared.get(section, [])]
        return tuple(sorted(fill(path, values) for path in listed))

    return Entry(fill(declared["cmd"], values), paths("deps"), paths("outs"))


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A template with what its `${...}` name in these values."""

    def value(found: re.Match[str]) -> str:
        here: Any = values
        for word in found[1].split("."):
            here = here[word]
        return str(here)

    return re.sub(r"\$\{([\w.]+)\}", value, template)


def _ordered(found: Mapping[str, Entry]) -> list[str]:
    order: dict[str, None] = {}

    def visit(label: str) -> None:
        if label not in order:
            for maker in makers(found, label):
                visit(maker)
            order[label] = None

    for label in found:
        visit(label)
    return list(order)


def makers(found: Mapping[str, Entry], label: str) -> list[str]:
    """The instances that write what this one reads: the same folder, one in it, or one around it."""
    return [
        other
        for other, entry in found.items()
        if other != label and any(touching(dep, out) for dep in found[label].deps for out in entry.outs)
    ]
