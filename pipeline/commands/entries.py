"""An entry before it runs: which one, what it needs, and the prompts that it asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

import pyarrow as pa

from pipeline.contracts import DROPS, PROMPTS, Table
from pipeline.core.graph import upstream
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.errors import Refused
from pipeline.stages.generate import Params as GenerateParams
from pipeline.stages.generate import pool_of
from pipeline.tables.parquet import Scan

# What is brought up to date without asking: it costs little, and the run needs it anyway.
CHEAP = ("acquire", "ingest", "curate")


def entry_named(plan: Plan, stage: str, name: str | None) -> Instance:
    """An entry of a section, the first if none is named."""
    entries = {instance.name: instance for instance in plan.of(stage)}
    if not entries:
        raise Refused(f"params.yaml has no entry of {stage}, so no model is asked")
    if name is not None and name not in entries:
        raise Refused(f"params.yaml has no {stage}.{name}; there are: {', '.join(entries)}")
    return entries[name or next(iter(entries))]


def needed(plan: Plan, label: str, data: Path) -> list[str]:
    """The cheap instances that make what an instance reads; refuses if another one, such as a training, has not run."""
    labels = list(dict.fromkeys(upstream(plan)[label]))
    costly = [other for other in labels if plan.instances[other].stage not in CHEAP]
    for other in costly:
        if not (data / plan.instances[other].output).is_dir():
            raise Refused(f"{label} needs what {other} makes, and {other} has not run: run `dvc repro {other}` first")
    return [other for other in labels if other not in costly]


def bring_up_to_date(labels: Sequence[str], root: Path) -> None:
    """`dvc repro` of these instances and what they need; quiet unless it fails."""
    # DVC starts the stages as `python`, which must be this one.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "dvc", "repro", *labels]
    print(f"bringing {', '.join(labels)} up to date", file=sys.stderr, flush=True)
    done = subprocess.run(
        command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        said = "\n".join(f"  {line}" for line in done.stdout.strip().split("\n")[-20:])
        raise Refused(f"`dvc repro {' '.join(labels)}` failed, and its tables are needed here:\n{said}")


def asked_at_once(settings: RunSettings) -> RunSettings:
    """The same settings without batch files: a person does not wait a day for a few answers."""
    direct = {name: endpoint.model_copy(update={"batch": None}) for name, endpoint in settings.endpoints.items()}
    return settings.model_copy(update={"endpoints": direct})


def pool_asked(entry: Instance, data: Path) -> pa.Table:
    """The prompts that an entry of `generate` asks, ordered by id, which is a hash and so an order by chance."""
    assert isinstance(entry.params, GenerateParams)
    prompts, drops = (_scan(table, entry.inputs[table.name], data) for table in (PROMPTS, DROPS))
    pool = pool_of(entry.params, prompts, drops, entry.name)
    if pool.num_rows == 0:
        raise Refused(
            f"generate.{entry.name} has no prompt to ask: data/prompts/{entry.params.pool} is empty or dropped"
        )
    return pool.sort_by("prompt_id")


def spread(pool: pa.Table, rows: int) -> pa.Table:
    """The first prompts by id of every domain in turn: the same ones each time."""
    by_domain: dict[str, list[int]] = defaultdict(list)
    for place, domain in enumerate(pool["domain"].to_pylist()):
        by_domain[domain].append(place)
    rounds = zip_longest(*(by_domain[domain] for domain in sorted(by_domain)))
    chosen = [place for place in chain.from_iterable(rounds) if place is not None][:rows]
    return pool.take(pa.array(chosen, pa.int64()))


def _scan(table: Table, folders: Sequence[str], data: Path) -> Scan:
    return Scan(table, tuple(data / folder for folder in folders))
