"""Quality: each planted fault fails exactly its expectation and names its rows; a good table passes."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.checking.suites import SUITES
from pipeline.contracts import RESPONSES, TABLES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import Refused
from pipeline.stages import gate, quality
from pipeline.tables import ids, parquet
from pipeline.tables.manifest import Again, Manifest

HOSTILE = "<script>document.title='taken'</script><img src=http://evil.example/x.png>\x1b[31m"


def prompts(n: int = 12) -> list[dict]:
    texts = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(n)]
    return [
        {"prompt_id": ids.prompt_id(m), "messages": m, "domain": f"d{i % 3}", "source": "test", "group": f"g{i}",
         "level": 0, "verifier": "number.exact", "reference": str(2 * i)}
        for i, m in enumerate(texts)
    ]  # fmt: skip


def responses(n: int = 12, k: int = 2) -> list[dict]:
    return [
        {"response_id": ids.digest(p["prompt_id"], s), "request_id": f"q{i}-{s}", "prompt_id": p["prompt_id"],
         "messages": p["messages"], "domain": p["domain"], "verifier": p["verifier"], "reference": p["reference"],
         "entry": "teacher", "model_id": "m", "sample": s, "seed": ids.seed_of(1, p["prompt_id"], s),
         "content": f"It is {2 * i}, said {s}", "answer": str(2 * i), "token_ids": [5, 6, 7],
         "logprobs": [-0.5, -1.0, 0.0], "finish_reason": "stop", "prompt_tokens": 4, "completion_tokens": 3,
         "attempts": 1}
        for i, p in enumerate(prompts(n))
        for s in range(k)
    ]  # fmt: skip


def selections(n: int = 12) -> list[dict]:
    return [
        {"response_id": r["response_id"], "prompt_id": r["prompt_id"], "domain": r["domain"], "kept": r["sample"] == 0,
         "weight": 1.0 if r["sample"] == 0 else 0.0, "reason": "best", "tokens": 7}
        for r in responses(n)
    ]  # fmt: skip


def examples(n: int = 12) -> list[dict]:
    return [
        {"example_id": ids.digest("e", i), "prompt_id": p["prompt_id"], "domain": p["domain"],
         "token_ids": [1, 2, 3, 4, 5, 6], "spans": [{"start": 2, "end": 3}, {"start": 4, "end": 6}], "weight": 1.0,
         "template_hash": "t", "tokenizer_hash": "t", "response_ids": ["r"]}
        for i, p in enumerate(prompts(n))
    ]  # fmt: skip


def signals(n: int = 12) -> list[dict]:
    # The targets are tokens 3, 5 and 6; the last is not among the two likeliest.
    topk = [[math.log(0.7), math.log(0.2)], [math.log(0.6), math.log(0.3)], [math.log(0.5), math.log(0.25)]]
    return [
        {**e, "teacher_id": "m", "topk_ids": [[3, 9], [8, 5], [8, 9]], "topk_logprobs": topk,
         "tail_mass": [0.1, 0.1, 0.25], "target_logprob": [topk[0][0], topk[1][1], math.log(0.01)],
         "temperature": 1.0}
        for e in examples(n)
    ]  # fmt: skip


def scores(n: int = 12) -> list[dict]:
    return [
        {
            "response_id": r["response_id"],
            "prompt_id": r["prompt_id"],
            "score": float(r["sample"] == 0),
            "quantities": [],
        }
        for r in responses(n)
    ]


MAKERS = {f.__name__: f for f in (prompts, responses, scores, selections, examples, signals)}


def check(data: Path, rows: list[dict], table: str, **extra: object) -> dict:
    """The verdict of the real driver on these rows."""
    parquet.write(TABLES[table], data / table / "made", 2, [TABLES[table].rows(rows)])
    return judge(data, table, **extra)


def judge(data: Path, table: str, **extra: object) -> dict:
    of = f"{table}/made"
    params = quality.Params.model_validate({"of": of, "suite": table, **extra})
    instance = Instance("quality", "checked", params, {"checked": (of,)}, params.output("checked"), "code")
    run_instance(instance, RunSettings(), data, data)
    return json.loads((data / instance.output / "verdict.json").read_text())


def failed(verdict: dict) -> list[str]:
    assert verdict["success"] == all(e["success"] for e in verdict["expectations"])
    return [e["name"] for e in verdict["expectations"] if not e["success"]]


@pytest.mark.parametrize("table", SUITES)
def test_a_good_table_passes(tmp_path: Path, table: str) -> None:
    verdict = check(tmp_path, MAKERS[table](), table)
    assert failed(verdict) == []
    assert verdict["rows"] == len(MAKERS[table]())


def spoil(row: dict, **changes: object) -> None:
    row.update(changes)


# Four bytes that say that they are two numbers of four.
SHORT = [{"name": "x", "dtype": "f32", "shape": [2], "digest": "d", "data": b"1234", "uri": None}]

FAULTS = {
    "prompts": {
        "length": lambda r: spoil(r[3], messages=[{"role": "user", "content": ""}]),
        "asks": lambda r: spoil(r[3], messages=[{"role": "assistant", "content": "hm"}]),
        "checkable": lambda r: spoil(r[3], reference=None),
        "bytes": lambda r: spoil(r[3], truth=SHORT),
    },
    "responses": {
        "ids": lambda r: spoil(r[2], response_id=twin(r, 2)["response_id"]),
        "samples": lambda r: spoil(r[3], sample=0),
        "seeds": lambda r: spoil(r[3], seed=r[8]["seed"]),
        "errors": lambda r: spoil(r[3], content=None, answer=None, error="timeout", finish_reason="error"),
        "content": lambda r: spoil(r[3], content=None),
        "written": lambda r: spoil(r[3], content=""),
        "length": lambda r: spoil(r[3], content="x" * 100_001),
        "answered": lambda r: [spoil(x, answer=None) for x in r[:13]],
        "repeats": lambda r: [spoil(x, content="forty-two") for x in r if x["sample"] == 1],
        "finish": lambda r: spoil(r[3], finish_reason="eos"),
        "prompt_tokens": lambda r: spoil(r[3], prompt_tokens=0),
        "completion_tokens": lambda r: spoil(r[3], completion_tokens=0, token_ids=[], logprobs=[]),
        "tokens": lambda r: spoil(r[3], logprobs=[-0.5]),
        "logprobs": lambda r: spoil(r[3], logprobs=[-0.5, 0.5, -1.0]),
        "bytes": lambda r: spoil(r[3], outputs=SHORT),
    },
    "scores": {"ids": lambda r: spoil(r[2], response_id=twin(r, 2)["response_id"])},
    "selections": {
        "weights": lambda r: spoil(r[2], weight=0.0),
        "weight": lambda r: spoil(r[3], weight=-1.0),
        "tokens": lambda r: spoil(r[3], tokens=0),
        "domains": lambda r: [spoil(x, kept=False, weight=0.0) for x in r],
    },
    "examples": {
        "spans": lambda r: spoil(r[3], spans=[{"start": 4, "end": 7}]),
        "trained": lambda r: spoil(r[3], spans=[]),
        "context": lambda r: spoil(r[3], spans=[{"start": 0, "end": 6}]),
        "tail": lambda r: spoil(r[3], spans=[{"start": 2, "end": 4}]),
        "token_ids": lambda r: spoil(r[3], token_ids=[1, -100, 3, 4, 5, 6]),
        "weight": lambda r: spoil(r[3], weight=-1.0),
        "lineage": lambda r: spoil(r[3], response_ids=[]),
        "bytes": lambda r: spoil(r[3], inputs=SHORT),
        "tokenizer": lambda r: spoil(r[3], tokenizer_hash="other"),
    },
    "signals": {
        "read": lambda r: spoil(r[3], target_logprob=[*r[3]["target_logprob"][:2], None]),
        "positions": lambda r: spoil(r[3], target_logprob=r[3]["target_logprob"][:2]),
        "widths": lambda r: spoil(r[3], topk_ids=[[3, 9], [8, 5], [8]]),
        "mass": lambda r: spoil(r[3], tail_mass=[0.1, 0.1, 0.35]),
        "tail_mass": lambda r: spoil(r[3], tail_mass=[0.1, 0.1, -0.01], topk_logprobs=wider(r[3], 0.26)),
        "tempered": lambda r: spoil(r[3], tempered=[{"temperature": 2.0, "tail_mass": [0.1, 1.2, 0.3]}]),
        "descending": lambda r: spoil(r[3], topk_logprobs=wider(r[3], 0.5, 0.25)),
        "targets": lambda r: spoil(r[3], target_logprob=[*r[3]["target_logprob"][:2], 0.5]),
        "aligned": lambda r: spoil(r[3], topk_ids=[[9, 3], [8, 5], [8, 9]]),
        "teacher": lambda r: spoil(r[3], teacher_id="other"),
        "bytes": lambda r: spoil(r[3], features=SHORT),
    },
}  # fmt: skip


def twin(rows: list[dict], of: int) -> dict:
    """A row of another part: the writer itself refuses two rows with one key in a part."""
    return next(r for r in rows if ids.part_of(r["prompt_id"], 2) != ids.part_of(rows[of]["prompt_id"], 2))


def wider(row: dict, second: float, first: float | None = None) -> list[list[float]]:
    """The row's distributions, with other probabilities at the last position."""
    *rest, _ = row["topk_logprobs"]
    first = 1.01 - second if first is None else first
    return [*rest, [math.log(first), math.log(second)]]


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, faults in FAULTS.items() for name in faults])
def test_a_fault_fails_its_expectation_and_no_other(tmp_path: Path, table: str, name: str) -> None:
    rows = MAKERS[table]()
    FAULTS[table][name](rows)
    verdict = check(tmp_path, rows, table)
    assert failed(verdict) == [name]
    found = next(e for e in verdict["expectations"] if e["name"] == name)
    if "unexpected" in found:
        key = SUITES[table].names[0]
        assert 1 <= len(found["offending"]) <= 5
        assert {row[key] for row in found["offending"]} <= {row[key] for row in rows}
        if found["unexpected"] == 1:
            assert found["offending"][0][key] in (rows[2][key], rows[3][key])


def test_a_gate_reads_what_people_said(tmp_path: Path) -> None:
    """Of the scores that labels gave a share must be good; an answer that nobody labelled counts for neither side."""
    rows = [{**row, "score": [1.0, 1.0, 1.0, 0.0, None][i % 5]} for i, row in enumerate(scores())]
    for share, wrong in ((0.7, []), (0.8, ["good"])):
        expect = [{"name": "good", "rule": "score = 1", "mostly": share}]
        assert failed(check(tmp_path, rows, "scores", expect=expect)) == wrong


def compact(n: int = 12) -> list[dict]:
    """Signals of two outcomes a place, stored compactly."""
    own = {
        "topk_ids": None,
        "topk_logprobs": None,
        "topk_gaps": [3, 6, 5, 3, 8, 1],
        "topk_steps": [0, 40, 22, 0, 0, 22],
    }
    return [{**row, **own} for row in signals(n)]


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, []),
        ({"topk_gaps": [3, 6, 5]}, ["positions"]),
        ({"topk_gaps": None, "topk_steps": None}, ["positions"]),
        ({"topk_steps": [0, 40, 22, 0, None, None]}, ["read"]),
    ],
)
def test_signals_that_are_stored_compactly_are_checked_too(tmp_path: Path, changed: dict, wrong: list[str]) -> None:
    rows = compact()
    spoil(rows[3], **changed)
    assert failed(check(tmp_path, rows, "signals")) == wrong


AGREES = {
    "teacher": "m",
    "dtype": "float32",
    "tokenizer": "t",
    "template": "t",
    "examples": "e",
    "rows": 12,
    "top_k": 2,
}


@pytest.mark.parametrize(("distance", "wrong"), [(1e-6, []), (0.03, ["reread"])])
def test_signals_that_a_second_reading_does_not_agree_with_do_not_pass(
    tmp_path: Path, distance: float, wrong: list[str]
) -> None:
    """The bound is on the mean of the places; it may be set, as any other."""
    again = Again(rows=12, places=36, dtype="float64", distance=distance, furthest=0.5, target=2.0)
    (tmp_path / "signals" / "made").mkdir(parents=True)
    Manifest(**AGREES, again=again).write(tmp_path / "signals" / "made")
    assert failed(check(tmp_path, signals(), "signals")) == wrong
    if wrong:
        assert failed(judge(tmp_path, "signals", bounds={"reread": 0.05})) == []


def test_every_expectation_of_a_row_has_a_fault_that_it_finds() -> None:
    tried_elsewhere = {"rows", "domains", "ids", "numbers", "reread"}
    for table, suite in SUITES.items():
        shared = set(FAULTS["examples"]) | {"length"} if table == "signals" else {"length"}
        missing = {e.name for e in suite.expectations} - set(FAULTS[table]) - tried_elsewhere - shared
        assert not missing, f"{table}: {missing}"


WITH_NAN = {
    "the weight of what is kept": ("selections", {"weight": math.nan}),
    "an example's weight": ("examples", {"weight": math.nan}),
    "an example's reward": ("examples", {"reward": math.nan}),
    "a weight of signals": ("signals", {"weight": math.nan}),
    "a reward of signals": ("signals", {"reward": math.nan}),
    "one of the likeliest": ("signals", {"topk_logprobs": [[math.nan, -1.6], [-0.5, -1.2], [-0.7, -1.4]]}),
    "the last of the likeliest": ("signals", {"topk_logprobs": [[-0.4, -1.6], [-0.5, -1.2], [-0.7, math.nan]]}),
    "a tail": ("signals", {"tail_mass": [0.1, math.nan, 0.25]}),
    "a target": ("signals", {"target_logprob": [math.nan, -1.2, -4.6]}),
    "a temperature": ("signals", {"temperature": math.nan}),
    "a log-probability": ("responses", {"logprobs": [-0.5, math.nan, -1.0]}),
    "every log-probability": ("responses", {"logprobs": [math.nan] * 3}),
    "a score": ("scores", {"score": math.nan}),
    "a quantity of a score": ("scores", {"quantities": [("good", math.nan)]}),
    "a cost": ("responses", {"cost_usd": math.nan}),
}


@pytest.mark.parametrize("what", WITH_NAN)
def test_nan_is_a_fault_however_it_came_into_the_table(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No comparison sees it: to DuckDB it is above every number, so it met `weight >= 0` and `kept = (weight > 0)`."""
    table, changed = WITH_NAN[what]
    rows = MAKERS[table]()
    spoil(rows[2], **changed)
    monkeypatch.setattr(parquet, "_has_floats", lambda kind: False)
    verdict = check(tmp_path, rows, table)
    assert "numbers" in failed(verdict)
    found = next(e for e in verdict["expectations"] if e["name"] == "numbers")
    key = SUITES[table].names[0]
    assert [row[key] for row in found["offending"]] == [rows[2][key]]


@pytest.mark.parametrize("table", [t for t in SUITES if t != "prompts"])
def test_infinity_and_null_are_no_nan(table: str, tmp_path: Path) -> None:
    rows = MAKERS[table]()
    changed = {"responses": {"logprobs": [-math.inf, None, -1.0]}, "signals": {"target_logprob": [None, None, None]},
               "scores": {"score": math.inf}}  # fmt: skip
    spoil(rows[2], **changed.get(table, {"weight": math.inf}))
    assert "numbers" not in failed(check(tmp_path, rows, table))


@pytest.mark.parametrize(
    "array",
    [
        {"shape": [2], "data": b"12345678"},
        {"shape": [], "data": b"1234"},
        {"shape": [0, 3], "data": b""},
        {"shape": [9], "data": None, "uri": "far/away.bin"},
        {"shape": [5], "dtype": "png", "data": b"12345"},
        None,
    ],
)
def test_what_agrees_with_its_bytes_passes(tmp_path: Path, array: dict | None) -> None:
    rows = prompts()
    rows[3]["inputs"] = [] if array is None else [{**SHORT[0], **array}]
    # Where something else than words is asked about, words may be missing.
    rows[3]["messages"] = [{"role": "user", "content": ""}]
    assert failed(check(tmp_path, rows, "prompts")) == []


@pytest.mark.parametrize(
    "array",
    [
        {"shape": [-1, -1], "data": b"1234"},
        {"data": None},
        {"dtype": "pickle", "shape": [4]},
        {"dtype": "png", "shape": [5]},
        {"shape": [], "data": b""},
    ],
)
def test_what_does_not_agree_with_its_bytes_is_found(tmp_path: Path, array: dict) -> None:
    rows = prompts()
    rows[3]["inputs"] = [{**SHORT[0], **array}]
    assert failed(check(tmp_path, rows, "prompts")) == ["bytes"]


def test_an_item_that_is_no_text_may_be_learnt_whole_and_have_unknown_places(tmp_path: Path) -> None:
    rows = signals()
    image = [{**SHORT[0], "shape": [1]}]
    for row in rows[:6]:
        row.update(inputs=image, token_ids=[-1, 3, 5, 6, 6], spans=[{"start": 1, "end": 4}])
    assert failed(check(tmp_path, rows, "signals")) == []
    for row in rows[:6]:
        row.update(token_ids=[3, 5, 6], spans=[{"start": 0, "end": 3}])
    assert failed(check(tmp_path, rows, "signals")) == []


def test_an_empty_table_does_not_pass(tmp_path: Path) -> None:
    assert set(failed(check(tmp_path, [], "responses"))) == {"rows", "domains"}


def test_models_that_answer_one_pool_may_share_seeds(tmp_path: Path) -> None:
    for model in ("base", "teacher"):
        rows = [{**r, "entry": model, "response_id": ids.digest(model, r["response_id"])} for r in responses()]
        parquet.write(RESPONSES, tmp_path / "responses" / "train" / model, 2, [RESPONSES.rows(rows)])
    folders = ("responses/train/base", "responses/train/teacher")
    params = quality.Params(of="responses/train", suite="responses")
    instance = Instance("quality", "all", params, {"checked": folders}, params.output("all"), "code")
    run_instance(instance, RunSettings(), tmp_path, tmp_path)
    verdict = json.loads((tmp_path / "quality/responses/train/all/verdict.json").read_text())
    assert verdict["rows"] == 48
    assert failed(verdict) == []


def test_bounds_and_rules_extend_a_suite(tmp_path: Path) -> None:
    rows = responses()
    for row in rows[:13]:
        row["answer"] = None
    rule = {"name": "short", "rule": "length(content) < 16 OR domain = 'd0'", "mostly": 0.9}
    verdict = check(tmp_path, rows, "responses", bounds={"answered": 0.4, "domains": 4}, expect=[rule])
    assert failed(verdict) == ["domains", "short"]
    short = next(e for e in verdict["expectations"] if e["name"] == "short")
    wrong = [r for r in rows if len(r["content"]) >= 16 and r["domain"] != "d0"]
    assert short["unexpected"] == len(wrong)
    assert {o["response_id"] for o in short["offending"]} <= {r["response_id"] for r in wrong}
    assert failed(judge(tmp_path, "responses", bounds={"answered": 0.4}, expect=[{**rule, "mostly": 0.1}])) == []


def test_a_rule_that_breaks_on_a_row_is_the_users_mistake(tmp_path: Path) -> None:
    rule = {"name": "whole", "rule": "content::INTEGER > 0"}
    with pytest.raises(Refused, match="TRY_CAST"):
        check(tmp_path, responses(), "responses", expect=[rule])


def test_tables_of_two_pools_with_one_name_are_both_read(tmp_path: Path) -> None:
    halves = {"bench": responses()[:10], "train": responses()[10:]}
    for pool, rows in halves.items():
        parquet.write(RESPONSES, tmp_path / "responses" / pool / "teacher", 2, [RESPONSES.rows(rows)])
    folders = ("responses/bench/teacher", "responses/train/teacher")
    params = quality.Params(of="responses", suite="responses")
    instance = Instance("quality", "all", params, {"checked": folders}, params.output("all"), "code")
    run_instance(instance, RunSettings(), tmp_path, tmp_path)
    assert json.loads((tmp_path / "quality/responses/all/verdict.json").read_text())["rows"] == 24


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"suite": "respones"}, "there are prompts, responses"),
        ({"suite": "examples"}, "write `suite: responses`"),
        ({"bounds": {"answerd": 0.5}}, "it has rows, errors"),
        ({"bounds": {"answered": 1.5}}, "a share of the rows"),
        ({"expect": [{"name": "x", "rule": "contnt IS NULL"}]}, "contnt"),
        ({"expect": [{"name": "x", "rule": "true) FROM responses; SELECT (true"}]}, "closes a bracket"),
        ({"expect": [{"name": "x", "rule": "content IN (SELECT content FROM '/etc/passwd')"}]}, "no view"),
        ({"expect": [{"name": "x", "rule": "random() < 0.5"}]}, "may differ from run to run"),
        ({"expect": [{"name": "x", "rule": '"random"() < 0.5'}]}, "may differ from run to run"),
        ({"expect": [{"name": "x", "rule": "count(*) > 3"}]}, "not a condition"),
        ({"expect": [{"name": "x", "rule": "sample"}]}, "it is BIGINT"),
        ({"expect": [{"name": "seeds", "rule": "true"}]}, "is taken"),
        ({"expct": []}, "expct"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stage", [quality, gate])
def test_a_wrong_entry_is_refused_while_planning(stage: object, extra: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        stage.Params.model_validate({"of": "responses/train", "suite": "responses", **extra})


def test_a_word_of_a_text_is_no_call() -> None:
    rule = {"name": "polite", "rule": "content NOT LIKE '%now (at last)%' AND sample >= 0"}
    assert quality.Params(of="responses/train", suite="responses", expect=[rule]).expect[0].name == "polite"


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    rows = responses()
    for row in rows[:6]:
        row.update(content=HOSTILE, seed=7, finish_reason="odd")
    check(tmp_path, rows, "responses")
    first = parquet.folder_digest(tmp_path / "quality")
    (tmp_path / "elsewhere").mkdir()
    check(tmp_path / "elsewhere", list(reversed(rows)), "responses")
    assert parquet.folder_digest(tmp_path / "elsewhere" / "quality") == first


def test_pages_hold_nothing_live_and_nothing_remote(tmp_path: Path) -> None:
    rows = responses()
    for row in rows[:6]:
        row.update(content=HOSTILE, seed=7, finish_reason="<b onclick=alert(1)>")
    check(tmp_path, rows, "responses")
    docs = tmp_path / "quality/responses/made/checked/docs"
    pages = {p.name: p.read_text("utf-8") for p in docs.iterdir()}
    assert set(pages) == {"index.html", "validation.html"}
    for page in pages.values():
        assert "default-src 'none'" in page
        for live in ("<script", "<img", "onclick=alert(1)>", 'src="', "@import", "url("):
            assert live not in page
        assert "&lt;script&gt;" in page
        assert "http" not in page.replace("http-equiv", "").replace("src=http://evil.example", "")
        assert "\x1b" not in page


def test_the_verdict_names_what_was_seen(tmp_path: Path) -> None:
    rows = responses()
    rows[3]["seed"] = rows[8]["seed"]
    rows[3]["content"] = HOSTILE
    verdict = check(tmp_path, rows, "responses")
    seeds = next(e for e in verdict["expectations"] if e["name"] == "seeds")
    assert seeds["observed"] == round(22 / 24, 6)
    assert (seeds["unexpected"], seeds["checked"], seeds["expected"]) == (2, 24, "unique")
    assert {o["response_id"] for o in seeds["offending"]} == {rows[3]["response_id"], rows[8]["response_id"]}
    assert "\x1b" not in (tmp_path / "quality/responses/made/checked/verdict.json").read_text()
