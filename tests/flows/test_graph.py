"""The graph that the flow sees is the one that DVC draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.graph import Graph, GraphError
from tests.flows.conftest import NAMES, dvc

# DVC's own, in how it asks its table of outputs.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


def drawn(repo: Path) -> set[tuple[str, str]]:
    return set(re.findall(r'^"(.+)" -> "(.+)";$', dvc(repo, "dag", "--dot").stdout, re.MULTILINE))


def test_the_graph_is_what_dvc_draws(repository: Path) -> None:
    with Graph() as graph:
        edges = {(need, name) for name, instance in graph.instances.items() for need in instance.needs}
        assert edges == drawn(repository)
        assert set(graph.instances) == NAMES
        assert {i.name for i in graph.instances.values() if i.resource == "model"} == {"model@a", "model@b"}
        assert {i.name for i in graph.instances.values() if i.checks} == {"check"}
        names = list(graph.instances)
        assert all(names.index(need) < names.index(name) for need, name in edges)


def test_a_stage_names_all_of_its_instances_and_brings_what_they_need(repository: Path) -> None:
    with Graph() as graph:
        assert graph.named(["model"]) == {"model@a", "model@b"}
        assert [i.name for i in graph.with_upstream(graph.named(["model@b"]))] == ["first", "model@b"]
        assert graph.named([]) == NAMES
        with pytest.raises(GraphError, match="no instance 'modle'; did you mean model"):
            graph.named(["modle"])


def test_what_changed_is_what_dvc_would_run(repository: Path) -> None:
    with Graph() as graph:
        assert graph.changed(["first", "left"]) == {"first", "left"}
        assert dvc(repository, "repro", "first").returncode == 0
        assert graph.changed(["first"]) == set()


def test_a_broken_map_is_one_message(repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages: {first: {cmd: [}}", "utf-8")
    with pytest.raises(GraphError, match="cannot read the graph"):
        Graph()
