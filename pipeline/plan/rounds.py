"""Rounds: entries that the section `rounds:` writes once for all, and that become plain ones, a round after the other.

In it `<round>` stands for the number of the round, from 1, and `<before>` for that of the one before it. What round 1
begins with are ordinary entries, such as a model `kd_0`. So DVC caches a round and lineage follows it as any other
entry, and no stage knows of rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipeline.core.stage import ALONE, SECTION_OF
from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.plan.unroll import span

SECTION = "rounds"
ROUND, BEFORE = "<round>", "<before>"
SECTIONS = sorted(set(SECTION_OF.values()) - {ALONE})

# Section -> name -> entry.
Entries = dict[str, dict[str, Any]]


def faults_of(given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the section by itself; what its entries lack is told when a round is written."""
    templates = given.get(SECTION, {})
    if not isinstance(templates, dict):
        yield f"{SECTION}: must be a mapping of sections, such as `train:`, not {templates!r}"
        return
    for section, entries in templates.items():
        if section not in SECTIONS:
            yield f"{SECTION}.{section}: no such section{nearest(str(section), SECTIONS)}"
        elif not isinstance(entries, dict):
            yield f"{SECTION}.{section}: must be a mapping of entries, not {entries!r}"
        else:
            yield from (
                f"{SECTION}.{section}.{name}: would be the same entry in every round; put {ROUND} into its name"
                for name in entries
                if ROUND not in str(name)
            )


def of_round(given: Mapping[str, Any], number: int) -> Entries:
    """The entries of one round."""
    return {
        section: {_filled(name, number): _filled(entry, number) for name, entry in entries.items()}
        for section, entries in given[SECTION].items()
    }


def _filled(value: Any, number: int) -> Any:
    if isinstance(value, dict):
        return {_filled(key, number): _filled(inner, number) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, number) for inner in value]
    if value == ROUND:
        return number
    return value.replace(ROUND, str(number)).replace(BEFORE, str(number - 1)) if isinstance(value, str) else value


def written(given: Mapping[str, Any]) -> int:
    """How many rounds have been written into the sections."""
    number = 0
    while True:
        names = [(section, name) for section, own in of_round(given, number + 1).items() for name in own]
        there = [(section, name) for section, name in names if name in (given.get(section) or {})]
        if not there:
            return number
        number += 1
        if lacking := [f"{section}.{name}" for section, name in names if (section, name) not in there]:
            others = ", ".join(".".join(place) for place in there[:3])
            raise Refused(
                f"round {number} is there in part: {lacking[0]} is missing, beside {others}. Delete what there is of "
                f"it, or write the rest"
            )


def with_rounds(given: Mapping[str, Any], more: int) -> Entries:
    """The entries of so many rounds after those that are written."""
    faults = [*faults_of(given)]
    if faults or not given.get(SECTION):
        about = f"write the entries of one round there, with {ROUND} in their names"
        raise Refused("; ".join(faults) or f"params.yaml has no section `{SECTION}:`; {about}")
    first = written(given) + 1
    found: Entries = {}
    for number in range(first, first + more):
        for section, entries in of_round(given, number).items():
            found.setdefault(section, {}).update(entries)
    return found


def joined(given: Mapping[str, Any], entries: Entries) -> dict[str, Any]:
    """The parameters with these entries behind those that are there."""
    return {**given, **{section: {**(given.get(section) or {}), **own} for section, own in entries.items()}}


def appended(text: str, entries: Entries) -> str:
    """The same done to the text of `params.yaml`, which stays as it is otherwise."""
    tree = yaml.compose(text)
    assert isinstance(tree, yaml.MappingNode)
    there = {key.value: (key, value) for key, value in tree.value}
    result = text if text.endswith("\n") else f"{text}\n"
    behind = {section: own for section, own in entries.items() if section not in there}
    for section, own in sorted(entries.items(), key=lambda item: -_place(there, item[0])):
        if section in behind:
            continue
        key, value = there[section]
        if not isinstance(value, yaml.MappingNode) or (value.flow_style and value.value):
            raise Refused(f"{section}: its entries stand in one line; write each on lines of its own")
        start, end = span(text, key, value)
        if not value.value:
            result = result[:start] + f"{section}:\n{_block(own, 2)}" + result[end:]
            continue
        result = result[:end] + _block(own, value.value[0][0].start_mark.column) + result[end:]
    result += "".join(f"\n{section}:\n{_block(own, 2)}" for section, own in behind.items())
    if yaml.safe_load(result) != joined(yaml.safe_load(text), entries):
        raise Refused("the rounds cannot be written as text: write the sections in block style, without anchors")
    return result


def _place(there: Mapping[str, tuple[yaml.Node, yaml.Node]], section: str) -> int:
    return there[section][0].start_mark.index if section in there else -1


def _block(entries: Mapping[str, Any], column: int) -> str:
    lines = yaml.safe_dump(dict(entries), sort_keys=False, width=1000, allow_unicode=True).splitlines()
    return "".join(f"{' ' * column}{line}\n" for line in lines)
