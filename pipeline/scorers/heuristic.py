"""Scorers that look at the form of an answer alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveInt

from pipeline.kinds.scorer import Scorer, quantities_of, scorer


@scorer(reads=("content", "answer", "finish_reason", "error"), score="has_answer * stopped")
def format(*, repeated_words: PositiveInt = 3) -> Scorer:
    """1 if a short answer could be read and the model ended by itself, 0 if not; null if the request failed.

    Quantities: characters, has_answer, stopped, truncated, and repeated: the share of runs of `repeated_words` words
    that occurred before in the same answer.

    Paper: the repetition share is Rae et al. 2021 (Gopher), table A1.
    Differs: it counts runs of words, not their characters; it is a quantity for rules to use, and not in the score.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        contents = [text or "" for text in rows["content"].to_pylist()]
        answered = rows["answer"].is_valid().to_numpy()
        failed = rows["error"].is_valid().to_numpy()
        stopped = pc.equal(rows["finish_reason"], "stop").to_numpy()
        return {
            "score": pa.array((answered & stopped).astype(np.float64), mask=failed),
            "quantities": quantities_of(
                characters=np.array([len(text) for text in contents], np.float64),
                has_answer=answered,
                stopped=stopped,
                truncated=pc.equal(rows["finish_reason"], "length").to_numpy(),
                repeated=np.array([repeated_share(text, repeated_words) for text in contents], np.float64),
            ),
        }

    return score


@scorer(reads=("content", "reasoning", "error"), score="words")
def length(*, of: Literal["answer", "reasoning", "both"] = "reasoning") -> Scorer:
    """The words of an answer's thought, of the answer itself, or of both; null if the request failed, or if the model
    gave no thought and only that is asked for.

    Quantities: words, of what is asked for; reasoning_words, answer_words.

    Paper: Muennighoff et al. 2025 (s1, arXiv 2501.19393), which prefers longer thoughts; the length of a thought.
    Differs: words in place of tokens, so that no tokenizer decides; a reader `form.tokens` counts those of a student.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        thought, answer = (
            np.array([len((text or "").split()) for text in rows[name].to_pylist()], np.float64)
            for name in ("reasoning", "content")
        )
        words = {"answer": answer, "reasoning": thought, "both": thought + answer}[of]
        missing = rows["error"].is_valid().to_numpy()
        if of == "reasoning":
            missing = missing | rows["reasoning"].is_null().to_numpy()
        return {
            "score": pa.array(words, mask=missing),
            "quantities": quantities_of(words=words, reasoning_words=thought, answer_words=answer),
        }

    return score


def repeated_share(text: str, n: int) -> float:
    """The share of runs of n words that occurred before in the text; 0 for a text of fewer words."""
    words = text.split()
    runs = len(words) - n + 1
    return 1 - len({tuple(words[i : i + n]) for i in range(runs)}) / runs if runs > 0 else 0.0
