"""Rules that hold a pool's texts against each other: which stay, and what is said of the others."""

import pytest

from tests.rules.said import found, texts

LONG = "on a quiet evening the old miller counted every sack of grain that stood beside the door"


def test_exact_keeps_the_first_of_each_text_with_its_arrays_and_system_turn() -> None:
    pool = texts("Say it.", "SAY  it.", "Say it.", "say it.", inputs=[None, None, "x", None], systems=["", "", "", "s"])
    assert found("duplicates.exact", pool) == {1: "the same text as t000"}


@pytest.mark.parametrize(
    ("name", "arguments", "shows"),
    [
        ("duplicates.minhash", {"threshold": 0.8}, "Jaccard 0.938 with t001; t001 is kept"),
        ("duplicates.rouge", {"above": 0.7}, "ROUGE-L 0.971 with t001"),
    ],
)
def test_of_texts_that_are_alike_the_first_stays(name: str, arguments: dict, shows: str) -> None:
    pool = texts("another thing altogether", LONG, LONG + " now")
    assert found(name, pool, **arguments) == {2: shows}


@pytest.mark.parametrize("name", ["duplicates.minhash", "duplicates.rouge"])
@pytest.mark.parametrize(
    "pool",
    [
        texts(LONG + " and found 12", LONG + " and found 13"),
        texts(LONG + " a", LONG + " b", references=["1", "2"]),
        texts(LONG + " a", LONG + " b", systems=["in French", "in German"]),
        texts(LONG + " a", LONG + " b", inputs=["x", "y"]),
    ],
    ids=["numbers", "references", "systems", "arrays"],
)
def test_what_asks_for_another_item_stays(name: str, pool: object) -> None:
    assert found(name, pool) == {}  # type: ignore[arg-type]


def test_a_chain_of_twins_has_one_that_is_kept() -> None:
    """The first and the last are not alike, and one of them is enough."""
    words = [f"w{chr(97 + i)}" for i in range(24)]
    chain = [" ".join(words[k : k + 20]) for k in range(4)]
    dropped = found("duplicates.minhash", texts(*chain), threshold=0.8, words=1)
    assert list(dropped) == [1, 2, 3] and all(evidence.endswith("t000 is kept") for evidence in dropped.values())


def test_texts_that_are_too_short_for_a_run_have_no_twin() -> None:
    assert found("duplicates.minhash", texts("a b", "a b", "", "")) == {}
