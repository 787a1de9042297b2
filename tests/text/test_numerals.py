"""Numbers in one notation: what is one number in words, and what stays as it is."""

import pyarrow as pa
import pytest

from pipeline.text.numerals import in_words, with_digits


def digits(text: str) -> str:
    return with_digits(pa.array([text]))[0].as_py()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add three four", "add 3 4"),
        ("twenty-one and four", "21 and 4"),
        ("two hundred and five apples", "205 apples"),
        ("one thousand two hundred and six", "1206"),
        ("hundred thousand", "100000"),
        ("3 million and 2 hundred", "3000000 and 200"),
        ("10 twelve", "10 12"),
        ("1,200 and 12,345,678", "1200 and 12345678"),
        ("3,4 and 1,2345", "3,4 and 1,2345"),
        ("3.5 million", "3.5 1000000"),
        ("someone often attended", "someone often attended"),
        ("\u0967\u0968 \u0663\u0664 \u4e94", "12 34 \u4e94"),
        ("", ""),
    ],
)
def test_numbers_become_digits(text: str, expected: str) -> None:
    assert digits(text) == expected


def test_words_lead_back_to_the_number() -> None:
    for number in [*range(1200), *range(1200, 10**6, 7919), 999_999]:
        assert digits(in_words(number)) == str(number)
