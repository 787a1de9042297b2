"""The graph as DVC resolves it, and what in it has changed. The only module that uses DVC's Python interface.

DVC is read here and run as a child process elsewhere (`process.py`): its interface is not thread-safe, and a child
can be stopped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo


class GraphError(Exception):
    """The graph cannot be read, or has no such instance."""


@dataclass(frozen=True)
class Instance:
    """One resolved entry of `dvc.yaml`: what it waits for, of its `meta:` the `resource` that it needs while it runs
    and whether it `checks` what is there and makes nothing."""

    name: str
    needs: tuple[str, ...]
    resource: str | None
    checks: bool = False


class Graph:
    """The instances of the repository in the current directory, upstream first. A context manager.

    DVC's names are relative to the current directory, so it must be the repository's root.
    """

    def __init__(self) -> None:
        try:
            self._repo = Repo(".", _wait_for_lock=True)
            stages = self._repo.index.graph  # an edge leads from a stage to what it depends on
        except DvcException as error:
            raise GraphError(f"DVC cannot read the graph in {Path.cwd()}: {error}") from error
        order = nx.lexicographical_topological_sort(stages.reverse(copy=False), key=lambda s: s.addressing)
        self.instances = {
            stage.addressing: Instance(
                name=stage.addressing,
                # A `.dvc` file is data that nobody makes here: a stage without a command.
                needs=tuple(sorted(s.addressing for s in stages.successors(stage) if s.cmd)),
                resource=(stage.meta or {}).get("resource"),
                checks=(stage.meta or {}).get("checks", False),
            )
            for stage in order
            if stage.cmd
        }

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        self._repo.close()

    def named(self, targets: Sequence[str]) -> set[str]:
        """The instances that targets name: `train@kd`, or `train` for all of its instances; all, without targets."""
        if not targets:
            return set(self.instances)
        found: set[str] = set()
        for target in targets:
            matches = {name for name in self.instances if name == target or name.startswith(f"{target}@")}
            if not matches:
                known = {*self.instances, *(name.partition("@")[0] for name in self.instances)}
                near = difflib.get_close_matches(target, known, 1) or [", ".join(self.instances)]
                raise GraphError(f"dvc.yaml has no instance {target!r}; did you mean {near[0]}?")
            found |= matches
        return found

    def with_upstream(self, names: Iterable[str]) -> list[Instance]:
        """These instances and all they wait for, upstream first."""
        wanted = set(names)
        for instance in reversed(self.instances.values()):
            if instance.name in wanted:
                wanted.update(instance.needs)
        return [instance for instance in self.instances.values() if instance.name in wanted]

    def changed(self, names: Iterable[str]) -> set[str]:
        """Which of these would run now; an answer holds while nothing that the instance waits for is made anew."""
        try:
            # `Repo.status` of a target reads the whole graph for each.
            with lock_repo(self._repo):
                stages = {stage.addressing: stage for stage in self._repo.index.stages}
                return {name for name in names if stages[name].status(check_updates=True)}
        except DvcException as error:
            raise GraphError(f"DVC cannot tell what changed: {error}") from error


def idle(targets: Sequence[str]) -> bool:
    """Whether nothing that targets name or wait for would run now."""
    with Graph() as graph:
        return not graph.changed(i.name for i in graph.with_upstream(graph.named(targets)))
