"""Evaluate and read: what a model gives that is no number becomes null, and never ends a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.__main__ import main
from pipeline.asking import read as asking_read
from pipeline.contracts import EVALS, EXAMPLES, RESPONSES, SCORES, SIGNALS
from pipeline.core.driver import run_instance
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.kinds.backend import PLAIN, Reading, Tokens, Want
from pipeline.memo.memo import Memo, Old
from pipeline.model.folder import hashes
from pipeline.model.load import load
from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve
from pipeline.plan.status import Standing
from pipeline.stages import probe, read
from pipeline.tables import parquet
from pipeline.tables.lists import joined, nested
from pipeline.tables.parquet import Scan
from pipeline.tables.rules import query
from tests.commands.pool import params, prompt, workspace
from tests.tables.test_sql import response

ROOT = Path(__file__).parents[2]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [([0.5, NAN], [0.5, None]), ([INF, -INF], [None, None]), ([0.5], [0.5]), ([], []), ([NAN], [None]),
     ([-INF, 0.0], [None, 0.0]), ([0.0, 0.0], [0.0, 0.0]), ([1e30, NAN, 1.0], [pytest.approx(1e30), None, 1.0]),
     ([NAN] * 3, [None] * 3), ([-0.5, INF, NAN], [-0.5, None, None]), ([0.25, -INF, 0.25], [0.25, None, 0.25])],
)  # fmt: skip
def test_a_float_that_is_no_number_is_null_in_a_list(numbers: list[float], kept: list[float | None]) -> None:
    array = np.array(numbers, np.float32)
    assert joined([array, array], pa.float32()).to_pylist() == [kept, kept]
    if numbers:
        assert nested([array[None], array[None]], pa.float32()).to_pylist() == [[kept], [kept]]


class Broken:
    """A backend whose readings of one of its texts are no numbers."""

    def __init__(self, value: float, where: str) -> None:
        self.value, self.where = value, where

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        for i, tokens in enumerate(sequences):
            n = len(tokens.positions)
            arrays = {
                "target_logprob": np.full(n, -0.5, np.float32), "topk_ids": np.ones((n, want.top_k), np.int32),
                "topk_logprobs": np.full((n, want.top_k), -0.5, np.float32), "tail_mass": np.zeros(n, np.float32),
                "embedding": np.ones(3, np.float32),
            }  # fmt: skip
            if i == 1:
                arrays[self.where].reshape(-1)[-1] = self.value
            yield Reading(tokens.id, **arrays)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three answers and three examples, and a model's folder."""
    root = tmp_path / "data"
    shutil.copytree(ROOT / "data" / "embedded" / "base", root / "models/base")
    shutil.copytree(ROOT / "data" / "embedded" / "base", root / "models/base/tokenizer", dirs_exist_ok=True)
    (root / "models/base/model.json").write_text(json.dumps({"backend": "fake.words", "model_id": "m"}), "utf-8")
    rows = [
        {**response(f"{i:032x}", f"{i:032x}"), "messages": [{"role": "user", "content": f"add {i} 1"}]}
        for i in range(3)
    ]
    parquet.write(RESPONSES, root / "responses/train/teacher", 1, [RESPONSES.rows(rows)])
    template, tokenizer = hashes(root / "models/base/tokenizer")
    examples = [
        {"example_id": f"{i:032x}", "prompt_id": f"{i:032x}", "domain": "d", "token_ids": [1, 2, 3, 4 + i],
         "spans": [{"start": 2, "end": 4}], "weight": 1.0, "template_hash": template, "tokenizer_hash": tokenizer,
         "response_ids": ["r"]}
        for i in range(3)
    ]  # fmt: skip
    parquet.write(EXAMPLES, root / "examples/some", 1, [EXAMPLES.rows(examples)])
    return root


def opened_as(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(folder: Path, how: How, card: object = None) -> Iterator[Broken]:
        yield broken

    monkeypatch.setattr(asking_read, "open_model", opened)
    # Some rows are read a second time, as another backend would read them.
    monkeypatch.setattr(probe, "find", lambda kind, name: SimpleNamespace(traits={"gives": ()}, factory=opened))


READ = [(value, where) for value in (NAN, INF, -INF) for where in ("target_logprob", "embedding")]


@pytest.mark.parametrize(("value", "where"), READ)
def test_a_score_that_is_no_number_is_null_and_counted(
    value: float, where: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened_as(Broken(value, where), monkeypatch)
    use = "likelihood.nll" if where == "target_logprob" else "likelihood.embedding"
    params = read.Params.model_validate({"of": "responses/train", "model": "base", "use": use})
    inputs = {"responses": ("responses/train/teacher",), "model": ("models/base",)}
    for _ in range(2):
        # The second time from the memo, which keeps what the model said.
        run_instance(Instance("read", "x", params, inputs, params.output("x"), "c"), RunSettings(), data, data.parent)
        rows = Scan(SCORES, (data / "scores/responses/train/x",)).pylist()
        assert [row["score"] is None for row in rows].count(True) == 1
        [null] = [row for row in rows if row["score"] is None]
        assert (null["quantities"], null["vector"]) == ([], None) and "no finite numbers" in null["detail"]
        assert "1 of 3 texts have log-probabilities that are no numbers" in capsys.readouterr().err


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["target_logprob", "topk_logprobs", "tail_mass"])
def test_a_signal_that_is_no_number_is_null_and_counted(
    value: float, where: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened_as(Broken(value, where), monkeypatch)
    params = probe.Params.model_validate({"of": "some", "model": "base", "top_k": 2})
    inputs = {"examples": ("examples/some",), "model": ("models/base",)}
    run_instance(Instance("probe", "x", params, inputs, params.output("x"), "c"), RunSettings(), data, data.parent)
    rows = Scan(SIGNALS, (data / "signals/some/x",)).pylist()
    nulls = [np.isnan(np.array(row[where], np.float64)).sum() for row in rows]
    assert sorted(nulls) == [0, 0, 1]
    assert "1 of 3 examples have log-probabilities that are no numbers" in capsys.readouterr().err


def test_recorded_signals_are_the_readings_that_they_were_made_of(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as(Broken(-0.5, "target_logprob"), monkeypatch)
    params = probe.Params.model_validate({"of": "some", "model": "base", "top_k": 2})
    inputs = {"examples": ("examples/some",), "model": ("models/base",)}
    run_instance(Instance("probe", "x", params, inputs, params.output("x"), "c"), RunSettings(), data, data.parent)
    rows = Scan(EXAMPLES, (data / "examples/some",)).read()
    again = list(probe.recorded(Scan(SIGNALS, (data / "signals/some/x",)).read()))
    for asked, (tokens, reading) in zip(probe.tokens_of(rows), again, strict=True):
        assert tokens.id == asked.id and list(tokens.token_ids) == list(asked.token_ids)
        assert list(tokens.positions) == list(asked.positions)
        assert reading.topk_logprobs is not None and reading.topk_logprobs.dtype == np.float32
        assert reading.target_logprob.tolist() == [-0.5, -0.5] and reading.topk_logprobs.shape == (2, 2)


def test_the_memo_learns_readings_from_recorded_signals(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clone that pulled its tables reads nothing again; tables that may not be what they would be now are left."""
    opened_as(Broken(-0.5, "target_logprob"), monkeypatch)
    monkeypatch.chdir(data.parent)
    params = probe.Params.model_validate({"of": "some", "model": "base", "top_k": 2})
    inputs = {"examples": ("examples/some",), "model": ("models/base",)}
    instance = Instance("probe", "x", params, inputs, params.output("x"), "c")
    run_instance(instance, RunSettings(), data, data.parent)
    shutil.rmtree(data / ".memo")
    (data.parent / "params.yaml").write_text("{}", "utf-8")
    (data.parent / "dvc.yaml").write_text("{}", "utf-8")
    plan = Plan(RunSettings(), {instance.label: instance})
    monkeypatch.setattr("pipeline.plan.resolve.resolve", lambda given: plan)
    for state, learnt in (("must", 0), ("may", 0), ("missing", 0), ("clean", 3), ("clean", 0)):
        standing = Standing(instance.label, state)
        monkeypatch.setattr("pipeline.plan.status.standings", lambda *given, s=standing: [s])
        assert main(["memo", "fill"]) == 0
        said = capsys.readouterr().out
        assert f"{learnt} readings learnt from {int(state == 'clean')} of 1 tables of signals" in said
        assert ("not from probe@x" in said) is (state != "clean")
    opened_as(Broken(NAN, "target_logprob"), monkeypatch)
    run_instance(instance, RunSettings(), data, data.parent)
    assert "3 of 3 from memo" in capsys.readouterr().err
    assert Old("readings", False, 3, 0.0) in Memo(data / ".memo").older(0)


ENTRIES = {
    "evaluate": {
        "greedy": {"model": "teacher", "pool": "bench"},
        "drawn": {"model": "teacher", "pool": "bench", "use": "answers.sampled", "k": 2, "n": 3},
        "cost": {"model": "base", "pool": "bench", "use": "cost.latency", "repeats": 1},
    },
    "compare": {
        "like": {"model": "base", "against": "teacher", "pool": "bench", "use": "fidelity.answers"},
        "taken": {"model": "base", "against": "teacher", "pool": "bench", "use": "acceptance.expected"},
        "kept": {"model": "teacher", "against": "base", "pool": "bench", "use": "forgetting.kept"},
    },
}


def test_evaluators_write_one_table_that_can_be_asked(tmp_path: Path) -> None:
    """Without `use` it is the greedy answer; every other evaluator's rows lie beside it, told apart by `measure`."""
    asked = [prompt(f"add {i} 1", reference=str(i + 1)) for i in range(3)] + [prompt("say it")]
    plan, data = workspace({**params(None), **ENTRIES}, tmp_path, asked)
    for instance in (*plan.of("evaluate"), *plan.of("compare")):
        run_instance(instance, RunSettings(executor="inline", device="cpu"), data, tmp_path)
    greedy = Scan(EVALS, (data / "evals/greedy",)).pylist()
    assert [r["metric"] for r in greedy] == [r["target"] and float(r["prediction"] == r["target"]) for r in greedy]
    assert all(dict(r["quantities"])["tokens"] > 1 for r in greedy)
    found = {row[0]: row[1:] for row in asked_sql(data)}
    assert found["accuracy"] == (4, 3) and found["pass@2"] == (4, 3) and found["seconds"] == (4, 4)
    assert {"agreement", "acceptance", "kept"} <= found.keys()
    one = dict(Scan(EVALS, (data / "evals/cost",)).pylist()[0]["quantities"])
    net = load(data / "models/base", "float32")
    assert one["parameters"] == sum(p.numel() for p in net.parameters()) and one["bytes"] > 4 * one["parameters"]


def asked_sql(data: Path) -> list[tuple[object, ...]]:
    text = "SELECT measure, count(*), count(metric) FROM evals GROUP BY ALL"
    return [tuple(row.values()) for row in query(data, text).to_pylist()]


@pytest.mark.parametrize(
    ("section", "entry", "said"),
    [
        (
            "evaluate",
            {"use": "fidelity.answers"},
            "compare.x|evaluate.x.*write the entry under `compare:`, with `against:`",
        ),
        ("compare", {"use": "answers.greedy", "against": "base"}, "write the entry under `evaluate:`"),
        ("compare", {"use": "fidelity.answers", "against": "teacher"}, "is 'teacher', and so is model; name another"),
        ("compare", {"use": "fidelity.answers"}, "against: Field required|against: is missing"),
        ("compare", {"use": "fidelity.answers", "against": "nobody"}, "nobody"),
        ("evaluate", {"use": "answers.sampeld"}, "answers.sampled"),
        ("evaluate", {"use": "answers.sampled", "k": 0}, "k: "),
        ("evaluate", {"use": "memorisation.exposure"}, "among"),
        ("evaluate", {"tempreature": 1.0}, "tempreature"),
    ],
)
def test_a_bad_entry_is_refused_by_its_key(section: str, entry: dict[str, object], said: str) -> None:
    given = {**params(None), section: {"x": {"model": "teacher", "pool": "bench", **entry}}}
    with pytest.raises(PlanError, match=said):
        resolve(given)
