"""Verify: a clean copy gives the same tables; what was received is told, and nobody is asked for it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.commands import stored, verify
from pipeline.contracts import SCORES
from pipeline.tables import parquet
from tests.e2e.brought import stillhouse
from tests.e2e.conftest import BIN, Workspace, make_workspace
from tests.servers import MODEL, Server, serving


def change(params: dict[str, Any], url: str) -> None:
    """Answers of an endpoint and of a model here, both scored."""
    params.clear()
    params |= {
        "run": {"executor": "inline", "endpoints": {"served": {"url": url}}},
        "seed": 3,
        "acquire": {
            "served": {"use": "remote.endpoint", "model": MODEL, "version": "1"},
            "here": {"use": "local.embedded", "name": "base"},
        },
        "ingest": {
            "tasks": {"pool": "train", "use": "procedural.tasks", "rows": 40, "seed": 1, "parts": 2},
            "bench": {"pool": "bench", "use": "procedural.tasks", "rows": 20, "seed": 2},
        },
        "curate": {"train": {"against": "bench"}},
        "generate": {name: {"pool": "train", "model": name, "k": 2, "temperature": 1.0} for name in ("served", "here")},
        "score": {"format": {"of": "responses/train", "use": "heuristic.format"}},
        "read": {"nll": {"of": "responses/train/here", "model": "here", "use": "likelihood.nll"}},
    }


@pytest.fixture(scope="module")
def ran(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Server]]:
    with serving() as server:
        place = tmp_path_factory.mktemp("verify") / "repo"
        workspace = make_workspace(place, env, lambda params: change(params, server.url))
        workspace.repro()
        yield workspace, server


@pytest.mark.e2e
def test_a_clean_copy_is_the_same_and_no_endpoint_is_asked(ran: tuple[Workspace, Server]) -> None:
    here, server = ran
    asked = server.stats()
    said = stillhouse(here, "verify")
    verdicts = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines() if line and "  " in line}
    assert verdicts.pop("generate@served").startswith("recorded: taken from the cache: no endpoint is called")
    assert set(verdicts.values()) == {"identical"} and "generate@here" in verdicts and "score@format" in verdicts
    assert server.stats() == asked
    assert not (here.data / ".tmp" / "verify").exists()


@pytest.mark.e2e
@pytest.mark.long
def test_a_processor_that_rounds_otherwise_is_told_of(ran: tuple[Workspace, Server]) -> None:
    """Torch takes the kernels that it has for a processor without vector instructions: exact tables are the same."""
    here = replace(ran[0], env={**ran[0].env, "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"})
    said = stillhouse(here, "verify", "read@nll")
    verdicts = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines() if line and "  " in line}
    assert verdicts.pop("read@nll").startswith("equal within tolerance: numbers are up to ")
    assert verdicts.pop("generate@here").startswith(("identical", "equal within tolerance"))
    assert set(verdicts.values()) == {"identical"}


@pytest.mark.e2e
@pytest.mark.long
def test_a_table_that_the_code_does_not_make_is_different_and_why(
    ran: tuple[Workspace, Server], tmp_path: Path
) -> None:
    here = ran[0].copy(tmp_path / "repo")
    # Someone edited a table and let DVC keep it as if the stage had written it.
    part = here.data / "scores/responses/train/format/part-00000.parquet"
    rows = pq.ParquetFile(part).read().to_pylist()
    rows[1]["score"] = 0.125
    parquet.write_part(SCORES, part.parent, 0, [SCORES.rows(rows)])
    here.dvc("commit", "-f", "score@format")
    command = (str(BIN / "python"), "-m", "pipeline", "verify", "score@format")
    done = here.run(*command, check=False)
    assert done.returncode == 1 and "1 tables are not what dvc.lock says" in done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("score@format")]
    assert "different: part-00000.parquet: column score, 1 of " in line


def files(place: Path, **contents: bytes) -> Path:
    place.mkdir()
    for name, content in contents.items():
        (place / name.replace("_", ".")).write_bytes(content)
    return place


def judged(tmp_path: Path, before: Path, after: Path) -> tuple[str, str]:
    kept = {file.name: file for file in before.iterdir()}
    return verify.compared(after, stored.hash_of(before), kept)


@pytest.mark.parametrize(
    ("after", "verdict", "why"),
    [
        (1.0, "identical", ""),
        (1.0 + 1e-5, "equal within tolerance", "numbers are up to 1e-05 apart"),
        (1.1, "different", "model.safetensors: w: numbers are up to 0.1 apart"),
    ],
)
def test_weights_may_be_rounded_otherwise(tmp_path: Path, after: float, verdict: str, why: str) -> None:
    for name, value in (("before", 1.0), ("after", after)):
        (tmp_path / name).mkdir()
        save_file({"w": np.array([value, 2.0])}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "model.json").write_text(json.dumps({"model_id": str(value)}), "utf-8")
        assert load_file(tmp_path / name / "model.safetensors")["w"][1] == 2.0
    assert judged(tmp_path, tmp_path / "before", tmp_path / "after") == (verdict, why)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"a_txt": b"loss 1.5"}, {"a_txt": b"loss 1.50001"}, ""),
        ({"a_txt": b"loss 1.5"}, {"a_txt": b"loss 1.6"}, "a.txt: numbers are up to 0.1 apart"),
        ({"a_txt": b"loss 1.5"}, {"a_txt": b"cost 1.5"}, "a.txt: its words differ"),
        ({"a_txt": b""}, {"b_txt": b""}, "a.txt is in one of them alone"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, before: dict, after: dict, why: str) -> None:
    verdict = judged(tmp_path, files(tmp_path / "before", **before), files(tmp_path / "after", **after))
    assert verdict[0] == ("different" if why else "equal within tolerance")
    assert why in verdict[1]
