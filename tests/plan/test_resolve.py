"""The plan: all that can be wrong in the parameters is wrong there, at once, with its key and what to write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import identity
from pipeline.kinds.backend import Structured
from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]
Change = Callable[[dict[str, Any]], object]


def test_the_reports_template_is_part_of_the_reports_identity_alone(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = resolve(given), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: real(self) + b"<!-- -->" * (self.name == "report.html"))
    identity.forget()
    after = resolve(given)
    identity.forget()
    assert [label for label, i in before.instances.items() if i.code != after.instances[label].code] == [
        "report@report"
    ]


def faults(given: dict[str, Any], change: Change) -> list[str]:
    changed = copy.deepcopy(given)
    change(changed)
    with pytest.raises(PlanError) as error:
        resolve(changed)
    return error.value.faults


WRONG: dict[str, tuple[Change, str]] = {
    "an unknown section": (lambda p: p.update(tain={}), "tain: no such section; did you mean train?"),
    "a missing section": (lambda p: p.pop("ingest"), "ingest: is missing"),
    "a section that is null": (lambda p: p.update(read=None), "a section without entries is written `read: {}`"),
    "a section that is no mapping": (lambda p: p.update(read=[1]), "read: must be a mapping, not [1]"),
    "an entry that is no mapping": (lambda p: p["read"].update(a=1), "read.a: must be a mapping, not 1"),
    "a seed that is no number": (lambda p: p.update(seed="x"), "seed: must be a whole number, not 'x'"),
    "an unknown key": (
        lambda p: p["train"]["kd"].update(epoch=3), "train.kd.epoch: no such parameter; did you mean epochs?"
    ),
    "ranks that a student cannot be laid over": (
        lambda p: (
            p["run"].update(ranks=2, shard=True), p["train"]["kd"].update(objectives=[{"use": "tokens.entropy"}])
        ),
        "train.kd: run.shard: tokens.entropy holds all rows of a step against each other: leave that out, or write",
    ),
    "an unknown key of a run": (lambda p: p["run"].update(worker=2), "run.worker: no such parameter"),
    "a missing key": (lambda p: p["generate"]["base"].pop("k"), "generate.base.k: is missing"),
    "a wrong type": (lambda p: p["generate"]["base"].update(k="many"), "generate.base.k: Input should be a valid"),
    "a number out of range": (lambda p: p["generate"]["base"].update(k=0), "generate.base.k: Input should be greater"),
    "a part with a role's name": (
        lambda p: p["train"]["kd"].update(beside={"shadow": "student"}), "train.kd: beside.shadow: a part's name is"
    ),
    "a part that begins as no teacher": (
        lambda p: p["train"]["kd"].update(beside={"peer": "teacher"}), "beside.peer begins as the teacher, and there is"
    ),
    "a turn that trains nobody": (
        lambda p: p["train"]["kd"].update(
            objectives=[], turns=[{"trains": ["peer"], "objectives": [{"use": "supervised.cross_entropy"}]}]
        ),
        "train.kd: trains 'peer', which is no part; there are student",
    ),
    "neither objectives nor turns": (
        lambda p: p["train"]["kd"].update(objectives=[]), "write either `objectives:` or `turns:`"
    ),
    "a term against nobody": (
        lambda p: p["train"]["kd"]["objectives"][0].update(against="teacher"), "divergence.forward names 'teacher'"
    ),
    "a second model for one that reads none": (
        lambda p: p["train"]["kd"]["objectives"][0].update(reference="start"), "leave out `reference: start`"
    ),
    "a tap that no probe stores": (
        lambda p: p["train"]["kd"]["objectives"].append({"use": "feature.hidden"}),
        "feature.hidden reads the teacher's tap 'last'; let probe.teacher say `taps: [last]`",
    ),
    "rollouts on stored signals": (
        lambda p: p["train"]["kd"].update(feed={"use": "rollout.on_policy"}), "draws rows that the stored signals are"
    ),
    "all outcomes without a live model": (
        lambda p: p["train"]["coverage_sft"].update(objectives=[{"use": "schedule.ps_kd"}]),
        "needs a live model: say `shadow:`",
    ),
    "an unknown method": (
        lambda p: p["score"]["format"].update(use="heuristic.fromat"), "did you mean heuristic.format?"
    ),
    "a method of another kind": (
        lambda p: p["score"]["format"].update(use="sampling.random"), "no scorer is called 'sampling.random'"
    ),
    "an unknown key of a method": (
        lambda p: p["score"]["agreement"].update(normalize="number"), "has no parameter 'normalize'"
    ),
    "a name that is no word": (
        lambda p: p["score"].update({"My Score": p["score"]["format"]}), "lower-case letters, digits and _"
    ),
    "a name that is a path": (lambda p: p["score"].update({"../up": p["score"]["format"]}), "score.../up: an instance"),
    "a name that is a number": (lambda p: p["score"].update({1: p["score"]["format"]}), "score.1: an instance's name"),
    "a missing file": (
        lambda p: p["ingest"]["tasks"].update(use="files.jsonl", path="nowhere.jsonl") or
        [p["ingest"]["tasks"].pop(key) for key in ("rows", "seed")],
        "nowhere.jsonl is missing",
    ),
    "a table that nobody makes": (
        lambda p: p["pack"]["random"].update(of="responses/tarin"), "nothing makes data/responses/tarin"
    ),
    "a model that nobody makes": (lambda p: p["generate"]["base"].update(model="bsae"), "did you mean models/base?"),
    "two that write one table": (
        lambda p: p["train"].update(base=p["train"]["kd"]), "both write data/models/base; rename one"
    ),
    "entries that wait for each other": (
        lambda p: p["train"]["random_sft"].update(student="coverage_sft")
        or p["train"]["coverage_sft"].update(student="random_sft"),
        "these entries wait for each other",
    ),
    "a table that no quality entry checks": (lambda p: p["quality"].pop("kd_signals"), "Add to params.yaml"),
    "a pool that is not curated": (
        lambda p: p["curate"].clear(), "`curate: {train: {against: <the pool of the benchmark>}}`"
    ),
    "answers that are not scored": (lambda p: p["score"].clear() or p["read"].clear(), "nothing scores responses"),
    "a backend that cannot": (
        lambda p: p["acquire"]["teacher"].clear()
        or p["acquire"]["teacher"].update(use="remote.endpoint", model="m", version="1"),
        "topk_logprobs of the model 'teacher', which gives generate",
    ),
    "a reader of a form that nobody gave": (
        lambda p: p["acquire"]["teacher"].clear()
        or p["acquire"]["teacher"].update(use="remote.endpoint", model="m", version="1")
        or p["read"].update(lengths={"of": "responses/train", "model": "teacher", "use": "form.tokens"}),
        "read.lengths: needs form of the model 'teacher', which gives generate. Use another",
    ),
    "examples in a form that nobody gave": (
        lambda p: p["acquire"]["teacher"].clear()
        or p["acquire"]["teacher"].update(use="remote.endpoint", model="m", version="1")
        or p["pack"]["random"].update(student="teacher"),
        "pack.random: needs form of the model 'teacher', which gives generate. Use another",
    ),
    "a teacher without its distribution": (
        lambda p: p["train"]["kd"].update(of="examples/coverage"), "say `of: signals/<examples>/<probe>`"
    ),
    "students of one arm that differ": (
        lambda p: p["train"]["kd"].update(arm="x") or p["train"].update(more={**p["train"]["kd"], "epochs": 9}),
        "train.more: epochs: is another in train.kd; entries of one arm (x) differ in `seed` and `of` alone",
    ),
    "a curriculum without a control": (
        lambda p: p["train"]["kd"].update(pacing={"by": "root"}), "train.kd: pacing: there is no entry like this one"
    ),
    "a curriculum whose control is trained longer": (
        lambda p: p["train"].update(eased={**p["train"]["kd"], "pacing": {}, "epochs": 9}),
        "train.eased: pacing: there is no entry like this one without it",
    ),
    "an order that is no number": (
        lambda p: p["select"]["coverage"].update(order="domain"), "select.coverage: order: 'domain' must be a number"
    ),
    "a rule of two statements": (
        lambda p: p["select"]["coverage"].update(where="true; DROP TABLE responses"), "select.coverage: "
    ),
    "a rule that reads a file": (
        lambda p: p["select"]["coverage"].update(where="(SELECT count(*) FROM read_text('/etc/passwd')) > 0"),
        "select.coverage: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_fault_names_its_key_and_what_to_write(given: dict[str, Any], what: str) -> None:
    change, says = WRONG[what]
    assert any(says in fault for fault in faults(given, change)), faults(given, change)


def test_a_curriculum_beside_its_control_is_no_fault(given: dict[str, Any]) -> None:
    given["select"]["coverage"]["order"] = "-agreement.score"
    given["train"]["eased"] = {**given["train"]["kd"], "pacing": {"by": "step", "begin": 0.5}}
    assert "train@eased" in resolve(given).instances


# Expressions that no automaton can be, and what is said of them; and others that look like them.
BEYOND = {
    r"(?=4)\d": "a look-ahead", r"(?!4)\d": "a look-ahead", r"\d(?<=4)": "a look-behind",
    r"\d(?<!4)": "a look-behind", r"(a)\1": "a back-reference", r"(?P<x>a)(?P=x)": "a back-reference",
    r"(a)?(?(1)b|c)": "a condition", r"(?>a+)b": "an atomic group", r"a++b": "a possessive repeat",
    r"a{2}+b": "a possessive repeat", r"\bfour\b": "a word boundary", r"fo\Bur": "a word boundary",
    r"\A4\Z": "an anchor", r"(?i)yes": "a flag", r"(?s:.)": "a flag", r"(?i:yes)|no": "a flag",
}  # fmt: skip
PLAIN = [
    r"\d+", r"(?:a|b)+?", r"(?P<x>a)b", r"[(?=4)]", r"\(\?=4\)", r"[\]\1]", r"[]a(?!b)]", r"\\b", r"\++", r"[\b]",
    r"a+\+", r"^#### -?\d+$",
]  # fmt: skip


@pytest.mark.parametrize("pattern", [*BEYOND, *PLAIN])
def test_an_expression_that_is_more_than_an_automaton_is_told(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    forms = (
        {"regex": pattern},
        {"json_schema": {"anyOf": [schema]}},
        {"json_schema": {"patternProperties": {pattern: {}}}},
    )
    for form in forms:
        said = Structured(**form).beyond()
        assert said is None if pattern in PLAIN else BEYOND[pattern] in str(said) and pattern in str(said)
    assert Structured(json_schema={"properties": {"pattern": {"type": "string"}}}).beyond() is None
    assert Structured(choice=(pattern,)).beyond() is None


@pytest.mark.parametrize("pattern", [r"(?!4)\d", r"\d"])
@pytest.mark.parametrize("engine", ["vllm", "transformers", "served", "served structured"])
def test_an_expression_that_no_engine_takes_is_a_fault(given: dict[str, Any], pattern: str, engine: str) -> None:
    """Where an engine is held to it. Where answers are looked at afterwards, any expression will do."""
    served = {"use": "remote.endpoint", "model": "m", "version": "1", "structured": engine == "served structured"}
    folder = {"use": "local.folder", "path": "data/embedded/teacher", "engine": engine}
    given["acquire"]["held"] = served if engine.startswith("served") else folder
    form = {"regex": pattern}
    given["generate"]["held"] = {"pool": "train", "model": "held", "k": 1, "temperature": 1.0, "structured": form}
    if pattern in BEYOND and engine in ("vllm", "served structured"):
        [fault] = [f for f in faults(given, lambda p: None) if "generate.held" in f]
        assert "structured: a look-ahead" in fault and pattern in fault
    else:
        resolve(given, only="generate@held")


@pytest.mark.parametrize("more", [{"train_on": "reasoning"}, {"train_on": "both"}, {"answers": "every"}])
def test_a_network_that_learns_no_text_learns_the_answer_alone(given: dict[str, Any], more: dict[str, str]) -> None:
    bert = {
        "use": "text.bert",
        "alphabet": "ab",
        "outcomes": ["a", "b"],
        "width": 8,
        "layers": 1,
        "heads": 1,
        "seed": 1,
    }
    given["acquire"]["named"] = {**bert, "context": 16}
    given["pack"]["named"] = {"of": "responses/train", "by": "random", "student": "named", **more}
    [(key, value)] = more.items()
    assert any(f"pack.named: {key}: {value}: a classifier.text" in f for f in faults(given, lambda p: None))
    given["pack"]["named"]["student"] = "base"
    resolve(given, only="pack@named")
    given["pack"]["named"] |= {"train_on": "reasoning", "answers": "every"}
    assert any("earlier answers have no thoughts apart" in f for f in faults(given, lambda p: None))
    given["pack"]["named"] |= {"train_on": "answer", "targets": "reference"}
    assert any("pack.named: targets: reference: a language.causal" in f for f in faults(given, lambda p: None))
    given["pack"]["named"]["student"] = "named"
    resolve(given, only="pack@named")


@pytest.mark.parametrize(
    ("endpoint", "model", "says"),
    [
        ({"max_cost": 5.0}, {}, "run.endpoints.served.max_cost needs prices"),
        ({"batch": {}}, {"n": 4}, "take `n` out, or `batch` out of run.endpoints.served"),
        ({"batch": {}}, {"read": True, "tokenizer": "t"}, "take `read` out, or `batch` out of run.endpoints.served"),
    ],
)
def test_a_served_model_and_its_endpoint_go_together(
    given: dict[str, Any], endpoint: dict[str, Any], model: dict[str, Any], says: str
) -> None:
    def change(params: dict[str, Any]) -> None:
        params["acquire"]["served"] = {"use": "remote.endpoint", "model": "m", "version": "1", **model}
        params["run"] = {"endpoints": {"served": {"url": "http://127.0.0.1:1/v1", **endpoint}}}

    assert [text for text in faults(given, change) if says in text] != []


def test_all_faults_are_told_at_once(given: dict[str, Any]) -> None:
    def change(params: dict[str, Any]) -> None:
        params["train"]["kd"].update(epoch=3)
        params["generate"]["base"].update(k="many")
        params["tain"] = {}

    found = faults(given, change)
    assert [fault.split(":")[0] for fault in found] == ["tain", "generate.base.k", "train.kd.epoch"]


HIDDEN = (
    "an unknown section", "an unknown key of a run", "a number out of range", "a model that nobody makes",
    "a table that no quality entry checks", "a rule that reads a file", "a tap that no probe stores",
    "a term against nobody", "students of one arm that differ", "all outcomes without a live model",
    "a part with a role's name", "two that write one table",
)  # fmt: skip


@pytest.mark.parametrize("other", HIDDEN)
@pytest.mark.parametrize("kind", ["score", "select", "objective"])
def test_an_unknown_method_hides_nothing(given: dict[str, Any], kind: str, other: str) -> None:
    def unknown(params: dict[str, Any]) -> None:
        WRONG[other][0](params)
        if kind == "score":
            params["score"]["agreement"]["use"] = "consistency.agrement"
        elif kind == "select":
            params["select"]["random"]["use"] = "sampling.randm"
        else:
            params["train"]["random_sft"]["objectives"] = [{"use": "supervised.cros_entropy"}]

    found = faults(given, unknown)
    assert any("did you mean" in fault and ".use: no " in fault for fault in found)
    assert any(WRONG[other][1] in fault for fault in found), found
    # Nothing is said of an entry only because another is wrong.
    alone = faults(given, WRONG[other][0])
    assert len(found) <= len(alone) + 1


@pytest.mark.parametrize(
    ("section", "entry", "change", "says"),
    [
        (
            "select",
            "random",
            {"budget_row": 5},
            "select.random.budget_row: sampling.random has no parameter 'budget_row'; "
            "did you mean budget_rows? It takes no parameters, and this entry",
        ),
        (
            "select",
            "coverage",
            {"prefr": 1},
            "select.coverage.prefr: mixture.coverage has no parameter 'prefr'; did you mean prefer?",
        ),
        (
            "select",
            "coverage",
            {"whre": "true"},
            "select.coverage.whre: mixture.coverage has no parameter 'whre'; did you mean where?",
        ),
        ("select", "coverage", {"form": ["teacher"]}, "did you mean from?"),
        ("select", "coverage", {"prefer": "much"}, "select.coverage.prefer: Input should be a valid number"),
        ("select", "coverage", {"one_per_promt": False}, "did you mean one_per_prompt?"),
        ("score", "agreement", {"normalise": "much"}, "score.agreement.normalise: Input should be 'none'"),
        (
            "score",
            "agreement",
            {"off": "x"},
            "score.agreement.off: consistency.agreement has no parameter 'off'; did you mean of?",
        ),
        (
            "ingest",
            "tasks",
            {"split": {"held_out": 0.5, "tak": "train"}},
            "ingest.tasks.split.tak: no such parameter; did you mean take?",
        ),
        ("ingest", "tasks", {"verifer": "text.exact"}, "did you mean verifier?"),
        (
            "train",
            "kd",
            {"objectives": [{"use": "divergence.forward", "wieght": 2}]},
            "train.kd.objectives.0.wieght: divergence.forward has no parameter 'wieght'; did you mean weight?",
        ),
        (
            "train",
            "kd",
            {"adapter": {"rnk": 2, "alpha": 1}},
            "train.kd.adapter.rnk: no such parameter; did you mean rank?",
        ),
        ("train", "kd", {"shadow": {"dekay": 0.5}}, "train.kd.shadow.dekay: no such parameter; did you mean decay?"),
        (
            "acquire",
            "teacher",
            {"nam": "x"},
            "acquire.teacher.nam: local.embedded has no parameter 'nam'; did you mean name?",
        ),
        ("quality", "answers", {"expct": []}, "quality.answers.expct: no such parameter; did you mean expect?"),
    ],
)
def test_the_nearest_name_is_told_of_the_entry_and_of_its_method(
    given: dict[str, Any], section: str, entry: str, change: dict[str, Any], says: str
) -> None:
    found = faults(given, lambda p: p[section][entry].update(change))
    assert any(says in fault for fault in found), found
    # The key that is named stands in the file, as far as it was written.
    path = next(fault for fault in found if says in fault).partition(": ")[0].split(".")
    here: Any = {section: {entry: {**given[section][entry], **change}}}
    for step in path:
        here = here[int(step)] if isinstance(here, list) else here[step]


def test_the_faults_of_a_methods_arguments_are_told_together(given: dict[str, Any]) -> None:
    found = faults(given, lambda p: p["select"]["coverage"].update(prefer="x", prefr=1, budget_tokens=-1))
    assert {fault.partition(":")[0] for fault in found} == {
        "select.coverage.prefer", "select.coverage.prefr", "select.coverage.budget_tokens",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("train.kd.seed", 2**64),
        ("train.kd.learning_rate", float("inf")),
        ("train.kd.learning_rate", float("nan")),
        ("train.kd.epochs", float("inf")),
        ("train.kd.weight_decay", float("inf")),
        ("train.kd.max_grad_norm", float("nan")),
        ("generate.base.temperature", float("inf")),
        ("generate.base.k", 0),
        ("generate.base.top_p", 1.5),
        ("generate.base.max_tokens", -5),
        ("select.coverage.prefer", float("nan")),
        ("select.coverage.prefer", float("-inf")),
        ("select.random.budget_tokens", 0),
        ("gaps.main.alpha", 1.5),
        ("gaps.main.previous", {"add": -1.0}),
        ("gaps.main.previous", {"add": float("nan")}),
        ("quality.answers.bounds", {"length": float("inf")}),
        ("ingest.tasks.parts", 100_000),
        ("ingest.tasks.parts", 0),
        ("run.workers", 0),
        ("run.threads", 10**9),
        ("run.query_s", 0),
        ("run.query_s", float("inf")),
        ("run.query_memory", 1000),
        ("run.query_memory", "much"),
        ("run.memory", 1.5),
        ("run.memory", 0.0),
        ("run.memory", "much"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_key(given: dict[str, Any], key: str, value: object) -> None:
    *way, last = key.split(".")

    def change(params: dict[str, Any]) -> None:
        here = params
        for step in way:
            here = here[step]
        here[last] = value

    found = faults(given, change)
    assert any(fault.startswith(key) for fault in found), found
    assert all(fault.startswith((key, ".".join(way))) for fault in found), found


@pytest.mark.parametrize(
    "change",
    [
        {"student": "teacher"},
        {"teacher": "base"},
        {"teacher": "again", "student": "greedy"},
        {"student": "warm", "teacher": "teacher"},
        {"student": "teacher", "teacher": "again"},
        {"student": "greedy"},
        {"teacher": "other_base"},
        {"teacher": "base", "student": "other_base"},
        {"teacher": "other_base", "student": "base"},
        {"student": "again", "teacher": "warm"},
        {"teacher_nll": "base_nll"},
        {"student_nll": "teacher_nll"},
    ],
    ids=str,
)
def test_gaps_of_a_model_with_itself_are_refused(given: dict[str, Any], change: dict[str, str]) -> None:
    """Also where two entries of generate ask one model, and where one reading is named twice."""
    asked = {
        "again": ("teacher", 0.5),
        "warm": ("teacher", 0.9),
        "greedy": ("teacher", 0.0),
        "other_base": ("base", 0.5),
    }
    for name, (model, temperature) in asked.items():
        given["generate"][name] = {"pool": "train", "model": model, "k": 1, "temperature": temperature}
    resolve(given)
    change = {"teacher": "teacher", "student": "base", **change}
    found = faults(given, lambda p: p["gaps"]["main"].update(change))
    assert any(f.startswith("gaps.main: student") and ("no gap to itself" in f or "and so is" in f) for f in found)


def test_how_a_run_is_done_is_not_in_the_plan(given: dict[str, Any]) -> None:
    before = {label: i.to_json() for label, i in resolve(given).instances.items()}
    given["run"] = {"executor": "inline", "threads": 3, "batch_rows": 7}
    assert {label: i.to_json() for label, i in resolve(given).instances.items()} == before


def test_one_instance_alone_is_the_same(given: dict[str, Any]) -> None:
    label = "select@coverage"
    assert resolve(given, only=label).instances[label] == resolve(given).instances[label]
