"""The report: what it compares, what it counts, and that its page holds whatever a model wrote."""

from __future__ import annotations

import copy
import csv
import importlib
import json
import re
import shutil
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.commands.results import result_table
from pipeline.contracts import EVALS, EXAMPLES, SELECTIONS
from pipeline.core import methods
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import ALONE, SECTION_OF, Plan
from pipeline.plan import resolve as resolving
from pipeline.plan.disk import write
from pipeline.plan.resolve import resolve
from pipeline.plan.unroll import copies_of, unrolled
from pipeline.report import arms, facts
from pipeline.report import curves as learning
from pipeline.report.page import signed
from pipeline.report.statistics import over_seeds, paired_score, verdict
from pipeline.report.tables import Tables
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan
from tests.stages import report_data

PARAMS = {key: value for key, value in report_data.PARAMS.items() if key in {*SECTION_OF.values(), "seed"}}


def make(data: Path, resolved: Plan) -> Path:
    run_instance(resolved.instances["report@report"], RunSettings(), data, data.parent)
    return data / "reports"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("run") / "data"
    make(data, report_data.build(data))
    return data


@pytest.fixture(scope="module")
def metrics(data: Path) -> dict[str, dict[str, float]]:
    return json.loads((data / "reports" / "metrics.json").read_text("utf-8"))


def compared(tmp_path: Path, params: dict[str, Any]) -> set[tuple[str, str, str]]:
    write(resolve({k: v for k, v in params.items() if k in {*SECTION_OF.values(), "seed"}}), tmp_path)
    found = arms.comparisons(arms.read(tmp_path))
    return {(c.kind, c.first.name, c.second.name) for c in found}


def test_the_default_run_asks_these_questions(tmp_path: Path) -> None:
    assert compared(tmp_path, report_data.PARAMS) == {
        ("control", "coverage_sft", "random_sft"),
        ("control", "kd", "random_sft"),
        ("same examples", "kd", "coverage_sft"),
        ("base", "random_sft", "base"),
        ("base", "coverage_sft", "base"),
        ("base", "kd", "base"),
    }


def test_a_control_has_the_same_budget(tmp_path: Path) -> None:
    params = copy.deepcopy(report_data.PARAMS)
    params["select"]["random"]["budget_tokens"] = 1999
    assert not [c for c in compared(tmp_path, params) if c[0] == "control"]


def test_a_selectors_own_parameter_is_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A selector with a `budget_share` of its own is held against the control that may take as much."""

    def shared(*, by: str, prefer: float, budget_share: float = 0.5) -> object:
        return None

    shared.__stillhouse__ = ("selector", {})  # type: ignore[attr-defined]
    mine = types.ModuleType("pipeline.selectors.mine")
    mine.shared = shared  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.selectors.mine", mine)
    real = methods._named
    ours = ("selector", "mine")
    monkeypatch.setattr(methods, "_named", lambda k, f: ["mine.shared"] if (k, f.stem) == ours else real(k, f))
    families = methods._families
    monkeypatch.setattr(methods, "_families", lambda kind: [*families(kind), tmp_path / "mine.py"])
    (tmp_path / "mine.py").touch()
    monkeypatch.setattr(resolving, "_identity", lambda declared, params: "")
    params = copy.deepcopy(report_data.PARAMS)
    params["select"]["coverage"].update(use="mine.shared", budget_share=0.25)
    assert ("control", "coverage_sft", "random_sft") in compared(tmp_path, params)
    methods.find.cache_clear()
    plan = json.loads((tmp_path / "plan/select/coverage.json").read_text("utf-8"))
    assert plan["budget"] == {"tokens": 2000} and plan["params"]["use"]["arguments"]["budget_share"] == 0.25


def test_any_selector_may_be_a_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so by a trait; no name is known to the report."""
    params = copy.deepcopy(report_data.PARAMS)
    params["select"]["random"].update(use="rank.top", by="agreement.score")
    assert not [c for c in compared(tmp_path, params) if c[0] == "control"]
    monkeypatch.setitem(methods.find("selector", "rank.top").traits, "control", True)  # type: ignore[arg-type]
    assert ("control", "coverage_sft", "random_sft") in compared(tmp_path, params)


def test_what_learns_without_a_teacher_says_so_by_its_trait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two students of the same examples that both learn from the text alone do not ask what a distribution is worth."""
    monkeypatch.setitem(methods.find("objective", "divergence.forward").traits, "teacher", "none")  # type: ignore[arg-type]
    assert not [c for c in compared(tmp_path, report_data.PARAMS) if c[0] == "same examples"]


def test_a_control_that_learned_in_the_same_way_is_preferred(tmp_path: Path) -> None:
    params = copy.deepcopy(report_data.PARAMS)
    params["probe"]["random"] = {"of": "random", "model": "teacher", "top_k": 4}
    params["quality"]["random_signals"] = {"of": "signals/random/random", "suite": "signals"}
    params["train"]["random_kd"] = {**params["train"]["kd"], "of": "signals/random/random"}
    params["evaluate"]["random_kd"] = {"model": "random_kd", "pool": "bench"}
    controls = {c for c in compared(tmp_path, params) if c[0] == "control"}
    assert controls == {("control", "coverage_sft", "random_sft"), ("control", "kd", "random_kd")}
    del params["evaluate"]["random_kd"]
    assert ("control", "kd", "random_sft") in compared(tmp_path, params)


def test_a_comparison_tells_what_else_differs(tmp_path: Path) -> None:
    params = copy.deepcopy(report_data.PARAMS)
    params["train"]["kd"]["epochs"] = 5
    compared(tmp_path, params)
    found = arms.comparisons(arms.read(tmp_path))
    differs = {(c.first.name, c.second.name): c.also_differs for c in found}
    assert differs["kd", "random_sft"] == ("epochs",)
    assert differs["coverage_sft", "random_sft"] == ()


def test_metrics_are_what_the_tables_say(data: Path, metrics: dict[str, dict[str, float]]) -> None:
    rows = {name: {r["item_id"]: r for r in Scan(EVALS, (data / "evals" / name,)).pylist()} for name in metrics}
    for name, row in metrics.items():
        assert row["n"] == len(rows[name]) == 300
        right = [r["metric"] for r in rows[name].values()]
        assert row["accuracy"] == round(sum(right) / 300, 6)
        assert row["low"] < row["accuracy"] < row["high"]
        mul = [r["metric"] for r in rows[name].values() if r["domain"] == "mul"]
        assert row["accuracy_mul"] == round(sum(mul) / len(mul), 6)
    same = [rows["kd"][i]["prediction"] == rows["teacher"][i]["prediction"] for i in rows["kd"]]
    assert metrics["kd"]["agreement_with_teacher"] == round(sum(same) / 300, 6)
    assert "agreement_with_teacher" not in metrics["teacher"]
    gained = metrics["kd"]["accuracy"] - metrics["random_sft"]["accuracy"]
    assert metrics["kd"]["minus_random_sft"] == pytest.approx(gained, abs=1e-4)
    assert metrics["kd"]["low_minus_random_sft"] > 0


def test_the_funnel_counts_what_the_tables_hold(data: Path) -> None:
    lineage = arms.read(data)
    folders = [data / f for f in ("prompts/train/tasks", "drops/train")]
    tables = Tables.of(
        data,
        [
            *(Scan(report_data.contracts.TABLES[f.relative_to(data).parts[0]], (f,)) for f in folders),
            Scan(SELECTIONS, (data / "selections/responses/train/coverage",)),
            Scan(EXAMPLES, (data / "examples/coverage",)),
        ],
    )
    steps = {(s.group, s.name): s for s in facts.funnel(lineage, tables, {})}
    kept = sum(row["kept"] for row in tables.scans["selections/responses/train/coverage"].pylist())
    assert steps["pool train", "prompts"].prompts == 60
    assert steps["pool train", "not dropped"].prompts == 58
    # 60 prompts of which the teacher gave four answers each; the base's answers are not to be chosen from.
    assert steps["selection coverage", "to choose from"].answers == 240
    assert steps["selection coverage", "kept"].answers == kept > 0
    assert steps["selection coverage", "packed for base"].answers == kept
    assert steps["selection coverage", "tokens with loss"].tokens == 19 * kept
    assert steps["selection coverage", "trained: kd, 3 epochs"].trained == 3 * 19 * kept


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_has_nothing_that_acts_or_loads(data: Path) -> None:
    page = (data / "reports" / "report.html").read_text("utf-8")
    seen = Elements(page)
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form", "image"} & {
        t for t, _ in seen.elements
    }
    names = {name for _, attributes in seen.elements for name in attributes}
    # An id may occur once in a page, and charts that clip share theirs; a style attribute is against the policy.
    assert not {name for name in names if name.startswith("on")} | names & {"src", "style", "clip-path"}
    links = {attributes["href"] for tag, attributes in seen.elements if tag == "a"}
    assert {link for link in links if not re.match(r"#[a-z]+$", link or "")} == {
        "metrics.json",
        "quality/responses/train/answers/index.html",
        "quality/examples/random/random_examples/index.html",
        "quality/examples/coverage/coverage_examples/index.html",
        "quality/signals/coverage/teacher/kd_signals/index.html",
    }
    # They hold where the folder is served or sent alone.
    files = {link for link in links if link and not link.startswith("#")}
    assert [link for link in files if not (data / "reports" / link).resolve().is_relative_to(data / "reports")] == []
    assert [link for link in files if not (data / "reports" / link).is_file()] == []
    policies = [a["content"] for tag, a in seen.elements if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert report_data.HOSTILE[:40] in seen.words


def test_steps_and_tokens_stand_beside_every_verdict(data: Path) -> None:
    """Of what was trained; and unequal tokens are said."""
    words = Elements((data / "reports" / "report.html").read_text("utf-8")).words
    assert "Trained for 40 steps, 40,000 tokens against 40 steps, 40,000 tokens." in words
    said = (
        "Trained for 40 steps, 40,800 tokens against 40 steps, 40,000 tokens.",
        "2% more tokens for one of them, so the two are not held to one budget",
    )
    assert all(text in words for text in said)


FAILURES = {
    "the page": ("pipeline.report.page", "render"),
    "the lineage": ("pipeline.report.arms", "read"),
    "the results": ("pipeline.stages.report", "judge"),
    "the curves": ("pipeline.report.curves", "curves"),
    "the funnel": ("pipeline.report.facts", "funnel"),
    "the reasons": ("pipeline.report.facts", "reasons"),
    "the coverage": ("pipeline.report.facts", "coverage"),
    "the costs": ("pipeline.report.facts", "costs"),
    "the checks": ("pipeline.report.facts", "checked"),
    "the scripts": ("pipeline.report.charts", "plots_script"),
    "the plots": ("pipeline.stages.report", "_plots"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_report_that_fails_leaves_the_last_one(what: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in parquet.walk(data / "reports")}
    module, name = FAILURES[what]

    def fail(*given: object) -> None:
        raise OSError(f"{what}: no")

    monkeypatch.setattr(importlib.import_module(module), name, fail)
    with pytest.raises(OSError, match=what):
        run_instance(resolve(PARAMS).instances["report@report"], RunSettings(), data, data.parent)
    assert {file: file.read_bytes() for file in parquet.walk(data / "reports")} == before


def test_dvc_does_not_remove_the_last_report_before_there_is_another() -> None:
    stages = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text("utf-8"))["stages"]
    assert stages["report"]["outs"] == [{"data/reports": {"persist": True}}]


def test_the_top_of_the_page_says_when_of_what_and_by_whom(data: Path) -> None:
    words = " ".join(Elements((data / "reports" / "report.html").read_text("utf-8")).words.split())
    assert re.search(r"Made \d{4}-\d\d-\d\d \d\d:\d\d \(UTC\), commit \S+", words)
    assert "seed 17." in words and "Taught by teacher, local.embedded." in words
    assert "Fake teacher" not in words


def changed(params: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a run, with some entries of its sections put beside the others or in their place."""
    return {**params, **{section: {**params[section], **entries} for section, entries in sections.items()}}


def test_a_fake_teacher_stands_at_the_top(tmp_path: Path) -> None:
    params = changed(PARAMS, acquire={"teacher": {"use": "fake.words"}})
    params = {**params, "probe": {}, "read": {}}
    params["train"] = {name: entry for name, entry in params["train"].items() if name != "kd"}
    params["evaluate"] = {name: entry for name, entry in params["evaluate"].items() if name != "kd"}
    params["quality"] = {name: entry for name, entry in params["quality"].items() if name != "kd_signals"}
    data = tmp_path / "data"
    page = (make(data, report_data.build(data, params)) / "report.html").read_text("utf-8")
    head = " ".join(Elements(page.partition("<main>")[0]).words.split())
    assert "Taught by teacher, fake.words." in head and "Fake teacher: teacher. Nobody answered" in head


def test_differences_by_domain_have_intervals_and_counts(data: Path) -> None:
    page = (data / "reports" / "report.html").read_text("utf-8")
    words = " ".join(Elements(page).words.split())
    rows = {name: {r["item_id"]: r for r in Scan(EVALS, (data / "evals" / name,)).pylist()} for name in ("kd", "base")}
    mul = [item for item, row in rows["kd"].items() if row["domain"] == "mul"]
    metrics = [[rows[name][item]["metric"] for item in mul] for name in ("kd", "base")]
    found = paired_score(*metrics)
    told = f"mul{len(mul)}{signed(found.value)}{signed(found.low)} to {signed(found.high)}{verdict(found)}"
    assert told in words.partition("kd \u2212 base, by domain")[2].partition(", by domain")[0]


MANY = 55


def test_what_is_cut_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More domains than are shown, items without a reference, more points than are drawn, one level a score."""
    kinds = tuple(f"d{i:02d}" for i in range(MANY))
    monkeypatch.setattr(report_data, "DOMAINS", kinds[:-1])
    monkeypatch.setattr(report_data, "DOMAIN", kinds[-1])
    monkeypatch.setattr(report_data, "TEACHER", dict.fromkeys(kinds, 0.8))
    monkeypatch.setattr(report_data, "STUDENT", dict.fromkeys(kinds, 0.4))
    monkeypatch.setattr(learning, "POINTS", 20)
    monkeypatch.setattr(facts, "LEVELS", 2)
    data = tmp_path / "data"
    resolved = report_data.build(data, prompts=2 * MANY, items=3 * MANY)
    rows = Scan(EVALS, (data / "evals/kd",)).pylist()
    for row in rows[:7]:
        row["metric"] = None
    parquet.write(EVALS, data / "evals/kd", 1, [EVALS.rows(rows)])
    words = " ".join(Elements((make(data, resolved) / "report.html").read_text("utf-8")).words.split())
    for said in (
        "the 40 of 55 domains that have most items",
        "15 smaller domains are not shown.",
        "the first 40 of 55 domains",
        "15 more domains are in data/gaps/main and not here.",
        "of the 40 largest of 55 domains, before and after selection",
        "15 smaller domains",
        "7 more without a verdict",
        "of long trainings the mean of neighbouring steps",
        "in steps of one twentieth",
        "of 6 comparisons; the others stand below.",
    ):
        assert said in words, said


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    resolved = report_data.build(data)
    rows = Scan(EVALS, (data / "evals/kd",)).pylist()
    parquet.write(EVALS, data / "evals/kd", 1, [EVALS.rows([{**row, "metric": None} for row in rows])])
    words = " ".join(Elements((make(data, resolved) / "report.html").read_text("utf-8")).words.split())
    assert "kd and base have no judged item of bench in common, so they are not compared." in words


def test_the_page_tells_reasons_with_examples(data: Path) -> None:
    words = Elements((data / "reports" / "report.html").read_text("utf-8")).words
    assert "contaminated ngram" in words
    assert "its rule does not hold" in words
    assert "finished by length" in words


def test_the_page_tells_what_was_held_out_of_a_training(data: Path) -> None:
    page = (data / "reports" / "report.html").read_text("utf-8")
    assert "dashed on rows that are held out" in page and page.count('stroke-dasharray="5,3"') == 2
    table = page[page.index("best held out") :].partition("</table>")[0]
    assert re.findall(r'<td class="n">([^<]*)</td></tr>', table) == ["0.450", "\u2013", "\u2013"]


def test_plots_hold_the_curves_and_the_domains(data: Path, metrics: dict[str, dict[str, float]]) -> None:
    plots = data / "reports" / "plots"
    with (plots / "loss" / "kd.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows[:2]] == ["10", "20"]
    assert set(rows[0]) == {"step", "loss", "lr", "places"}
    with (plots / "domains" / "kd.csv").open(encoding="utf-8", newline="") as file:
        shares = {row["domain"]: float(row["accuracy"]) for row in csv.DictReader(file)}
    assert shares == {k.removeprefix("accuracy_"): v for k, v in metrics["kd"].items() if k.startswith("accuracy_")}


def test_the_same_tables_give_the_same_bytes(data: Path, tmp_path: Path) -> None:
    again = tmp_path / "data"
    resolved = report_data.build(again)
    shutil.rmtree(again / ".runs")
    make(again, resolved)
    for file in ("metrics.json", "metrics/kd.json", "plots/loss/kd.csv", "plots/domains/base.csv"):
        assert (again / "reports" / file).read_bytes() == (data / "reports" / file).read_bytes()
    # Without records of the runs only what the page says of time is missing.
    assert "nothing is known of its time" in (again / "reports" / "report.html").read_text("utf-8")


def test_the_result_table_says_what_the_metrics_say(data: Path) -> None:
    lines = result_table(data).splitlines()
    assert lines[0].split() == ["model", "accuracy", "95", "%", "interval", "items", "ECE"]
    assert [line.split()[0] for line in lines[1:6]] == ["base", "random_sft", "coverage_sft", "kd", "teacher"]
    assert any(line.startswith("coverage_sft against random_sft: helps, +") for line in lines)
    assert any(line.startswith("kd against coverage_sft: no claim, ") for line in lines)
    assert lines[-1] == f"report: {data / 'reports' / 'report.html'}"


def test_a_run_with_nothing_in_it_still_has_a_page(tmp_path: Path) -> None:
    data = tmp_path / "data"
    resolved = resolve({section: {} for section in set(SECTION_OF.values()) - {ALONE}})
    write(resolved, data)
    page = (make(data, resolved) / "report.html").read_text("utf-8")
    assert "there is no verdict" in page
    assert "Nothing was evaluated." in page
    assert json.loads((data / "reports" / "metrics.json").read_text("utf-8")) == {}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with three seeds of every student."""
    data = tmp_path_factory.mktemp("seeds") / "data"
    params = {k: v for k, v in report_data.PARAMS.items() if k in {*SECTION_OF.values(), "seed"}}
    make(data, report_data.build(data, unrolled(params, copies_of(params, [1, 2, 3]))))
    return data


def test_an_arm_is_one_line_with_intervals_over_seeds_and_items(several: Path) -> None:
    found = json.loads((several / "reports" / "metrics.json").read_text("utf-8"))
    assert set(found) == {"base", "teacher", "random_sft", "coverage_sft", "kd"}

    def right(name: str) -> dict[str, float]:
        return {r["item_id"]: r["metric"] for r in Scan(EVALS, (several / "evals" / name,)).pylist()}

    def table(arm: str) -> np.ndarray:
        rows = [right(name) for name in ([arm] if arm == "base" else [f"{arm}_s{seed}" for seed in (1, 2, 3)])]
        return np.array([[row[item] for item in sorted(row)] for row in rows])

    kd = found["kd"]
    assert kd["seeds"] == 3 and kd["accuracy"] == pytest.approx(table("kd").mean(), abs=1e-6)
    assert [kd[f"of_kd_s{seed}"] for seed in (1, 2, 3)] == pytest.approx(list(table("kd").mean(axis=1)), abs=1e-6)
    for second in ("random_sft", "coverage_sft", "base"):
        over = over_seeds(table("kd") - table(second))
        ends = [kd[f"{key}minus_{second}"] for key in ("", "low_over_seeds_", "high_over_seeds_")]
        assert ends == pytest.approx([over.value, over.low, over.high], abs=1e-6)
        assert kd[f"low_minus_{second}"] < kd[f"minus_{second}"] < kd[f"high_minus_{second}"]
    assert "seeds" not in found["base"]


def test_page_and_table_show_an_arm_once(several: Path) -> None:
    words = " ".join(Elements((several / "reports" / "report.html").read_text("utf-8")).words.split())
    assert "3 seeds: 1, 2, 3" in words and "over seeds alone" in words
    lines = result_table(several).splitlines()
    assert lines[0].split() == ["model", "accuracy", "95", "%", "interval", "seeds", "items", "ECE"]
    assert sorted(line.split()[0] for line in lines[1:7] if line) == [
        "base",
        "coverage_sft",
        "kd",
        "random_sft",
        "teacher",
    ]
    [told] = [line for line in lines if line.startswith("coverage_sft against random_sft: helps, +")]
    assert "over seeds +" in told and told.endswith("3 seeds)")


def test_one_control_of_another_seed_is_compared_with_one_seed(tmp_path: Path) -> None:
    params = {k: v for k, v in report_data.PARAMS.items() if k in {*SECTION_OF.values(), "seed"}}
    params = unrolled(params, copies_of(params, [1, 2, 3], ["kd"]))
    compared(tmp_path, params)
    pairs = {(c.first.name, c.second.name): c.pairs for c in arms.comparisons(arms.read(tmp_path))}
    assert pairs["kd", "base"] == ((0, 0), (1, 0), (2, 0))
    assert pairs["kd", "random_sft"] == pairs["coverage_sft", "random_sft"] == ((0, 0),)


def test_seeds_are_paired_by_seed(tmp_path: Path) -> None:
    params = {k: v for k, v in report_data.PARAMS.items() if k in {*SECTION_OF.values(), "seed"}}
    params = unrolled(params, copies_of(params, [1, 2, 3], ["kd"]))
    params = unrolled(params, copies_of(params, [3, 2], ["coverage_sft"]))
    compared(tmp_path, params)
    [pairs] = [
        c.pairs
        for c in arms.comparisons(arms.read(tmp_path))
        if (c.first.name, c.second.name) == ("kd", "coverage_sft")
    ]
    assert pairs == ((1, 0), (2, 1))


def test_what_ingest_noted_of_references_is_told(tmp_path: Path) -> None:
    notes = {
        "references_rewritten": {"n": 3, "of": 12, "at": ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:5"]},
        "solutions_judged_wrong": {"n": 0, "of": 12, "at": []},
    }
    record = tmp_path / ".runs" / "ingest" / "mine.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"notes": notes}), "utf-8")
    lineage = arms.Lineage({"ingest@mine": {"stage": "ingest", "instance": "mine"}}, (), {})
    [told] = facts.ingested(lineage, tmp_path)
    assert (told.where, told.n, told.share, told.kept) == ("prompts of mine", 3, 0.25, True)
    assert [example.asked for example in told.examples] == ["rows.jsonl:1", "rows.jsonl:2"]
