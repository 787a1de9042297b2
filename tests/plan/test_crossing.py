"""What the plan says of a teacher of other tokens, and of a feed that asks a teacher."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.plan.resolve import resolve
from tests.plan.test_resolve import faults

WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no live teacher": ("train", {"texts": None}, "across.uld asks a live teacher: move the entry to `distill:`"),
    "no texts": ("distill", {"texts": None}, "across.uld cuts the answers anew for the teacher: say `texts:`"),
    "a feed": (
        "distill", {"feed": {"use": "rollout.on_policy"}}, "rollout.on_policy draws rows that across.uld has no text of"
    ),
    "against the student as it began": (
        "distill", {"against": "start"}, "across.uld is told by a teacher of other tokens alone: say `against: teacher`"
    ),
    "texts that nothing reads": ("distill", {"use": "divergence.forward"}, "texts: no objective reads them"),
    "a feed that samples with a teacher that is none": (
        "train",
        {"texts": None, "use": "supervised.cross_entropy", "feed": {"use": "sampled.with_teacher"}},
        "sampled.with_teacher samples with a teacher, and there is none: move the entry to `distill:`",
    ),
}  # fmt: skip


def crossing(params: dict[str, Any], stage: str, **changed: Any) -> None:
    """Add an entry beside a teacher of other tokens."""
    term = {"use": "across.uld"} | {key: changed.pop(key) for key in ("use", "against") if key in changed}
    entry = {
        "of": params["train"]["random_sft"]["of"], "student": "base", "epochs": 1, "objectives": [term],
        "texts": "responses/train", **({"teacher": "teacher"} if stage == "distill" else {}), **changed,
    }  # fmt: skip
    entry = {key: value for key, value in entry.items() if value is not None}
    params.setdefault(stage, {})["crossed"] = entry


@pytest.mark.parametrize("what", WRONG)
def test_a_fault_names_its_key_and_what_to_write(given: dict[str, Any], what: str) -> None:
    stage, changed, says = WRONG[what]
    found = faults(given, lambda params: crossing(params, stage, **changed))
    assert any(says in fault for fault in found), found


@pytest.mark.parametrize("feed", [None, {"use": "rollout.on_policy"}])
def test_rows_of_every_answer_are_for_feeds_and_for_teachers_of_other_tokens_too(
    given: dict[str, Any], feed: dict[str, str] | None
) -> None:
    crossing(given, "distill", **({} if feed is None else {"feed": feed, "use": "divergence.forward", "texts": None}))
    given["pack"]["random"]["answers"] = "every"
    assert "distill@crossed" in resolve(given).instances


def test_the_texts_are_an_input(given: dict[str, Any]) -> None:
    crossing(given, "distill")
    assert "responses/train/teacher" in resolve(given).instances["distill@crossed"].inputs["texts"]
