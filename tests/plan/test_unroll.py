"""Unroll: entries once per seed, with what hangs on them, in the text that a user wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.errors import Refused
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.unroll import copies_of, rewritten, unrolled

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that parameters name are looked for beside params.yaml."""
    monkeypatch.chdir(ROOT)


def test_a_training_is_repeated_with_what_hangs_on_it(given: dict[str, Any]) -> None:
    new = unrolled(given, copies_of(given, [1, 2], ["kd"]))
    assert list(new["train"]) == ["random_sft", "coverage_sft", "kd_s1", "kd_s2"]
    assert new["train"]["kd_s2"] == {**given["train"]["kd"], "seed": 2, "arm": "kd"}
    assert new["evaluate"]["kd_s1"] == {"model": "kd_s1", "pool": "bench"}
    assert [section for section in given if new[section] != given[section]] == ["train", "evaluate"]
    resolve(new)


def test_from_select_everything_after_the_selection_is_repeated(given: dict[str, Any]) -> None:
    new = unrolled(given, copies_of(given, [7], [], "select"))
    changed = [section for section in given if new[section] != given[section]]
    assert changed == ["quality", "select", "pack", "probe", "train", "evaluate"]
    assert new["select"]["coverage_s7"]["seed"] == 7
    assert new["pack"]["coverage_s7"]["by"] == "coverage_s7"
    assert new["probe"]["teacher_s7"]["of"] == "coverage_s7"
    assert new["train"]["kd_s7"]["of"] == "signals/coverage_s7/teacher_s7" == new["quality"]["kd_signals_s7"]["of"]
    assert {"answers", "base", "teacher"} <= {*new["quality"], *new["evaluate"]}
    resolve(new)


def test_from_one_entry_nothing_above_it_is_repeated(given: dict[str, Any]) -> None:
    """Where a teacher was trained in the graph too, its selection is above the students' own."""
    new = unrolled(given, copies_of(given, [7], ["kd"], "select.coverage"))
    assert [*new["select"]] == ["random", "coverage_s7"]
    assert [*new["train"]] == ["random_sft", "coverage_sft_s7", "kd_s7"]
    resolve(new)
    with pytest.raises(Refused, match=r"no training comes from an entry of 'select\.random'"):
        copies_of(given, [7], ["kd"], "select.random")


def test_a_chain_is_followed(given: dict[str, Any]) -> None:
    given["train"]["again"] = {**given["train"]["coverage_sft"], "student": "coverage_sft"}
    given["distill"] = {"live": {**given["train"]["coverage_sft"], "teacher": "again"}}
    new = unrolled(given, copies_of(given, [1, 2], ["coverage_sft"]))
    assert new["train"]["again_s2"]["student"] == "coverage_sft_s2"
    assert new["distill"]["live_s1"] == {**given["distill"]["live"], "teacher": "again_s1", "seed": 1, "arm": "live"}
    # The copies of `again` begin with students of one arm, and so are of one arm themselves.
    resolve(new)
    new["train"]["again_s2"]["student"] = "base"
    with pytest.raises(Refused, match=r"train\.again_s2: student: is another in train\.again_s1"):
        resolve(new)


def test_what_cannot_be_repeated_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="no training is called 'kdd'; did you mean kd"):
        copies_of(given, [1, 2], ["kdd"])
    with pytest.raises(Refused, match=r"score\.agreement reads all of data/responses/train, where generate\.teacher"):
        copies_of(given, [1, 2], ["kd"], "generate")
    with pytest.raises(Refused, match="no training comes from an entry of 'export'"):
        copies_of(given, [1, 2], ["kd"], "export")
    once = unrolled(given, copies_of(given, [1, 2], ["kd"]))
    with pytest.raises(Refused, match=r"train\.kd_s1 has an arm already, kd"):
        copies_of(once, [1, 2], ["kd_s1"])
    given["evaluate"]["kd_s2"] = given["evaluate"]["base"]
    with pytest.raises(Refused, match=r"evaluate\.kd_s2 is there already"):
        copies_of(given, [1, 2], ["kd"])


TEXT = """\
# of all
train:                       # of train
  # of one
  one: {of: examples/a, student: base, epochs: 1, objectives: [{use: supervised.cross_entropy}]}   # of its line

  two:                       # of two
    of: examples/a
    seed: 5                  # a seed of its own
    student: base
    epochs: 1
    objectives:
    - use: supervised.cross_entropy        # of the last line

# of evaluate
evaluate:
  two:
    model: two
    pool: bench
"""
ONE = "  one_s{}: {{of: examples/a, student: base, epochs: 1, objectives: [{{use: supervised.cross_entropy}}]"
AFTER = (
    TEXT.split("  one:")[0]
    + "".join(f"{ONE.format(s)}, seed: {s}, arm: one}}   # of its line\n" for s in (1, 2))
    + "\n"
    + "".join(
        f"""\
  two_s{s}:                       # of two
    of: examples/a
    seed: {s}                  # a seed of its own
    student: base
    epochs: 1
    objectives:
    - use: supervised.cross_entropy        # of the last line
    arm: two
"""
        for s in (1, 2)
    )
    + "\n# of evaluate\nevaluate:\n"
    + "".join(f"  two_s{s}:\n    model: two_s{s}\n    pool: bench\n" for s in (1, 2))
)


def test_comments_and_layout_stay() -> None:
    given = yaml.safe_load(TEXT)
    given |= {"acquire": {}, "ingest": {}}
    assert rewritten(TEXT, copies_of(given, [1, 2])) == AFTER
    assert rewritten(TEXT.rstrip("\n"), copies_of(given, [1, 2])) == AFTER


def test_text_that_cannot_be_repeated_is_refused() -> None:
    text = "train: {one: {of: examples/a, student: base, epochs: 1, objectives: [{use: supervised.cross_entropy}]}}\n"
    given = {"acquire": {}, "ingest": {}, **yaml.safe_load(text)}
    with pytest.raises(Refused, match="write them in block style"):
        rewritten(text, copies_of(given, [1, 2]))


def test_the_command_writes_or_shows(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "embedded").symlink_to(ROOT / "data" / "embedded")
    monkeypatch.chdir(tmp_path)
    assert main(["unroll", "kd", "--seeds", "3"]) == 1
    assert "write several, such as --seeds 1-3" in capsys.readouterr().err
    assert main(["unroll", "kd", "--seeds", "1-2", "4", "--show"]) == 0
    shown = capsys.readouterr().out
    assert load(tmp_path / "params.yaml") == given
    assert main(["unroll", "kd", "--seeds", "1-2", "4"]) == 0
    assert (tmp_path / "params.yaml").read_text("utf-8") == shown
    assert load(tmp_path / "params.yaml") == unrolled(given, copies_of(given, [1, 2, 4], ["kd"]))
