"""The plan on disk: one JSON per instance, written whole, and tables that nobody owns put aside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.core import identity
from pipeline.core.settings import RunSettings
from pipeline.core.stage import ALONE, NAME, SECTION_OF, STAGES, Instance, Plan, stage_named
from pipeline.core.workspace import TABLE_FOLDERS
from pipeline.errors import Refused
from pipeline.plan.rounds import SECTION

SCHEMA = "params.schema.json"
# What `codes` reads: not among what DVC keeps, because an edit of a comment changes it.
CODES = ".cache/codes.json"


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
    for file in (data / "watched").glob("*.json"):
        if file.stem not in plan.watched:
            file.unlink()
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


def remember(plan: Plan, package: str, data: Path) -> None:
    """Keep the fingerprints of a plan for `codes`; `package` is what the package was before they were taken."""
    fresh = data / ".tmp" / "codes.json"
    for file in (fresh, data / CODES):
        file.parent.mkdir(parents=True, exist_ok=True)
    codes = {label: instance.code for label, instance in plan.instances.items()}
    fresh.write_text(json.dumps({"package": package, "codes": codes}), "utf-8")
    fresh.replace(data / CODES)


def codes(data: Path) -> dict[str, str]:
    """The fingerprints that the last plan found, by label; none if a file of the package is another since."""
    found = json.loads((data / CODES).read_text("utf-8")) if (data / CODES).exists() else {}
    return found["codes"] if found.get("package") == identity.package(identity.OWN) else {}


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
    names = {"pattern": NAME}
    properties: dict[str, Any] = {
        "run": RunSettings.model_json_schema(),
        "seed": {"type": "integer"},
        "watch": {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": names},
        SECTION: {"type": "object", "additionalProperties": {"type": "object"}},
    }
    for stage_name in STAGES:
        if SECTION_OF[stage_name] != stage_name or stage_name == ALONE:
            continue
        properties[stage_name] = {
            "type": "object",
            "additionalProperties": stage_named(stage_name).params.model_json_schema(),
            "propertyNames": names,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
