"""Plan: `params.yaml`, checked whole and resolved into one small JSON per stage instance, before anything runs.

All that can be wrong in the parameters is wrong here, all of it at once, with its key, what is allowed and the
nearest name. Every other stage depends on its own JSON and its input tables, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.core.graph import gives, tables_under, upstream
from pipeline.core.identity import fingerprint
from pipeline.core.methods import KINDS, available
from pipeline.core.settings import RunSettings
from pipeline.core.stage import ALONE, NAME, SECTION_OF, STAGES, Instance, Plan, Stage, StageParams, stage_named
from pipeline.core.workspace import ROOT
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError, deletion, explained, nearest, nobody_makes, unequal
from pipeline.plan.map import filled
from pipeline.tables import ids


def load(path: Path) -> dict[str, Any]:
    """The parameters as a mapping; a syntax error names its line."""
    try:
        given = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Refused(f"{path} is missing. `stillhouse use recipes/<file>` puts a complete one in place.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not valid YAML: {error}") from error
    if not isinstance(given, dict):
        raise Refused(f"{path} must be a mapping of sections, such as `ingest:` and `train:`.")
    return given


def resolve(given: Mapping[str, Any], only: str | None = None) -> Plan:
    """Check and resolve all parameters; raises `PlanError` with every fault.

    With `only` the label of an instance, no other gets the fingerprint of its code, which is half of the work.
    """
    given = filled(given, ROOT)
    faults: list[str] = []
    sections = sorted(set(SECTION_OF.values()) - {ALONE})
    for key in given:
        if key not in (*sections, "run", "seed"):
            faults.append(f"{key}: no such section{nearest(str(key), [*sections, 'run', 'seed'])}")
    seed = given.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        faults.append(f"seed: must be a whole number, not {seed!r}")
        seed = 0
    settings = RunSettings()
    try:
        settings = RunSettings.model_validate(given.get("run") or {})
    except ValidationError as error:
        faults.extend(explained("run", error, RunSettings.model_fields))

    drafts: dict[str, tuple[Stage, str, StageParams]] = {}
    for stage_name in STAGES:
        declared = stage_named(stage_name)
        section = SECTION_OF[stage_name]
        entries = {ALONE: {}} if stage_name == ALONE else given.get(section)
        if not isinstance(entries, dict):
            if stage_name == section:
                what = f"must be a mapping, not {entries!r}" if section in given else "is missing"
                faults.append(f"{section}: {what}; a section without entries is written `{section}: {{}}`")
            continue
        for name, entry in entries.items():
            where = f"{section}.{name}"
            if not re.match(NAME, str(name)):
                if stage_name == section:
                    faults.append(
                        f"{where}: an instance's name is a stage name, a folder and an SQL column: lower-case letters, "
                        f"digits and _, beginning with a letter"
                    )
                continue
            if not isinstance(entry, dict):
                faults.append(f"{where}: must be a mapping, not {entry!r}")
                continue
            if "seed" in declared.params.model_fields:
                entry = {"seed": seed, **entry}
            if "instance" in declared.params.model_fields:
                entry = {**entry, "instance": str(name)}
            try:
                drafts[f"{stage_name}@{name}"] = (declared, str(name), declared.params.model_validate(entry))
            except ValidationError as error:
                if stage_name == section:
                    faults.extend(explained(where, error, declared.params.model_fields))
    if faults:
        raise PlanError(faults)
    plan = _connect(drafts, settings, faults, only)
    if faults:
        raise PlanError(faults)
    return plan


def _connect(
    drafts: dict[str, tuple[Stage, str, StageParams]], settings: RunSettings, faults: list[str], only: str | None
) -> Plan:
    """Find which tables each instance reads, and what cannot work between instances."""
    makers: dict[str, str] = {}
    for label, (_, name, params) in drafts.items():
        output = params.output(name)
        if output in makers:
            faults.append(f"{label} and {makers[output]} both write data/{output}; rename one")
        makers[output] = label

    plan = Plan(settings)
    for label, (declared, name, params) in drafts.items():
        where = f"{SECTION_OF[declared.name]}.{name}"
        inputs: dict[str, tuple[str, ...]] = {}
        for argument, source in params.inputs().items():
            tables = tables_under(source.folder, makers)
            if not tables and not source.optional:
                faults.append(f"{where}: {nobody_makes(source, params, makers)}")
            folder = (source.folder,) if tables or not source.optional else ()
            inputs[argument] = tuple(tables) if source.table else folder
        identity = _identity(declared, params) if only in (None, label) else ""
        plan.instances[label] = Instance(declared.name, name, params, inputs, params.output(name), identity)
    if not faults:
        _check_cycles(plan, faults)
    if not faults:
        for instance in plan.instances.values():
            where = f"{SECTION_OF[instance.stage]}.{instance.name}"
            faults.extend(f"{where}: {text}" for text in _check_models(instance, plan))
            faults.extend(f"{where}: {text}" for text in instance.params.check(plan))
            faults.extend(f"{where}: {text}" for text in _check_gates(instance, plan))
            faults.extend(f"{where}: {text}" for text in unequal(instance, plan))
    return plan


def _identity(declared: Stage, params: StageParams) -> str:
    """The fingerprint of all code and schemas that decide what an instance writes."""
    modules = [f"pipeline.stages.{declared.name}", *(use.method.module for use in params.methods())]
    for kind in declared.kinds:
        modules.extend(sorted({f"pipeline.{KINDS[kind]}.{n.split('.')[0]}" for n in available(kind)}))
    shapes = [str(s.table.schema) for s in params.inputs().values() if s.table]
    shapes += [str(declared.writes.schema)] if declared.writes else []
    return ids.digest(fingerprint(modules), shapes)


def _check_cycles(plan: Plan, faults: list[str]) -> None:
    reads = upstream(plan)
    state: dict[str, int] = {}

    def visit(label: str, path: list[str]) -> None:
        if state.get(label) == 1:
            faults.append("these entries wait for each other: " + " -> ".join([*path[path.index(label) :], label]))
            return
        if label in state:
            return
        state[label] = 1
        for other in reads[label]:
            visit(other, [*path, label])
        state[label] = 2

    for label in plan.instances:
        visit(label, [])


def _check_models(instance: Instance, plan: Plan) -> list[str]:
    texts = []
    for model, needed in instance.params.needs().items():
        lacking = needed - gives(plan, model)
        if lacking:
            texts.append(
                f"needs {', '.join(sorted(lacking))} of the model {model!r}, which gives "
                f"{', '.join(sorted(gives(plan, model))) or 'nothing'}. Use another model here, or "
                f"{deletion(instance, plan)}"
            )
    return texts


def _check_gates(instance: Instance, plan: Plan) -> list[str]:
    """Every table that a gated stage reads must lie under the `of:` of some quality entry that it waits for."""
    gates = [f for fs in instance.inputs.values() for f in fs if f == "gates" or f.startswith("gates/")]
    texts = []
    for gate in gates:
        of = gate.removeprefix("gates/")
        checked = [i.params.of for i in plan.of("quality") if i.params.of == of or i.params.of.startswith(of + "/")]  # type: ignore[attr-defined]
        for folder in (f for fs in instance.inputs.values() for f in fs if f == of or f.startswith(of + "/")):
            if not any(folder == c or folder.startswith(c + "/") for c in checked):
                texts.append(f"data/{folder} is read and not checked; let a quality entry say `of: {of}`")
    return texts
