"""Clouds on the page: which are shown, how many of their points, and that a drawing stays small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contracts import EVALS, PROMPTS
from pipeline.report import charts
from pipeline.report.arms import Evaluation, Lineage
from pipeline.report.clouds import MOST, MOST_POINTS, Cloud, clouds
from pipeline.report.results import scales
from pipeline.report.tables import Tables
from pipeline.tables.parquet import Scan, part_name
from pipeline.tables.tensors import cell

DRAWN = np.random.default_rng(0).standard_normal((6, 500, 2)).astype(np.float32)


def kept(data: Path, folder: str, table: Any, rows: list[dict[str, Any]]) -> Scan:
    place = data / folder
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), place / part_name(0))
    return Scan(table, (place,))


def prompt(name: str, **columns: Any) -> dict[str, Any]:
    return {
        "prompt_id": name,
        "messages": [{"role": "user", "content": ""}],
        "domain": "d",
        "source": "s",
        "group": name,
        **columns,
    }


def mark(name: str, points: np.ndarray) -> dict[str, Any]:
    return {
        "task": "bench", "item_id": name, "prompt_id": name, "domain": "d", "model": "m", "measure": "chamfer",
        "finish_reason": "stop", "metric": 1.0, "outputs": cell({"points": points}),
    }  # fmt: skip


def test_what_was_made_stands_beside_what_is_true(tmp_path: Path) -> None:
    truth = [prompt(name, truth=cell({"points": DRAWN[i]})) for i, name in enumerate("ab")]
    named = [prompt(f"{i}", inputs=cell({"points": DRAWN[i]}), reference=("cone", "cube")[i % 2]) for i in range(4)]
    scans = [
        kept(tmp_path, "prompts/bench/ring", PROMPTS, truth),
        kept(tmp_path, "prompts/solids/all", PROMPTS, named),
        kept(tmp_path, "evals/one", EVALS, [mark("b", DRAWN[4]), mark("a", DRAWN[5])]),
    ]
    lineage = Lineage({}, (Evaluation("one", "one", "bench"), Evaluation("two", "two", "solids")), {})
    found = clouds(lineage, Tables.of(tmp_path, scans))
    assert [c.name for c in found] == ["bench: true points", "one", "solids: cone", "solids: cube"]
    expected = (DRAWN[0], DRAWN[5], DRAWN[0], DRAWN[1])
    for cloud, points in zip(found, expected, strict=True):
        np.testing.assert_array_equal(cloud.points, points[:MOST_POINTS])


def test_a_drawing_of_the_most_clouds_is_bounded() -> None:
    [svg] = charts.drawn([charts.clouds([Cloud(f"<b>{i}", DRAWN[0][:MOST_POINTS]) for i in range(MOST)])])
    assert svg.startswith("<svg") and len(svg) < 1_200_000 and "<b>" not in svg


def test_verifiers_of_arrays_have_a_scale() -> None:
    found = scales()["sliced_wasserstein"]
    assert (found.unit, found.better) == ("units of the points", "lower") and "accuracy" not in scales()
