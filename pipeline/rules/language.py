"""Rules about the language that a text is written in."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.rule import Alone, Judged, Rule, rule


@rule(drops="language", sees="text")
def detected(
    *,
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en",),
    sure: Annotated[float, Field(ge=0, le=1)] = 0.5,
    letters: PositiveInt = 20,
) -> Rule:
    """Texts that are in another language than these, with the probability `sure`. Codes are of ISO 639: `en`, `de`.

    What says too little stays: a text of fewer than `letters` letters, and code, in which no language is probable. Near
    relations are told apart poorly: list both, such as `zh` and `wuu`.

    Paper: Lui and Baldwin 2012 (langid.py), by the package py3langid, which holds its model.
    Differs: nothing.
    """
    identifier = _identifier()
    if unknown := sorted(set(languages) - set(identifier.labels)):
        raise Refused(f"languages: {', '.join(unknown)} is none of: {', '.join(sorted(identifier.labels))}")

    def judge(text: str) -> Judged:
        ranked = identifier.rank(text)
        # Rounded, because the last bits of a product of matrices depend on the processor.
        value = round(sum(probability for language, probability in ranked if language in languages), 4)
        best, probability = ranked[0]
        other = best not in languages and round(probability, 4) >= sure and sum(map(str.isalpha, text)) >= letters
        return Judged(value, f"{best} ({probability:.2f})" if other else None)

    return Alone(judge)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
