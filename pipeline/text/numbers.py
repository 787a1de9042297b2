r"""Written numbers: where one stands in a text, and its exact value.

One reader for all that reads numbers. It knows the forms in which people and models write them: `1,234.5`, `1.234,5`,
`1 234`, `12,34,567`, `9{,}500`, `1/2`, `\frac{1}{2}`, `3½`, `11 5/6`, `5 × 10^3`, `1e3`, `5 million`, `50%`, `$18`,
`12 m²`, and minus signs and digits of every script. What is not one number (a range, a time, a date, `2\sqrt{3}`, `3x`,
`x^2`) is found as a whole and has no value, so that half of it is never read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# What a sign between digits means where both are possible, as in `1,234` and `1.234`: `point` and `comma` name the
# decimal sign, `either` leaves such a number unread. Where the digits allow one reading only, that is taken: `3,5` is
# 3.5 and `1.234,5` is 1234.5. In mathematics (`list`) a comma is never the decimal sign: there `3,5` is two numbers.
Sign = Literal["point", "comma", "either"]
THIN = "\u2009"
MINUS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d\u2796"
GONE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
SCALES = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "lakh": 10**5, "crore": 10**7,
}  # fmt: skip
# More digits are noise; Python itself refuses to read a few thousand.
LONGEST = 1000
# Most answers end with their number.
TAIL = 96


@dataclass(frozen=True)
class Number:
    """An exact value; a percentage keeps that it is one, since `50%` may be meant as 0.5 and as 50."""

    value: Fraction
    percent: bool = False
    # Digits after a decimal sign as written: how exactly something that has no end was told.
    places: int = 0

    def __str__(self) -> str:
        """The plain form: `1234.5`, `1/3` where the decimals have no end, `50%`."""
        return plain_form(self.value * 100) + "%" if self.percent else plain_form(self.value)

    def same(self, other: Number) -> bool:
        """Whether both may be meant as one value. Two percentages, or none, are compared exactly."""
        if self.value == other.value:
            return True
        return self.percent != other.percent and self.value * (100 if self.percent else 1) == other.value * (
            100 if other.percent else 1
        )


def plain_form(value: Fraction) -> str:
    """Decimal digits, or a fraction where they have no end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > LONGEST:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    whole, part = (digits[:-places], digits[-places:]) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + ("." + part if part else "")


class _Signs(dict[int, "str | None"]):
    """A character -> the sign of ASCII that is meant by it where numbers are read."""

    def __missing__(self, code: int) -> str | None:
        self[code] = found = self._meant(chr(code))
        return found

    @staticmethod
    def _meant(sign: str) -> str | None:
        if sign.isascii():
            return sign
        if sign in MINUS:
            return "-"
        if sign in GONE:
            return None
        if sign in SUPERSCRIPTS:
            return "^" + SUPERSCRIPTS[sign]
        if sign.isspace():
            return THIN
        if "\uff01" <= sign <= "\uff5e":
            return chr(ord(sign) - 0xFEE0)
        if (digit := unicodedata.decimal(sign, None)) is not None:
            return str(digit)
        if "VULGAR FRACTION" in unicodedata.name(sign, "") and sign != "⅟":
            return THIN + unicodedata.normalize("NFKC", sign).replace("\u2044", "/")
        return {"\u2044": "/", "\u2215": "/", "\u066a": "%", "\u066b": ".", "\u066c": ",", "\u2019": "'", "\u02bc": "'",
                "·": "×", "⋅": "×", "∙": "×", "º": "°", "˚": "°", "…": "..."}.get(sign, sign)  # fmt: skip


SIGNS = _Signs()
LATEX = re.compile(
    r"(?P<gone>\\!|\\(?:left|right|displaystyle|limits|[bB]igg?[lr]?)(?![A-Za-z]))"
    r"|(?P<comma>\{\s*(?P<sign>[.,])\s*\})"
    r"|(?P<thin>\\[,;: ]|\\(?:thinspace|quad|qquad)(?![A-Za-z])|~)"
    r"|(?P<words>\\(?:text(?:rm|bf|it|normal|sf)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*\{(?P<said>[^{}]*)\})"
    r"|(?P<degree>\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))"
    r"|(?P<escaped>\\(?P<char>[%$#&_]))"
    r"|(?P<delimiter>\\[()\[\]])"
    r"|\\(?P<named>times|cdot|pm|mp|pi|infty|[dtc]frac)(?![A-Za-z])"
)
NAMED = {"times": "×", "cdot": "×", "pm": "±", "mp": "±", "pi": "π", "infty": "∞"}


def _latex(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if found["named"]:
        return NAMED.get(found["named"], r"\frac")
    if kind == "gone":
        return ""
    return found["sign"] or found["said"] or found["char"] or {"thin": THIN, "degree": "°"}.get(str(kind), " ")


def plain_signs(text: str) -> str:
    """A text with the signs of ASCII in numbers, and LaTeX's ways of writing them as plain ones."""
    if not text.isascii():
        text = text.translate(SIGNS)
    return LATEX.sub(_latex, text) if "\\" in text or "{" in text or "~" in text else text


DIGITS = r"(?:[1-9]\d{0,2}(?:[ \u2009]\d{3}(?!\d))+(?:[.,]\d+)?|\d+(?:[.,'_]\d+)*|(?<![.\d])\.\d+)"
GIVEN = r"[^{}]*(?:\{[^{}]*\}[^{}]*)*"
POWER = r"(?:\^\s*\{?\s*|\*\*\s*\(?|\^)(?P<power>[-+]?\d+(?:\^\d)*|[-+](?:\^\d)+)\s*[})]?"
MONEY = r"[$€£¥₹₩₽₺₫฿]"
# One alternative a form; the first that fits is the whole of what stands there.
WRITTEN = re.compile(
    rf"""
      (?P<inside>[_^]\s*(?:\{{{GIVEN}\}}|[-+]?\w+))        # belongs to a name or a term before it
    | (?P<term>
          \\(?:sqrt|d?binom|overline|bar|log|ln|exp|sin|cos|tan)\s*(?:\[[^\]]*\]|_\{{{GIVEN}\}}|_\w)?
              \s*(?:\{{{GIVEN}\}})?(?:\{{{GIVEN}\}})?\s*\d*
        | √\s*\(?\d[\d.]*
        | (?:\[|\\\{{|(?<![\w\\}}])\{{|\((?!\s*[-+]?\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?\s*\)))    # a list, not (1,200)
              \s*[-+]?[\d.]+(?:\s?[,;]\s?[-+]?[\d.]+)+\s*\\?[)\]}}]
      )
    | (?P<sign>(?<![\w)\]}}%.])[-+]\u2009?|±\s?)?(?:{MONEY}\s?(?P<inner>[-+](?=\d))?)?
      (?:
          (?P<whole>\d+)(?:[ \u2009])(?P<over>\d+)\s?/\s?(?P<under>\d+)(?![\d.,]*\d)
        | (?P<units>\d+)?\s?\\frac\s*(?:\{{(?P<top>{GIVEN})\}}|(?P<top1>\d))\s*(?:\{{(?P<low>{GIVEN})\}}|(?P<low1>\d))
        | (?P<first>{DIGITS})
          (?:
              \s?/\s?(?P<second>{DIGITS})
            | [eE](?P<e>[-+]?\d{{1,3}})(?![\d.])
            | \s?[×*x]\s?10\s?{POWER}
            | {POWER.replace("power", "raised")}
          )?
      )
      (?P<scale>\s(?:{"|".join(SCALES)})s?\b)?
      (?P<percent>\s?(?:%|per\ ?cent\b|Prozent\b|pct\b))?
    """,
    re.VERBOSE | re.ASCII,
)
# Where one of them may begin: what is tried at every character takes ten times as long.
SPOT = re.compile(r"[\d\\_^√±]|[-+.$€£¥₹₩₽₺₫฿](?=\s?[-+.$\d])|[-+](?=[€£¥₹₩₽₺₫฿\\])|[(\[{](?=\s*[-+]?[\d.])")
# What follows a number that is only the first part of something: a term, a time, a date, a version.
GOES_ON = re.compile(
    r"\s?(?:\^|\*\*[\\(a-z])|:\d|-\d+-\d|[√π∞(\\_]|\s?\\(?:sqrt|frac|alpha|beta|theta|sin|cos|tan|ln|log)|\s?π"
    r"|[a-zA-Z](?![A-Za-z])(?<![mgshLlCFNJWVAtdG])|/\s?(?:[(\\\dπ√]|[a-z](?![A-Za-z])(?<![smhgdl]))|\s?±"
    r"|\s+and\ a\ half"
    r"|!(?!\s*$|\s+[A-Z\"'(*]|\s*\n|[\"')*!.])|[.,'_]\d"
)
RANGE = re.compile(rf"\s?(?:-|\.\.+|~|to\b|bis\b|through\b|(?P<other>or\b))\s?{MONEY}?(?P<to>{DIGITS})")
# A number that a slash before it makes the lower part of a fraction, and not of one of numbers.
BELOW = re.compile(r"[\w)}\]!]\s?/\s?$")


@dataclass(frozen=True, slots=True)
class Written:
    """Where something that is written with digits stands in a text; `cut`: it is a part of something larger."""

    text: str
    start: int
    end: int
    found: re.Match[str]
    cut: bool

    def number(self, decimal: str) -> Number | None:
        """Its value; None if it is not one number."""
        return None if self.cut else _number(self.found, decimal)


def written(text: str, decimal: str = "point") -> Iterator[Written]:
    """All that is written with digits in a text of plain signs, from left to right."""
    at, goes_on = 0, -1
    while spot := SPOT.search(text, at):
        found = WRITTEN.match(text, spot.start())
        at = found.end() if found else spot.end()
        if found is None or found["inside"] is not None:
            continue
        start = found.start()
        joined = start <= goes_on
        cut = joined or found["term"] is not None or BELOW.search(text, max(0, start - 3), start) is not None
        # The digits of `0.333...` have no end.
        if (
            GOES_ON.match(text, at)
            or (text.startswith("...", at) and "." in found[0])
            or (joined and text[at : at + 1] in "-/:")
        ):
            # What comes next, past a sign, is of the same.
            cut, goes_on = True, at + 1
        elif (
            (upto := RANGE.match(text, at))
            and not cut
            and (upto["other"] or _ascends(_number(found, decimal), upto["to"], decimal))
        ):
            cut, at = True, upto.end()
        yield Written(text, start, at, found, cut)


def _ascends(low: Number | None, high: str, decimal: str) -> bool:
    """Whether `low - high` is a range and no subtraction."""
    upto = _digits(high, decimal)
    return low is not None and upto is not None and low.value < upto.value


def last_number(text: str, decimal: str = "point") -> Number | None:
    """The last number of a text; None if there is none, or if what stands last is not one number."""
    # From the end, in ever larger pieces: what begins well inside a piece was not cut by its beginning.
    for size in (TAIL, 8 * TAIL):
        if size >= len(text):
            break
        line, last = _last_line(plain_signs(text[-size:]), decimal, TAIL // 2)
        if last is not None and (last.start > TAIL // 4 or line):
            return _unless_torn(text, last, decimal)
    piece = plain_signs(text)
    while piece:
        line, last = _last_line(piece, decimal, len(piece))
        if last is not None:
            return _unless_torn(text, last, decimal)
        # The digits of this line, if any, belong to something else, such as `m^2`.
        piece = piece[: max(line - 1, 0)]
    return None


def _last_line(piece: str, decimal: str, most: int) -> tuple[int, Written | None]:
    """Where the line of a piece's last digit begins, and what is written last on it, in so many characters before."""
    end = 1 + max(map(piece.rfind, "0123456789"))
    line = piece.rfind("\n", 0, end) + 1
    begin, stop = max(line, end - most), piece.find("\n", end)
    *_, last = None, *written(piece[begin:] if stop < 0 else piece[begin:stop], decimal)
    return (line if begin == line else 0), last


def _unless_torn(text: str, last: Written, decimal: str) -> Number | None:
    return None if _torn(text, last.text[last.start : last.end], decimal) else last.number(decimal)


# A number as most are written, from the blank before it, with what may follow: nothing, or a word that is none of size.
LAST_DIGIT = re.compile(r".*\d", re.DOTALL | re.ASCII)
QUICK = re.compile(
    r"(?:\*\*|####|(?P<box>\\boxed\{)|=)?\$?(?P<sign>-?)\$?(?P<whole>[1-9]\d{0,2}(?:,\d{3})+|\d{1,18})"
    r"(?:\.(?P<part>\d{1,18}))?(?=(?(box)\}|)\.?\**\$?\.?\s*$|!\s*$"
    rf"|[.,;]?\s(?!(?:{'|'.join(SCALES)}|per\s?cent|pct|Prozent|and|to|or|bis|through))[A-Za-z]{{2}})",
    re.ASCII,
)
# Words between two numbers that make one thing of them.
JOINING = (" to", " or", " bis", " through")
# `2** 3` is a power, and `**Answer:** 3` is not.
RAISED = re.compile(r"[\w)}\]]\*\*$")


def last_plain(text: str, decimal: str = "point") -> str | None:
    """The plain form of the last number of a text, as of `last_number`."""
    quick = _at_once(text, decimal)
    if quick is not None:
        return quick
    number = last_number(text, decimal)
    return None if number is None else str(number)


def _at_once(text: str, decimal: str) -> str | None:
    """That form where it can be seen at once; None if it takes `last_number`."""
    if text.isdecimal() and text.isascii() and len(text) < LONGEST:
        return text.lstrip("0") or "0"
    last = LAST_DIGIT.match(text) if decimal == "point" else None
    if last is None:
        return None
    end = last.end()
    start = max(text.rfind(" ", 0, end), text.rfind("\n", 0, end)) + 1
    found = QUICK.match(text, start)
    if found is None or found.end() != end:
        return None
    before = text[max(0, start - 12) : start].rstrip()
    if before and (
        before.endswith(JOINING)
        or RAISED.search(before)
        or "\\" in before
        or not (before[-1] in "=:,!?*#" or before[-2:].strip(".").isalpha())
    ):
        return None
    whole, part = found["whole"], found["part"] or ""
    if ("," in whole or len(part) == 3) and _torn(text, text[start:end], decimal):
        return None
    whole, part = whole.replace(",", "").lstrip("0") or "0", part.rstrip("0")
    digits = f"{whole}.{part}" if part else whole
    return f"-{digits}" if found["sign"] and digits != "0" else digits


EITHER = re.compile(r"\D*[1-9]\d{0,2}([.,])\d{3}(?![.,]?\d)")
UNLIKE = {
    "point": re.compile(r"(?<![\d.,\[({])\d+,\d{1,2}(?![\d,\])}])"),
    "comma": re.compile(r"(?<![\d.,])\d+\.\d{1,2}(?![\d.])"),
}


def _torn(text: str, digits: str, decimal: str) -> bool:
    """Whether digits can be read in two ways, and the text writes others in the way that is not the chosen."""
    return decimal in UNLIKE and EITHER.match(digits) is not None and UNLIKE[decimal].search(text) is not None


# What may stand before and behind a number that is a whole text: `x =`, `USD`, and units. In mathematics letters are
# names, and only words are units.
LEAD = re.compile(r"[\s*$]*(?:[A-Za-z]\w{0,9}\s*=\s*|US|[A-Z]{3}\s?|Rs\.?\s?)?[\s*$]*")
NO_UNIT = r"(?!(?:or|and|to|with|because|plus|minus|times|over|more|less|mod|am|pm)\b)"
UNITS = re.compile(
    rf"(?:\s?°)?[\s*]*{MONEY}?\s?(?:{NO_UNIT}(?:[^\W\d_]{{2,}}+|[mgshlLtdCFKJWVANµ])(?:\^?[-\d]+)?[./·]?\s?){{0,4}}[\s*.$]*"
)
WORDS = re.compile(
    rf"(?:\s?°[CF]?)?\s?{MONEY}?(?:(?:[ckm]?m|[km]?g|m?l|lbs?|ft|mph|km/h)\b)?(?:\s{NO_UNIT}[^\W\d_]{{3,}}+[./]?){{0,4}}\s?"
)


def whole_number(text: str, decimal: str = "point") -> Number | None:
    """The number that a whole text is, with nothing beside it but a name (`x =`), signs of money, and units. With
    `list`, where letters are names, the units are words. None if it is not one number."""
    text = plain_signs(text).strip(" \t\r\n*$\u2009").rstrip(".") if not text.endswith("..") else ""
    found = next(written(text, decimal), None)
    if found is None:
        return None
    before, behind = text[: found.start], text[found.end :]
    if decimal == "list":
        fits = not before and WORDS.fullmatch(behind)
    else:
        fits = LEAD.fullmatch(before) and UNITS.fullmatch(behind)
    return found.number(decimal) if fits else None


def _number(found: re.Match[str], decimal: str) -> Number | None:
    """The value of a form that was found."""
    sign = -1 if "-" in (found["sign"] or "") + (found["inner"] or "") else 1
    if (found["sign"] or "").startswith("±"):
        return None
    places = 0
    if found["whole"]:
        value = _mixed(found["whole"], found["over"], found["under"])
    elif found["first"] is None:
        top, low = (
            _digits((found[name] or found[f"{name}1"] or "").strip().replace(" ", ""), decimal)
            for name in ("top", "low")
        )
        if top is None or low is None or low.value == 0 or (found["units"] and not 0 <= top.value < low.value):
            return None
        value = int(found["units"] or 0) + top.value / low.value
    else:
        first = _digits(found["first"], decimal)
        if first is None:
            return None
        value, places = first.value, first.places
        if found["second"]:
            second = _digits(found["second"], decimal)
            if second is None or second.value == 0:
                return None
            value, places = value / second.value, 0
        power = found["e"] or found["power"]
        if found["raised"]:
            # `10^5` is a number, and `2^5` a term.
            if value != 10:
                return None
            value, power = Fraction(1), found["raised"]
        if power:
            exponent = int(power.replace("^", ""))
            if abs(exponent) >= LONGEST:
                return None
            value, places = value * Fraction(10) ** exponent, max(0, places - exponent)
    if value is None:
        return None
    if found["scale"]:
        value, places = value * SCALES[found["scale"].strip().rstrip("s")], 0
    percent = found["percent"] is not None
    return Number(sign * value / (100 if percent else 1), percent, places + 2 * percent if places else 0)


def _mixed(whole: str, over: str, under: str) -> Fraction | None:
    if max(map(len, (whole, over, under))) > LONGEST or not 0 < int(over) < int(under):
        return None
    return int(whole) + Fraction(int(over), int(under))


def _digits(text: str, decimal: str) -> Number | None:
    """The value of digits with signs between them; None where they are no number, or two."""
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    if len(text) > LONGEST or not re.fullmatch(DIGITS, text):
        return None
    whole, point = _parted(text, decimal)
    if whole is None:
        return None
    groups = re.split(r"[^\d]", whole)
    if len(groups) > 1 and not _grouped(whole, groups):
        return None
    value = Fraction(int("".join(groups) + point or 0), 10 ** len(point))
    return Number(sign * value, places=len(point))


def _parted(text: str, decimal: str) -> tuple[str | None, str]:
    """The digits before the decimal sign, with what groups them, and those after it."""
    signs = re.findall(r"[^\d]", text)
    if not signs:
        return text, ""
    if len(set(signs)) == 1:
        if len(signs) > 1 or signs[0] not in ".,":
            return text, ""
        whole, _, part = text.partition(signs[0])
        may_group = re.fullmatch(r"[1-9]\d{0,2}", whole) is not None and len(part) == 3
        is_decimal = signs[0] == {"comma": ","}.get(decimal, ".")
        if decimal == "either" and may_group:
            return None, ""
        if may_group and not is_decimal:
            return text, ""
        return (None, "") if decimal == "list" and signs[0] == "," else (whole or "0", part)
    whole, _, part = text.rpartition(signs[-1])
    if signs[-1] not in ".," or signs.count(signs[-1]) > 1 or (decimal == "list" and signs[-1] == ","):
        return None, ""
    return whole, part


def _grouped(whole: str, groups: list[str]) -> bool:
    """Whether one sign parts the digits by threes, or, as in India, by twos and a last three."""
    if len(set(re.findall(r"[^\d]", whole))) > 1 or groups[0].startswith("0"):
        return False
    first, *between, last = groups
    threes = 1 <= len(first) <= 3 and all(len(group) == 3 for group in (*between, last))
    indian = "," in whole and 1 <= len(first) <= 2 and len(last) == 3 and all(len(group) == 2 for group in between)
    return threes or indian
