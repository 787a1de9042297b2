"""The text of `params.yaml`: no YAML, what two readers take for two things, or a key that stands twice, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml

from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]


def faults(tmp_path: Path, text: str) -> tuple[str, ...]:
    file = tmp_path / "params.yaml"
    file.write_text(text, "utf-8")
    return load(file).faults


# As it is written -> what YAML 1.1 and what DVC make of it.
DIFFERING = {
    "010": ("8", "10"),
    "-010": ("-8", "-10"),
    "+07_7": ("63", "77"),
    "08": ("the text '08'", "8"),
    "0o17": ("the text '0o17'", "15"),
    "1e-4": ("the text '1e-4'", "0.0001"),
    "1e5": ("the text '1e5'", "100000.0"),
    "6.02e23": ("the text '6.02e23'", "6.02e+23"),
    "1:30": ("90", "the text '1:30'"),
    "190:20:30": ("685230", "the text '190:20:30'"),
    "1:30.5": ("90.5", "the text '1:30.5'"),
    "yes": ("True", "the text 'yes'"),
    "No": ("False", "the text 'No'"),
    "on": ("True", "the text 'on'"),
    "OFF": ("False", "the text 'OFF'"),
}


@pytest.mark.parametrize("value", DIFFERING)
@pytest.mark.parametrize("place", ["a: {}", "a: {{b: [1, {}]}}", "a:\n- b: {}\n  c: 1", "a: &x {}\nb: *x"])
def test_a_value_that_two_readers_take_for_two_is_refused_with_both_readings(
    value: str, place: str, tmp_path: Path
) -> None:
    first, *_ = faults(tmp_path, place.format(value))
    one, two = DIFFERING[value]
    assert first.startswith("a") and f": is {one} as YAML 1.1 reads it, and {two} as DVC does" in first


@pytest.mark.parametrize("value", DIFFERING)
def test_what_is_advised_is_read_alike(value: str, tmp_path: Path) -> None:
    [fault] = faults(tmp_path, f"a: {value}\n")
    ways = fault.partition("agree: ")[2].split("`")[1::2]
    assert len(ways) == 2
    for way in ways:
        assert faults(tmp_path, f"a: {way}\n") == ()


@pytest.mark.parametrize("key", ["yes", "on", "010", "1e5", "1:30", "No", "0o7", "Off", "08", "-012", "6e1"])
def test_a_key_that_two_readers_take_for_two_is_refused(key: str, tmp_path: Path) -> None:
    [fault] = faults(tmp_path, f"select:\n  {key}: 1\n  other: 2\n")
    assert fault.startswith("select.") and "as DVC does" in fault


@pytest.mark.parametrize(
    "value",
    [
        "8",
        "-1",
        "1.0e-4",
        "0.5",
        ".inf",
        ".nan",
        "true",
        "False",
        "null",
        "~",
        "''",
        "'010'",
        '"yes"',
        "2026-01-01",
        "a b",
        "[1, {b: c}]",
        "0x1f",
        "1_000",
        "{}",
        "|\n  010\n  yes",
    ],
)
def test_what_both_read_alike_is_let_pass(value: str, tmp_path: Path) -> None:
    assert faults(tmp_path, f"a: {value}\n") == ()
    assert parse_yaml((tmp_path / "params.yaml").read_text("utf-8"), "") is not None


TWICE = {
    "the case": (
        "select:\n  random:\n    of: a\n  random:\n    of: b\n",
        "select.random: stands 2 times, in lines 2 and 4",
    ),
    "a section": ("train: {}\nrun: {}\ntrain: {}\n", "train: stands 2 times, in lines 1 and 3"),
    "the seed": ("seed: 1\nseed: 1\n", "seed: stands 2 times, in lines 1 and 2"),
    "a parameter": (
        "train:\n  kd:\n    epochs: 1\n    epochs: 2\n",
        "train.kd.epochs: stands 2 times, in lines 3 and 4",
    ),
    "in one line": ("read: {a: {x: 1, x: 2}}\n", "read.a.x: stands 2 times, in lines 1 and 1"),
    "in a list": ("a:\n- b: 1\n- c: 1\n  c: 2\n", "a.1.c: stands 2 times, in lines 3 and 4"),
    "three times": ("a: 1\nb: 2\na: 3\na: 4\n", "a: stands 3 times, in lines 1 and 3 and 4"),
    "once in quotes": ("a: 1\n'a': 2\n", "a: stands 2 times, in lines 1 and 2"),
    "a number in two forms": ("a: {1: x, 0x1: y}\n", "a.1: stands 2 times, in lines 1 and 1"),
    "with equal values": ("a: {b: 1, b: 1}\n", "a.b: stands 2 times, in lines 1 and 1"),
    "far apart": ("a: 1\n" + "# and so on\n" * 500 + "a: 1\n", "a: stands 2 times, in lines 1 and 502"),
    "under an anchor": ("a: &x {b: 1, b: 2}\nc: *x\n", "a.b: stands 2 times, in lines 1 and 1"),
}


@pytest.mark.parametrize("what", TWICE)
def test_a_key_that_stands_twice_is_named_with_its_lines(what: str, tmp_path: Path) -> None:
    text, says = TWICE[what]
    [fault] = faults(tmp_path, text)
    assert fault == f"{says}; rename or delete one"


def test_an_anchor_that_is_merged_and_overruled_is_no_key_twice(tmp_path: Path) -> None:
    assert faults(tmp_path, "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n") == ()


@pytest.mark.parametrize(
    "text",
    ["a: 2026-02-30", "a: [", "a: =", "a: {b", "a: *x", "a: !!python/object:os.system x", "? {a: b}\n: c", "\ta: 1",
     "a: b: c", "a: 'x", "%YAML 9\n---\na: 1\n...\nb", "a: 24:61:99e", "a: &x [*x"],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text, "utf-8")
    if text == "a: 24:61:99e":
        assert load(file) == {"a": "24:61:99e"}
        return
    with pytest.raises(Refused, match=r"params\.yaml is not valid YAML"):
        load(file)


def test_an_anchor_in_itself_and_one_that_is_used_often_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert faults(tmp_path, "\n".join(lines)) == ()
    assert faults(tmp_path, "a: &x {b: *x}\n") == ()


def test_check_tells_them_beside_all_other_faults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "params.yaml").read_text("utf-8")
    text = text.replace("seed: 17\n", "seed: 010\n").replace("  coverage:    ", "  random: {}\n  coverage:    ")
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("use: heuristic.format", "use: heuristic.fromat"), "utf-8")
    with pytest.raises(PlanError) as refused:
        resolve(load(file))
    told = [fault.partition(":")[0] for fault in refused.value.faults]
    assert {"select.random", "seed", "score.format.use", "select.random.of", "select.random.use"} <= set(told)


@pytest.mark.parametrize(
    "file", sorted([ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")]), ids=lambda f: f.stem
)
def test_what_ships_is_read_alike(file: Path) -> None:
    assert load(file).faults == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [", "not valid YAML"), ("- 1", "must be a mapping of sections"), ("", "must be a mapping"), ("\x00", "YAML")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(Refused, match=says) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is missing"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(Refused, match="not valid YAML"):
        load(tmp_path / "params.yaml")
