"""Verifiers that compare mathematical expressions."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.core.methods import lazy
from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text.answers import plain_text, plain_words
from pipeline.text.marks import ANNOUNCED, given_answer, last_box
from pipeline.text.numbers import Number, last_number, whole_number

if TYPE_CHECKING:
    import latex2sympy2_extended as latex
    import math_verify
    import sympy
    from math_verify import errors, grader, utils
else:
    # They load sympy, two seconds: only where an expression is compared.
    latex, math_verify, sympy = lazy("latex2sympy2_extended"), lazy("math_verify"), lazy("sympy")
    errors, grader, utils = (lazy(f"math_verify.{name}") for name in ("errors", "grader", "utils"))

T = TypeVar("T")
SECONDS = 5
# Digits in which numbers are compared that are no fractions, and that must agree.
DIGITS, AGREE = 60, 45
# A decimal of so many digits stands for a number whose decimals have no end.
ROUNDED = 6


@verifier()
def math() -> Verifier:
    r"""The final expression of a text, compared as mathematics: `\frac{1}{2}` is `0.5`, `x+1` is `1+x`.

    It is in the last `\boxed{}`; without one it is what an announcement is followed by (`the answer is`), else the last
    expression in dollar signs or the last number. An expression that cannot be read whole, or not within five seconds,
    is unread. Plain numbers are compared by value, words in `\text{}` as words, a time (`8:30`) as written. A reference
    is the whole expression.

    Paper: none; Hugging Face's math-verify, as in open-r1.
    Differs: where math-verify 0.9.0 is wrong, which takes 0.1 for 0.10000001, 10^{-20} for 10^{-21}, 12_8 for 12_9 and
    11 5/6 for 8/3, reads boxes that stand close together as one, reads a part of what it cannot read, and with antlr
    4.9.3 loses `\%`. Numbers are compared exactly first; a decimal of six digits stands for what it is a rounding of.
    """
    return _Expression()


@dataclass(frozen=True)
class Based:
    """A number in a base, `12_8`."""

    digits: str
    base: str


class _Expression:
    def parse(self, text: str) -> str | None:
        found = _final(text)
        return None if found is None or _value(found) is None else _short(found)

    def read(self, text: str) -> str | None:
        whole = _inner(given_answer(text))
        return None if _value(whole) is None else _short(whole)

    def equal(self, answer: str, reference: str) -> bool:
        given, right = _value(_inner(answer)), _value(_inner(reference))
        if given is None or right is None:
            return False
        return _same(given, right)


def _short(expression: str) -> str:
    """An expression as a short answer; a number that is written without LaTeX in plain form."""
    value = _value(expression)
    return str(value) if isinstance(value, Number) and "\\" not in expression else expression


# Where an expression stands ------------------------------------------------------------------------------------------

MATH = re.compile(
    r"(?<!\\)\$\$.+?(?<!\\)\$\$|(?<!\\)\$(?:\\.|[^$\n\\])+?\$(?!\d)|\\\(.+?\\\)|\\\[.+?\\\]",
    re.DOTALL,
)
# A text of so many characters on one line may be an expression and no more.
SHORT = 200


def _final(text: str) -> str | None:
    """The final expression of a text, as written."""
    box = last_box(text)
    if box is not None:
        return _inner(box)
    line = text.strip()
    if len(line) <= SHORT and "\n" not in line and not _is_prose(_inner(line)):
        return _inner(line)
    every = list(MATH.finditer(text)) if "$" in text or "\\" in text else []
    *_, said = None, *ANNOUNCED.finditer(text)
    if said is not None:
        after = next((found for found in every if 0 <= found.start() - said.end() <= 3), None)
        rest = re.split(r"\n|[.;,!]?(?:\s+[A-Z(]|\s*$)", text[said.end() :], maxsplit=1)[0]
        for found in (after[0] if after else "", rest):
            if found and not _is_prose(_inner(found)):
                return _inner(found)
    last = next((found for found in reversed(every) if not _is_prose(_inner(found[0]))), None)
    if last is not None and last.end() > max(map(text.rfind, "0123456789")):
        return _inner(last[0])
    number = last_number(text, "list")
    return str(number) if number else _inner(last[0]) if last else None


def _inner(text: str) -> str:
    """An expression without the signs around it that say it is one."""
    text = text.strip().strip("*").strip()
    box = last_box(text) if text.startswith(("\\boxed", "\\fbox", "$\\boxed")) else None
    text = text if box is None else box
    for start, end in (("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(start) and text.endswith(end):
            text = text[len(start) : -len(end)]
    text = re.sub(r"(?<!\\)\$", "", text).strip()
    return re.sub(r"(?<!\.)[.;,]$", "", text).strip()


# What it says --------------------------------------------------------------------------------------------------------

# Names that are mathematics although they are several letters.
NAMES = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt pi theta alpha beta gamma lambda"
    " max min gcd lcm mod det or and inf infty infinity percent dx dy dz dt xy yz xz ab bc ac cd abc xyz".split()
)
COMMAND = re.compile(r"\\(?:begin|end)\s*\{\w+\*?\}|\\[A-Za-z]+")
SAID = re.compile(r"\\(?:text(?:rm|bf|it|normal)?|mathrm|mathbf|mbox|operatorname\*?)\s*\{([^{}]*)\}")
# `\text{ cm}^2` behind an expression, and `cm` behind a number or a bracket; not what says more than a unit.
SAYS = r"or|and|to|than|more|less|if|when|where|is|are|not|for|with|mod|am|pm"
SIZES = r"per\s?cent|pct|dozen|hundred|thousand|[mbtr]+illion"
UNIT = re.compile(
    rf"(?<=\S)\s*(?:\\[,;: ]|~)*\\(?:text(?:rm|bf|it)?|mathrm|mbox)\s*\{{(?![^{{}}]*\b(?:{SAYS}|{SIZES})\b)[^{{}}]*\}}"
    r"(?:\^\{?-?\d\}?)?\s*$"
    rf"|(?<=[\d}})])\s+(?!(?:{SAYS}|{SIZES})\b)[a-zA-Z]{{2,}}(?:[ /](?!(?:{SAYS})\b)[a-zA-Z]{{2,}}){{0,3}}"
    r"(?:\^\{?-?\d\}?|[²³])?\s*$"
)
WORDS = re.compile(r"[^\W\d_][^\W\d_ .'-]*(?:[ .'-]+[^\W\d_]+){0,4}")
BASED = re.compile(r"([\dA-Fa-f]*\d[\dA-Fa-f]*)_\s*\{?\s*(?:\\text\{)?\s*(\d+|\w+)\s*\}{0,2}")
# Digits side by side are no product, dates and versions no differences and quotients.
APART = re.compile(
    r"(?<=\d)(?<![_^]\d)(?<!frac\d)(?<!frac \d)\s+\d|\d\.\d+\.\d|^\d+(?:-\d+-|/\d+/)\d+$|:\d\d?\s*[ap]m\b"
)
SIGNS = str.maketrans(
    dict(zip("−–√π×·÷≤≥≠∞±∪∈²³°θ", (
        "-", "-", r"\sqrt ", r"\pi ", r"\times ", r"\cdot ", r"\div ", r"\le ", r"\ge ", r"\ne ", r"\infty ", r"\pm ",
        r"\cup ", r"\in ", "^2", "^3", r"^\circ ", r"\theta ",
    ), strict=True))
)  # fmt: skip
# As a ratio it would be that of 4:15 too; other ratios are quotients.
CLOCK = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?")
LABEL = re.compile(r"^\s*\\text\{[^{}]*\}\s*(?:=|:)\s*")


def _is_prose(text: str) -> bool:
    """Whether there are words in it that are not mathematics."""
    bare = COMMAND.sub(" ", SAID.sub(" ", UNIT.sub("", text)))
    return any(word.lower() not in NAMES for word in re.findall(r"[^\W\d_]{2,}", bare)) or "?" in bare


@lru_cache(100_000)
def _value(expression: str) -> Any:
    """What an expression says: a `Number`, a `Based`, words, or an object of sympy; None if it cannot be read whole."""
    if not expression or len(expression) > 10 * SHORT:
        return None
    bare = UNIT.sub("", LABEL.sub("", expression)).strip()
    # What is plainly a number never reaches sympy, nor what cannot be one expression.
    number = whole_number(expression, "list") or whole_number(bare, "list")
    if number is not None:
        return number
    if based := BASED.fullmatch(bare):
        return Based(based[1].upper(), based[2])
    if CLOCK.fullmatch(bare):
        return bare
    words = plain_text(SAID.sub(r"\1", expression))
    if WORDS.fullmatch(words) and len(re.sub(r"[^\w]", "", words)) > 1 and _is_prose(words):
        return plain_words(words)
    if not bare or _is_prose(bare) or APART.search(bare) or bare.endswith("..."):
        return None
    return _timed(lambda: _sympy(bare), None)


def _sympy(bare: str) -> Any:
    """An expression as sympy has it; the whole of it, or an exception."""
    plain = re.sub(r"√\s*(\d+|\([^()]*\))", r"\\sqrt{\1}", bare).translate(SIGNS)
    plain = re.sub(r"(?<=\d)(?:\{,\}|,\\!|\\,|\\!)(?=\d{3}(?!\d))", "", plain)
    # antlr's grammar of 4.9.3 knows neither `\%` nor `1e-7`.
    plain = re.sub(r"\s*(?:\\?%|\bpercent\b)", r"\\cdot\\frac{1}{100}", plain)
    plain = re.sub(r"(?<![A-Za-z\\\d.])(\d+(?:\.\d+)?)[eE](-?\d+)", r"\1\\cdot10^{\2}", plain)
    config = latex.NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    normal = latex.normalize_latex(plain, config)
    real = not grader.should_treat_as_complex(normal)
    found = latex.latex2sympy(normal, is_real=real, convert_degrees=False, normalization_config=None)
    return None if found.has(sympy.nan, sympy.zoo) else found


def _timed(work: Callable[[], T], otherwise: T) -> T:
    """The result of work with sympy; something else if it fails or takes long."""
    try:
        return utils.timeout(_seconds())(work)()
    # Whatever sympy and the grammar raise, and math-verify's own, which is no Exception.
    except (Exception, errors.TimeoutException):
        return otherwise


def _seconds() -> int | None:
    """The limit is kept by a signal, which only the main thread gets; elsewhere there is none."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None


# Whether two are one -------------------------------------------------------------------------------------------------


def _same(given: Any, right: Any) -> bool:
    if isinstance(given, Number) and isinstance(right, Number):
        return given.same(right) or _rounds(given, right) or _rounds(right, given)
    if isinstance(given, str) or isinstance(right, str):
        return bool(given == right)
    if isinstance(given, Based) or isinstance(right, Based):
        return _same_based(given, right)
    if given == right:
        return True
    one, other = _exact(given), _exact(right)
    if _timed(lambda: _is_rounding(given, other) or _is_rounding(right, one), False):
        return True
    decided = _timed(lambda: _decided(one, other), None)
    if decided is not None:
        return decided
    # Its own order matters to it: a set for a relation is right, and a relation for a set is not.
    said = math_verify.verify([one], [other], allow_set_relation_comp=True, timeout_seconds=_seconds())
    return bool(said) and _timed(lambda: _agree(one, other), False)


def _rounds(decimal: Number, other: Number) -> bool:
    """Whether a decimal of several digits is the rounding of a fraction whose decimals have no end."""
    if decimal.places < ROUNDED or abs(decimal.value.numerator) < 10 ** (ROUNDED - 1) or "/" not in str(other):
        return False
    return round(other.value * 10**decimal.places) == decimal.value * 10**decimal.places


def _same_based(given: Any, right: Any) -> bool:
    """A number whose base is not said is in the base that is."""
    one, other = (Based(str(value), "") if isinstance(value, Number) else value for value in (given, right))
    if not isinstance(one, Based) or not isinstance(other, Based):
        return False
    return one.digits == other.digits and (one.base == other.base or "" in (one.base, other.base))


def _exact(value: Any) -> Any:
    """A value as an object of sympy in which decimals are fractions."""
    if isinstance(value, Number):
        return sympy.Rational(value.value.numerator, value.value.denominator)
    # Sympy's decimals are binary and remember how many digits were written.
    floats = value.atoms(sympy.Float) if hasattr(value, "atoms") else ()
    return value.xreplace({real: sympy.Rational(str(real)) for real in floats}) if floats else value


def _decided(one: Any, other: Any) -> bool | None:
    """Whether two numbers, or two sequences or sets of numbers, are the same; None for all else."""
    if _is_number(one) and _is_number(other):
        return _same_number(one, other)
    if type(one) is not type(other):
        return None
    if isinstance(one, sympy.Eq) and one.lhs == other.lhs and one.lhs.is_Symbol:
        return _decided(one.rhs, other.rhs)
    if isinstance(one, sympy.Interval) and (one.left_open, one.right_open) != (other.left_open, other.right_open):
        return False
    if not isinstance(one, sympy.Tuple | sympy.FiniteSet | sympy.Interval | sympy.MatrixBase):
        return None
    these, those = _members(one), _members(other)
    if not all(map(_is_number, (*these, *those))):
        return None
    if len(these) != len(those) or getattr(one, "shape", None) != getattr(other, "shape", None):
        return False
    if isinstance(one, sympy.FiniteSet):
        return all(any(_same_number(a, b) for b in those) for a in these)
    return all(map(_same_number, these, those))


def _members(of: Any) -> list[Any]:
    """The elements of a sequence, a set or a matrix, or the ends of an interval."""
    if isinstance(of, sympy.Interval):
        return [of.start, of.end]
    return list(of if isinstance(of, sympy.MatrixBase) else of.args)


def _is_number(value: Any) -> bool:
    return isinstance(value, sympy.Expr) and bool(value.is_number)


def _same_number(one: Any, other: Any) -> bool:
    """By exact value where both are fractions, else by their first digits, however small both are."""
    if one.is_Rational and other.is_Rational:
        return bool(one == other)
    if one.is_infinite or other.is_infinite:
        return bool(one == other)
    rest = one - other
    if rest.is_Rational:
        return bool(rest == 0)
    return _is_nothing(sympy.N(rest, DIGITS), sympy.N(one, DIGITS), sympy.N(other, DIGITS))


def _is_nothing(rest: Any, *beside: Any) -> bool:
    """Whether a difference has no size beside what it is the difference of."""
    return bool(abs(rest) <= max(abs(number) for number in beside) * sympy.Float(10, DIGITS) ** -AGREE)


def _is_rounding(decimal: Any, exact: Any) -> bool:
    """Whether a decimal of several digits is the rounding of a number that is no fraction."""
    if not isinstance(decimal, Number) or decimal.places < ROUNDED or not _is_number(exact):
        return False
    digits, scaled = decimal.value * 10**decimal.places, sympy.N(exact, DIGITS) * 10**decimal.places
    return bool(scaled.is_real) and abs(digits) >= 10 ** (ROUNDED - 1) and round(scaled) == digits


def _agree(one: Any, other: Any) -> bool:
    """Whether two terms that are said to be the same have one value wherever it is looked at."""
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return True
    names = sorted(one.free_symbols | other.free_symbols, key=str)
    for start in (3, 17):
        at = {name: sympy.Rational(start + 2 * i, 7 + i) for i, name in enumerate(names)}
        values = [sympy.N(term.subs(at), DIGITS) for term in (one - other, one, other)]
        if all(value.is_number and value.is_finite for value in values) and not _is_nothing(*values):
            return False
    return True
