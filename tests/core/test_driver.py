"""The driver: an output appears whole or not at all, one run at a time, with a record that says what it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock

from pipeline.contracts import RESPONSES, SCORES, Table
from pipeline.core import driver
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import STAGES, Instance, StageParams, stage_named
from pipeline.errors import Refused, TryAgain
from pipeline.tables import digests as remembered
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan

PARTS = 3
OF = "responses/train/teacher"
OUTPUT = f"scores/{OF}/agreement"


def responses() -> Iterator[dict]:
    for i in range(120):
        content = f"#{i % 5}"
        yield {
            "response_id": ids.digest("response", i),
            "request_id": ids.digest("request", i),
            "prompt_id": ids.digest("prompt", i // 4),
            "messages": [{"role": "user", "content": f"{i // 4}?"}],
            "domain": "add",
            "verifier": "numeric.last",
            "reference": "1",
            "entry": "teacher",
            "model_id": "m",
            "sample": i % 4,
            "seed": i,
            "content": content,
            "answer": content[1:],
            "finish_reason": "stop",
            "attempts": 1,
        }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    parquet.write(RESPONSES, folder / OF, PARTS, [RESPONSES.rows(responses())])
    return folder


def agreement(**changed: str) -> Instance:
    params = stage_named("score").params.model_validate({"of": OF, "use": "consistency.agreement", **changed})
    return Instance("score", "agreement", params, {"responses": (OF,)}, OUTPUT, "code")


def run(data: Path, instance: Instance | None = None, **settings: object) -> dict:
    return run_instance(instance or agreement(), RunSettings.model_validate(settings), data, data.parent)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parquet.walk(folder)}


def test_one_and_three_workers_write_the_same_bytes(data: Path) -> None:
    assert run(data)["rows"] == 120
    one = bytes_of(data / OUTPUT)
    assert sorted(one) == [parquet.part_name(i) for i in range(PARTS)]
    assert run(data, executor="processes", workers=3)["rows"] == 120
    assert bytes_of(data / OUTPUT) == one
    assert Scan(SCORES, (data / OUTPUT,)).count() == 120


def test_a_stage_is_given_what_it_asks_for(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more: an input that it only waits for, such as a gate, does not stand in its signature."""
    asked: dict[str, object] = {}

    def score(params: StageParams, name: str) -> Iterator[pa.RecordBatch]:
        asked.update(name=name, params=params)
        yield SCORES.rows([])

    alone = replace(stage_named("score"), function=score, by="table")
    monkeypatch.setattr(driver, "stage_named", lambda name: alone)
    instance = agreement()
    run(data, instance)
    assert asked == {"name": "agreement", "params": instance.params}
    # The table has as many parts as what is read, asked for or not.
    assert sorted(bytes_of(data / OUTPUT)) == [parquet.part_name(i) for i in range(PARTS)]


def test_a_failed_run_leaves_what_was_there(data: Path) -> None:
    run(data)
    before = bytes_of(data / OUTPUT)
    (data / OF / parquet.part_name(2)).write_bytes(b"PAR1")
    with pytest.raises(Refused, match="part-00002"):
        run(data)
    assert bytes_of(data / OUTPUT) == before


def test_a_failed_first_run_leaves_nothing_that_could_be_taken_for_an_output(data: Path) -> None:
    whole = (data / OF / parquet.part_name(2)).read_bytes()
    (data / OF / parquet.part_name(2)).write_bytes(whole[:-20])
    with pytest.raises(Refused):
        run(data)
    assert not (data / OUTPUT).exists()
    assert not (data / ".runs" / "score").exists()
    # What a killed run has left behind does not find its way into the next one's output.
    [scratch] = (data / ".parts" / "score-agreement").iterdir()
    assert sorted(bytes_of(scratch)) == [parquet.part_name(0), parquet.part_name(1)]
    (scratch / "stray").write_text("x", "utf-8")
    (scratch.parent / "00001-begun").mkdir()
    (data / OF / parquet.part_name(2)).write_bytes(whole)
    assert run(data)["rows"] == 120
    assert sorted(bytes_of(data / OUTPUT)) == [parquet.part_name(i) for i in range(PARTS)]
    assert list((data / ".parts").iterdir()) == []


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The parts that cannot be written, and those that were, as numbers from 100."""
    real, parts = parquet.write_part, {2}

    def write(table: Table, folder: Path, part: int, batches: Iterable[pa.RecordBatch]) -> int:
        if part in parts:
            raise Refused(f"part {part} fails")
        parts.add(100 + part)
        return real(table, folder, part, batches)

    monkeypatch.setattr(parquet, "write_part", write)
    return parts


def test_a_run_goes_on_with_the_parts_of_one_that_did_not_finish(
    data: Path, fails: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused, match="part 2 fails"):
        run(data)
    assert fails == {2, 100, 101}
    [scratch] = (data / ".parts" / "score-agreement").iterdir()
    (scratch / "part-00001.tmp").write_text("begun", "utf-8")
    fails.clear()
    record = run(data)
    assert fails == {102}
    assert "2 of 3 parts are there from a run that did not finish" in capsys.readouterr().err
    assert [part["cpu_s"] is None for part in record["parts"]] == [True, True, False]
    assert sum(part["rows"] for part in record["parts"]) == record["rows"] == 120
    resumed = bytes_of(data / OUTPUT)
    run(data)
    assert fails == {100, 101, 102} and bytes_of(data / OUTPUT) == resumed


def test_parts_of_other_code_parameters_or_inputs_are_made_again(data: Path, fails: set[int]) -> None:
    changes: list[Callable[[], Instance]] = [
        lambda: replace(agreement(), code="edited"),
        lambda: agreement(normalise="number"),
        lambda: parquet.write(RESPONSES, data / OF, PARTS, [RESPONSES.rows([*responses()][:80])]) and agreement(),
    ]
    for change in changes:
        fails.add(2)
        with pytest.raises(Refused):
            run(data)
        fails.clear()
        run(data, change())
        assert fails == {100, 101, 102}
        fails.clear()


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_of_killed_runs_stays_and_what_runs_is_left_alone(stage: str, data: Path) -> None:
    for name in (f"{stage}-dead", f"{stage}-alive"):
        (data / ".tmp" / name / "deep").mkdir(parents=True)
        (data / ".tmp" / name / "deep" / "part").write_text("x", "utf-8")
    lock = data / ".runs" / "locks" / f"{stage}-alive.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        run(data)
        assert [path.name for path in (data / ".tmp").iterdir()] == [f"{stage}-alive"]
    run(data)
    assert list((data / ".tmp").iterdir()) == []


def test_a_missing_input_is_named_with_the_command_that_makes_it(data: Path) -> None:
    instance = agreement()
    gone = Instance(**{**instance.__dict__, "inputs": {"responses": ("responses/train/gone",)}})
    with pytest.raises(Refused, match=r"responses/train/gone is missing\. `dvc repro score@agreement`"):
        run(data, gone)


def test_nan_is_refused_by_the_instance_that_made_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and in those of the parts."""
    real = SCORES.batch
    monkeypatch.setattr(
        type(SCORES), "batch", lambda self, **c: real(**{**c, "score": [float("nan")] * len(c["prompt_id"])})
    )
    for settings in (RunSettings(), RunSettings(executor="processes", workers=2)):
        with pytest.raises(
            Refused, match=r"score@agreement gave rows .*table scores: column score holds NaN in \d+ rows"
        ):
            run_instance(agreement(), settings, data, data)
    assert not (data / OUTPUT).exists() and list((data / ".parts").iterdir()) == []


def test_a_held_lock_is_worth_a_retry(data: Path) -> None:
    lock = data / ".runs" / "locks" / "score-agreement.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(TryAgain, match="score@agreement is already running") as refused:
        run(data)
    assert refused.value.exit_code == 75
    assert not (data / OUTPUT).exists()
    assert run(data)["rows"] == 120


def test_the_record_says_what_was_made_of_what(data: Path) -> None:
    given = run(data)
    record = json.loads((data / ".runs" / "score" / "agreement.json").read_text("utf-8"))
    assert record == given
    assert record["plan"] == json.loads(agreement().to_json())
    assert record["inputs"] == {OF: parquet.folder_digest(data / OF)}
    assert record["output"] == parquet.folder_digest(data / OUTPUT)
    assert (record["exactness"], record["rows"]) == ("exact", 120)
    assert record["wall_s"] >= 0 and record["cpu_s"] >= 0 and record["packages"]["pyarrow"]


def test_a_large_input_is_hashed_by_the_first_stage_that_reads_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it changes."""
    large = data / OF / parquet.part_name(0)
    monkeypatch.setattr(remembered, "LARGE", 1)
    hashed: list[Path] = []
    monkeypatch.setattr(remembered, "digest", lambda file, how: (hashed.append(file), parquet.digest(file, how))[1])

    def aged(seconds: float) -> None:
        when = large.stat().st_mtime - seconds
        os.utime(large, (when, when))

    aged(60)
    first = run(data)
    assert hashed.count(large) == 1
    assert run(data)["inputs"] == first["inputs"] and hashed.count(large) == 1
    aged(5)
    run(data)
    assert hashed.count(large) == 2


def test_nothing_but_the_table_lies_in_its_folder(data: Path) -> None:
    run(data)
    assert {path.suffix for path in parquet.walk(data / OUTPUT)} == {".parquet"}


def test_scores_keep_their_prompts_part(data: Path) -> None:
    run(data)
    for part in range(PARTS):
        asked = Scan(RESPONSES, (data / OF,), part).pylist(["response_id"])
        scored = Scan(SCORES, (data / OUTPUT,), part).pylist(["response_id"])
        assert [r["response_id"] for r in asked] == [r["response_id"] for r in scored]
