"""A stage as it is declared, its instances, and the plan of a run.

A stage is a function from tables to batches of one table. It opens no file of the graph and does not know whether it
runs inline or in processes; the driver (`driver.py`) does the rest.

    @stage(writes=SCORES, by="part")
    def score(params: Params, responses: Scan) -> Iterator[pa.RecordBatch]: ...

A method that reads files of the user's says which with its trait `files`, a function from its arguments to paths. DVC
watches them, and runs `plan` when they change; their digests are part of the parameters, so that what reads them runs.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import computed_field

from pipeline.contracts import SCORES, Table
from pipeline.core.methods import Choice, Use
from pipeline.core.settings import RunSettings
from pipeline.core.workspace import WATCHED, digests, unseen
from pipeline.tables.parquet import Scan

STAGES = tuple(sorted(p.stem for p in (Path(__file__).parents[1] / "stages").glob("[a-z]*.py")))
# A gate is made for every entry of quality, so that neither can be forgotten; report has one instance, itself.
SECTION_OF = {stage: stage for stage in STAGES} | {"gate": "quality"}
ALONE = "report"

Exactness = Literal["exact", "repeatable", "recorded"]
NAME = r"^[a-z][a-z0-9_]*$"


@dataclass(frozen=True)
class Input:
    """What a stage reads: a folder under `data/`, and the table its rows are of, or None for a folder of files.

    `missing` says what to write into the parameters where nothing makes it.
    """

    folder: str
    table: Table | None = None
    optional: bool = False
    missing: str = ""


def gate_of(of: str) -> Input:
    """What lets a table pass, or stops those that wait for it."""
    missing = (
        f"data/{of} is read here and no quality entry checks it. Add to params.yaml:\n"
        f"      quality:\n        {of.replace('/', '_')}:\n          of: {of}\n          suite: {of.split('/')[0]}"
    )
    return Input(f"gates/{of}", missing=missing)


def scores_of(of: str) -> Input:
    """Every score of the answers in a folder."""
    entry = f"agreement: {{of: {of}, use: consistency.agreement}}"
    return Input(f"scores/{of}", SCORES, missing=f"nothing scores {of}. Add an entry to score, for example `{entry}`")


class StageParams(Choice):
    """The parameters of an instance. A subclass says what the instance reads and writes.

    A field named `seed` takes the run's seed unless the section sets it; a field named `instance` is the instance's
    name.
    """

    def inputs(self) -> dict[str, Input]:
        """Argument of the stage function -> what it reads."""
        raise NotImplementedError

    def output(self, instance: str) -> str:
        """The folder under `data/` that the instance writes."""
        raise NotImplementedError

    def methods(self) -> list[Use]:
        """The methods that the parameters name."""
        return [value for value in self.__dict__.values() if isinstance(value, Use)]

    def needs(self) -> dict[str, frozenset[str]]:
        """Name of a model -> what this instance needs of its backend."""
        return {}

    def gives(self) -> frozenset[str]:
        """What the backend of the model that this instance writes gives; nothing if it writes none."""
        return frozenset()

    def budget(self) -> dict[str, int]:
        """What this instance may take, by unit. Students are held against each other at equal budgets."""
        return {}

    def names(self, kind: str) -> frozenset[str] | None:
        """The methods of a kind that what this instance writes names, in a model's card or in its rows. None stands for
        those that the models name which it needs, or for any if it needs none."""
        return frozenset()

    def begins(self) -> str | None:
        """The one model that what this instance writes is run as, where it is made of several."""
        return None

    def parts_of(self, tables: Sequence[Scan]) -> int:
        """How many parts a table gets that is made as a whole, from the tables that are read: as many as the first,
        which is the pool's own; another, such as a benchmark, may be cut otherwise."""
        return tables[0].parts if tables else 1

    def known(self, plan: Plan) -> dict[str, Any]:
        """What the instance tells of the others that it is made of, as part of its identity."""
        return {}

    def check(self, plan: Plan) -> list[str]:
        """Faults that show only beside the other instances."""
        return []


@dataclass(frozen=True)
class Stage:
    """A declared stage: its function, and what the driver must know to run it."""

    name: str
    function: Callable[..., Any]
    params: type[StageParams]
    writes: Table | None
    by: Literal["part", "table", "tree"]
    exactness: Exactness
    imports: tuple[str, ...]
    finds: tuple[str, ...]
    ends: Callable[..., None] | None = None


def stage(
    *,
    writes: Table | None,
    by: Literal["part", "table", "tree"],
    exactness: Exactness = "exact",
    imports: tuple[str, ...] = (),
    finds: tuple[str, ...] = (),
    ends: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Any]], Stage]:
    """Declare a stage. `imports`: heavy packages it needs. `finds`: kinds of methods that its rows or its models, not
    its parameters, name; the code of those that may be named is part of its identity. `ends`: what is done once all
    parts are written to `out`, to files beside them."""

    def declare(function: Callable[..., Any]) -> Stage:
        module = inspect.getmodule(function)
        assert module is not None
        return Stage(
            name=module.__name__.rsplit(".", 1)[-1],
            function=function,
            params=module.Params,
            writes=writes,
            by=by,
            exactness=exactness,
            imports=imports,
            finds=finds,
            ends=ends,
        )

    return declare


def stage_named(name: str) -> Stage:
    return getattr(importlib.import_module(f"pipeline.stages.{name}"), name)


@dataclass(frozen=True)
class Instance:
    """One resolved instance: what `plan` writes to `data/plan/<stage>/<name>.json`."""

    stage: str
    name: str
    params: StageParams
    inputs: Mapping[str, tuple[str, ...]]
    output: str
    code: str
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.stage}@{self.name}"

    def to_json(self) -> str:
        content = {
            "stage": self.stage,
            "instance": self.name,
            "params": self.params.model_dump(mode="json"),
            "inputs": {argument: list(folders) for argument, folders in self.inputs.items()},
            "output": self.output,
            "code": self.code,
        }
        traits: dict[str, dict[str, Any]] = {}
        for use in self.params.methods():
            traits.setdefault(use.kind(), {})[use.name] = use.method.told
        if traits:
            content["traits"] = traits
        if budget := self.params.budget():
            content["budget"] = budget
        if self.known:
            content["known"] = self.known
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def of_json(cls, text: str) -> Instance:
        """The instance that `to_json` told."""
        told = json.loads(text)
        of = stage_named(told["stage"]).params
        given = {name: value for name, value in told["params"].items() if name not in of.model_computed_fields}
        inputs = {argument: tuple(folders) for argument, folders in told["inputs"].items()}
        params = of.model_validate(given, by_name=True)
        return cls(told["stage"], told["instance"], params, inputs, told["output"], told["code"], told.get("known", {}))


class WatchedParams(StageParams):
    """Parameters whose method may read the user's own files."""

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def digests(self) -> dict[str, str]:
        """Path -> what is in it, so that a changed file runs the stage again."""
        files, known = [(path, Path(path)) for path in self.files()], digests()
        return {name: known.folder(p) if p.is_dir() else known.of(p) for name, p in files if p.exists()}

    def files(self) -> list[str]:
        """The files and folders of the user's that are read."""
        named = [(use.method.traits.get("files"), use.arguments) for use in self.methods()]
        return [path for files, arguments in named if files for path in files(arguments)]

    def check(self, plan: Plan) -> list[str]:
        roots = (*WATCHED, *plan.watched.values())
        return [f"path: {fault}" for path in self.files() if (fault := unseen(path, roots))]


@dataclass
class Plan:
    """All instances of a run, by label, in the order of their sections."""

    settings: RunSettings
    instances: dict[str, Instance] = field(default_factory=dict)
    watched: Mapping[str, str] = field(default_factory=dict)

    def of(self, stage: str) -> list[Instance]:
        return [i for i in self.instances.values() if i.stage == stage]
