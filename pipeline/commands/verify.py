"""Verify: the graph once more in a clean copy, table by table beside what dvc.lock says.

What this machine can compute is computed again, without the memo. What was received from an endpoint, or sampled on a
GPU, cannot be: it is taken from DVC's cache and said to be so, and no endpoint is called.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commands.screen import show
from pipeline.commands.stored import Files, Stored, hash_of, locked
from pipeline.commands.traces import is_table
from pipeline.core.graph import upstream
from pipeline.core.stage import ALONE, Plan, stage_named
from pipeline.core.warm import beside
from pipeline.core.workspace import DATA, PARAMS, ROOT, WATCHED
from pipeline.display import duration
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of, computed_here
from pipeline.model.load import device_of
from pipeline.plan.map import entries
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.tables.parquet import walk

ABOUT = "run the graph again in a clean copy, and hold every table against dvc.lock"
MORE = "What came from endpoints is taken from DVC's cache; none is called. It takes as long as the whole run."

# Numbers that another type of processor rounds otherwise: |a - b| <= ABSOLUTE + RELATIVE * |b|.
RELATIVE, ABSOLUTE = 1e-3, 1e-4
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
IDENTICAL, NEAR, RECORDED, DIFFERENT = "identical", "equal within tolerance", "recorded", "different"
# It tells how long everything took.
PASSED_OVER = (ALONE,)


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `verify`."""
    command.add_argument(
        "labels", nargs="*", metavar="instance", help="only these, such as train@kd, and what they need"
    )


def run(labels: list[str]) -> None:
    """Run the graph in a clean copy and compare; a difference ends it with an error."""
    place = DATA / ".tmp" / "verify" / "repo"
    shutil.rmtree(place.parent, ignore_errors=True)
    told: Counter[str] = Counter()
    started = time.monotonic()
    for line in verified(place, labels, told):
        show([line])
    counts = ", ".join(f"{count} {verdict}" for verdict, count in told.items())
    show(["", f"{counts}, in {duration(time.monotonic() - started)}"])
    if told[DIFFERENT]:
        raise Refused(f"{told[DIFFERENT]} tables are not what dvc.lock says; the copy is in {place}")
    shutil.rmtree(place.parent)


def verified(place: Path, labels: list[str], told: Counter[str]) -> Iterator[str]:
    """A line for every instance, as soon as it is known; counts verdicts."""
    given = load(PARAMS)
    plan, lock, stored = resolve(given), locked(ROOT), Stored(ROOT)
    wanted = _needed(plan, labels)
    copy(place, given.get("watch", {}))
    with beside(plan.settings.threads) as environment:
        for label, entry in entries(given, ROOT).items():
            if label in PASSED_OVER or not (wanted is None or label in wanted or "@" not in label):
                continue
            if label not in lock:
                raise Refused(f"dvc.lock does not have {label}; `dvc repro` makes it first")
            received = label in plan.instances and _received(plan, label)
            if not received:
                _run(entry.cmd, place, label, environment)
            for out in entry.outs:
                before = stored.files(out, lock[label][out])
                if received:
                    _take(before, place / out, label)
                    verdict, why = RECORDED, "taken from the cache: no endpoint is called, and no GPU asked to repeat"
                else:
                    verdict, why = compared(place / out, lock[label][out], before)
                told[verdict] += 1
                yield f"{label:<32} {verdict}" + (f": {why}" if why else "")


def _needed(plan: Plan, labels: list[str]) -> set[str] | None:
    """These instances and all upstream of them; None for all."""
    if not labels:
        return None
    if unknown := [label for label in labels if label not in plan.instances]:
        raise Refused(f"no instance is called {unknown[0]}; there are {', '.join(plan.instances)}")
    reads, found, waiting = upstream(plan), set[str](), list(labels)
    while waiting:
        label = waiting.pop()
        if label not in found:
            found.add(label)
            waiting += reads[label]
    return found


def copy(place: Path, watched: dict[str, str]) -> None:
    """All that git keeps or would keep, as it is now, and the files that the user brings; nothing that was made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    own = [file.relative_to(ROOT).as_posix() for folder in WATCHED for file in walk(ROOT / folder)]
    for name in dict.fromkeys([*filter(None, listed), *own]):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    for path in watched.values():
        if not Path(path).is_absolute() and not (place / path).exists():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).symlink_to((ROOT / path).resolve())


def _received(plan: Plan, label: str) -> bool:
    """Whether an instance asks a model that this machine cannot ask again for the same."""
    instance = plan.instances[label]
    cards = [DATA / "models" / model for model in instance.params.needs()]
    if any(not computed_here(card_of(folder)) for folder in cards):
        return True
    sampled = bool(cards) and stage_named(instance.stage).exactness == "recorded"
    return sampled and device_of(plan.settings) != "cpu"


def _run(command: str, place: Path, label: str, environment: dict[str, str]) -> None:
    python, *rest = shlex.split(command)
    # The copy's own memo is empty, and DVC_ROOT would lead to another.
    env = {name: value for name, value in environment.items() if name not in ("DVC_ROOT", "PYTHONPATH")}
    done = subprocess.run([sys.executable, *rest], cwd=place, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(
            f"{label} does not run again ({python} ended with {done.returncode}): {done.stderr.strip()[-2000:]}"
        )


def _take(files: Files | None, place: Path, label: str) -> None:
    if files is None:
        raise Refused(
            f"{label} was recorded, and its table is neither here nor in DVC's cache: `dvc pull {label}` first"
        )
    for name, file in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place / name if name else place)


def compared(place: Path, md5: str, before: Files | None) -> tuple[str, str]:
    """The verdict on an output, and why if it is not identical."""
    if hash_of(place) == md5:
        return IDENTICAL, ""
    if before is None:
        return DIFFERENT, "and what it was is neither here nor in DVC's cache, so nothing says why"
    after = {file.relative_to(place).as_posix(): file for file in walk(place)} if place.is_dir() else {"": place}
    if lost := before.keys() ^ after.keys():
        return DIFFERENT, f"{min(lost)} is in one of them alone"
    furthest = 0.0
    for name, file in after.items():
        try:
            furthest = max(furthest, _apart(before[name], file))
        except _Different as error:
            return DIFFERENT, f"{name}: {error}"
    return NEAR, f"numbers are up to {furthest:.2g} apart"


class _Different(Exception):
    """Two files differ by more than rounding; the text says where."""


def _apart(before: Path, after: Path) -> float:
    """How far numbers of two files are from each other; raises where anything else differs, or they are too far."""
    if before.read_bytes() == after.read_bytes():
        return 0.0
    if is_table(after):
        return _tables_apart(pq.ParquetFile(before).read(), pq.ParquetFile(after).read())
    if after.suffix == ".safetensors":
        return _weights_apart(before, after)
    first, second = (file.read_text("utf-8", "replace") for file in (before, after))
    if after.name == "model.json":
        # The identity is a hash of weights, which are held against each other themselves.
        first, second = (json.dumps({**json.loads(text), "model_id": ""}) for text in (first, second))
    if NUMBER.split(first) != NUMBER.split(second):
        raise _Different("its words differ")
    return _numbers_apart(np.array(NUMBER.findall(first), float), np.array(NUMBER.findall(second), float), "")


def _tables_apart(before: pa.Table, after: pa.Table) -> float:
    if before.schema != after.schema:
        raise _Different("its columns differ")
    if len(before) != len(after):
        raise _Different(f"{len(after)} rows, and there were {len(before)}")
    furthest = 0.0
    for name in before.column_names:
        one, two = before[name].combine_chunks(), after[name].combine_chunks()
        if one.equals(two):
            continue
        rows = [i for i, (a, b) in enumerate(zip(one.to_pylist(), two.to_pylist(), strict=True)) if a != b]
        where = f"column {name}, {len(rows)} of {len(one)} rows, the first {rows[0] if rows else 0}"
        pairs = list(zip(_leaves(one), _leaves(two), strict=True))
        if any(a.dtype.kind != "f" and not np.array_equal(a, b) for a, b in pairs):
            raise _Different(f"{where}: {_short(one[rows[0]])}, and now {_short(two[rows[0]])}")
        furthest = max(furthest, *(_numbers_apart(a, b, where) for a, b in pairs if a.dtype.kind == "f"))
    return furthest


def _leaves(array: pa.Array) -> Iterator[np.ndarray]:
    """The values of a column at all depths, and the lengths of its lists."""
    kind = array.type
    if pa.types.is_struct(kind):
        for inner in array.flatten():
            yield from _leaves(inner)
    elif pa.types.is_map(kind):
        yield from (array.offsets.to_numpy(), *_leaves(array.keys), *_leaves(array.items))
    elif pa.types.is_list(kind):
        yield from (np.diff(array.offsets.to_numpy()), *_leaves(array.flatten()))
    else:
        yield array.to_numpy(zero_copy_only=False)


def _weights_apart(before: Path, after: Path) -> float:
    import safetensors

    furthest = 0.0
    with safetensors.safe_open(before, "pt") as one, safetensors.safe_open(after, "pt") as two:
        if {*one.keys()} != {*two.keys()}:
            raise _Different("it holds other weights")
        for name in one.keys():  # noqa: SIM118
            first, second = (weights.get_tensor(name).float().numpy() for weights in (one, two))
            furthest = max(furthest, _numbers_apart(first, second, name))
    return furthest


def _numbers_apart(before: np.ndarray, after: np.ndarray, where: str) -> float:
    if before.shape != after.shape:
        raise _Different(f"{where}: other shapes")
    if not before.size:
        return 0.0
    apart = np.abs(after - before)
    if not np.allclose(after, before, RELATIVE, ABSOLUTE, equal_nan=True):
        raise _Different(f"{where}: numbers are up to {np.nanmax(apart):.2g} apart".lstrip(": "))
    return float(np.nanmax(apart, initial=0.0))


def _short(value: pa.Scalar) -> str:
    return repr(value.as_py())[:80]
