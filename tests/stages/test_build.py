"""Build: models made of models, what is trained of them, and how they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from pipeline.contracts import SIGNALS  # noqa: E402
from pipeline.core.driver import run_instance  # noqa: E402
from pipeline.core.graph import named_by_model  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.core.stage import Instance, stage_named  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import GenerateRequest, Sampling, card_of, open_model  # noqa: E402
from pipeline.model import heads  # noqa: E402
from pipeline.model.folder import hashes  # noqa: E402
from pipeline.plan import disk  # noqa: E402
from pipeline.plan.faults import PlanError  # noqa: E402
from pipeline.plan.reading import load  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.report import arms  # noqa: E402
from pipeline.tables import ids, parquet  # noqa: E402
from pipeline.tables.manifest import Again, Manifest, names_digest  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = {
    "use": "text.bert", "alphabet": "abc", "outcomes": ["a", "b", "c"], "width": 8, "layers": 1, "heads": 2,
    "context": 16, "seed": 1,
}  # fmt: skip
TEXTS = ["abba", "cab", "bb", "ccca", "acca", "b", "bcb", "aa"]
KD = {"use": "divergence.forward", "head": "kd", "weight": 0.5}


def run(data: Path, stage: str, name: str, given: dict[str, Any], **inputs: str) -> Path:
    params = stage_named(stage).params.model_validate({"seed": 3, **given} if stage != "acquire" else given)
    folders = {argument: (folder,) for argument, folder in inputs.items()}
    instance = Instance(stage, name, params, folders, params.output(name), "code")
    run_instance(instance, RunSettings(batch_rows=16, executor="inline"), data, data.parent)
    return data / instance.output


def build(data: Path, name: str, base: str, donor: str, **given: Any) -> Path:
    models = {"base": f"models/{base}", "donor": f"models/{donor}"}
    return run(data, "build", name, {"base": base, "donor": donor, **given}, **models)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A classifier, and signals on texts of which half have a known class."""
    folder = tmp_path / "data"
    base = run(folder, "acquire", "base", SMALL)
    form, rows = base / "tokenizer", []
    network = find("network", "classifier.text").factory()
    for i, text in enumerate(TEXTS):
        packed = network.pack(form, [{"role": "user", "content": text}], text[0] if i % 2 else "none of them")
        first, second = np.log([0.7, 0.2])
        rows.append({
            "example_id": ids.digest("example", i), "prompt_id": ids.digest("prompt", i), "domain": "d",
            "token_ids": packed.token_ids, "spans": [{"start": 0, "end": 1}], "weight": 1.0, "inputs": packed.inputs,
            "template_hash": hashes(form)[0], "tokenizer_hash": hashes(form)[1], "response_ids": [str(i)],
            "teacher_id": "t", "topk_ids": [["abc".index(text[0]), "abc".index(text[0]) - 1 & 1]],
            "topk_logprobs": [[first, second]], "tail_mass": [0.1], "target_logprob": [first], "temperature": 1.0,
        })  # fmt: skip
    place = folder / "signals" / "some" / "teacher"
    parquet.write(SIGNALS, place, 1, [SIGNALS.rows(rows)])
    told = {"tokenizer": hashes(form)[1], "template": hashes(form)[0], "rows": len(rows), "top_k": 2}
    again = Again(rows=len(rows), places=len(rows), dtype=None, distance=0.0, furthest=0.0, target=0.0)
    examples = names_digest([pa.array([row["example_id"] for row in rows])])
    Manifest(teacher="t", dtype="float32", examples=examples, again=again, **told).write(place)
    (folder / "gates" / "signals" / "some" / "teacher").mkdir(parents=True)
    return folder


def trained(data: Path, name: str, student: str, *objectives: dict[str, Any], **given: Any) -> Path:
    of = "signals/some/teacher"
    recipe = {"of": of, "student": student, "epochs": 20, "batch_rows": 4, "warmup_steps": 0, "objectives": objectives}
    inputs = {"rows": of, "gates": f"gates/{of}", "student": f"models/{student}"}
    return run(data, "train", name, {**recipe, **given}, **inputs)


def answered(folder: Path, tmp_path: Path) -> dict[str, tuple[str, float]]:
    """Text -> a classifier's answer, and its log-probability."""
    asked = [GenerateRequest(text, text, [{"role": "user", "content": text}], 0, 0) for text in TEXTS]
    with open_model(folder, How(RunSettings(device="cpu"), tmp_path, "evaluate@x")) as backend:
        found = list(backend.generate(asked, Sampling(0.0, 1.0, 8)))
    return {answer.request_id: (answer.content, answer.logprobs[0]) for answer in found}


def test_two_heads_learn_each_its_own_and_answer_together(data: Path, tmp_path: Path) -> None:
    """Labels for the one on half of the rows, the teacher for the other on all; both are kept with the model."""
    made = build(data, "two", "base", "base", use="heads.add", head="kd", share=0.4, temperature=2.0)
    assert json.loads((made / "heads/heads.json").read_text()) == {"kd": {"share": 0.4, "temperature": 2.0}}
    assert hashes(made / "tokenizer") == hashes(data / "models/base/tokenizer")
    assert card_of(made)["model_id"] != card_of(data / "models/base")["model_id"]
    taught = trained(data, "taught", "two", {"use": "supervised.cross_entropy", "weight": 0.5}, KD)
    before, after = (load_file(folder / "heads/heads.safetensors") for folder in (made, taught))
    assert set(before) == set(after) == {"kd.weight", "kd.bias"}
    assert (before["kd.weight"] - after["kd.weight"]).abs().max() > 1e-3
    own, moved = (load_file(folder / "model.safetensors") for folder in (data / "models/base", taught))
    assert own.keys() == moved.keys() and (own["classifier.weight"] - moved["classifier.weight"]).abs().max() > 1e-3
    network = find("network", "classifier.text").factory()
    net = network.load(taught, "float32")
    found = answered(taught, tmp_path)
    for text in TEXTS:
        packed = network.pack(taught / "tokenizer", [{"role": "user", "content": text}], "a")
        with torch.no_grad():
            seen = network.look(net, network.batch([network.shown(packed.inputs)]), ())
            p, q = (seen.heads[name](seen.states_ND)[0] for name in ("main", "kd"))
        mixed = 0.6 * p.softmax(0) + 0.4 * (q / 2).softmax(0)
        assert found[text] == ("abc"[mixed.argmax()], pytest.approx(float(mixed.max().log()), abs=1e-5))


def test_a_head_that_no_term_names_stays_as_it_is(data: Path) -> None:
    made = build(data, "two", "base", "base", use="heads.dual", share=0.0)
    taught = trained(data, "taught", "two", {"use": "supervised.cross_entropy"})
    before, after = (load_file(folder / "heads/heads.safetensors") for folder in (made, taught))
    own = load_file(data / "models/base/model.safetensors")
    assert torch.equal(before["kd.weight"], after["kd.weight"]) and torch.equal(before["kd.bias"], after["kd.bias"])
    # It began as the model's own.
    assert torch.equal(before["kd.weight"], own["classifier.weight"])


def test_rows_of_a_head_of_prototypes_keep_length_1(data: Path) -> None:
    """As it learns beside a shadow of the student, and when it is kept and read again."""
    build(data, "prototypes", "base", "base", use="heads.unit", head="kd")
    many = build(data, "many", "prototypes", "prototypes", use="heads.add", head="more")
    shadow = {"every": "step", "decay": 0.5}
    terms = [{"use": "supervised.cross_entropy", "head": "kd"}, KD | {"against": "shadow"}]
    taught = trained(data, "taught", "many", *terms, shadow=shadow)
    network = find("network", "classifier.text").factory()
    before, after = (heads.of(network.load(folder, "float32")) for folder in (many, taught))
    assert before.keys() == after.keys() == {"kd", "more"} and after["kd"].bias is None
    torch.testing.assert_close(after["kd"].weight.norm(dim=1), torch.ones(3))
    assert (before["kd"].weight - after["kd"].weight).abs().max() > 1e-2
    assert torch.equal(before["more"].weight, after["more"].weight)
    # Only the directions may learn.
    assert [p.requires_grad for p in after["kd"].parameters()] == [False, True]


@pytest.mark.parametrize("use", ["supervised.cross_entropy", "feature.trajectory"])
def test_for_a_term_that_is_still_the_head_learns_and_the_model_does_not(data: Path, use: str) -> None:
    """In chunks or at once; without the word the model moves."""
    build(data, "two", "base", "base", use="heads.add", head="kd")
    for name in ("still", "free"):
        trained(data, name, "two", {"use": use, "head": "kd", "still": name == "still"}, epochs=2)
    begun, kept, moved = (load_file(data / f"models/{name}/model.safetensors") for name in ("two", "still", "free"))
    assert all(torch.equal(begun[name], kept[name]) for name in begun)
    assert any(not torch.equal(begun[name], moved[name]) for name in begun)
    before, after = (load_file(data / f"models/{name}/heads/heads.safetensors") for name in ("two", "still"))
    assert not torch.equal(before["kd.weight"], after["kd.weight"])


def test_a_head_learns_beside_low_rank_adapters(data: Path) -> None:
    made = build(data, "two", "base", "base", use="heads.add", head="kd")
    taught = trained(data, "taught", "two", KD, adapter={"rank": 2, "alpha": 4.0})
    before, after = (load_file(folder / "heads/heads.safetensors") for folder in (made, taught))
    assert before.keys() == after.keys() and (before["kd.weight"] - after["kd.weight"]).abs().max() > 1e-3


def test_kinds_of_an_outcome_are_summed(data: Path, tmp_path: Path) -> None:
    """A head with two kinds of each outcome that has the whole answer."""
    made = build(data, "kinds", "base", "base", use="heads.add", head="kinds", outcomes=6, share=1.0)
    weights = load_file(made / "heads/heads.safetensors")
    network = find("network", "classifier.text").factory()
    net = network.load(made, "float32")
    assert heads.of(net)["kinds"].out_features == len(weights["kinds.bias"]) == 6
    found = answered(made, tmp_path)
    packed = network.pack(made / "tokenizer", [{"role": "user", "content": "cab"}], "a")
    with torch.no_grad():
        seen = network.look(net, network.batch([network.shown(packed.inputs)]), ())
        p = seen.heads["kinds"](seen.states_ND)[0].softmax(0).view(3, 2).sum(1)
    assert found["cab"] == ("abc"[p.argmax()], pytest.approx(float(p.max().log()), abs=1e-5))


@pytest.mark.parametrize(
    ("base", "given", "told"),
    [
        ("base", {"use": "heads.add", "head": "main"}, "has a head 'main' already"),
        ("two", {"use": "heads.add", "head": "kd"}, "has a head 'kd' already"),
        ("two", {"use": "heads.add", "head": "more", "share": 0.7}, "more than a whole of the answers"),
        ("base", {"use": "heads.add", "head": "odd", "outcomes": 4, "share": 0.1}, "a multiple of 3"),
        ("two", {"use": "heads.linear"}, "has heads beside its own"),
    ],
)
def test_heads_that_cannot_be_are_refused(data: Path, base: str, given: dict[str, Any], told: str) -> None:
    build(data, "two", "base", "base", use="heads.dual")
    with pytest.raises(Refused, match=told):
        build(data, "made", base, base, **given)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    params = load(ROOT / "params.yaml")
    params["acquire"]["classes"] = SMALL
    return params


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"base": "bass"}, "build.made: nothing makes data/models/bass"),
        ({"donor": "teacher"}, "build.made: donor: heads.add takes nothing of one: write `donor: base`"),
        ({"use": "heads.linear", "head": None}, "build.made: base: base is a language.causal, and heads.linear takes"),
        ({"use": "heads.linear", "head": None, "base": "classes", "donor": "teacher"},
         "build.made: donor: teacher is a language.causal, and heads.linear takes classifier.text"),
        ({"use": "heads.lienar"}, "build.made.use: no builder is called 'heads.lienar'"),
        ({"head": "K"}, "build.made.head: String should match"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault(given: dict[str, Any], entry: dict[str, Any], told: str) -> None:
    made = {"base": "base", "donor": "base", "use": "heads.add", "head": "kd", **entry}
    given["build"] = {"made": {key: value for key, value in made.items() if value is not None}}
    with pytest.raises(PlanError) as error:
        resolve(given)
    assert any(told in fault for fault in error.value.faults), error.value.faults


def test_a_term_of_a_head_that_is_not_there_is_a_fault(given: dict[str, Any]) -> None:
    given["build"] = {"two": {"base": "base", "donor": "base", "use": "heads.dual", "share": 0}}
    entry = {**given["train"]["kd"], "student": "two", "objectives": [{"use": "divergence.forward", "head": "kd"}]}
    given["train"]["two_kd"] = entry
    assert resolve(given).instances["train@two_kd"].code
    given["train"]["two_kd"] = {**entry, "student": "base"}
    with pytest.raises(PlanError, match=r"divergence\.forward is of the head 'kd', and base has main: give it one by"):
        resolve(given)


def test_the_report_knows_what_is_built_and_whose_signals_are_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student with a head more is held against those of its base, and its teacher is who was probed."""
    monkeypatch.chdir(ROOT)
    disk.write(resolve(load(ROOT / "recipes/features.yaml")), tmp_path)
    lineage = arms.read(tmp_path)
    found = {name: (arm.base, arm.examples, arm.teachers) for name, arm in lineage.arms.items() if name != "teacher"}
    taught = ("small", ("examples/some",), ("labels", "teacher"))
    assert found == dict.fromkeys(("kd", "dho", "lelp", "nd", "gram"), taught) | {"sft": (*taught[:2], ("labels",))}
    asked = {(c.first.name, c.second.name): c.kind for c in arms.comparisons(lineage)}
    assert asked[("dho", "sft")] == asked[("lelp", "sft")] == "same examples"


def test_what_is_built_is_run_as_its_base(given: dict[str, Any]) -> None:
    """Its network is the base's, whatever the donor's, and it can be answered with, trained and judged."""
    given["build"] = {"named": {"base": "classes", "donor": "teacher", "use": "heads.prototypes"}}
    given["evaluate"]["named"] = {"model": "named", "pool": "bench"}
    plan = resolve(given)
    assert named_by_model(plan, "named", "network") == {"classifier.text"}
    assert "network.local" in named_by_model(plan, "named", "backend")
