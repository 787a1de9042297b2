"""Rules that hold a pool against a benchmark: copies of every kind, and what is none."""

import pytest

from tests.rules.said import found, texts

ITEM = "Ann has 1,200 red apples and gives twenty-one of them to each of her 3 brothers; how many are left?"
ZH = "小明有十二个苹果,他每天吃两个,并且每隔一天再买三个苹果,请问两个星期之后他还剩下多少个苹果?"
TH = "สมชายมีแอปเปิ้ลสิบสองผลและเขากินวันละสองผลทุกวันจนกว่าจะหมดในสัปดาห์หน้า"
BENCHMARK = texts("something else that is asked for here", ITEM, ZH, TH)
COPIES = {
    "verbatim": ITEM,
    "inside a longer prompt": f"Please read this with care. {ITEM} Thank you, and have a good day.",
    "numbers in words": ITEM.replace("1,200", "one thousand two hundred").replace("3", "three"),
    "numbers in digits": ITEM.replace("twenty-one", "21").replace("1,200", "1200"),
    "another script": ITEM.replace("1,200", "١٢٠٠").replace("3", "३").replace("apples", "ａｐｐｌｅｓ"),
    "a word more": ITEM.replace("red", "very red"),
    "Chinese in a longer prompt": f"请解下面的题目:{ZH}谢谢。",
    "Thai in a longer prompt": f"จงตอบ{TH}ครับ",
}


@pytest.mark.parametrize("copy", COPIES)
def test_containment_finds_copies_of_every_kind(copy: str) -> None:
    (evidence,) = found("contamination.containment", texts("clean", COPIES[copy]), BENCHMARK).values()
    assert "of the words of t00" in evidence


@pytest.mark.parametrize(
    "text",
    [
        ITEM.replace("3", "4"),
        ITEM.replace("1,200", "1,201"),
        " ".join(ITEM.split()[:14]),
        ITEM.replace("red apples and gives", "coins but wants to hand out"),
        "",
    ],
    ids=["another number", "a greater number", "a part", "other words", "nothing"],
)
def test_containment_leaves_another_task(text: str) -> None:
    assert found("contamination.containment", texts(text), BENCHMARK) == {}


def test_containment_says_the_largest_share_and_leaves_short_items() -> None:
    items = texts("what is 3 and 4", "a b c d e f g h i j", "a b c d e f g h i j k l")
    found_in = found(
        "contamination.containment", texts("and now a b c d e f g h i j k z", "what is 3 and 4 and 5"), items
    )
    assert found_in == {0: "1.00 of the words of t001"}
    shorter = found("contamination.containment", texts("so what is 3 and 4"), items, least=5)
    assert shorter == {0: "1.00 of the words of t000"}


def test_an_item_about_arrays_is_not_found_by_its_words() -> None:
    items = texts(ITEM, inputs=["x"])
    for name in ("contamination.ngram", "contamination.containment"):
        assert found(name, texts(ITEM + " please"), items) == {}


@pytest.mark.parametrize("words", [8, 13])
def test_a_run_is_found_from_its_length_on(words: int) -> None:
    said = [f"w{i}" for i in range(30)]
    item = texts(" ".join(said))
    pool = texts("x " + " ".join(said[3 : 3 + words]), "x " + " ".join(said[3 : 2 + words]), "")
    assert found("contamination.ngram", pool, item, words=words) == {0: "t000 has: " + " ".join(said[3 : 3 + words])}


def test_the_key_is_the_group_or_the_whole_wording() -> None:
    items = texts("add 3 4", "Say it.", groups=["add 3 4", "t"])
    pool = texts("add 4 3", "say  IT.", "add 4 5", groups=["add 3 4", "u", "add 4 5"])
    assert found("contamination.key", pool, items) == {0: "the group of t000", 1: "the text of t001"}
