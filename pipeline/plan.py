"""Plan: `params.yaml`, checked whole and resolved into one small JSON per stage instance, before anything runs.

All that can be wrong in the parameters is wrong here, all of it at once, with its key, what is allowed and the
nearest name. Every other stage depends on its own JSON and its input tables, nothing else.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline import code, ids
from pipeline.errors import Refused
from pipeline.execution import RunSettings
from pipeline.plugins import KINDS, available
from pipeline.stage import NAME, Input, Instance, Stage, StageParams, stage_named

STAGES = tuple(sorted(p.stem for p in (Path(__file__).parent / "stages").glob("[a-z]*.py")))
# A gate is made for every entry of quality, so that neither can be forgotten; report has one instance, itself.
SECTION_OF = {stage: stage for stage in STAGES} | {"gate": "quality"}
ALONE = "report"
SCHEMA = "params.schema.json"
TABLE_FOLDERS = (
    "prompts", "drops", "responses", "scores", "quality", "gates", "gaps", "selections", "examples", "signals",
    "models", "evals", "exports",
)  # fmt: skip


class PlanError(Refused):
    """All faults of the parameters, together."""

    def __init__(self, faults: Iterable[str], source: str = "params.yaml") -> None:
        self.faults = list(faults)
        count = "one fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{source} has {count}; nothing was run:\n" + "\n".join(f"  - {f}" for f in self.faults))


@dataclass
class Plan:
    """All instances of a run, by label, in the order of their sections."""

    settings: RunSettings
    instances: dict[str, Instance] = field(default_factory=dict)

    def of(self, stage: str) -> list[Instance]:
        return [i for i in self.instances.values() if i.stage == stage]


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
    faults: list[str] = []
    sections = sorted(set(SECTION_OF.values()) - {ALONE})
    for key in given:
        if key not in (*sections, "run", "seed"):
            faults.append(f"{key}: no such section{_near(str(key), [*sections, 'run', 'seed'])}")
    seed = given.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        faults.append(f"seed: must be a whole number, not {seed!r}")
        seed = 0
    settings = RunSettings()
    try:
        settings = RunSettings.model_validate(given.get("run") or {})
    except ValidationError as error:
        faults.extend(_explain("run", error, RunSettings.model_fields))

    drafts: dict[str, tuple[Stage, str, StageParams]] = {}
    for stage_name in STAGES:
        declared = stage_named(stage_name)
        section = SECTION_OF[stage_name]
        entries = {ALONE: {}} if stage_name == ALONE else given.get(section)
        if not isinstance(entries, dict):
            if stage_name == section:
                what = "is missing" if entries is None else f"must be a mapping, not {entries!r}"
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
                    faults.extend(_explain(where, error, declared.params.model_fields))
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
            tables = _tables_under(source.folder, makers)
            if not tables and not source.optional:
                faults.append(f"{where}: {_nobody_makes(source, params, makers)}")
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
    return plan


def _identity(declared: Stage, params: StageParams) -> str:
    """The fingerprint of all code and schemas that decide what an instance writes."""
    modules = [f"pipeline.stages.{declared.name}", *(use.method.module for use in params.methods())]
    for kind in declared.kinds:
        modules.extend(sorted({f"pipeline.{KINDS[kind]}.{n.split('.')[0]}" for n in available(kind)}))
    shapes = [str(s.table.schema) for s in params.inputs().values() if s.table]
    shapes += [str(declared.writes.schema)] if declared.writes else []
    return ids.digest(code.fingerprint(modules), shapes)


def _tables_under(folder: str, makers: Mapping[str, str]) -> list[str]:
    """The outputs that are this folder, lie under it, or hold it."""
    return sorted(o for o in makers if o == folder or o.startswith(folder + "/") or folder.startswith(o + "/"))


def _nobody_makes(source: Input, params: StageParams, makers: Mapping[str, str]) -> str:
    top, _, rest = source.folder.partition("/")
    if top == "gates":
        return (
            f"data/{rest} is read here and no quality entry checks it. Add to params.yaml:\n"
            f"      quality:\n        {rest.replace('/', '_')}:\n"
            f"          of: {rest}\n          suite: {rest.split('/')[0]}"
        )
    if top == "scores":
        entry = f"agreement: {{of: {rest}, use: consistency.agreement}}"
        return f"nothing scores {rest}. Add an entry to score, for example `{entry}`"
    if top == "drops":
        return f"no curate entry is called {rest}. Add `curate: {{{rest}: {{against: <the pool of the benchmark>}}}}`"
    near = _near(source.folder, list(makers))
    made = ", ".join(sorted(o for o in makers if o.startswith(top + "/"))) or "none"
    return f"nothing makes data/{source.folder}{near} (there are: {made})"


def upstream(plan: Plan) -> dict[str, list[str]]:
    """Label of an instance -> the labels of those whose tables it reads."""
    by_output = {i.output: label for label, i in plan.instances.items()}
    return {
        label: [by_output[o] for folders in i.inputs.values() for f in folders for o in _tables_under(f, by_output)]
        for label, i in plan.instances.items()
    }


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


def gives(plan: Plan, model: str) -> frozenset[str]:
    """What a model's backend gives: `generate`, `read`, `token_logprobs`, `topk_logprobs`, `full_logits`, ..."""
    for instance in plan.instances.values():
        if instance.output == f"models/{model}":
            return instance.params.gives()
    return frozenset()


def _check_models(instance: Instance, plan: Plan) -> list[str]:
    texts = []
    for model, needed in instance.params.needs().items():
        lacking = needed - gives(plan, model)
        if lacking:
            texts.append(
                f"needs {', '.join(sorted(lacking))} of the model {model!r}, which gives "
                f"{', '.join(sorted(gives(plan, model))) or 'nothing'}. Use another model here, or "
                f"{_deletion(instance, plan)}"
            )
    return texts


def _deletion(instance: Instance, plan: Plan) -> str:
    """What to delete to be without an instance: its entry, those that cannot be without it, and mentions of it."""
    lost = {instance.label}
    by_output = {i.output: label for label, i in plan.instances.items()}
    makers = {
        label: [
            {by_output[o] for f in i.inputs[argument] for o in _tables_under(f, by_output)}
            for argument, source in i.params.inputs().items()
            if not source.optional
        ]
        for label, i in plan.instances.items()
    }
    while more := {label for label, inputs in makers.items() if any(m and m <= lost for m in inputs)} - lost:
        lost |= more
    entries = dict.fromkeys(_entry(i) for label, i in plan.instances.items() if label in lost)
    rest = Plan(plan.settings, {label: i for label, i in plan.instances.items() if label not in lost})
    mentions = [
        f"{_entry(i)}: {text}"
        for i in rest.instances.values()
        for text in i.params.check(rest)
        if text not in i.params.check(plan)
    ]
    return f"delete {', '.join(sorted(entries))}" + "".join(f"; then {text}" for text in mentions)


def _entry(instance: Instance) -> str:
    return f"{SECTION_OF[instance.stage]}.{instance.name}"


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


def _near(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _explain(where: str, error: ValidationError, fields: Mapping[str, Any]) -> list[str]:
    """A pydantic error, one line per fault, with the key path and what is allowed."""
    texts = []
    for fault in error.errors():
        path = ".".join([where, *(str(p) for p in fault["loc"] if p != "name")])
        if fault["type"] == "extra_forbidden":
            last = str(fault["loc"][-1])
            allowed = [f for f in fields if f not in ("seed", "instance")] if len(fault["loc"]) == 1 else []
            near = _near(last, list(fields))
            takes = f"{' This' if near else '; this'} entry takes {', '.join(allowed)}" if allowed else ""
            texts.append(f"{path}: no such parameter{near}{takes}")
        elif fault["type"] == "missing":
            texts.append(f"{path}: is missing")
        elif fault["type"] == "method":
            texts.append(f"{path}: {fault['ctx']['text']}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            texts.append(f"{path}: {message} (it is {fault['input']!r})")
    return texts


def write(plan: Plan, data: Path) -> None:
    """Write all JSONs of a plan whole, by rename, and put tables that nobody owns aside."""
    fresh = data / ".tmp" / "plan"
    if fresh.exists():
        shutil.rmtree(fresh)
    for instance in plan.instances.values():
        alone = instance.stage == ALONE
        path = fresh / f"{ALONE}.json" if alone else fresh / instance.stage / f"{instance.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(instance.to_json(), "utf-8")
    (fresh / SCHEMA).write_text(schema_text(), "utf-8")
    old = data / ".tmp" / "plan-before"
    if old.exists():
        shutil.rmtree(old)
    if (data / "plan").exists():
        (data / "plan").replace(old)
    fresh.replace(data / "plan")
    shutil.rmtree(old, ignore_errors=True)
    for folder in set_aside(plan, data):
        print(f"plan: nobody owns {folder} any more; it was moved to data/.orphans")


def set_aside(plan: Plan, data: Path) -> list[Path]:
    """Move folders of tables that no instance writes to `data/.orphans`; returns where they were."""
    owned = {data / i.output for i in plan.instances.values()}
    keep = {parent for path in owned for parent in path.parents}
    moved: list[Path] = []

    def walk(folder: Path) -> None:
        for child in sorted(folder.iterdir()):
            if not child.is_dir() or child in owned:
                continue
            if child in keep:
                walk(child)
            else:
                place = data / ".orphans" / child.relative_to(data)
                if place.exists():
                    shutil.rmtree(place)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(child, place)
                moved.append(child)

    for top in TABLE_FOLDERS:
        if (data / top).is_dir():
            walk(data / top)
    return moved


def current(instance: Instance, data: Path) -> None:
    """Refuse if the plan on disk is not what the parameters and the code say now."""
    path = data / "plan" / (f"{ALONE}.json" if instance.stage == ALONE else f"{instance.stage}/{instance.name}.json")
    on_disk = json.loads(path.read_text("utf-8")) if path.exists() else None
    now = json.loads(instance.to_json())
    if on_disk == now:
        return
    keys = differing(on_disk or {}, now)
    raise Refused(
        f"{instance.label}: the plan is older than params.yaml or the code ({', '.join(keys)}). "
        f"Run `dvc repro {instance.label}`, or `dvc repro plan` first if you want `--single-item`."
    )


def differing(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys, as paths, in which two mappings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in differing(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [path or "everything"]


def schema_text() -> str:
    """`schema` as it is written beside the plan."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def schema() -> dict[str, Any]:
    """A JSON schema of `params.yaml`, for editors."""
    properties: dict[str, Any] = {"run": RunSettings.model_json_schema(), "seed": {"type": "integer"}}
    for stage_name in STAGES:
        if SECTION_OF[stage_name] != stage_name or stage_name == ALONE:
            continue
        params = stage_named(stage_name).params
        entry = params.model_json_schema()
        use = params.model_fields.get("use")
        if use is not None and use.annotation is not None:
            names = available(use.annotation.kind)
            entry["properties"]["use"] = {"enum": list(names)}
            entry["additionalProperties"] = True
        properties[stage_name] = {
            "type": "object",
            "additionalProperties": entry,
            "propertyNames": {"pattern": NAME},
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
