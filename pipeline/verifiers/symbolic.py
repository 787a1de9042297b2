"""Verifiers that compare mathematical expressions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.core.methods import lazy
from pipeline.kinds.verifier import Verifier, verifier

if TYPE_CHECKING:
    import math_verify
    from sympy import Basic
    from sympy.matrices import MatrixBase
else:
    # It loads sympy, two seconds: only where an expression is compared.
    math_verify = lazy("math_verify")


@verifier()
def math() -> Verifier:
    r"""The final expression of a text (`\boxed{}`, LaTeX or plain), compared as mathematics: `\frac{1}{2}` is `0.5`.

    Paper: none; Hugging Face's math-verify, as in open-r1.
    Differs: nothing; an expression that takes longer than five seconds counts as unreadable.
    """
    return _Expression()


class _Expression:
    def parse(self, text: str) -> str | None:
        return next((found for found in reversed(_expressions(text)) if isinstance(found, str) and found), None)

    def equal(self, answer: str, reference: str) -> bool:
        right = _read_short(reference)
        return bool(right) and math_verify.verify(list(right), list(_read_short(answer)))


@lru_cache(100_000)
def _expressions(text: str) -> tuple[Basic | MatrixBase | str, ...]:
    """math-verify's reading: candidates as expressions, then as text."""
    return tuple(math_verify.parse(text))


def _read_short(text: str) -> tuple[Basic | MatrixBase | str, ...]:
    """The reading of a short answer, which has lost its dollar signs."""
    return _expressions(text) if "$" in text or "\\boxed" in text else _expressions(f"${text}$")
