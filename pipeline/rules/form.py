"""Rules that look at the form of one text: how long it is, how often it says the same, whether it declines."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.kinds.rule import Alone, Judged, Rule, rule
from pipeline.text.answers import plain_text
from pipeline.text.ngrams import split

# A text declines where it begins, or not at all.
BEGINNING = 160
REFUSALS = re.compile(
    r"\b(?:i[' ]?a?m (?:very |so |really )?sorry,? but|i apologi[sz]e,? but|sorry,? (?:but )?i (?:can|am|will|won)"
    r"|i (?:can(?:no|'|)t|can not|am unable to|am not able to|will not be able to|won't be able to|must decline)"
    r"|i'm (?:unable|not able) to|as an? (?:ai|(?:large )?language model)\b|i do not feel comfortable"
    r"|es tut mir leid|ich kann (?:dir |ihnen |das |dabei |diese[rn]? \w+ )*(?:leider )?nicht|als (?:ki|sprachmodell)\b"
    r"|je suis désolée?|désolée?, (?:mais )?je|je ne (?:peux|suis) pas|en tant qu[e']\s?(?:ia|modèle)"
    r"|lo siento,? (?:pero)?|no puedo (?:ayudar|proporcionar|responder)|como (?:una? )?(?:ia|modelo de lenguaje)"
    r"|(?:sinto muito|desculpe),? (?:mas)?|não posso|mi dispiace,? (?:ma)?|non posso (?:aiutar|fornire|rispondere))"
    r"|(?:很|非常)?(?:抱歉|对不起|對不起)|我(?:无法|無法|不能|没办法)|作为(?:一个|一名)?(?:ai|人工智能|语言模型)"
    r"|申し訳(?:ございません|ありません)|お手伝いできません|お答えできません|죄송(?:합니다|하지만)|도와드릴 수 없"
)


@rule(drops="length", sees="text")
def length(
    *, least: NonNegativeInt = 1, most: PositiveInt | None = None, unit: Literal["words", "characters"] = "words"
) -> Rule:
    """Texts of fewer than `least` or more than `most` words, or characters.

    A sign of a script without spaces is a word.

    Paper: Rae et al. 2021 (arXiv 2112.11446), table A1, which keeps documents of 50 to 100,000 words.
    Differs: there is no lower bound but one word, since a prompt may be short.
    """

    def judge(text: str) -> Judged:
        size = len(split(text)) if unit == "words" else len(text.strip())
        fits = least <= size and (most is None or size <= most)
        return Judged(size, None if fits else f"{size} {unit}")

    return Alone(judge)


@rule(drops="repetition", sees="text")
def repetition(*, words: PositiveInt = 3, most: Annotated[float, Field(ge=0, lt=1)] = 0.3) -> Rule:
    """Texts in which more than a share of the runs of `words` words came before.

    Paper: Rae et al. 2021 (arXiv 2112.11446), table A1, duplicate n-grams.
    Differs: it counts runs, not the characters in them, and runs of one length.
    """

    def judge(text: str) -> Judged:
        of = split(text.lower())
        runs = [tuple(of[i : i + words]) for i in range(len(of) - words + 1)]
        share = 1 - len(set(runs)) / len(runs) if runs else 0.0
        return Judged(share, f"{share:.2f} of its runs of {words} words came before" if share > most else None)

    return Alone(judge)


@rule(drops="refusal", sees="text")
def refusal() -> Rule:
    """Texts that begin by declining.

    Languages: English, German, French, Spanish, Portuguese, Italian, Chinese, Japanese, Korean. It reads phrases, not
    intentions: a letter of apology that was asked for begins alike.

    Paper: Zou et al. 2023 (arXiv 2307.15043), appendix, which tells refusals by a list of phrases.
    Differs: the list is our own, in nine languages, and is looked for in the first 160 characters.
    """

    def judge(text: str) -> Judged:
        found = REFUSALS.search(plain_text(text).lower()[:BEGINNING])
        return Judged(float(found is not None), f"begins with: {found[0]}" if found else None)

    return Alone(judge)
