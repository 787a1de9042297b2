"""A sweep: every combination of overrides, with every seed, as experiments of DVC's queue, and one table of them all.

    python -m flows.sweep kd -S train.kd.epochs=3,5 -S train.kd.learning_rate=1e-3,3e-4 --seeds train.kd.seed=1,2,3

An experiment is named by what it overrides, so a sweep that was stopped goes on where it stopped, and what was run by
another sweep is not run again. `dvc exp apply <name>` brings one into the workspace.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean, stdev

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed, State
from scipy.stats import t as student

from flows.distill import ended, obeying


class SweepError(Exception):
    """The sweep cannot be run or told; the message says what to do."""


@dataclass(frozen=True)
class Trial:
    """One experiment: what is varied, as `key=value`, and what it is repeated with."""

    setting: tuple[str, ...]
    seed: str

    @property
    def name(self) -> str:
        """The experiment's name: the same overrides have the same."""
        return f"sweep-{hashlib.sha256(json.dumps([self.setting, self.seed]).encode()).hexdigest()[:12]}"


def trials(varied: Sequence[str], seeds: str) -> list[Trial]:
    """Every combination of `key=value,value`, with every seed; those of one setting follow each other."""
    many = [[*_values(text)] for text in varied]
    return [Trial(setting, seed) for setting in itertools.product(*many) for seed in _values(seeds)]


def _values(text: str) -> Iterator[str]:
    key, there, values = text.partition("=")
    if not key or not there or not all(values.split(",")):
        raise SweepError(f"{text!r} is no list of values; write it as train.kd.epochs=3,5")
    yield from (f"{key}={value}" for value in values.split(","))


def rows(found: dict[tuple[str, ...], dict[str, float]]) -> list[dict[str, object]]:
    """A line for each setting: the mean over seeds with its 95 % interval, and by how much it is above the first one,
    paired by seed; the intervals of these differences hold together at 95 % (Bonferroni)."""
    first, told = next(iter(found.values())), []
    for number, (setting, by_seed) in enumerate(found.items()):
        line: dict[str, object] = {"setting": " ".join(setting) or "as it is", "seeds": len(by_seed)}
        line |= _interval([*by_seed.values()], 0.05, "mean")
        if number:
            paired = [value - first[seed] for seed, value in by_seed.items() if seed in first]
            line |= _interval(paired, 0.05 / (len(found) - 1), "above_the_first")
        told.append(line)
    return told


def _interval(values: Sequence[float], outside: float, name: str) -> dict[str, float | None]:
    """The mean and the ends of Student's interval, which one value has not."""
    n = len(values)
    wide = float(student.ppf(1 - outside / 2, n - 1)) * stdev(values) / n**0.5 if n > 1 else None
    mean = fmean(values) if n else None
    ends = (None, None) if wide is None or mean is None else (mean - wide, mean + wide)
    return {name: mean, f"{name}_low": ends[0], f"{name}_high": ends[1]}


@flow(name="sweep", persist_result=False)
def sweep(line: str, varied: list[str], seeds: str, measure: str = "accuracy", workers: int = 1) -> State:
    """Run every combination of overrides with every seed, and tell what each brought.

    Args:
        line: The line of `data/reports/metrics.json` that is compared, as `kd`.
        varied: What is varied: `train.kd.epochs=3,5`, one text for each key. The first setting is what others are
            compared with.
        seeds: What each setting is repeated with: `train.kd.seed=1,2,3`.
        measure: Which number of that line.
        workers: How many experiments run side by side.
    """
    log = get_run_logger()
    try:
        asked = trials(varied, seeds)
        there = _measured(line, measure)
        for trial in asked:
            if trial.name not in there:
                overrides = [word for text in (*trial.setting, trial.seed) for word in ("-S", text)]
                _dvc("exp", "run", "--queue", "--force", "--name", trial.name, *overrides)
        if missing := [trial for trial in asked if trial.name not in there]:
            log.info(f"{len(missing)} of {len(asked)} experiments are to be run")
            if not _run_queue(workers, {trial.name for trial in missing}):
                return Cancelled(message="the experiments that ran are kept; the same sweep goes on with the others")
            there = _measured(line, measure)
        found: dict[tuple[str, ...], dict[str, float]] = {}
        for trial in asked:
            if trial.name not in there:
                about = f"{' '.join((*trial.setting, trial.seed))} ({trial.name}) has no {measure} of {line}"
                raise SweepError(f"{about}: `dvc queue status` and `dvc queue logs {trial.name}` say why")
            found.setdefault(trial.setting, {})[trial.seed] = there[trial.name]
    except SweepError as error:
        return Failed(message=str(error))
    table = rows(found)
    create_table_artifact(table, key="sweep", description=f"{measure} of {line}; differences hold together at 95 %")
    return Completed(name="Ran", message="\n" + "\n".join(map(told, table)))


def told(row: dict[str, object]) -> str:
    """A line of the table as text."""

    def numbers(name: str) -> str:
        value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
        return f"{value:.4g}" + (f" ({low:.4g} to {high:.4g})" if low is not None else "")

    above = f", {numbers('above_the_first')} above the first" if "above_the_first" in row else ""
    return f"{row['setting']}: {numbers('mean')} over {row['seeds']} seeds{above}"


def _measured(line: str, measure: str) -> dict[str, float]:
    """The number of every experiment that has it, by name."""
    found = {}
    for commit in json.loads(_dvc("exp", "show", "--json")):
        for experiment in commit["experiments"] or []:
            for revision in experiment["revs"] or []:
                files = ((revision["data"] or {}).get("metrics") or {}).values()
                for value in [(file.get("data") or {}).get(line, {}).get(measure) for file in files]:
                    if value is not None:
                        found[experiment["name"]] = value
    return found


def _run_queue(workers: int, names: Set[str]) -> bool:
    """Run what is queued; False if somebody cancelled the run or interrupted it. DVC's own workers would go on, so then
    they are stopped, and these experiments ended, or taken out of the queue."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--run-all", "--jobs", str(workers)]
    cancelled = threading.Event()
    # No pipe: the workers, which DVC leaves behind, would hold it open.
    with tempfile.TemporaryFile("w+") as told:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told)

        def stop() -> None:
            cancelled.set()
            child.terminate()

        try:
            with obeying(stop, lambda paused: None):
                child.wait()
        except KeyboardInterrupt:
            stop()
        except BaseException:  # Prefect's signal that this process must end
            stop()
            raise
        finally:
            if cancelled.is_set():
                child.wait()
                _end(names)
        told.seek(0)
        if child.returncode and not cancelled.is_set():
            raise SweepError(f"dvc exp run failed: {told.read().strip()}")
    return not cancelled.is_set()


def _end(names: Set[str], patience_s: float = 60.0) -> None:
    """Stop DVC's workers, interrupt those of these experiments that run, and forget those that are queued."""
    _dvc("queue", "stop")
    deadline = time.monotonic() + patience_s
    running, queued = sorted(names), list[str]()
    while time.monotonic() < deadline:
        lines = (line.split() for line in _dvc("queue", "status").splitlines())
        states = {words[1]: words[-1] for words in lines if len(words) > 1 and words[1] in names}
        running, queued = ([name for name, state in states.items() if state == s] for s in ("Running", "Queued"))
        if not running and not queued:
            return
        # One that has begun or ended in the meantime is refused, and looked at again.
        with suppress(SweepError):
            if queued:
                _dvc("queue", "remove", *queued)
            if running:
                _dvc("queue", "kill", *running)
    raise SweepError(f"{', '.join(running + queued)} did not end: `dvc queue status` tells of them")


def _dvc(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SweepError(f"dvc {' '.join(arguments[:2])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep here and now; the exit code is 0 if every experiment has its number."""
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.add_argument("line", help="of data/reports/metrics.json, as kd")
    parser.add_argument(
        "-S", dest="varied", action="append", default=[], metavar="KEY=VALUE,VALUE", help="what is varied"
    )
    parser.add_argument("--seeds", required=True, metavar="KEY=SEED,SEED", help="such as train.kd.seed=1,2,3")
    parser.add_argument("--measure", default="accuracy")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    from flows.server import running

    url = running()
    with temporary_settings({PREFECT_API_URL: url} if url else {}):
        return ended(sweep(**vars(given), return_state=True))


if __name__ == "__main__":
    sys.exit(main())
