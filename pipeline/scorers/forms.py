"""Scorers that hold an answer to a form, as the key `structured` of `generate` does."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator

from pipeline.kinds.backend import Structured
from pipeline.kinds.scorer import Scorer, quantities_of, scorer

Schema = Annotated[dict[str, Any], AfterValidator(lambda schema: Structured(json_schema=schema).json_schema)]
Pattern = Annotated[str, AfterValidator(lambda pattern: Structured(regex=pattern).regex)]


@scorer(reads=("content", "error"), score="kept")
def json(*, json_schema: Schema = {}) -> Scorer:  # noqa: B006
    """1 if an answer is JSON that keeps to a schema, 0 if not, with the fault as `detail`; null if the request failed.

    Without a schema any JSON will do. Quantities: kept.

    Paper: none; JSON Schema, checked by the library jsonschema.
    Differs: nothing.
    """
    return _held(Structured(json_schema=json_schema))


@scorer(reads=("content", "error"), score="kept")
def regex(*, regex: Pattern) -> Scorer:
    """1 if a regular expression matches the whole answer, 0 if not; null if the request failed. Quantities: kept.

    Paper: none; Python's `re.fullmatch`.
    Differs: nothing.
    """
    return _held(Structured(regex=regex))


def _held(form: Structured) -> Scorer:
    def score(rows: pa.Table) -> dict[str, pa.Array]:
        texts = rows["content"].to_pylist()
        known = {text: fault(form, text or "") for text in set(texts)}
        failed = rows["error"].is_valid().to_numpy()
        kept = np.array([known[text] is None for text in texts], np.float64)
        return {
            "score": pa.array(kept, mask=failed),
            "quantities": quantities_of(kept=kept),
            "detail": pa.array([known[text] for text in texts], pa.string(), mask=failed),
        }

    return score


def fault(form: Structured, text: str) -> str | None:
    """Why a text has not the form, in one line; None if it has it."""
    try:
        return form.fault(text)
    except (RecursionError, ValueError) as error:
        # Brackets a thousand deep, and numbers of five thousand digits.
        return f"it is JSON that cannot be read: {error}"
