"""One reading holds a distribution at several temperatures: at each the mass of all others, and the rest follows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.contracts import SIGNALS  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.objective import View  # noqa: E402
from pipeline.laws.objective import store  # noqa: E402
from pipeline.model.distributions import outcomes  # noqa: E402
from pipeline.plan.faults import PlanError  # noqa: E402
from pipeline.plan.reading import load as read_params  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.tables import sql  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from tests.training.test_fit import ROOT, SIGNALLED, data, kd, losses, probed  # noqa: E402, F401


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_what_follows_at_a_temperature_is_what_would_be_stored_there(temperature: float, k: int, spread: float) -> None:
    logits_NV = torch.randn(7, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) * spread
    wanted, one = store(logits_NV, k, temperature), store(logits_NV, k, 1.0)
    one.tails[temperature] = wanted.tail_N  # type: ignore[index]
    found = one.at(slice(2, 7)).at_temperature(temperature)
    assert found is not None and found.temperature == temperature
    assert torch.allclose(found.tail_N, wanted.tail_N[2:])
    # Where all others have nearly everything, what is left has the precision of 1 minus it.
    there = wanted.tail_N[2:] < 1 - 1e-6
    assert torch.allclose(found.logprobs_NK[there], wanted.logprobs_NK[2:][there], atol=1e-5)
    assert one.at_temperature(3.0) is None and one.at_temperature(1.0) is one


def test_an_objective_takes_the_temperature_that_it_asks_for() -> None:
    logits_NV = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    one = store(logits_NV, 12, 1.0)
    one.tails[2.0] = torch.zeros(6)  # type: ignore[index]
    view = View(student_NV=torch.randn(6, 12), teacher=one)
    log_p, log_q = outcomes(view, 2.0)
    assert torch.allclose(
        log_p[:, :12].gather(1, one.ids_NK.long().argsort(1)), (logits_NV / 2).log_softmax(1), atol=1e-5
    )
    assert log_q.exp().sum(1) == pytest.approx(torch.ones(6).numpy(), abs=1e-5)
    with pytest.raises(Refused, match=r"asks for 3: .* let the probe say `temperatures: \[1, 3\]`"):
        outcomes(view, 3.0)


def test_stored_signals_at_a_temperature_are_the_live_teacher_there(data: Path) -> None:  # noqa: F811
    torch.set_num_threads(1)
    folder = probed(data, top_k=64, temperatures=[1, 2])
    given = {"objectives": [{"use": "divergence.forward", "temperature": 2}], "epochs": 1}
    stored = kd(data, "train", "stored", SIGNALLED, **given)
    live = kd(data, "distill", "live", "examples/some", **given)
    assert losses(stored) == pytest.approx(losses(live), abs=1e-4)
    probed(data, top_k=8, temperatures=[1, 0.5, 2])
    rows = Scan(SIGNALS, (folder,))
    asked = sql.connect([rows], data)
    told = asked.sql(
        "SELECT t.temperature, avg(list_avg(t.tail_mass)) FROM (SELECT unnest(tempered) AS t FROM signals) "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    [(whole,)] = asked.sql("SELECT avg(list_avg(tail_mass)) FROM signals").fetchall()
    assert [t for t, _ in told] == [0.5, 2.0] and told[0][1] < whole < told[1][1]
    top = np.concatenate([np.array(row) for row in rows.read()["topk_logprobs"].to_pylist()])
    assert (np.exp(top).sum(1) <= 1 + 1e-5).all()


def asking(
    at: float, taken: list[float] | None = None, folder: dict[str, Any] | None = None, **teacher: Any
) -> list[str]:
    """The faults of the default run whose `kd` asks for a temperature."""
    given = copy.deepcopy(read_params(ROOT / "params.yaml"))
    given["train"]["kd"]["objectives"] = [{"use": "divergence.forward", "temperature": at}]
    if taken is not None:
        given["probe"]["teacher"]["temperatures"] = taken
    given["acquire"]["teacher"] |= teacher
    if folder is not None:
        given["train"]["kd"]["of"], given["probe"]["second"] = folder["of"], folder["second"]
        given["quality"]["second"] = {"of": "signals/coverage/second", "suite": "signals"}
    try:
        resolve(given)
    except PlanError as error:
        return error.faults
    return []


def test_the_plan_refuses_a_temperature_that_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    [fault] = asking(2)
    assert fault.startswith("train.kd: divergence.forward asks for temperature 2, and probe.teacher takes signals at 1")
    assert asking(2, [1, 2]) == asking(1, [1, 2]) == []
    # Of a folder of several teachers' all must have been asked.
    folder = {"of": "signals/coverage", "second": {"of": "coverage", "model": "base", "top_k": 16}}
    [fault] = asking(2, [1, 2], folder)
    assert "probe.second takes signals at 1: let it say" in fault
    folder["second"]["temperatures"] = [1, 2]  # type: ignore[index]
    assert asking(2, [1, 2], folder) == []
    # vLLM lists the likeliest tokens, and says of the others only at temperature 1 what they come to.
    assert any("needs full_logits of the model 'teacher'" in fault for fault in asking(2, [1, 2], engine="vllm"))
