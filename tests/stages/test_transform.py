"""Transform: from whole tables of signals to others of the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contracts import PROMPTS, RESPONSES, SIGNALS
from pipeline.core.driver import run_instance
from pipeline.core.graph import taps_of, teachers_of, told
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.stages.transform import Params
from pipeline.tables import ids, manifest, parquet
from pipeline.tables.manifest import Again, Manifest
from pipeline.tables.parquet import Scan, folder_digest
from pipeline.tables.tensors import arrays, cell

ROOT = Path(__file__).parents[2]
# Prompt -> what stands at its places, and the teacher's state at each.
STATES = {"p": ([2, 3], [[1.0, 0.0], [0.0, 4.0]]), "q": ([2], [[3.0, 0.0]]), "r": ([-1], [[0.0, 8.0]])}


def rows(teacher: str, states: dict[str, tuple[list[int], list[list[float]]]] = STATES) -> list[dict[str, Any]]:
    made = []
    for i, (prompt, (targets, given)) in enumerate(states.items()):
        places = len(targets)
        made.append({
            "example_id": ids.digest("example", prompt), "prompt_id": ids.digest("prompt", prompt), "domain": "d",
            "token_ids": [0, *targets], "spans": [{"start": 1, "end": 1 + places}], "weight": 1.0 + i,
            "template_hash": "t", "tokenizer_hash": "t", "response_ids": [str(i)], "teacher_id": teacher,
            "topk_ids": [[3, 2]] * places, "topk_logprobs": [np.log([0.5, 0.25])] * places,
            "tail_mass": [0.25] * places, "target_logprob": [np.log(0.25)] * places, "temperature": 1.0,
            "features": cell({"last": np.array(given, np.float32)}),
        })  # fmt: skip
    return made


def write(data: Path, teacher: str, given: list[dict[str, Any]], parts: int = 2) -> None:
    parquet.write(SIGNALS, data / "signals" / "some" / teacher, parts, [SIGNALS.rows(given)])


def run(
    data: Path, use: str, source: str = "large", beside: str = "large", answers: str | None = None, **arguments: Any
) -> list[dict[str, Any]]:
    """What a transform makes, by the first letter of the prompt's name."""
    given = {"of": "some", "from": source, "with": f"signals/some/{beside}", "use": use, "seed": 3, **arguments}
    given |= {"answers": answers} if answers else {}
    params = Params.model_validate(given)
    inputs = {"signals": (f"signals/some/{source}",), "beside": (f"signals/some/{beside}",)}
    if answers:
        inputs |= {"prompts": ("prompts/asked",), "answers": (answers,)}
    output = params.output("made")
    run_instance(Instance("transform", "made", params, inputs, output, ""), RunSettings(), data, data)
    found = {row["prompt_id"]: row for row in Scan(SIGNALS, (data / output,)).pylist()}
    return [found[ids.digest("prompt", prompt)] for prompt in STATES]


def test_a_row_is_told_what_the_table_says(tmp_path: Path) -> None:
    """Means of classes over all rows, whatever part they lie in; all else is as it was."""
    write(tmp_path, "large", rows("t"))
    found = run(tmp_path, "classes.mean")
    means = [arrays(row["features"])["class_mean"].tolist() for row in found]
    # Of an unknown outcome the class is what the teacher holds for likeliest.
    assert means == [[[2, 0], [0, 6]], [[2, 0]], [[0, 6]]]
    for row, before in zip(found, rows("t"), strict=True):
        assert arrays(row["features"])["last"].tolist() == arrays(before["features"])["last"].tolist()
        assert row["topk_ids"] == before["topk_ids"] and row["weight"] == before["weight"]
        assert row["teacher_id"] == "t" and row["tail_mass"] == before["tail_mass"]
        np.testing.assert_allclose(row["topk_logprobs"], before["topk_logprobs"], rtol=1e-6)


QUESTIONS = ("Is it long?", "Is it\nodd?")


def asked(data: Path, said: dict[tuple[str, int], list[str | None]]) -> None:
    """Questions about two prompts, and what a teacher said, by prompt and question."""
    prompts, answers = [], []
    for (prompt, number), replies in said.items():
        child = ids.digest("child", prompt, number)
        text = f"Here is a task.\n\n{prompt}\n\n{QUESTIONS[number]} Answer with yes or no and nothing else."
        messages = [{"role": "user", "content": text}]
        prompts.append({
            "prompt_id": child, "messages": messages, "domain": "d", "source": "s", "group": "g",
            "parent_ids": [ids.digest("prompt", prompt)],
        })  # fmt: skip
        answers += [
            {
                "response_id": ids.digest(child, i), "request_id": ids.digest(child, i), "prompt_id": child,
                "messages": messages, "domain": "d", "entry": "teacher", "model_id": "m", "sample": i, "seed": i,
                "content": answer, "answer": answer, "finish_reason": "stop", "attempts": 1,
            }
            for i, answer in enumerate(replies)
        ]  # fmt: skip
    parquet.write(PROMPTS, data / "prompts/asked", 1, [PROMPTS.rows(prompts)])
    parquet.write(RESPONSES, data / "responses/asked", 1, [RESPONSES.rows(answers)])


def test_answers_in_words_stand_beside_a_distribution(tmp_path: Path) -> None:
    """At every place of an example, in the order of the questions' text; what was not asked has the mean."""
    write(tmp_path, "large", rows("t"))
    asked(tmp_path, {("p", 0): ["yes", "no"], ("p", 1): ["no"], ("q", 0): ["yes", None], ("x", 0): ["no"]})
    found = run(tmp_path, "aspects.answered", answers="responses/asked")
    shares = [arrays(row["features"])["aspects"].tolist() for row in found]
    assert shares == [[[0, 0.5], [0, 0.5]], [[0, 1]], [[0, 0.75]]]
    asked(tmp_path, {("x", 0): ["no"]})
    with pytest.raises(Refused, match="responses/asked answers no prompt that was made of one of examples/some"):
        run(tmp_path, "aspects.answered", answers="responses/asked")


def test_parts_and_order_decide_nothing(tmp_path: Path) -> None:
    write(tmp_path / "one", "large", rows("t"), 1)
    write(tmp_path / "other", "large", rows("t")[::-1], 1)
    run(tmp_path / "one", "classes.mean")
    run(tmp_path / "other", "classes.mean")
    assert len({folder_digest(tmp_path / name / "signals/some/made") for name in ("one", "other")}) == 1


def test_a_table_without_rows_has_none_after_it(tmp_path: Path) -> None:
    write(tmp_path, "large", [])
    params = Params.model_validate(
        {"of": "some", "from": "large", "with": "signals/some/large", "use": "classes.mean", "seed": 0}
    )
    inputs = dict.fromkeys(("signals", "beside"), ("signals/some/large",))
    record = run_instance(
        Instance("transform", "made", params, inputs, "signals/some/made", ""), RunSettings(), tmp_path, tmp_path
    )
    assert record["rows"] == 0


def test_rows_that_are_no_numbers_or_of_two_widths_are_refused(tmp_path: Path) -> None:
    bad = rows("t")
    bad[1]["topk_logprobs"] = [[None, 0.0]]
    write(tmp_path, "large", bad)
    with pytest.raises(Refused, match=f"example {bad[1]['example_id']} stores log-probabilities that are no numbers"):
        run(tmp_path, "classes.mean")
    bad = rows("t")
    bad[1] |= {"topk_ids": [[3]], "topk_logprobs": [[-0.1]]}
    write(tmp_path, "large", bad)
    with pytest.raises(Refused, match="stores 1, 2 outcomes a place"):
        run(tmp_path, "classes.mean")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The default run with states probed, and a transform of them."""
    monkeypatch.chdir(ROOT)
    params = load(ROOT / "params.yaml")
    params["probe"]["teacher"]["taps"] = ["last"]
    params["transform"] = {
        "means": {"of": "coverage", "from": "teacher", "with": "signals/coverage/teacher", "use": "classes.mean"}
    }
    return params


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"from": "teachr"}, "transform.means: nothing reads these examples"),
        ({"tap": "transformer.h.0"}, "tap: signals/coverage/teacher holds no tap 'transformer.h.0'"),
        ({"with": "examples/coverage"}, "transform.means.with: String should match"),
        ({"use": "aspects.answered"}, "answers: aspects.answered needs answers to what was asked about the prompts"),
        ({"answers": "responses/train"}, "answers: classes.mean looks at none; leave it out"),
        ({"use": "classes.means"}, "transform.means.use: no transform is called 'classes.means'"),
    ],
)
def test_what_cannot_be_meant_is_a_fault(given: dict[str, Any], entry: dict[str, Any], said: str) -> None:
    given["transform"]["means"].update(entry)
    with pytest.raises(PlanError) as error:
        resolve(given)
    assert any(said in fault for fault in error.value.faults), error.value.faults


def test_a_tap_that_is_added_may_be_learnt(given: dict[str, Any]) -> None:
    given["quality"]["means"] = {"of": "signals/coverage/means", "suite": "signals"}
    learns = {**given["train"]["kd"], "of": "signals/coverage/means"}
    given["train"]["near"] = {**learns, "objectives": [{"use": "feature.hidden", "teacher_tap": "class_mean"}]}
    plan = resolve(given)
    assert taps_of(plan, "signals/coverage/means") == {"last", "class_mean"}
    given["train"]["near"] = {**learns, "objectives": [{"use": "feature.hidden", "teacher_tap": "prototype"}]}
    with pytest.raises(PlanError, match="reads the teacher's tap 'prototype'"):
        resolve(given)


def test_who_answers_about_a_prompt_is_a_teacher_of_what_learns_it(given: dict[str, Any]) -> None:
    """From the questions to a head that learns the answers; terms are of all whose words are in it."""
    given["derive"] = {
        "asked": {"of": "train", "pool": "asked", "against": "bench", "use": "aspects.yes_no", "questions": ["Odd?"]}
    }
    given["curate"]["asked"] = {"against": "bench"}
    given["generate"]["aspects"] = {"pool": "asked", "model": "base", "k": 2, "temperature": 1.0}
    given["transform"]["told"] = {
        "of": "coverage", "from": "teacher", "with": "signals/coverage/teacher", "use": "aspects.answered",
        "answers": "responses/asked",
    }  # fmt: skip
    given["build"] = {"many": {"base": "base", "donor": "base", "use": "heads.add", "head": "odd", "outcomes": 1}}
    given["quality"]["told"] = {"of": "signals/coverage/told", "suite": "signals"}
    learns = {"use": "targets.binary", "teacher_tap": "aspects", "head": "odd"}
    given["train"]["asked"] = {**given["train"]["kd"], "of": "signals/coverage/told", "student": "many"} | {
        "objectives": [{"use": "supervised.cross_entropy"}, learns]
    }
    plan = resolve(given)
    assert {*teachers_of(told(plan), "signals/coverage/told")} == {"teacher", "base"}
    assert {*teachers_of(told(plan), "signals/coverage/teacher")} == {"teacher"}


def test_a_manifest_is_carried_over_with_the_reading_that_agrees_less(tmp_path: Path) -> None:
    def sealed(name: str, teacher: str, distance: float) -> None:
        write(tmp_path, name, rows(teacher))
        told = {"tokenizer": "t", "template": "t", "examples": "e", "rows": 3, "top_k": 2, "store": "compact"}
        again = Again(rows=3, places=4, dtype=None, distance=distance, furthest=distance, target=0.0)
        Manifest(teacher=teacher, dtype="float32", again=again, **told).write(tmp_path / "signals/some" / name)

    sealed("large", "t", 0.001)
    run(tmp_path, "classes.mean")
    of_one = manifest.read(tmp_path / "signals/some/made")
    sealed("small", "u", 0.004)
    run(tmp_path, "merge.mean", beside="small")
    of_both = manifest.read(tmp_path / "signals/some/made")
    assert of_one is not None and of_one.again is not None and of_both is not None and of_both.again is not None
    assert (of_one.teacher, of_one.again.distance) == ("t", 0.001)
    assert (of_both.teacher, of_both.again.distance) == ("t+u", 0.004)
    examples = Scan(SIGNALS, (tmp_path / "signals/some/made",)).read(["example_id"])["example_id"].combine_chunks()
    assert (of_both.examples, of_both.rows, of_both.store) == (manifest.names_digest([examples]), 3, "exact")
    (tmp_path / "signals/some/small/manifest.json").unlink()
    run(tmp_path, "merge.mean", beside="small")
    assert manifest.read(tmp_path / "signals/some/made") is None
