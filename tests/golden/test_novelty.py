"""ROUGE-L and the novelty filter on it, equal to Self-Instruct's with rouge-score 0.1.2."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.text.ngrams import plain
from pipeline.text.novelty import common_subsequence, repeats, tokens_of


def golden() -> tuple[pa.Array, dict[str, np.ndarray]]:
    with np.load(Path(__file__).parent / "data" / "selection_rougeL_filter.npz") as file:
        return plain(pa.array(file["docs"].tolist())), dict(file)


@pytest.mark.parametrize("above", [0.5, 0.7, 0.9])
def test_the_same_texts_are_kept(above: float) -> None:
    texts, kept = golden()
    found = repeats(texts, lambda i: 0, above=above)
    assert [i for i in range(len(texts)) if i not in found] == kept[f"kept_{above}"].tolist()


def test_every_pair_has_the_same_score() -> None:
    texts, values = golden()
    tokens = tokens_of(texts)
    scores = np.array([[2 * common_subsequence(a, b) / (len(a) + len(b)) for b in tokens] for a in tokens])
    # Beside a text itself, the reference has 0.
    np.fill_diagonal(scores, 0)
    np.testing.assert_allclose(scores, values["rougeL_f"], atol=1e-12)


def test_an_exact_copy_changes_nothing() -> None:
    texts, kept = golden()
    again = pa.concat_arrays([texts, texts[:5]])
    found = repeats(again, lambda i: 0, above=0.7)
    assert [i for i in range(len(again)) if i not in found] == kept["kept_0.7"].tolist()


def test_nothing_is_like_a_text_without_words() -> None:
    assert repeats(pa.array(["", "", "?!"]), lambda i: 0, above=0.1) == {}
    assert repeats(pa.array([], pa.string()), lambda i: 0, above=0.1) == {}


def test_texts_of_other_items_are_not_held_against_each_other() -> None:
    texts = pa.array(["one two three four"] * 3)
    found = repeats(texts, lambda i: i % 2, above=0.7)
    assert {i: like.kept for i, like in found.items()} == {2: 0}


def test_words_of_a_script_without_spaces_are_its_signs() -> None:
    (tokens,) = tokens_of(pa.array(["\u5c0f\u660e\u6709 12 \u4e2a, ok"]))
    assert [token.decode() for token in tokens] == ["\u5c0f", "\u660e", "\u6709", "12", "\u4e2a", "ok"]
