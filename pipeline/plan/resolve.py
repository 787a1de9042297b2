"""Plan: `params.yaml`, checked whole and resolved into one small JSON per stage instance, before anything runs.

All that can be wrong in the parameters is wrong here, all of it at once, with its key, what is allowed and the
nearest name. Every other stage depends on its own JSON and its input tables, nothing else.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.contracts import PROMPTS
from pipeline.core import withdrawn
from pipeline.core.graph import gives, inside, named, tables_under, upstream
from pipeline.core.identity import fingerprint
from pipeline.core.methods import find, module_of
from pipeline.core.settings import RunSettings
from pipeline.core.stage import ALONE, NAME, SECTION_OF, STAGES, Instance, Plan, Stage, StageParams, stage_named
from pipeline.core.workspace import ABSENT, DATA, ROOT
from pipeline.display import nearest
from pipeline.plan import rounds
from pipeline.plan.faults import PlanError, deletion, explained, nobody_makes, unequal, where
from pipeline.plan.map import filled
from pipeline.tables import ids


def resolve(given: Mapping[str, Any], only: str | None = None, codes: Mapping[str, str] = MappingProxyType({})) -> Plan:
    """Check and resolve all parameters; raises `PlanError` with every fault.

    With `only` the label of an instance that is then compared with the plan on disk, no other gets the fingerprint of
    its code, and none is checked beside the others: the plan was. They are most of the work. `codes` are fingerprints
    that are known, by label.
    """
    whole = filled(given, ROOT)
    drafts, broken, settings, faults = read(whole)
    unwatched = watched(whole)
    plan, lacking = connect(drafts, broken, settings)
    plan.watched = {} if unwatched else whole.get("watch", {})
    rest = cycles(plan) or [
        fault
        for label, instance in plan.instances.items()
        if only is None and label not in lacking
        for fault in beside(instance, plan, broken)
    ]
    told = [*getattr(given, "faults", ()), *faults, *unwatched, *(f for fs in lacking.values() for f in fs), *rest]
    if told:
        raise PlanError(dict.fromkeys(told))
    rules = withdrawn.read(DATA)
    for label, instance in plan.instances.items():
        if only in (None, label):
            code = codes.get(label) or _identity(instance, plan)
            plan.instances[label] = replace(instance, code=code, known=_known(instance, plan, rules))
    return plan


@dataclass(frozen=True)
class Draft:
    """One entry, valid by itself, as the instance of a stage."""

    stage: Stage
    name: str
    params: StageParams

    @property
    def label(self) -> str:
        return f"{self.stage.name}@{self.name}"

    @property
    def where(self) -> str:
        return where(self.stage.name, self.name)

    @property
    def output(self) -> str:
        return self.params.output(self.name)


def read(given: Mapping[str, Any]) -> tuple[list[Draft], list[Draft], RunSettings, list[str]]:
    """Every entry as an instance, those that are not valid apart, the section `run:`, and what is wrong with each."""
    known = [*rounds.SECTIONS, "run", "seed", "watch", rounds.SECTION]
    faults = [f"{key}: no such section{nearest(str(key), known)}" for key in given if key not in known]
    faults += rounds.faults_of(given)
    seed = given.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        faults.append(f"seed: must be a whole number, not {seed!r}")
        seed = 0
    faults += _unusable(given, ())
    settings = RunSettings()
    try:
        settings = RunSettings.model_validate(given.get("run") or {})
    except ValidationError as error:
        faults += explained("run", error, RunSettings)
    drafts: list[Draft] = []
    broken: list[Draft] = []
    for stage in map(stage_named, STAGES):
        section = SECTION_OF[stage.name]
        entries = {ALONE: {}} if stage.name == ALONE else given.get(section)
        if isinstance(entries, dict):
            found = {name: _draft(stage, name, entry, seed) for name, entry in entries.items()}
            drafts += [draft for draft in found.values() if isinstance(draft, Draft)]
            wrong = [fault for draft in found.values() if not isinstance(draft, Draft) for fault in draft]
            broken += [_unfinished(stage, n, entries[n]) for n, d in found.items() if not isinstance(d, Draft)]
        else:
            what = f"must be a mapping, not {entries!r}" if section in given else "is missing"
            wrong = [f"{section}: {what}; a section without entries is written `{section}: {{}}`"]
        # Quality and gate are of the same entries, whose faults are told once.
        faults += wrong if stage.name == section else []
    return drafts, [draft for draft in broken if _writes(draft)], settings, faults


def _unusable(value: Any, way: tuple[str, ...]) -> Iterator[str]:
    """Numbers that no table and no JSON can hold, wherever they stand."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _unusable(inner, (*way, str(key)))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _unusable(inner, (*way, str(i)))
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{'.'.join(way)}: must be a finite number (it is {value})"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{'.'.join(way)}: is out of range: at most 2^63 - 1 either way (it is {value})"


def watched(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the section `watch:`, names of files and folders of the user's."""
    found = given.get("watch", {})
    if not isinstance(found, dict):
        return [f"watch: must be a mapping from names to paths, not {found!r}"]
    faults = []
    for name, path in found.items():
        if not re.match(NAME, str(name)):
            faults.append(f"watch.{name}: a name has lower-case letters, digits and _, and begins with a letter")
        if not isinstance(path, str):
            faults.append(f"watch.{name}: must be a path, not {path!r}")
        elif not Path(path).exists():
            faults.append(f"watch.{name}: {path} {ABSENT}")
    return faults


def _draft(stage: Stage, name: Any, entry: Any, seed: int) -> Draft | list[str]:
    """One entry by itself, or its faults."""
    at = where(stage.name, name)
    if not re.match(NAME, str(name)):
        return [
            f"{at}: an instance's name is a stage name, a folder and an SQL column: lower-case letters, "
            f"digits and _, beginning with a letter"
        ]
    if not isinstance(entry, dict):
        return [f"{at}: must be a mapping, not {entry!r}"]
    fields = stage.params.model_fields
    given = ({"seed": seed} if "seed" in fields else {}) | entry | ({"instance": name} if "instance" in fields else {})
    try:
        return Draft(stage, name, stage.params.model_validate(given))
    except ValidationError as error:
        return explained(at, error, stage.params)


def _unfinished(stage: Stage, name: Any, entry: Any) -> Draft:
    """An entry that is not valid, as far as it tells what it would write."""
    given = {str(key): value for key, value in entry.items()} if isinstance(entry, dict) else {}
    return Draft(stage, str(name), stage.params.model_construct(**given))


def _writes(draft: Draft) -> bool:
    """Whether an entry that is not valid tells what it would write."""
    try:
        return bool(draft.output)
    except AttributeError:
        return False


def connect(
    drafts: Sequence[Draft], broken: Sequence[Draft], settings: RunSettings
) -> tuple[Plan, dict[str, list[str]]]:
    """The plan, in which every instance knows the tables that it reads, and by label what is wrong with those: nobody
    makes them, not even an entry that is `broken`, or two do."""
    plan, faults = Plan(settings), defaultdict[str, list[str]](list)
    makers = {draft.output: draft.label for draft in broken}
    for draft in drafts:
        output = draft.output
        if output in makers:
            text = f"{draft.label} and {makers[output]} both write data/{output}; rename one"
            faults[draft.label].append(text)
        makers[output] = draft.label
    for draft in drafts:
        inputs: dict[str, tuple[str, ...]] = {}
        for argument, source in draft.params.inputs().items():
            tables = tables_under(source.folder, makers)
            if not tables and not source.optional:
                faults[draft.label].append(f"{draft.where}: {nobody_makes(source, makers)}")
            folder = (source.folder,) if tables or not source.optional else ()
            inputs[argument] = tuple(tables) if source.table else folder
        plan.instances[draft.label] = Instance(
            stage=draft.stage.name,
            name=draft.name,
            params=draft.params,
            inputs=inputs,
            output=draft.output,
            code="",
        )
    return plan, faults


def beside(instance: Instance, plan: Plan, broken: Sequence[Draft] = ()) -> list[str]:
    """What is wrong with an instance beside the others; those that are not valid by themselves are known by name, and
    nothing is said that only their parameters could tell."""
    others = {d.label: Instance(d.stage.name, d.name, d.params, {}, d.output, "") for d in broken}
    whole = replace(plan, instances={**plan.instances, **others})
    asked = (
        lambda: _models(instance, plan, whole),
        lambda: instance.params.check(whole),
        lambda: _gates(instance, whole),
        lambda: unequal(instance, plan),
    )
    texts: list[str] = []
    for ask in asked:
        try:
            texts += ask()
        except (AttributeError, TypeError, KeyError):
            # Of a parameter of an entry that is not valid: its own fault is told.
            if not broken:
                raise
    return [f"{where(instance.stage, instance.name)}: {text}" for text in texts]


def _identity(instance: Instance, plan: Plan) -> str:
    """The fingerprint of all code and schemas that decide what an instance writes."""
    declared, used = stage_named(instance.stage), [use.method for use in instance.params.methods()]
    if "backend" in declared.finds:
        # What runs a model may find the model's network.
        used += [find("backend", name) for name in named(plan, instance, "backend")]
    modules = [f"pipeline.stages.{declared.name}", *(method.module for method in used)]
    for kind in {*declared.finds, *(kind for method in used for kind in method.finds)}:
        modules += [module_of(kind, name) for name in named(plan, instance, kind)]
    shapes = [str(s.table.schema) for s in instance.params.inputs().values() if s.table]
    shapes += [str(declared.writes.schema)] if declared.writes else []
    return ids.digest(fingerprint(modules), shapes)


def _known(instance: Instance, plan: Plan, rules: withdrawn.Rules) -> dict[str, Any]:
    """What is part of an instance's identity beside its parameters and its code."""
    writes_prompts = stage_named(instance.stage).writes is PROMPTS
    return {**instance.params.known(plan), **({"withdrawn": rules} if rules and writes_prompts else {})}


def cycles(plan: Plan) -> list[str]:
    """Instances that wait for each other."""
    reads = upstream(plan)
    state: dict[str, Literal["open", "done"]] = {}
    faults = []

    def visit(label: str, path: list[str]) -> None:
        if state.get(label) == "open":
            faults.append("these entries wait for each other: " + " -> ".join([*path[path.index(label) :], label]))
        if label in state:
            return
        state[label] = "open"
        for other in reads[label]:
            visit(other, [*path, label])
        state[label] = "done"

    for label in plan.instances:
        visit(label, [])
    return faults


def _models(instance: Instance, plan: Plan, whole: Plan) -> list[str]:
    """What an instance needs of a model that does not give it."""
    texts = []
    for model, needed in instance.params.needs().items():
        lacking = needed - gives(whole, model)
        if lacking:
            texts.append(
                f"needs {', '.join(sorted(lacking))} of the model {model!r}, which gives "
                f"{', '.join(sorted(gives(whole, model))) or 'nothing'}. Use another model here, or "
                f"{deletion(instance, plan)}"
            )
    return texts


def _gates(instance: Instance, plan: Plan) -> list[str]:
    """Tables that a gated stage reads and that lie under the `of:` of no quality entry that it waits for."""
    folders = [folder for folders in instance.inputs.values() for folder in folders]
    checked = [i.output.removeprefix("gates/").rpartition("/")[0] for i in plan.of("gate")]
    return [
        f"data/{folder} is read and not checked; let a quality entry say `of: {of}`"
        for of in (gate.removeprefix("gates/") for gate in folders if inside(gate, "gates"))
        for folder in folders
        if inside(folder, of) and not any(inside(folder, c) for c in checked if inside(c, of))
    ]
