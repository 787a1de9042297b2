"""Contamination by shared n-grams, equal to the decontamination of s1 (simplescaling/s1 at 77272c6)."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.text.contamination import shared_ngrams
from pipeline.text.ngrams import plain


@pytest.mark.parametrize("n", [8, 13])
def test_the_same_rows_share_an_ngram(n: int) -> None:
    with np.load(Path(__file__).parent / "data" / "selection_decontam.npz") as golden:
        train, test = (plain(pa.array(golden[name].tolist())) for name in ("train", "test"))
        assert sorted(shared_ngrams(train, test, n)) == golden[f"contaminated_train_ids_{n}"].tolist()
        assert sorted(shared_ngrams(test, train, n)) == golden[f"contaminated_test_ids_{n}"].tolist()
