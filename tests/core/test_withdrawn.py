"""Rules of withdrawal: which rows they leave out, and that they are part of what writes prompts, and of no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts import PROMPTS
from pipeline.core import withdrawn
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]
SOURCES = {"a": "mine.jsonl:1", "b": "mine.jsonl:11", "c": "mine.jsonl.old:1", "d": "yours.jsonl:1"}


@pytest.mark.parametrize(
    ("prompts", "sources", "left"),
    [
        ((), (), "abcd"),
        (("a", "gone before"), (), "bcd"),
        ((), ("mine.jsonl",), "cd"),
        ((), ("mine.jsonl:1",), "bcd"),
        (("d",), ("mine.jsonl:11",), "ac"),
    ],
)
def test_a_rule_leaves_out_what_it_names(tmp_path: Path, prompts: tuple, sources: tuple, left: str) -> None:
    rows = [
        {"prompt_id": name, "messages": [], "domain": "d", "source": source, "group": name}
        for name, source in SOURCES.items()
    ]
    # Later rules are added to earlier ones.
    withdrawn.add(tmp_path, prompts=prompts)
    withdrawn.add(tmp_path, sources=sources)
    kept = withdrawn.without(iter([PROMPTS.rows(rows)]), withdrawn.read(tmp_path))
    assert "".join(name for batch in kept for name in batch["prompt_id"].to_pylist()) == left


def test_a_rule_is_part_of_what_writes_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/embedded", "dvc.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    before = resolve(load(ROOT / "params.yaml")).instances
    withdrawn.add(Path("data"), prompts=["a"])
    after = resolve(load(ROOT / "params.yaml")).instances
    changed = {label for label, instance in after.items() if instance.to_json() != before[label].to_json()}
    assert changed == {"ingest@tasks", "ingest@held_out"}
