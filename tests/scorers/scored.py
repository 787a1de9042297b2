"""A scorer called on a few rows."""

from __future__ import annotations

import pyarrow as pa

from pipeline.core.methods import find

Scored = tuple[list[float | None], list[dict[str, float]]]


def scored(name: str, rows: dict[str, list], **arguments: object) -> dict[str, pa.Array]:
    """All columns that it gives."""
    method = find("scorer", name)
    return method.factory(**method.arguments.model_validate(arguments).model_dump())(pa.table(rows))


def score(name: str, rows: dict[str, list], **arguments: object) -> Scored:
    """Its scores and quantities."""
    found = scored(name, rows, **arguments)
    return pa.array(found["score"]).to_pylist(), [dict(row) for row in found["quantities"].to_pylist()]


def votes(*answers: str | None, verifier: str | None = None) -> dict[str, list]:
    """Answers of one entry to one prompt."""
    n = len(answers)
    return {
        "response_id": pa.array([f"r{i}" for i in range(n)], pa.string()),
        "prompt_id": pa.array(["p"] * n, pa.string()),
        "entry": pa.array(["m"] * n, pa.string()),
        "answer": pa.array(answers, pa.string()),
        "verifier": pa.array([verifier] * n, pa.string()),
        "error": pa.nulls(n, pa.string()),
    }
