"""Ids are content, draws are names: neither may ever change, or every table of every user changes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tables import ids, tensors

IMAGE = tensors.cell({"image": np.array([[1.5, -2.0]], np.float32)})
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 = ? \u00e9\U0001f600"}]


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (ids.prompt_id(MESSAGES), "a9fee3b6ec5f81bec1bbc54ab514f4a4"),
        (ids.prompt_id(MESSAGES, IMAGE), "8116881a7e2f290a1a925c559c18f8b9"),
        (ids.group("t"), ids.digest("group", "t")),
        (ids.group("t", IMAGE), "12da28b9edb61b02c3d70abd5c062fb5"),
        (ids.example_id([1, 2], [(1, 2)]), ids.digest("example", [1, 2], [(1, 2)])),
        (ids.example_id([1, 2], [(1, 2)], IMAGE), "cd17faa923a94851984db06c20b98a75"),
        (ids.response_id("r", "4"), "577c84d2ab2096fdca579a90516dfbdd"),
        (ids.response_id("r", None), "68e8a9315aca716db0cdb5bba4376c2e"),
        (ids.seed_of(17, "generate", "p", 3), 5347247875842934378),
        (ids.draw(17, "select", "main", "r"), 0.22071536175546902),
        (ids.digest({"b": 1, "a": [1.5, None, True]}), "afbcc03e7ca6fddd8bf0bce9430bad20"),
        (ids.generator(17, "x").integers(0, 1000, 4).tolist(), [102, 403, 366, 829]),
    ],
)
def test_golden(made: object, known: object) -> None:
    assert made == known


def test_draws_are_those_of_the_single_ids() -> None:
    names = ["r", '\u00e9\n"', "\ud800", *(ids.digest(i) for i in range(5))]
    alone = [ids.draw(17, 'a "purpose"', name) for name in names]
    assert ids.draws(17, 'a "purpose"', names).tolist() == alone
    assert ids.draws(17, 'a "purpose"', np.array([name.encode() for name in names[3:]])).tolist() == alone[3:]
    assert ids.draws(17, "none", []).shape == (0,)


def test_an_id_is_of_roles_and_contents_alone() -> None:
    noisy = [{"content": m["content"], "name": "x", "role": m["role"]} for m in MESSAGES]
    assert ids.prompt_id(noisy) == ids.prompt_id(MESSAGES)
    swapped = [{"role": "user", "content": MESSAGES[0]["content"]}, MESSAGES[1]]
    assert ids.prompt_id(swapped) != ids.prompt_id(MESSAGES)


def test_an_id_takes_of_an_array_its_name_type_shape_and_digest_and_not_where_it_lies() -> None:
    known, [image] = ids.prompt_id(MESSAGES, IMAGE), IMAGE
    assert ids.prompt_id(MESSAGES, [{**image, "data": None, "uri": "image.bin"}]) == known
    for change in ({"name": "mask"}, {"dtype": "i32"}, {"shape": [2, 1]}, {"digest": "0"}):
        assert ids.prompt_id(MESSAGES, [{**image, **change}]) != known
    assert ids.prompt_id(MESSAGES, []) == ids.prompt_id(MESSAGES, None) == ids.prompt_id(MESSAGES)
    made = [ids.example_id([1], [(0, 1)], *cells) for cells in ((), (IMAGE,), (None, IMAGE), (IMAGE, IMAGE))]
    assert len(set(made)) == 4


@given(st.text(st.characters(codec=None)), st.sampled_from('\x00\x1f\x7f\n\u2028"\\/\ud800'))
def test_ids_of_texts_are_those_of_any_content(text: str, hard: str) -> None:
    asked = [{"role": "user", "content": text + hard}]
    assert ids.prompt_id(asked) == ids.digest("prompt", [["user", text + hard]])
    assert ids.group(hard + text) == ids.digest("group", hard + text)
    assert ids.response_id("r", text + hard) == ids.digest("response", "r", text + hard)
    for number in (-1, 2**63 - 1, 2**64, 10**40):
        assert ids.seed_of(number, text, number) == int(ids.digest("seed", number, text, number)[:16], 16) >> 1


@given(st.text(), st.text())
def test_texts_that_run_together_have_different_ids(one: str, two: str) -> None:
    assert ids.digest(one, two) != ids.digest(one + two)
    assert (ids.digest(one) == ids.digest(two)) == (one == two)


def test_a_lone_surrogate_has_an_id() -> None:
    assert ids.digest("\ud800") != ids.digest("?")


def test_parts_are_within_range_even_and_of_the_prompt_alone() -> None:
    keys = [ids.digest(i) for i in range(4000)]
    counts = Counter(ids.part_of(key, 4) for key in keys)
    assert set(counts) == {0, 1, 2, 3}
    assert all(900 < n < 1100 for n in counts.values())
    assert [ids.part_of(key, 1) for key in keys[:3]] == [0, 0, 0]
    assert ids.parts_of(pa.array(keys), 7).tolist() == [ids.part_of(key, 7) for key in keys]
    for some in ([], ["a1"], ["ABCDEF01" * 4, keys[0]]):
        assert ids.parts_of(pa.array(some, pa.string()), 7).tolist() == [ids.part_of(key, 7) for key in some]


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([["ab", "c"], [], ["dddd"]]), pa.chunked_array([pa.array(["x", "yy", "zzz"]).slice(1)]),
        pa.chunked_array([], pa.string()), pa.array(["", "a"]), pa.array(["b", "a"]).slice(1),
    ],
    ids=str,
)  # fmt: skip
def test_names_are_the_ids_as_bytes(column: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    for some in (1, 1000):
        monkeypatch.setattr(ids, "SOME", some)
        assert [ids.text(name) for name in ids.names(column)] == column.to_pylist()


def test_a_place_is_where_an_id_stands_or_none() -> None:
    among = np.array([b"a", b"bb", b"c"])
    assert ids.places(np.array([b"bb", b"a", b"b", b"z", b""]), among).tolist() == [1, 0, -1, -1, -1]
    assert ids.places(among, among[:0]).tolist() == [-1] * 3
    assert ids.places(among[:0], among).tolist() == []


def test_draws_do_not_depend_on_order_or_company() -> None:
    keys = [ids.digest(i) for i in range(200)]
    values = ids.draws(17, "select", keys)
    order = np.random.default_rng(0).permutation(len(keys))
    assert (ids.draws(17, "select", [keys[i] for i in order]) == values[order]).all()
    assert ids.draws(17, "select", keys[5:6])[0] == values[5]
    assert (ids.draws(17, "select", ids.names(pa.array(keys))) == values).all()
    assert not np.isin(ids.draws(18, "select", keys), values).any()
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.1


def test_ranks_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "SOME", 7)
    for kinds in (1, 3, 400):
        names = np.array([ids.digest(i * i % kinds).encode() for i in range(300)])
        assert ids.ranks(names).tolist() == np.unique(names, return_inverse=True)[1].tolist()
    assert ids.ranks(names[:0]).tolist() == []


def test_digests_that_share_a_head_are_those_of_whole_lists() -> None:
    head, tail = ["request", "é\ud800", {"b": 1.5, "a": None}], ["engine", [1, 2]]
    rows = [(0, 5), (-1, 2**63), (2**70, 0)]
    assert ids.digests(head, rows, tail) == [ids.digest(*head, *row, *tail) for row in rows]
    assert ids.digests(head, rows) == [ids.digest(*head, *row) for row in rows]
    assert ids.seeds_of(3, 17, "generate", "p") == [ids.seed_of(17, "generate", "p", i) for i in range(3)]
