"""Unroll: entries of `params.yaml` repeated, once per seed, with all that hangs on them.

Plain entries come out, such as `kd_s1` and `kd_s2`: DVC caches them and lineage follows them like any other. What hangs
on an entry, and which of its keys names what it reads, the map says (`dvc.yaml`): a key is rewritten where its template
stands in a path of which another entry's name is part. So a new stage is unrolled without an edit here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.graph import touching
from pipeline.core.stage import ALONE, SECTION_OF, STAGES, stage_named
from pipeline.core.workspace import ROOT
from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.plan.map import entries, fill, filled, makers, read

# (section, name) -> name of a copy -> the keys that it changes.
Copies = dict[tuple[str, str], dict[str, dict[str, Any]]]


def copies_of(
    given: Mapping[str, Any],
    seeds: Sequence[int],
    names: Sequence[str] = (),
    first: str | None = None,
    root: Path = ROOT,
) -> Copies:
    """Every entry that is repeated, with its copies, one per seed.

    `names` are trainings (`kd`, or `train.kd`), all if there are none. They are repeated with what hangs on them; or,
    if `first` is a section or one entry of it (`select.random`), so are those that they come from, with all that hangs
    on these.
    """
    given = filled(given, root)
    found = entries(given, root)
    reads = {label: [m for m in makers(found, label) if m != "plan"] for label in found if label not in ("plan", ALONE)}
    begins = _chosen(given, names)
    if first is not None:
        meant = first.replace(".", "@")
        begins = [label for label in _above(begins, reads) if meant in (label, label.partition("@")[0])]
        if not begins:
            raise Refused(f"no training comes from an entry of {first!r}")
    hanging = {*begins}
    for label, makes in reads.items():
        if hanging & {*makes}:
            hanging.add(label)
    labels = [label for label in reads if label in hanging]
    copies: Copies = {}
    for seed in seeds:
        for entry, changes in _changed(given, labels, reads, seed, root).items():
            section, name = entry[0], f"{entry[1]}_s{seed}"
            if name in given[section]:
                raise Refused(f"{section}.{name} is there already; rename it, or choose other seeds")
            copies.setdefault(entry, {})[name] = changes
    return copies


def unrolled(given: Mapping[str, Any], copies: Copies) -> dict[str, Any]:
    """The parameters with every repeated entry replaced by its copies, in its place."""
    result = dict(given)
    for section in {section for section, _ in copies}:
        result[section] = {
            name: {**entry, **changes}
            for old, entry in given[section].items()
            for name, changes in copies.get((section, old), {old: {}}).items()
        }
    return result


def rewritten(text: str, copies: Copies) -> str:
    """The same done to the text of `params.yaml`: what is not repeated stays as it is, and so do comments."""
    tree = yaml.compose(text)
    assert isinstance(tree, yaml.MappingNode)
    listed = [
        (key, entry, copies[section.value, key.value])
        for section, entries_ in tree.value
        if isinstance(entries_, yaml.MappingNode)
        for key, entry in entries_.value
        if (section.value, key.value) in copies
    ]
    result = text
    for key, entry, own in reversed(listed):
        start, end = span(text, key, entry)
        blocks = [_copied(text, key, entry, name, changes) for name, changes in own.items()]
        result = result[:start] + "".join(blocks) + result[end:]
    if yaml.safe_load(result) != unrolled(yaml.safe_load(text), copies):
        raise Refused("the entries cannot be repeated as text: write them in block style, without anchors")
    return result


def span(text: str, key: yaml.Node, entry: yaml.Node) -> tuple[int, int]:
    """The lines of an entry: from its key to the end of the line on which its last value ends."""
    last = entry
    while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    stop = last.end_mark.index
    end = stop if text[stop - 1] == "\n" else text.find("\n", stop) + 1
    return text.rfind("\n", 0, key.start_mark.index) + 1, end or len(text)


def _copied(text: str, key: yaml.Node, entry: yaml.MappingNode, name: str, changes: Mapping[str, Any]) -> str:
    """The text of one copy."""
    start, end = span(text, key, entry)
    edits = [(key.start_mark.index, key.end_mark.index, name)]
    new = dict(changes)
    for own, value in entry.value:
        if own.value in new:
            edits.append((value.start_mark.index, value.end_mark.index, str(new.pop(own.value))))
    added = [f"{own}: {value}" for own, value in new.items()]
    if entry.flow_style:
        edits.append((entry.end_mark.index - 1, entry.end_mark.index - 1, "".join(f", {line}" for line in added)))
        added = []
    copy = text[start:end]
    for here, there, value in sorted(edits, reverse=True):
        copy = copy[: here - start] + value + copy[there - start :]
    indent = " " * entry.start_mark.column
    return copy.rstrip("\n") + "".join(f"\n{indent}{line}" for line in added) + "\n"


def _chosen(given: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The labels of the trainings that are meant."""
    trains = [stage for stage in STAGES if "arm" in stage_named(stage).params.model_fields]
    there = {f"{stage}@{name}": entry for stage in trains for name, entry in given[stage].items()}
    found = []
    for name in names:
        meant = [label for label in there if name in (label.partition("@")[2], label.replace("@", "."))]
        if not meant:
            bare = [label.partition("@")[2] for label in there]
            hint = nearest(name, bare) or f"; there are {', '.join(bare) or 'none'}"
            raise Refused(f"no training is called {name!r}{hint}")
        found += meant
    for label in found or there:
        if there[label].get("arm"):
            raise Refused(f"{label.replace('@', '.')} has an arm already, {there[label]['arm']}; unroll others")
    return found or list(there)


def _above(labels: Sequence[str], reads: Mapping[str, Sequence[str]]) -> dict[str, None]:
    """These instances and all that they come from."""
    found = dict.fromkeys(labels)
    waiting = list(labels)
    while waiting:
        new = [maker for maker in reads[waiting.pop()] if maker not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return found


def _changed(
    given: Mapping[str, Any], labels: Sequence[str], reads: Mapping[str, Sequence[str]], seed: int, root: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """(section, name) -> what changes in an entry for one seed, for instances in the order of the map."""
    stages = read(root)["stages"]
    changed: dict[tuple[str, str], dict[str, Any]] = {}
    outs: dict[str, dict[str, str]] = {}
    for label in labels:
        stage, _, name = label.partition("@")
        section, declared = SECTION_OF[stage], stages[stage]["do"]
        entry = given[section][name]
        changes = changed.setdefault((section, name), {})
        for maker in reads[label]:
            for old, new in outs.get(maker, {}).items():
                for template in declared["deps"]:
                    if touching(fill(template, {"key": name, "item": entry}), old):
                        _follow(template, entry, changes, old.split("/"), new.split("/"), f"{section}.{name}", maker)
        fields = stage_named(stage).params.model_fields
        changes |= {key: value for key, value in (("seed", seed), ("arm", name)) if key in fields}
        before, after = {"key": name, "item": entry}, {"key": f"{name}_s{seed}", "item": {**entry, **changes}}
        outs[label] = {fill(out, before): fill(out, after) for out in declared["outs"]}
    return changed


def _follow(
    template: str,
    entry: Mapping[str, Any],
    changes: dict[str, Any],
    old: Sequence[str],
    new: Sequence[str],
    where: str,
    maker: str,
) -> None:
    """Change the keys of an entry that name what it reads, so that they name what is written instead."""
    pieces: list[tuple[str, int] | None] = []
    for part in template.split("/"):
        key = re.fullmatch(r"\$\{item\.(\w+)\}", part)
        pieces += [(key[1], i) for i in range(str(entry[key[1]]).count("/") + 1)] if key else [None]
    moved = [i for i, (was, now) in enumerate(zip(old, new, strict=True)) if was != now and i < len(pieces)]
    if not moved:
        folder = fill(template, {"key": where.partition(".")[2], "item": entry})
        raise Refused(
            f"{where} reads all of {folder}, where {maker.replace('@', '.')} would be once per seed; let it read a "
            f"folder of its own"
        )
    for i in moved:
        piece = pieces[i]
        if piece is not None:
            words = str(changes.get(piece[0], entry[piece[0]])).split("/")
            words[piece[1]] = new[i]
            changes[piece[0]] = "/".join(words)
