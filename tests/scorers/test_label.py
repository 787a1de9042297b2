"""What people said as scores, and a critic that learns from it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.plan.map import filled
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.stages.score import Params
from pipeline.tables import parquet
from pipeline.tables.labels import Writer
from pipeline.tables.parquet import Scan
from pipeline.tables.rules import columns
from tests.tables.test_sql import response

ROOT = Path(__file__).parents[2]
FINE, POOR = "It is clear that the sum is {}.", "no idea, maybe {}"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty prompts with a fine and a poor answer each; ten prompts' were labelled."""
    monkeypatch.chdir(tmp_path)
    rows, writer = [], Writer(tmp_path / "data")
    for number in range(40):
        for place, text in enumerate((FINE, POOR)):
            row = {**response(f"r{number:02d}{place}", f"p{number:02d}"), "content": text.format(number)}
            rows.append({**row, "sample": place, "verifier": None})
            if number < 10:
                writer.say(row["response_id"], row["prompt_id"], place == 0, f"note {number}" if place else None)
    parquet.write(RESPONSES, tmp_path / "data/responses/train/teacher", 1, [RESPONSES.rows(rows)])
    return tmp_path / "data"


def scored(data: Path, use: str, **arguments: object) -> pa.Table:
    of = "responses/train/teacher"
    params = Params.model_validate({"of": of, "use": use, **arguments})
    instance = Instance("score", "hand", params, {"responses": (of,)}, params.output("hand"), "code")
    run_instance(instance, RunSettings(executor="inline"), data, data.parent)
    return Scan(SCORES, (data / instance.output,)).read()


def test_a_label_is_a_score_that_rules_read(data: Path) -> None:
    rows = {row["response_id"]: row for row in scored(data, "label.given").to_pylist()}
    assert len(rows) == 80
    assert (rows["r000"]["score"], rows["r000"]["detail"]) == (1, None)
    assert (rows["r071"]["score"], rows["r071"]["detail"]) == (0, "note 7")
    assert rows["r100"]["score"] is None
    scans = [
        Scan(RESPONSES, (data / "responses/train/teacher",)),
        Scan(SCORES, (data / "scores/responses/train/teacher/hand",)),
    ]
    kept = columns(scans, data, {"kept": "coalesce(hand.score = 1, false)"})
    assert [r["response_id"] for r in kept.to_pylist() if r["kept"]] == [f"r0{n}0" for n in range(10)]


def test_a_critic_learns_from_labels_what_no_verifier_says(data: Path) -> None:
    rows = scored(data, "critic.by_hand", folds=2).to_pylist()
    unseen = [row for row in rows if dict(row["quantities"])["labelled"] == 0]
    assert len(unseen) == 60
    fine = [row["score"] for row in unseen if row["response_id"].endswith("0")]
    poor = [row["score"] for row in unseen if row["response_id"].endswith("1")]
    assert min(fine) > max(poor)


def test_without_labels_nobody_is_judged(data: Path) -> None:
    for file in (data / "labels").rglob("*.parquet"):
        file.unlink()
    for use in ("label.given", "critic.by_hand"):
        assert scored(data, use)["score"].null_count == 80


def test_a_new_label_changes_the_plan_of_what_reads_it_and_of_nothing_else(data: Path) -> None:
    (data / "embedded").symlink_to(ROOT / "data" / "embedded")
    given = filled(load(ROOT / "params.yaml"), ROOT)
    for name, use in (("hand", "label.given"), ("critic", "critic.by_hand")):
        given["score"][name] = {"of": "responses/train", "use": use}

    def plan() -> dict[str, str]:
        return {label: instance.to_json() for label, instance in resolve(given).instances.items()}

    before = plan()
    Writer(data).say("r390", "p39", True, None)
    after = plan()
    assert {label for label in before if before[label] != after[label]} == {"score@hand", "score@critic"}
