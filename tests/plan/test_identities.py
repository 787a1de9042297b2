"""Which instances of the shipped run get a new identity by an edit: those that use what was edited, and no other."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.core import identity, methods
from pipeline.core.stage import STAGES, stage_named
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

PACKAGE = Path(pipeline.__file__).parent
PARAMS = load(PACKAGE.parent / "params.yaml")
INGEST = ["ingest@held_out", "ingest@tasks"]
GENERATE = ["generate@base", "generate@teacher"]
EVALUATE = [f"evaluate@{model}" for model in ("base", "coverage_sft", "kd", "random_sft", "teacher")]
READ = ["probe@teacher", "read@base_nll", "read@teacher_nll"]
PACK = ["pack@coverage", "pack@random"]
TRAIN = ["train@coverage_sft", "train@kd", "train@random_sft"]
# What finds a method of a kind by a name in a row or in a card.
FINDERS = {
    "answer_of": "verifier", "metric_of": "verifier", "verifier_named": "verifier",
    "engine_of": "backend", "open_model": "backend",
}  # fmt: skip
# A family that is added to a folder: a marker of its kind, and a body that nobody calls.
UNUSED = "from pipeline.kinds.{kind} import {kind}\n\n\n@{kind}()\ndef other():\n    return None\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("identities") / "pipeline"
    return Path(shutil.copytree(PACKAGE, place, ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, str]]:
    """Parameters -> the identities that they have with the shipped code."""
    return {}


@pytest.fixture
def changed(
    copy: Path, shipped: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[str]]]:
    """Called with the new texts of files, gives the instances whose identity is another than the shipped code's."""
    monkeypatch.setattr(identity, "PACKAGE", copy)
    monkeypatch.setattr(methods, "ROOT", copy)

    def codes(given: dict[str, Any]) -> dict[str, str]:
        identity.forget()
        methods.available.cache_clear()
        return {label: instance.code for label, instance in resolve(given).instances.items()}

    def changed(texts: dict[str, str | None], given: dict[str, Any] = PARAMS) -> list[str]:
        before = shipped.setdefault(json.dumps(given), {})
        before.update(before or codes(given))
        kept = {name: (copy / name).read_text("utf-8") for name in texts if (copy / name).exists()}
        for name, text in texts.items():
            (copy / name).unlink() if text is None else (copy / name).write_text(text, "utf-8")
        after = codes(given)
        for name in texts:
            (copy / name).unlink(missing_ok=True)
        for name, text in kept.items():
            (copy / name).write_text(text, "utf-8")
        return sorted(label for label, code in after.items() if code != before[label])

    yield changed
    identity.forget()
    methods.available.cache_clear()


def edited(name: str) -> dict[str, str | None]:
    return {name: (PACKAGE / name).read_text("utf-8") + "\n\nEDITED = True\n"}


def test_a_family_that_nobody_uses_changes_no_identity(changed: Callable[..., list[str]]) -> None:
    assert changed({f"{folder}/other.py": UNUSED.format(kind=kind) for kind, folder in methods.KINDS.items()}) == []


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (
            "verifiers/text.py",
            [*EVALUATE, *GENERATE, *INGEST, *PACK, "report@report", "score@agreement", "score@verified"],
        ),
        ("verifiers/numeric.py", []),
        ("backends/local.py", [*EVALUATE, *GENERATE, *READ, *TRAIN]),
        ("backends/http.py", []),
        ("gateway/batch.py", []),
        ("scorers/consistency.py", ["score@agreement"]),
        ("objectives/divergence.py", ["train@kd"]),
        ("networks/language.py", [*PACK, "read@base_nll", "read@teacher_nll", *TRAIN]),
        ("stages/score.py", ["score@agreement", "score@format", "score@verified"]),
    ],
)  # fmt: skip
def test_an_edit_changes_what_uses_it(changed: Callable[..., list[str]], name: str, labels: list[str]) -> None:
    assert changed(edited(name)) == labels


def test_a_module_that_moves_changes_nothing(changed: Callable[..., list[str]]) -> None:
    """It and all imports of it, as a later move of rooms would do."""
    texts: dict[str, str | None] = {
        path.relative_to(PACKAGE).as_posix(): text.replace("pipeline.text.ngrams", "pipeline.tables.words")
        for path in PACKAGE.rglob("*.py")
        if "pipeline.text.ngrams" in (text := path.read_text("utf-8"))
    }
    assert len(texts) > 2
    moved = (PACKAGE / "text" / "ngrams.py").read_text("utf-8")
    assert changed({**texts, "text/ngrams.py": None, "tables/words.py": moved}) == []


def test_rows_that_may_name_any_verifier_stand_on_all_of_them(changed: Callable[..., list[str]]) -> None:
    """A source that declares none; what is read from it only, and not what another pool asks."""
    given = {**PARAMS, "ingest": {**PARAMS["ingest"], "held_out": {"pool": "bench", "use": "mine.rows"}}}
    given["ingest"]["held_out"] = {"pool": "bench", "use": "files.jsonl", "path": str(Path(__file__))}
    given["watch"] = {"this": str(Path(__file__))}
    assert changed(edited("verifiers/numeric.py"), given) == sorted([*EVALUATE, "ingest@held_out", "report@report"])


def test_a_model_of_an_endpoint_stands_on_its_backend(changed: Callable[..., list[str]]) -> None:
    teacher = {"use": "remote.endpoint", "model": "m", "version": "1", "read": True, "logprobs": True, "tokenizer": "."}
    given = {**PARAMS, "acquire": {**PARAMS["acquire"], "teacher": teacher}}
    asks = ["evaluate@teacher", "generate@teacher", "probe@teacher", "read@teacher_nll"]
    assert changed(edited("backends/http.py"), given) == asks
    assert changed(edited("gateway/batch.py"), given) == asks


# A stage that finds methods of a kind for some of its methods only, and which of these says so by its trait `reads`.
BY_METHOD = {("score", "verifier"): "scorer", ("train", "verifier"): "feed", ("distill", "verifier"): "feed",
             ("evaluate", "network"): "evaluator", ("compare", "network"): "evaluator"}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_what_it_finds(stage: str) -> None:
    """Where its code, or what that imports, finds methods by a name that no parameter holds."""
    found = set()
    closure = identity.closure([f"pipeline.stages.{stage}"])
    for module in (name for name in closure if not name.startswith("pipeline.kinds.")):
        tree = ast.parse(PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text("utf-8"))
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)):
            if call.func.id == "find" and isinstance(call.args[0], ast.Constant):
                found.add(call.args[0].value)
            elif call.func.id in FINDERS:
                found.add(FINDERS[call.func.id])
    assert found - {kind for of, kind in BY_METHOD if of == stage} == set(stage_named(stage).finds)
