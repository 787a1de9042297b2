"""The language of a text, and what says too little to tell."""

import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from tests.rules.said import found, texts

SAID = {
    "en": "On a quiet evening the old miller counted every sack of grain that stood beside the door.",
    "de": "An einem ruhigen Abend zählte der alte Müller jeden Sack Getreide, der neben der Tür stand.",
    "fr": "Par une soirée tranquille, le vieux meunier comptait chaque sac de grain posé près de la porte.",
    "ru": "Тихим вечером старый мельник пересчитал все мешки с зерном, стоявшие у двери.",
    "ja": "静かな夜、年老いた粉屋は戸口に置かれた穀物の袋をひとつ残らず数えました。",
}


@pytest.mark.parametrize("language", SAID)
def test_only_the_languages_that_are_listed_stay(language: str) -> None:
    dropped = found("language.detected", texts(*SAID.values()), languages=[language])
    assert {*range(len(SAID))} - {*dropped} == {list(SAID).index(language)}
    assert all(evidence[:2] in SAID for evidence in dropped.values())


def test_several_languages_count_together() -> None:
    assert [*found("language.detected", texts(*SAID.values()), languages=["en", "fr", "ja"])] == [1, 3]


def test_what_says_too_little_stays() -> None:
    assert found("language.detected", texts("", "12 + 30", "Guten Tag", "add 003 001")) == {}
    assert found("language.detected", texts("Guten Morgen, Welt"), letters=5) != {}


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused, match=r"languages: english is none of: .*en, "):
        find("rule", "language.detected").factory(languages=("english",))
