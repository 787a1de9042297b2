"""What tells who a person is: found where it is valid, and not where it only looks so."""

import pytest

from pipeline.core.methods import find
from pipeline.kinds.rule import Judged

FOUND = {
    "Write to ann.o'neil@example.org.": "1 email",
    "ann+b@mail.example.co.uk, bob@example.de": "2 email",
    "Call +44 20 7946 0958 or +49 30 901820.": "2 phone",
    "Pay with 4111 1111 1111 1111 today": "1 card",
    "card 378282246310005": "1 card",
    "to DE89 3704 0044 0532 0130 00": "1 iban",
    "GB82WEST12345698765432": "1 iban",
    "from 8.8.8.8, or 2001:4860:4860::8888": "2 address",
    "ann@example.org at 8.8.8.8": "1 email, 1 address",
}
NOTHING = [
    "",
    "add 12345678901234 and 3.14159265358979",
    "4111 1111 1111 1112",
    "0000 0000 0000 0000 and 41111111111111111111",
    "DE89 3704 0044 0532 0130 01",
    "version 1.2.3.4.5, 127.0.0.1, 192.168.0.1, 999.8.8.8, 12:30:45",
    "@ann, a@b, f(x) @ g(x)",
    "(650) 253-0000 is a number of some country",
]


@pytest.mark.parametrize("text", FOUND)
def test_what_is_valid_is_found(text: str) -> None:
    judged = find("rule", "personal.data").factory().judge(text)
    assert judged.evidence == FOUND[text]
    assert judged.value == sum(int(told.split()[0]) for told in FOUND[text].split(", "))


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_so_is_not(text: str) -> None:
    assert find("rule", "personal.data").factory().judge(text) == Judged(0.0)


def test_a_region_and_the_kinds_can_be_chosen() -> None:
    text = "(650) 253-0000, ann@example.org"
    assert find("rule", "personal.data").factory(region="US").judge(text).evidence == "1 email, 1 phone"
    assert find("rule", "personal.data").factory(kinds=("phone",)).judge(text).evidence is None
