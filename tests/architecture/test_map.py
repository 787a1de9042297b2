"""The map, `dvc.yaml`, says what the stages say: the same instances, the same inputs, the same outputs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipeline.core.stage import ALONE, SECTION_OF, STAGES, Instance, Plan
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.map import entries, filled
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]
SECTIONS = {*SECTION_OF.values()} - {ALONE}
# Without a model and prompts there is no run.
NEEDED = ("acquire", "ingest")
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
        "python -m pipeline plan",
        frozenset(
            {"pipeline", "params.yaml", "data/embedded", "data/own", "data/labels", "data/watched", "data/withdrawn"}
        ),
        frozenset({"data/plan"}),
    )


def test_every_stage_has_a_module_and_every_module_a_place_on_the_map() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    assert sorted(stages) == sorted([*STAGES, "plan", "watch"])
    sections = {name: entry["foreach"] for name, entry in stages.items() if "foreach" in entry}
    assert sections == {"watch": "${watch}"} | {s: f"${{{SECTION_OF[s]}}}" for s in STAGES if s != ALONE}


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


@pytest.mark.parametrize("section", NEEDED)
def test_a_section_without_which_there_is_no_run_is_demanded(section: str) -> None:
    given = load(ROOT / "params.yaml")
    del given[section]
    with pytest.raises(Refused, match=f"{section}: is missing"):
        resolve(given)


def test_every_other_section_may_be_left_out() -> None:
    left = {section: {} for section in NEEDED}
    assert list(resolve(left).instances) == ["report@report"]
    assert {*yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["vars"][0]} == SECTIONS - {*NEEDED} | {"watch"}


def listed(place: Path, params: dict[str, Any]) -> set[str]:
    """The instances that DVC sees in a folder with these parameters."""
    (place / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    repo = Repo(str(place))
    try:
        return {stage.addressing.split(":")[-1] for stage in repo.index.stages if stage.cmd}
    finally:
        repo.close()


def test_dvc_and_the_plan_agree_where_sections_are_left_out(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    Repo.init(str(tmp_path), no_scm=True).close()
    given = load(ROOT / "params.yaml")
    assert "distill" not in given
    del given["gaps"], given["read"]
    without = {label.removesuffix("@report") for label in resolve(given).instances} | {"plan"}
    assert listed(tmp_path, given) == without == {*entries(given, tmp_path)}
    assert not [label for label in without if label.startswith(("distill@", "gaps@", "read@"))]
    given["distill"] = {"live": {**given["train"]["coverage_sft"], "teacher": "teacher"}}
    with_it = {label.removesuffix("@report") for label in resolve(given).instances} | {"plan"}
    assert listed(tmp_path, given) == with_it == {*entries(given, tmp_path)} == without | {"distill@live"}


def test_a_default_with_entries_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("vars: [{gaps: {main: {}}}]\nstages: {}\n", "utf-8")
    with pytest.raises(Refused, match=r"vars\.gaps: is a default and must be empty"):
        filled({}, tmp_path)
