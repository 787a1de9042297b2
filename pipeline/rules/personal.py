"""Rules about what tells who a person is, or how to reach one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Annotated, Literal, get_args

from pydantic import Field

from pipeline.kinds.rule import Alone, Judged, Rule, rule

Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]
Kind = Literal["email", "phone", "card", "iban", "address"]
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[a-zA-Z]{2,24}(?![\w-])")
CARD = re.compile(r"(?<![\d.,-])(?:[2456]\d{3}(?:[ -]?\d{4}){3}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![\d-]|[.,]\d)")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{1,4})(?![\w.:]\w|:)")


@rule(drops="personal", sees="text")
def data(*, kinds: tuple[Kind, ...] = get_args(Kind), region: Region | None = None) -> Rule:
    """Texts with an e-mail address, a telephone number, a payment card, a bank account (IBAN) or a public IP address.

    What has a check is checked: the digits of cards and accounts, and telephone numbers by the plans of all countries
    (the package phonenumberslite). Numbers without a country's code are those of `region`, such as `US`, or none. The
    evidence says how many of each there are, and not which.

    Paper: none.
    Differs: names and postal addresses are not found; that takes a model that reads, such as Presidio's, which a rule
    of your own may ask.
    """

    def phones(text: str) -> Iterator[str]:
        from phonenumbers import PhoneNumberMatcher

        return (match.raw_string for match in PhoneNumberMatcher(text, region))

    ways: dict[Kind, Callable[[str], Iterator[str]]] = {
        "email": lambda text: (match[0] for match in EMAIL.finditer(text)),
        "phone": phones,
        "card": lambda text: (match[0] for match in CARD.finditer(text) if _is_card(match[0])),
        "iban": lambda text: (match[0] for match in IBAN.finditer(text) if _is_account(match[0])),
        "address": lambda text: (match[0] for match in ADDRESS.finditer(text) if _is_public(match[0])),
    }

    def judge(text: str) -> Judged:
        counts = {kind: len(list(ways[kind](text))) for kind in kinds}
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return Judged(sum(counts.values()), told or None)

    return Alone(judge)


def _is_card(text: str) -> bool:
    """Whether the digits have Luhn's check."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    doubled = [digit if i % 2 == 0 else sum(divmod(2 * digit, 10)) for i, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_account(text: str) -> bool:
    """Whether the letters and digits have the check of ISO 13616."""
    signs = text.replace(" ", "")
    return 15 <= len(signs) <= 34 and int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1


def _is_public(text: str) -> bool:
    try:
        return ip_address(text).is_global
    except ValueError:
        return False
