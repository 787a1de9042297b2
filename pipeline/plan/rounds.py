"""Rounds: entries that the section `rounds:` writes once for all, and that become plain ones, a round after the other.

In it `<round>` stands for the number of the round, from 1, and `<before>` for that of the one before it. What round 1
begins with are ordinary entries, such as a model `kd_0`. So DVC caches a round and lineage follows it as any other
entry, and no stage knows of rounds.

With `choose: {by: kd, teacher: [large, small], domain: [add, mul]}` a round tries one value of each list, which stands
for `<teacher>` and `<domain>` in its entries: the values that promise most by what those of earlier rounds have gained
for `kd`. What a round has chosen is seen from its entries, so it is written nowhere else. `explore` is about how many
points what was never tried is thought to gain.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import yaml

from pipeline.core.stage import ALONE, SECTION_OF
from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.plan.unroll import span

SECTION = "rounds"
ROUND, BEFORE = "<round>", "<before>"
CHOOSE, BY, EXPLORE = "choose", "by", "explore"
POINTS = 10.0
SECTIONS = sorted(set(SECTION_OF.values()) - {ALONE})

# Section -> name -> entry.
Entries = dict[str, dict[str, Any]]


def faults_of(given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the section by itself; what its entries lack is told when a round is written."""
    templates = given.get(SECTION, {})
    if not isinstance(templates, dict):
        yield f"{SECTION}: must be a mapping of sections, such as `train:`, not {templates!r}"
        return
    yield from _unchoosable(templates)
    for section, entries in templates.items():
        if section == CHOOSE:
            continue
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
            yield from (
                f"{SECTION}.{section}.{name}: a name cannot hold what a round chooses, only {ROUND} and {BEFORE}"
                for name in entries
                if "<" in str(name).replace(ROUND, "").replace(BEFORE, "")
            )


def _unchoosable(templates: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with `choose:`."""
    given, at = templates.get(CHOOSE, {}), f"{SECTION}.{CHOOSE}"
    if not isinstance(given, dict):
        yield f"{at}: must be a mapping from names to lists, not {given!r}"
        return
    train = templates.get("train")
    trained = [str(name).removesuffix(f"_{ROUND}") for name in train] if isinstance(train, dict) else []
    if given and given.get(BY) not in trained:
        yield f"{at}.{BY}: must be whose gain counts, one of {', '.join(trained) or 'none'}, not {given.get(BY)!r}"
    if not isinstance(given.get(EXPLORE, POINTS), int | float) or given.get(EXPLORE, POINTS) < 0:
        yield f"{at}.{EXPLORE}: must be a number of points, not {given[EXPLORE]!r}"
    for name, values in _lists(given).items():
        listed = isinstance(values, list) and all(isinstance(value, str | int | float) for value in values)
        if not (listed and len(values) > 1):
            yield f"{at}.{name}: must be a list of two or more texts or numbers, not {values!r}"
        if name in (ROUND.strip("<>"), BEFORE.strip("<>")):
            yield f"{at}.{name}: stands for a number already; write another name"


def of_round(given: Mapping[str, Any], number: int, choice: Mapping[str, Any] = MappingProxyType({})) -> Entries:
    """The entries of one round, with what it tries."""
    told = {f"<{name}>": value for name, value in choice.items()} | {ROUND: number, BEFORE: number - 1}
    templates = {section: entries for section, entries in given[SECTION].items() if section != CHOOSE}
    return {
        section: {_filled(name, told): _filled(entry, told) for name, entry in entries.items()}
        for section, entries in templates.items()
    }


def _filled(value: Any, told: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {_filled(key, told): _filled(inner, told) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, told) for inner in value]
    if not isinstance(value, str):
        return value
    if value in told:
        return told[value]
    for word, number in told.items():
        value = value.replace(word, str(number))
    return value


def choices(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that a round may try, each as name -> value; one that is empty where there is nothing to choose."""
    lists = _lists(given[SECTION].get(CHOOSE, {}))
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _lists(choose: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in choose.items() if name not in (BY, EXPLORE)}


def chosen(given: Mapping[str, Any], number: int) -> dict[str, Any] | None:
    """What a round that is written tries; None if its entries are no longer those of any choice."""

    def there(entries: Entries) -> bool:
        return all(given[section].get(name) == entry for section, own in entries.items() for name, entry in own.items())

    return next((choice for choice in choices(given) if there(of_round(given, number, choice))), None)


def promising(given: Mapping[str, Any], before: int, gains: Mapping[int, float]) -> dict[str, Any]:
    """What the round after so many is to try, by the points that these have gained; one of which nothing is known yet
    counts as without gain.

    Paper: KNEXA-FL (AAAI 2026): LinUCB over pairs of who teaches and what is taught (`mixtures/bandit.py`).
    Differs: a context has a place for each value.
    """
    import numpy as np

    from pipeline.mixtures.bandit import LinUcb

    able = choices(given)
    places = sorted({place for choice in able for place in choice.items()}, key=repr)
    contexts = np.array([[float(place in choice.items()) for place in places] for choice in able])
    learnt, turns = LinUcb(len(places)), 0
    for number in range(1, before + 1):
        if (choice := chosen(given, number)) is not None:
            turns += 1
            learnt.learn(contexts[able.index(choice)], gains.get(number, 0.0))
    explore = given[SECTION][CHOOSE].get(EXPLORE, POINTS) / (turns + 1) ** 0.5
    return able[int(learnt.bounds(contexts, explore).round(9).argmax())]


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


def with_rounds(given: Mapping[str, Any], more: int, gains: Mapping[int, float] = MappingProxyType({})) -> Entries:
    """The entries of so many rounds after those that are written, which have gained so many points each."""
    faults = [*faults_of(given)]
    if faults or not given.get(SECTION):
        about = f"write the entries of one round there, with {ROUND} in their names"
        raise Refused("; ".join(faults) or f"params.yaml has no section `{SECTION}:`; {about}")
    first = written(given) + 1
    found: Entries = {}
    for number in range(first, first + more):
        choice = promising(joined(given, found), number - 1, gains) if CHOOSE in given[SECTION] else {}
        for section, entries in of_round(given, number, choice).items():
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
