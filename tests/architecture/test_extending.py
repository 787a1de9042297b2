"""docs/extending.md is true: every example is found, checked, built and called, and every entry resolved by `plan`."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from pipeline.contracts import EXAMPLES
from pipeline.core import identity, methods
from pipeline.core.methods import find
from pipeline.core.parts import Done
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.kinds.backend import GenerateRequest, Reading, Sampling, Tokens, open_model
from pipeline.kinds.evaluator import Exam
from pipeline.kinds.feed import Draw
from pipeline.kinds.judge import Verdict
from pipeline.kinds.mixture import Domains
from pipeline.kinds.objective import Reduced, Step, View, first_look
from pipeline.kinds.operator import Child, Parent, Unreadable
from pipeline.kinds.rule import Judged
from pipeline.kinds.selector import Budget, Candidates
from pipeline.laws import evaluator as examined
from pipeline.laws import exporter as exporters
from pipeline.laws import law
from pipeline.laws import transform as transforms
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.tables.tensors import cell
from pipeline.text.items import texts_from

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
ENTRIES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
EXAMPLES_OF = {
    (file.split("/")[1].removesuffix("s"), name)
    for file, block in re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S)
    for name in re.findall(r"^@\w+\((?:.|\n)*?\)\ndef (\w+)", block, re.M)
}
STEP = Step(0, 4, 0, 2)


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package with the page's files in it, where methods are found and read."""
    package = tmp_path_factory.mktemp("copy") / "pipeline"
    shutil.copytree(ROOT / "pipeline", package, ignore=shutil.ignore_patterns("__pycache__", "mine.py"))
    for file, block in re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S):
        with (package.parent / file).open("a", encoding="utf-8") as mine:
            mine.write(block + "\n\n")
    rooms = [importlib.import_module(f"pipeline.{room}") for room in methods.KINDS.values()]
    names = [f"{room.__name__}.mine" for room in rooms]
    caches = (methods.available, methods.find)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(methods, "ROOT", package)
        patch.setattr(identity, "PACKAGE", package)
        for room in rooms:
            patch.setattr(room, "__path__", [str(package / room.__name__.split(".")[1]), *room.__path__])
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        for cache in caches:
            cache.cache_clear()
        identity.forget()
        yield package
        for room, name in zip(rooms, names, strict=True):
            sys.modules.pop(name, None)
            vars(room).pop("mine", None)
    for cache in caches:
        cache.cache_clear()
    identity.forget()


def built(kind: str, name: str, **arguments: Any) -> Any:
    method = find(kind, f"mine.{name}")
    return method.factory(**method.arguments.model_validate(arguments).model_dump())


def test_every_kind_has_a_section_with_an_example() -> None:
    for kind in methods.KINDS:
        assert f"pipeline/{methods.KINDS[kind]}/mine.py" in SECTIONS[kind.capitalize()]
        assert kind in {of for of, _ in EXAMPLES_OF}
    assert {
        (kind, name.split(".")[1]) for kind in methods.KINDS for name in methods.available(kind) if "mine." in name
    } == (EXAMPLES_OF)


@pytest.mark.parametrize(("kind", "name"), sorted(EXAMPLES_OF))
def test_every_example_has_a_docstring_in_three_parts_and_a_call_here(kind: str, name: str) -> None:
    about = find(kind, f"mine.{name}").about
    assert re.fullmatch(r"(?s).+\n\nPaper: .+\nDiffers: .+", about)
    assert callable(globals()[f"test_{kind}_{name}"])


def test_every_entry_is_resolved() -> None:
    """All of the page together, beside the default run: no fault, and the code of each is part of its identity."""
    given = load(ROOT / "params.yaml")
    given["ingest"]["tasks"]["parts"] = 4
    del given["run"]
    for text in ENTRIES:
        for section, entries in yaml.safe_load(text).items():
            for name, entry in entries.items():
                assert name not in given.get(section, {})
                path = entry.get("path") if section == "ingest" else None
                given.setdefault(section, {})[name] = {**entry, **({"path": "README.md"} if path else {})}
    given["watch"] = {"page": "README.md"}
    plan = resolve(given)
    used = {use.method.name for instance in plan.instances.values() for use in instance.params.methods()}
    shown = {f"mine.{name}" for kind, name in EXAMPLES_OF if kind not in ("backend", "network", "verifier")}
    assert shown <= used | {plan.settings.executor.name}
    assert all(instance.code for instance in plan.instances.values())


def test_origin_parrot(tmp_path: Path) -> None:
    assert built("origin", "parrot", word="no")(tmp_path)["model_id"] == "parrot no"


def test_builder_averaged(tmp_path: Path) -> None:
    """It passes the laws, and half of a model and half of itself are the model."""
    method = find("builder", "mine.averaged")
    assert list(law.broken("builder", method.name)) == []
    base = find("origin", "local.embedded").factory(name="base")
    (tmp_path / "base").mkdir()
    (tmp_path / "out").mkdir()
    card = base(tmp_path / "base")
    (tmp_path / "base" / "model.json").write_text(json.dumps(card), "utf-8")
    made = built("builder", "averaged")(tmp_path / "base", tmp_path / "base", tmp_path / "out", 0)
    assert made["model_id"] == card["model_id"]


def test_transform_doubt() -> None:
    given = transforms.table(0)
    assert list(law.broken("transform", "mine.doubt")) == []
    assert built("transform", "doubt")(given, given, 0).features["doubt"].mean() == pytest.approx(1)


def test_source_squares() -> None:
    rows = list(built("source", "squares", rows=3))
    assert [(row.source, row.columns["reference"]) for row in rows][2] == ("squares 3", "9")


def test_rule_shouting() -> None:
    rule = built("rule", "shouting", most=0.3)
    assert rule(
        texts_from(["a", "b"], pa.array(["Say it.", "SAY it!"])), texts_from([], pa.array([], pa.string()))
    ) == {1: "60% of its letters are capitals"}
    assert rule.judge("") == Judged(0.0, None)


MESSAGES = [{"role": "user", "content": "Say it."}]
ASKED = Parent("p", "p", MESSAGES, "d", None, None, None, None)


def test_operator_translated() -> None:
    [child] = built("operator", "translated", into="Manx")([ASKED], 0)
    assert child == Child([ASKED], {"prompt": "Write in Manx and say nothing else:\n\nSay it."})


def test_operator_last_line() -> None:
    said, silent = (replace(ASKED, id=text, content=text) for text in ("One.\nTwo.", "One.\n"))
    made = list(built("operator", "last_line")([said, silent], 0))
    assert made == [Child([said], {"prompt": "Two."}), Unreadable(silent, "its last line is empty")]


def test_verifier_yes_no() -> None:
    verifier = built("verifier", "yes_no")
    assert verifier.parse("Well, Yes.") == "yes" and verifier.parse("maybe") is None
    assert verifier.equal("yes", "YES") and not verifier.equal("yes", "no") and not verifier.equal("", "")


def test_backend_parrot(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"backend": "mine.parrot", "word": "no"}', "utf-8")
    with open_model(tmp_path, How(RunSettings(), tmp_path, "generate@parrot")) as backend:
        request = GenerateRequest("r", "p", [{"role": "user", "content": "Is it?"}], 0, 0)
        [answer] = backend.generate([request], Sampling(0.0, 1.0, 8))
        assert (answer.request_id, answer.content) == ("r", "no")
        with pytest.raises(Exception, match="cannot read texts"):
            backend.read([Tokens("t", [1], [0])])


def test_scorer_words() -> None:
    found = built("scorer", "words", least=2)(pa.table({"content": ["one", "one two", None]}))
    assert found["score"].to_pylist() == [0.0, 1.0, None]
    assert dict(found["quantities"].to_pylist()[1]) == {"words": 2.0, "least": 2.0}


def test_reader_surprise() -> None:
    row = built("reader", "surprise")(Reading("r", np.array([-0.5, -2.0], np.float32)))
    assert row == {"score": 2.0, "quantities": [("tokens", 2.0)]}


def test_judge_worst() -> None:
    rows = built("judge", "worst")([Verdict(("a",), ("4", "2", None)), Verdict(("b",), (None,))])
    assert rows["a"] == {"score": 2.0, "quantities": [("asked", 3.0), ("unread", 1.0), ("least", 2.0)]}
    assert rows["b"] == {"score": None, "quantities": [("asked", 1.0), ("unread", 1.0)]}


def test_retriever_shared() -> None:
    found = built("retriever", "shared")(["a b", "b c", "d"], ["c b", "x"], 2)
    assert found.at.tolist() == [[1, 0], [0, 1]] and found.scores.tolist() == [[2, 1], [0, 0]]


def test_mixture_cheap() -> None:
    unknown, names = np.full(3, np.nan), np.array(["a", "b", "c"], object)
    domains = Domains("t", names, np.ones(3), unknown, unknown, unknown, unknown, np.array([10.0, np.nan, 30.0]))
    assert built("mixture", "cheap")(domains).tolist() == [0.75, 0, 0.25]


def test_selector_brief() -> None:
    names = np.array(["a", "b", "c"], object)
    column = {"agreement.score - 0.5": np.array([0.1, np.nan, 0.2])}
    rows = Candidates(names, names, np.array(["d"] * 3, object), np.array([9, 1, 4]), column)
    decision = built("selector", "brief", at_least="agreement.score - 0.5")(rows, Budget(tokens=5), 0)
    assert decision.kept.tolist() == [False, False, True]
    assert decision.reason.tolist() == ["over_budget", "below_zero", "brief"]


def test_objective_brier() -> None:
    view = View(student_NV=torch.zeros(1, 2), target_N=torch.tensor([1]), weight_N=torch.ones(1))
    assert built("objective", "brier")(view).value_N.tolist() == [0.5]


def test_objective_above() -> None:
    objective = built("objective", "above", momentum=0.5)
    view = View(student_NV=torch.zeros(1, 2), target_N=torch.tensor([1]), weight_N=torch.ones(1))
    first = objective(view).value_N.item()
    assert first == pytest.approx(2 * np.log(2))
    objective.update(STEP, Reduced(10.0, 1, {}))
    again = built("objective", "above", momentum=0.5)
    again.restore(objective.state())
    assert again.mean == 5.0 and again(view).value_N.item() == pytest.approx(np.log(2))


def test_objective_hardest() -> None:
    view = View(
        student_NV=torch.tensor([[3.0, 0.0], [0.0, 3.0]]), target_N=torch.tensor([0, 0]), weight_N=torch.ones(2)
    )
    objective = built("objective", "hardest")
    seen = first_look(objective, view, ("student_NV", "target_N", "weight_N"))
    assert seen.settled_NS.tolist() == [[0], [1]]
    assert objective(seen).value_N.tolist() == pytest.approx([0, np.log1p(np.exp(3))])


def test_objective_loudness() -> None:
    objective = built("objective", "loudness")
    own = objective.modules({"last": 3}, {"last": 2})
    assert own.weight.shape == (1, 3)
    torch.nn.init.zeros_(own.weight)
    torch.nn.init.zeros_(own.bias)
    taps = {"features": {"last": torch.ones(1, 3)}, "teacher_features": {"last": torch.tensor([[3.0, 4.0]])}}
    assert objective(View(own=own, weight_N=torch.ones(1), **taps)).value_N.tolist() == [25.0]


@pytest.mark.parametrize(("kind", "name"), sorted(example for example in EXAMPLES_OF if example[0] in law.kinds()))
def test_every_example_keeps_the_laws_of_its_kind(kind: str, name: str) -> None:
    """As `stillhouse methods --check` says to whoever wrote it."""
    assert list(law.broken(kind, f"mine.{name}")) == []


def test_origin_bag(tmp_path: Path) -> None:
    card = built("origin", "bag", form="data/embedded/base", outcomes=["a", "b"])(tmp_path)
    assert card["backend"] == "network.local" and (tmp_path / "tokenizer" / "places.json").exists()


def test_network_bag(tmp_path: Path) -> None:
    """It is packed, trained on, kept, opened and asked."""
    card = built("origin", "bag", form="data/embedded/base", outcomes=["a", "b"])(tmp_path)
    network, question = built("network", "bag"), [{"role": "user", "content": "add 1 2"}]
    packed = network.pack(tmp_path / "tokenizer", question, "b")
    assert packed.token_ids == [1] and packed.inputs
    names = ("token_ids", "spans", "inputs")
    row = {
        "token_ids": [1],
        "spans": [{"start": 0, "end": 1}],
        "inputs": cell({"tokens": np.array([5, 6, 6], np.int32)}),
    }
    rows = pa.Table.from_pylist([row], pa.schema([EXAMPLES.schema.field(name) for name in names]))
    model = network.load(tmp_path, "float32")
    seen = network.look(model, network.collate(rows), ())
    vectors = model["embed"].weight
    torch.testing.assert_close(seen.states_ND, ((vectors[5] + 2 * vectors[6]) / 3)[None])
    assert seen.heads["main"](seen.states_ND).shape == (1, 2)
    (tmp_path / "model.json").write_text(f'{{"backend": "{card["backend"]}", "dtype": "float32"}}', "utf-8")
    with open_model(tmp_path, How(RunSettings(device="cpu"), tmp_path, "evaluate@bag")) as backend:
        [answer] = backend.generate([GenerateRequest("r", "p", question, 0, 0)], Sampling(0.0, 1.0, 8))
        assert answer.content in ("a", "b")


def test_evaluator_terse() -> None:
    [item] = examined.items(1)
    model = examined.Made("m", [item], 1.0)
    for most, metric in ((1, 1.0), (0, 0.0)):
        [mark] = built("evaluator", "terse", most=most)(Exam([item], model))
        assert (mark.metric, mark.quantities) == (metric, {"characters": 1.0})


def test_exporter_pairs_of_text(tmp_path: Path) -> None:
    assert list(law.broken("exporter", "mine.pairs_of_text")) == []
    assert built("exporter", "pairs_of_text")(exporters.answers(), tmp_path).rows == len(exporters.HOSTILE)


def test_augmentation_grainy() -> None:
    image = torch.full((3, 1, 4, 4), 0.5)
    made = built("augmentation", "grainy")({"image": image}, torch.Generator().manual_seed(0))
    assert made.row_R.tolist() == [0, 1, 2] and 0.05 < (made.inputs["image"] - image).std() < 0.15


def test_executor_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(AbstractContextManager):  # a worker that needs no task
        def __call__(self, part: int) -> Done:
            return Done(part, 10 * part)

        def __exit__(self, *_: object) -> None: ...

    method = built("executor", "backwards")
    monkeypatch.setattr(sys.modules["pipeline.executors.mine"], "Worker", lambda task: Told())
    assert list(method(None, [0, 2, 5])) == [Done(5, 50), Done(2, 20), Done(0, 0)]


def test_feed_short_first() -> None:
    rows = pa.table({"token_ids": [[1, 2, 3], [1], [1, 2]]})
    feed = built("feed", "short_first")

    def given(step: Step) -> list[list[int]]:
        return feed(Draw(step, 0, rows, lambda *_: [], lambda *_: None))["token_ids"].to_pylist()

    assert given(STEP) == [[1], [1, 2]]
    assert given(Step(2, 4, 1, 2)) == rows["token_ids"].to_pylist()
