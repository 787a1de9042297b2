"""A text is cut from its beginning or as one that goes on, and what is only written as a token is text."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from pipeline.model.cutter import Cutter
from tests.model.forms import SPECIAL, TOKENIZERS, byte_level, legacy, merging, metaspace, prefixed, unigram


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", ["Four.", " Four.", "\n\nFour", "<think>4", "4<|im_end|>\n", "<s>4", "caf\u00e9", ""])
def test_a_text_that_goes_on_is_cut_as_within_a_longer_one(name: str, text: str) -> None:
    """After a character that joins nothing, and after a special token: as both are cut together."""
    tokenizer = TOKENIZERS[name]()
    cutter = Cutter(tokenizer, SPECIAL)
    for before in ("user<|im_start|>", "a<s>"):
        head = tokenizer.encode(before, add_special_tokens=False).ids
        assert head + cutter.cut(text, after=before) == tokenizer.encode(before + text, add_special_tokens=False).ids
    assert cutter.cut(text) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("tokenizer", "first"),
    [
        (byte_level(), "P"), (prefixed(), "P"), (metaspace("first"), "P"), (metaspace("always"), "P"),
        (metaspace("never"), "P"), (legacy(), "P"), (unigram(), "P"), (merging(), "P"), (merging(("P", "a")), "Pa"),
    ],
)  # fmt: skip
def test_no_blank_is_put_before_a_text_that_goes_on(tokenizer: Tokenizer, first: str) -> None:
    cutter = Cutter(tokenizer, SPECIAL)
    token = tokenizer.id_to_token(cutter.cut("Paris", after="ASSISTANT: ")[0])
    assert token.startswith(first)


def test_a_sequence_of_what_begins_a_text_is_looked_into() -> None:
    tokenizer = Tokenizer(models.BPE({"\u2581": 0, "a": 1, "\u2581a": 2}, [("\u2581", "a")]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Sequence([normalizers.Prepend("\u2581")])]
    )
    assert tokenizer.encode("a").ids == [2]
    assert Cutter(tokenizer, ()).cut("a", after="x") == [1]
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Digits()])
    assert tokenizer.encode("a").ids == [2]
    assert Cutter(tokenizer, ()).cut("a", after="x") == [1]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("token", [*SPECIAL, "<unk>"])
def test_a_written_token_is_text(name: str, token: str) -> None:
    tokenizer = TOKENIZERS[name]()
    cutter, own = Cutter(tokenizer, (*SPECIAL, "<unk>")), tokenizer.token_to_id(token)
    for text in (token, f"a {token} b", f"{token}\n", token + token, f"<{token}>"):
        stand_ins = cutter.stand_ins([text])
        hidden = cutter.hidden(text, stand_ins)
        assert len(hidden) == len(text) and token not in hidden and cutter.shown(hidden, stand_ins) == text
        ids = cutter.cut(hidden, stand_ins)
        if token != "<unk>":
            assert own in tokenizer.encode(text).ids and own not in ids
        # A template's own token among them stays one.
        assert cutter.cut(hidden + "<|im_end|>", stand_ins) == [*ids, tokenizer.token_to_id("<|im_end|>")]


def test_a_written_token_is_cut_as_transformers_cuts_it_where_it_is_told_to() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = byte_level()
    cutter = Cutter(tokenizer, SPECIAL)
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    for token in SPECIAL:
        stand_ins = cutter.stand_ins([token])
        assert (
            cutter.cut(cutter.hidden(token, stand_ins), stand_ins) == theirs(token, split_special_tokens=True).input_ids
        )


def test_a_token_that_is_none_of_the_special_ones_stays_one() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    cutter = Cutter(tokenizer, SPECIAL)
    assert cutter.stand_ins(["<tool>"]) == {}
    assert cutter.cut("<tool>") == [tokenizer.token_to_id("<tool>")]
