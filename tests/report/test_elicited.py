"""What the page tells beside the result: every other measure, cost, hacking, the taxonomy, the index."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from pipeline.contracts import EVALS, EXAMPLES, RESPONSES, SCORES, SELECTIONS
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import SECTION_OF
from pipeline.report import arms
from pipeline.report.elicited import elicited, label_of
from pipeline.report.tables import Tables
from pipeline.report.transparency import INDEX
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan
from tests.stages import report_data

PARAMS = {key: value for key, value in report_data.PARAMS.items() if key in {*SECTION_OF.values(), "seed"}}
MEASURES = {
    "like": ("agreement", {"copied": 0.9}),
    "cost_kd": ("seconds", {"parameters": 350_000.0, "prompt_tokens": 12.0, "resident": 4e6}),
    "cost_teacher": ("seconds", {"parameters": 600_000.0, "prompt_tokens": 12.0, "resident": 8e6}),
    "cost_base": ("seconds", {"parameters": 350_000.0, "prompt_tokens": 12.0, "resident": 4e6}),
}


def answered(data: Path) -> Path:
    return data / "responses/train/teacher"


def differing(rows: list[dict]) -> list[dict]:
    """Two right answers that are not the reference letter by letter, and one that is and is called wrong."""
    right = [row for row in rows if row["metric"] == 1][:3]
    for row, (key, value) in zip(right, [("prediction", "7.0"), ("prediction", "<7>"), ("metric", 0.0)], strict=True):
        row[key] = value
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("run") / "data"
    params = copy.deepcopy(PARAMS)
    params["train"]["kd"]["held_out"] = {"answers": 400}
    params["acquire"]["led_0"] = params["acquire"]["base"]
    params["train"]["led_1"] = {**params["train"]["coverage_sft"], "student": "led_0"}
    params["evaluate"].update({name: {"model": name, "pool": "bench"} for name in ("led_0", "led_1")})
    latency = {"pool": "bench", "use": "cost.latency"}
    costs = {f"cost_{model}": {"model": model, **latency} for model in ("kd", "teacher", "base")}
    like = {"like": {"model": "kd", "against": "teacher", "pool": "bench", "use": "fidelity.answers"}}
    plan = report_data.build(data, {**params, "evaluate": {**params["evaluate"], **costs}, "compare": like})
    greedy = Scan(EVALS, (data / "evals/kd",)).pylist()
    for name, (measure, quantities) in MEASURES.items():
        slow = 2.0 if name == "cost_teacher" else 1.0
        rows = [
            {**row, "measure": measure, "quantities": list(quantities.items()), "metric": slow + i / 1000}
            for i, row in enumerate(greedy)
        ]
        parquet.write(EVALS, data / "evals" / name, 1, [EVALS.rows(rows)])
    parquet.write(EVALS, data / "evals/base", 1, [EVALS.rows(differing(Scan(EVALS, (data / "evals/base",)).pylist()))])
    said = [{**row, "fingerprint": f"fp_{row['sample'] % 2}"} for row in Scan(RESPONSES, (answered(data),)).pylist()]
    parquet.write(RESPONSES, answered(data), report_data.PARTS, [RESPONSES.rows(said)])
    curve = data / "models/kd/training.jsonl"
    points = [json.loads(line) for line in curve.read_text("utf-8").splitlines()]
    for i, (proxy, golden) in enumerate([(0.9, 0.5), (0.7, 0.7), (0.5, 0.6), (0.4, 0.5)]):
        points[10 * i + 9] |= {"held_out": proxy, "right": golden}
    curve.write_text("".join(json.dumps(point) + "\n" for point in points), "utf-8")
    run_instance(plan.instances["report@report"], RunSettings(), data, data.parent)
    return data


@pytest.fixture(scope="module")
def page(data: Path) -> str:
    return " ".join((data / "reports/report.html").read_text("utf-8").split())


def test_other_measures_stand_apart_from_accuracy(data: Path, page: str) -> None:
    metrics = json.loads((data / "reports/metrics.json").read_text("utf-8"))
    assert (
        metrics["like"]["agreement"] > 0 and metrics["like"]["mean_copied"] == 0.9 and "accuracy" not in metrics["like"]
    )
    assert not [key for key in metrics["like"] if "minus" in key]
    assert "<caption>agreement</caption>" in page and "<caption>seconds</caption>" in page


def test_a_hacked_teacher_is_an_alarm_on_the_page(page: str) -> None:
    assert (
        "Alarm: kd hacks its teacher." in page and "After step 300 its held-out loss was lower than at step 200" in page
    )


def test_the_page_says_who_is_dominated(page: str) -> None:
    section = page.partition('<section id="pareto">')[2].partition("</section>")[0]
    rows = {part.partition("<br>")[0]: part for part in section.split("<tr><th>")[1:]}
    assert '<td class="bad">kd</td>' in rows["base"] and '<td class="good">nobody</td>' in rows["kd"]


def test_the_page_says_where_verifier_and_exact_match_differ(page: str) -> None:
    section = page.partition('<section id="disagreements">')[2].partition("</section>")[0]
    assert section.count("<tr><th>") == 2 and '<th>base</th><td class="n">2</td><td class="n">1</td>' in section
    assert "<code>7.0</code> for" in section and "<code>&lt;7&gt;</code> for" in section


def test_the_page_says_that_a_server_was_changed(page: str) -> None:
    assert "The server of teacher was changed while it answered" in page and page.count("was changed while") == 1
    assert "120 answers of <code>fp_0</code>, 120 answers of <code>fp_1</code>" in page


def test_the_page_has_the_history_of_rounds(page: str) -> None:
    section = page.partition('<section id="rounds">')[2].partition("</section>")[0]
    assert "<svg" in section and [part[:5] for part in section.split("<tr><th>")[2:]] == ["led_0", "led_1"]


def test_every_label_has_a_row_and_its_counts(data: Path, page: str) -> None:
    lineage = arms.read(data)
    scans = [
        Scan(report_data.contracts.TABLES[path.relative_to(data).parts[0]], (path,))
        for path in sorted({file.parent for file in parquet.walk(data) if file.suffix == ".parquet"})
    ]
    found = {one.label: one for one in elicited(lineage, Tables.of(data, scans), data, ())}
    chosen = Scan(SELECTIONS, tuple(data / f"selections/responses/train/{name}" for name in ("random", "coverage")))
    kept = [row for row in chosen.pylist() if row["kept"]]
    verified = Scan(SCORES, (data / "scores/responses/train/verified",)).pylist()
    right = {row["response_id"]: row["score"] for row in verified}
    label = found["labeling"]
    assert (label.prompts, label.answers, label.kept) == (120, 360, len(kept))
    assert label.precision == pytest.approx(sum(right[row["response_id"]] for row in kept) / len(kept))
    packed = Scan(EXAMPLES, (data / "examples/coverage",)).pylist()
    read = [right[name] for row in packed for name in row["response_ids"]]
    feature = found["feature"]
    assert (feature.kept, feature.answers) == (100, len(packed))
    assert feature.tokens == sum(len(row["token_ids"]) for row in packed)
    assert feature.precision == pytest.approx(sum(read) / len(read)) and found["expansion"].answers == 0
    assert "What was brought out of the models" in page


ARM = arms.Arm("kd", "kd", 1, "base", (), (), False, (), (), ("own",), (), True, 1.0, {})


@pytest.mark.parametrize(
    ("entry", "model", "reads", "label"),
    [
        ("own", "base", ["target_N"], "'self-knowledge'"),
        ("own", "base", ["logprob_N", "reward_B"], "'feedback'"),
        ("own", "teacher", ["reward_B"], "coalesce(p.elicitation, 'labeling')"),
        ("other", "base", ["reward_B"], "coalesce(p.elicitation, 'labeling')"),
    ],
)
def test_own_answers_are_feedback_where_a_student_learns_how_good_they_are(
    entry: str, model: str, reads: list[str], label: str
) -> None:
    plan = {"traits": {"objective": {"x.y": {"reads": reads}}}}
    assert label_of(arms.Lineage({"models/kd": plan}, (), {"kd": ARM}), entry, model) == label


def test_the_index_has_a_hundred_points_and_claims_no_prose(page: str) -> None:
    assert sum(points for _, _, points, _ in INDEX) == 100
    assert "of 100 points</b> of the transparency index" in page
    assert '<td>why these benchmarks</td><td class="n">0 of 4</td><td>nothing on record</td>' in page
