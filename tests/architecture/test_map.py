"""The map, `dvc.yaml`, says what the stages say: the same instances, the same inputs, the same outputs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from pipeline.core.stage import ALONE, SECTION_OF, STAGES, Instance, Plan
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import load, resolve

ROOT = Path(__file__).parents[2]
# DVC's own, in how it asks its table of outputs.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


@dataclass(frozen=True)
class Drawn:
    """What the map says of one instance."""

    command: str
    deps: frozenset[str]
    outs: frozenset[str]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Drawn]:
    """The map as DVC resolves it, by label."""
    place = tmp_path_factory.mktemp("map")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, place / name)
    repo = Repo.init(str(place), no_scm=True)
    try:
        return {
            stage.addressing.split(":")[-1]: Drawn(
                stage.cmd, frozenset(map(str, stage.deps)), frozenset(str(out) for out in stage.outs)
            )
            for stage in repo.index.stages
            if stage.cmd
        }
    finally:
        repo.close()


@pytest.fixture(scope="module")
def resolved() -> Plan:
    return resolve(load(ROOT / "params.yaml"))


def expected(instance: Instance) -> Drawn:
    """What the map ought to say of an instance, from the stage's own words."""
    stage, name = instance.stage, instance.name
    alone = stage == ALONE
    # The report tells what every instance was asked to do.
    deps = {"data/plan" if alone else f"data/plan/{stage}/{name}.json"}
    deps |= {f"data/{source.folder}" for source in instance.params.inputs().values()}
    if stage == "gate":
        # A gate reads one file, so that a new page or a new rule of the table's report does not re-run what follows.
        deps = {f"data/{source.folder}/{name}/verdict.json" for source in instance.params.inputs().values()}
    command = f"python -m pipeline {stage}" + ("" if alone else f" {name}")
    return Drawn(command, frozenset(deps), frozenset({f"data/{instance.output}"}))


def test_deps_and_outs_are_those_of_the_stages(drawn: dict[str, Drawn], resolved: Plan) -> None:
    on_map = {label.replace("report@report", "report"): expected(i) for label, i in resolved.instances.items()}
    assert {label: entry for label, entry in drawn.items() if label != "plan"} == on_map


def test_plan_depends_on_all_parameters_and_all_code(drawn: dict[str, Drawn]) -> None:
    assert drawn["plan"] == Drawn(
        "python -m pipeline plan", frozenset({"pipeline", "params.yaml"}), frozenset({"data/plan"})
    )


def test_every_stage_has_a_module_and_every_module_a_place_on_the_map() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    assert sorted(stages) == sorted([*STAGES, "plan"])
    sections = {name: entry["foreach"] for name, entry in stages.items() if "foreach" in entry}
    assert sections == {s: f"${{{SECTION_OF[s]}}}" for s in STAGES if s != ALONE}


def test_every_argument_of_a_stage_is_given(resolved: Plan) -> None:
    for instance in resolved.instances.values():
        assert set(instance.inputs) == set(instance.params.inputs()), instance.label


def recipes() -> list[Path]:
    return [p for p in sorted((ROOT / "recipes").glob("*.yaml")) if "ingest" in yaml.safe_load(p.read_text("utf-8"))]


@pytest.mark.parametrize("recipe", recipes(), ids=lambda path: path.stem)
def test_a_recipe_resolves_but_for_what_its_user_brings(recipe: Path) -> None:
    try:
        resolve(load(recipe))
    except PlanError as error:
        given = recipe.read_text("utf-8")
        for fault in error.faults:
            path = fault.split(" is missing; a path is relative")[0].rsplit(": ", 1)[-1]
            assert "is missing; a path is relative" in fault and f"{path} " in given, fault
            line = next(line for line in given.splitlines() if f": {path} " in line)
            assert "# <-" in line, f"{fault}, and {recipe.name} does not mark the line for its user"


@pytest.mark.parametrize("stage", [s for s in STAGES if s != ALONE])
def test_a_missing_section_is_refused_by_name(stage: str) -> None:
    given = load(ROOT / "params.yaml")
    del given[SECTION_OF[stage]]
    with pytest.raises(Refused, match=f"{SECTION_OF[stage]}: is missing"):
        resolve(given)
