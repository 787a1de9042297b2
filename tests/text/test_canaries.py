"""Copies that are planted: which kinds of which items, and that the rules find all that they are bound to."""

import numpy as np

from pipeline.core.methods import find
from pipeline.text.canaries import COPIES, ITEMS, planted
from tests.rules.said import texts

ITEM = "Ann has 1200 red apples and gives 21 of them to her 3 brothers; how many are left?"


def test_a_short_item_has_no_copies_that_need_words_of_its_own() -> None:
    counts = {kind: len(copies.texts) for kind, copies in planted(texts("add 3 4", ITEM)).items()}
    assert counts == {"verbatim": 6, "typeset": 2, "inside": 2, "renumbered": 1, "rescripted": 1}


def test_copies_are_what_they_are_called() -> None:
    [renumbered] = COPIES["renumbered"]("it costs 1200 (or 21) for 3 people, 5 6, 007 and x2")
    assert renumbered == "it costs one thousand two hundred (or twenty-one) for three people, 5 6, 007 and x2"
    assert COPIES["rescripted"]("Ann has 12") == ["\uff21\uff4e\uff4e \uff48\uff41\uff53 \u0661\u0662"]
    assert COPIES["renumbered"]("no number") == [] == COPIES["rescripted"]("\u5c0f")


def test_only_the_first_items_are_copied_and_none_of_an_empty_benchmark() -> None:
    many = planted(texts(*(f"item {i}" for i in range(2 * ITEMS))))
    assert len(many["verbatim"].texts) == 3 * ITEMS
    assert {len(copies.texts) for copies in planted(texts()).values()} == {0}


def test_containment_finds_every_copy_of_a_long_item() -> None:
    random = np.random.default_rng(2)
    names = [f"name{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200)]
    items = texts(*(f"{' '.join(random.choice(names, 12))} pays {20 + i} for {i + 3} of them?" for i in range(40)))
    rule = find("rule", "contamination.containment").factory()
    for kind, copies in planted(items).items():
        assert [*rule(copies.texts, items)] == [*range(len(copies.texts))], kind
