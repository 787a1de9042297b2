"""Where the money of a run went."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.commands import results
from pipeline.contracts import RESPONSES
from pipeline.tables import parquet
from tests.tables.test_sql import response


def money(place: Path, prices: dict[str, float | None]) -> list[str]:
    """What is told of two answers of each entry, at these prices."""
    plans = []
    for entry, price in prices.items():
        spent = {"prompt_tokens": 600, "completion_tokens": 400, "cost_usd": price}
        rows = [{**response(f"{n:02d}" * 16, "00" * 16), **spent} for n in range(2)]
        parquet.write(RESPONSES, place / f"data/responses/train/{entry}", 1, [RESPONSES.rows(rows)])
        plans.append({"instance": entry, "output": f"responses/train/{entry}"})
    lineage: Any = SimpleNamespace(of=lambda stage: [*plans, {"instance": "later", "output": "responses/train/later"}])
    return results._money(lineage)


@pytest.mark.parametrize(
    ("prices", "told"),
    [
        (
            {"local": None, "cheap": 0.25, "dear": 1.5},
            ["money: $3.50; 6,000 tokens in 6 answers", "      $3.00  generate@dear, 2,000 tokens",
             "      $0.50  generate@cheap, 2,000 tokens", "             generate@local, 2,000 tokens"],
        ),
        ({"local": None}, ["money: no price is known; 2,000 tokens in 2 answers",
                           "             generate@local, 2,000 tokens"]),
        ({}, []),
    ],
)  # fmt: skip
def test_the_dearest_entry_is_told_first(
    prices: dict[str, float | None], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert money(tmp_path, prices) == told
