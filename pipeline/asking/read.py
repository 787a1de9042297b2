"""Read texts with a model, never twice: readings through the memo."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.core.run import How
from pipeline.kinds.backend import (
    PLAIN,
    Reading,
    Tokens,
    Want,
    card_of,
    computed_here,
    engine_of,
    open_model,
)
from pipeline.memo.memo import Memo, reading_key
from pipeline.tables.parquet import batched

KEEP_READINGS_S = 1.0


def read_all(model: Path, sequences: Sequence[Tokens], how: How, want: Want = PLAIN) -> Iterator[Reading]:
    """The reading of every sequence, in any order, from the memo where it is there."""
    memo, card = Memo(how.memo), card_of(model)
    engine = engine_of(card)
    by_key: dict[str, list[Tokens]] = {}
    for tokens in sequences:
        by_key.setdefault(reading_key(tokens, card["model_id"], engine, want), []).append(tokens)
    memo.note((key, t.prompt_id) for key, some in by_key.items() for t in some if t.prompt_id is not None)
    missing: dict[str, Tokens] = {}
    for keys in batched(by_key):
        found = memo.readings(keys)
        for key in keys:
            if key in found:
                yield from (replace(found[key], id=tokens.id) for tokens in by_key[key])
            else:
                missing[key] = replace(by_key[key][0], id=key)
    how.say(f"{len(by_key) - len(missing)} of {len(by_key)} from memo")
    if not missing:
        return
    fresh: dict[str, Reading] = {}
    kept_at = time.monotonic()
    with how.once(model, functools.partial(open_model, model, how)) as backend:
        for number, reading in enumerate(backend.read(list(missing.values()), want), 1):
            fresh[reading.id] = reading
            if number == len(missing) or time.monotonic() - kept_at > KEEP_READINGS_S:
                memo.put_readings(fresh, paid=not computed_here(card))
                fresh, kept_at = {}, time.monotonic()
            yield from (replace(reading, id=tokens.id) for tokens in by_key[reading.id])
            how.progress(number, len(missing), "texts")
