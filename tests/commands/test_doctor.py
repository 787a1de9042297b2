"""Preflight finds what would stop a run, says what to do, and shows no secret."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from pipeline.commands import doctor as preflight
from pipeline.commands.ask import ask
from pipeline.commands.doctor import Check, doctor
from pipeline.core.run import How
from pipeline.core.settings import Endpoint, RunSettings
from pipeline.core.stage import Instance, Plan, stage_named
from pipeline.display import printable
from pipeline.errors import Refused, TryAgain
from pipeline.gateway import connection
from pipeline.memo.ledger import Ledger
from pipeline.memo.memo import Memo
from tests.servers import MODEL, Server, serving

ROOT = Path(__file__).parents[2]
KEY = "sk-sentinel-0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a sound repository."""
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"]
    for command in (["init", "-q"], commit):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(connection, "BACKOFF_S", 0.001)
    monkeypatch.setenv("SENTINEL_KEY", KEY)
    return tmp_path / "data"


def tokenizer(folder: Path, template: str | None = "{{ messages[0]['content'] }}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer(models.WordLevel({"Hello.": 0, "[UNK]": 1}, "[UNK]")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "[UNK]"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def weights(folder: Path, size: int = 5000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * size)
    return folder


def plan_of(settings: RunSettings | None = None, **entries: dict) -> Plan:
    plan = Plan(settings or RunSettings())
    params = stage_named("acquire").params
    for name, entry in entries.items():
        instance = Instance("acquire", name, params.model_validate(entry), {}, f"models/{name}", "code")
        plan.instances[instance.label] = instance
    return plan


def served(url: str, **endpoint) -> RunSettings:
    return RunSettings(endpoints={"teacher": Endpoint(url=url, **endpoint)})


def how(data: Path, settings: RunSettings) -> How:
    return How(settings, data.parent, "ask@teacher")


def about(checks: list[Check], name: str) -> list[tuple[str, str]]:
    return [(c.state, c.text) for c in checks if c.name == name]


def only(checks: list[Check], name: str) -> tuple[str, str]:
    [found] = about(checks, name)
    return found


ENDPOINT = {"use": "remote.endpoint", "model": MODEL, "version": "1"}


def test_doctor_says_what_ends_an_answer(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for named, says in ((2, "'</s>'"), ([2, 3], "'</s>' or '<unk>'"), ([3], "'</s>' or '<unk>'")):
        place = data.parent / f"model{named}"
        shutil.copytree(ROOT / "data" / "embedded" / "base", place)
        (place / "generation_config.json").write_text(json.dumps({"eos_token_id": named}), "utf-8")
        entry = {"use": "local.folder", "path": str(place)}
        state, text = only(doctor(plan_of(own=entry), data, data.parent, offline=True), "acquire@own")
        assert state == "ok" and text.endswith(f"answers end at {says}")


def test_a_sound_machine_has_nothing_to_mend(data: Path) -> None:
    checks = doctor(plan_of(), data, data.parent, offline=True)
    assert {c.name for c in checks} >= {"python", "packages", "disk", "memory", "gpu", "git", "dvc"}
    assert not [c for c in checks if c.state == "fail"]


def test_a_folder_without_git_and_dvc_is_told_what_to_run(data: Path) -> None:
    shutil.rmtree(data.parent / ".git")
    (data.parent / ".dvc").rmdir()
    checks = doctor(plan_of(), data, data.parent, offline=True)
    assert only(checks, "git")[0] == only(checks, "dvc")[0] == "fail"
    assert "make repro" in only(checks, "git")[1]


def test_packages_are_compared_with_what_is_declared_and_pinned(data: Path) -> None:
    (data.parent / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=4"\ndependencies = ["pyarrow", "no-such-package>=2", "pydantic<1"]\n'
    )
    (data.parent / "constraints.txt").write_text("# why\n\norjson==0.0.1  # because\nnot-installed-here==1\n")
    checks = doctor(plan_of(), data, data.parent, offline=True)
    assert only(checks, "python")[0] == "fail"
    (declared, missing), (pinned, differing) = about(checks, "packages")
    assert (declared, pinned) == ("fail", "warn")
    assert "no-such-package>=2 (missing)" in missing
    assert "pydantic<1" in missing
    assert "pyarrow" not in missing
    assert "(pinned 0.0.1)" in differing
    assert "not-installed-here" not in differing


def test_a_package_that_an_entry_needs_is_named_with_the_entry(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = stage_named("generate").params(pool="p", model="m", k=1, temperature=1.0, seed=0)
    plan = plan_of()
    plan.instances["generate@m"] = Instance("generate", "m", params, {}, "responses/p/m", "code")
    assert not about(doctor(plan, data, data.parent, offline=True), "generate@m")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ("fail", "needs the package torch: run `make setup`, or `make real` for a real model") in about(
        doctor(plan, data, data.parent, offline=True), "generate@m"
    )


def test_a_reporter_that_is_not_installed_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    plan = plan_of(RunSettings(reporters=("wandb",)))
    for offline, state in ((True, "warn"), (False, "fail")):
        assert only(doctor(plan, data, data.parent, offline), "reporters") == (
            state,
            "run.reporters names wandb, which is not installed here: run `uv pip install -e '.[wandb]'`",
        )


def test_four_bits_need_a_package_that_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    plan = plan_of(teacher={"use": "local.folder", "path": "data/embedded/teacher", "dtype": "nf4"})
    given = {
        "of": "examples/x",
        "student": "base",
        "epochs": 1,
        "seed": 1,
        "adapter": {"rank": 2, "alpha": 4},
    }
    given["adapter"]["base"], given["objectives"] = "nf4", [{"use": "supervised.cross_entropy"}]
    params = stage_named("train").params.model_validate(given)
    plan.instances["train@kd"] = Instance("train", "kd", params, {}, "models/kd", "code")
    checks = doctor(plan, data, data.parent, offline=True)
    says = "is to be in four bits (`nf4`), which needs bitsandbytes: `uv pip install -e '.[quantised]'`"
    assert all(("warn", says) in about(checks, label) for label in ("acquire@teacher", "train@kd"))


def test_more_ranks_than_gpus(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_graphics_cards", lambda: ["a card"])
    state, text = only(doctor(plan_of(RunSettings(ranks=2)), data, data.parent, offline=True), "gpu")
    assert state == "fail" and "run.ranks is 2 and there are 1 GPUs" in text


def test_a_gpu_that_was_asked_for_and_is_not_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_graphics_cards", list)
    state, text = only(doctor(plan_of(RunSettings(device="cuda")), data, data.parent, offline=True), "gpu")
    assert (state, "device: auto" in text) == ("fail", True)


def test_little_room_is_a_warning(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LEAST_DISK_GIB", 1e9)
    assert only(doctor(plan_of(), data, data.parent, offline=True), "disk")[0] == "warn"


def test_local_models_need_weights_a_tokenizer_and_a_template(data: Path) -> None:
    weights(tokenizer(data / "embedded" / "teacher"))
    weights(tokenizer(data / "embedded" / "base"), size=130)
    refuses = "{{ raise_exception('no') }}"
    entries = {
        "good": {"use": "local.embedded", "name": "teacher"},
        "pointer": {"use": "local.embedded", "name": "base"},
        "nowhere": {"use": "local.folder", "path": str(data / "nowhere")},
        "no_tokenizer": {"use": "local.folder", "path": str(weights(data / "bare"))},
        "no_template": {"use": "local.folder", "path": str(weights(tokenizer(data / "plain", template=None)))},
        "bad_template": {"use": "local.folder", "path": str(weights(tokenizer(data / "bad", refuses)))},
    }
    checks = doctor(plan_of(**entries), data, data.parent, offline=True)
    found = {name: only(checks, f"acquire@{name}") for name in entries}
    assert found["good"][0] == "ok"
    assert {name: state for name, (state, _) in found.items() if name != "good"} == dict.fromkeys(
        ["pointer", "nowhere", "no_tokenizer", "no_template", "bad_template"], "fail"
    )
    assert "git lfs pull" in found["pointer"][1]
    assert "tokenizer.json" in found["no_tokenizer"][1]
    assert "chat_template.jinja" in found["no_template"][1]


def test_an_endpoint_is_asked_one_tiny_question(data: Path, server: Server) -> None:
    before = len(server.stats()["bodies"])
    settings = served(server.url, api_key_env="SENTINEL_KEY")
    state, text = only(doctor(plan_of(settings, teacher=ENDPOINT), data, data.parent, offline=False), "acquire@teacher")
    assert (state, server.url in text) == ("ok", True)
    [asked] = server.stats()["bodies"][before:]
    assert asked["max_tokens"] <= 8


def test_offline_no_endpoint_is_asked(data: Path, server: Server) -> None:
    before = len(server.stats()["bodies"])
    checks = doctor(plan_of(served(server.url), teacher=ENDPOINT), data, data.parent, offline=True)
    assert only(checks, "acquire@teacher")[0] == "warn"
    assert len(server.stats()["bodies"]) == before


def test_what_an_endpoint_lacks_is_found(data: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(settings: RunSettings, **entry) -> list[tuple[str, str]]:
        return about(
            doctor(plan_of(settings, teacher={**ENDPOINT, **entry}), data, data.parent, offline=False),
            "acquire@teacher",
        )

    assert found(served(server.url), model="unknown")[0] == (
        "warn", f"{server.url} lists no model 'unknown', but: tiny, denied, short. Correct `model`"
    )  # fmt: skip
    with serving() as gone:
        url = gone.url
    for settings, text in [
        (RunSettings(), "endpoints:"),
        (served(url), "Start it"),
        (served(server.url, api_key_env="NOT_SET_HERE"), "NOT_SET_HERE is not set"),
    ]:
        [(state, said)] = found(settings)
        assert (state, text in said) == ("fail", True)


def test_a_key_is_needed_by_the_machine_of_the_run(data: Path, server: Server) -> None:
    settings = served(server.url, api_key_env="NOT_SET_HERE")
    checks = doctor(plan_of(settings, teacher=ENDPOINT), data, data.parent, offline=True)
    assert ("warn", "NOT_SET_HERE is not set here; the run needs it") in about(checks, "acquire@teacher")
    assert not [c for c in checks if c.state == "fail"]


def test_a_cap_that_is_spent(data: Path, server: Server) -> None:
    def found(**endpoint) -> list[tuple[str, str]]:
        plan = plan_of(served(server.url, **endpoint), teacher={**ENDPOINT, "price_in": 1.0, "price_out": 2.0})
        return about(doctor(plan, data, data.parent, offline=True), "acquire@teacher")

    assert not [text for state, text in found(max_cost=5.0) if state == "fail"]
    # Nothing was ever asked, and looking has not made a memo.
    assert not (data / ".memo").exists()
    Ledger(data / ".memo", "teacher", None, None).settle(0, 0.0, 100, 4.9)
    assert not [text for state, text in found(max_cost=5.0, max_tokens=101) if state == "fail"]
    assert [text for state, text in found(max_cost=5.0, max_tokens=100) if state == "fail"] == [
        "run.endpoints.teacher.max_tokens is spent: 100 of 100 tokens; raise it"
    ]


def test_answers_need_room_in_the_context(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = weights(tokenizer(data / "own"))
    (folder / "config.json").write_text('{"max_position_embeddings": 64}')
    plan = plan_of(teacher={"use": "local.folder", "path": str(folder)})
    for name, most in (("long", 64), ("short", 63)):
        params = stage_named("generate").params(pool="p", model="teacher", k=1, temperature=1, seed=0, max_tokens=most)
        plan.instances[f"generate@{name}"] = Instance("generate", name, params, {}, f"responses/p/{name}", "code")
    checks = doctor(plan, data, data.parent, offline=True)
    assert "max_tokens 64 leaves no room for a prompt in a context of 64" in only(checks, "generate@long")[1]
    assert not about(checks, "generate@short")


def test_the_memo_is_looked_at(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[str, str]:
        return only(doctor(plan_of(), data, data.parent, offline=True), "memo")

    assert found() == ("ok", "none yet")
    memo = Memo(data / ".memo")
    memo.put({"key": {"content": "x" * 100_000}})
    memo.close()
    assert found()[1].startswith("1 answers, 0 readings")
    whole = memo.path.read_bytes()
    memo.path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    state, text = found()
    assert (state, "stillhouse memo fill" in text) == ("fail", True)
    memo.path.write_bytes(b"not a database at all" * 1000)
    assert found()[0] == "fail"
    monkeypatch.setattr("os.access", lambda place, mode: False)
    assert "cannot be written" in found()[1]


def test_an_endpoint_that_no_model_uses_is_pointed_out(data: Path) -> None:
    checks = doctor(plan_of(served("http://127.0.0.1:9/v1")), data, data.parent, offline=True)
    assert only(checks, "run.endpoints.teacher")[0] == "warn"


def model_folder(data: Path, name: str = "teacher") -> Path:
    folder = data / "models" / name
    folder.mkdir(parents=True)
    card = {"backend": "http.openai", "model_id": "tiny@1", "model": MODEL, "version": "1"}
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_ask_gives_the_answer(data: Path, server: Server) -> None:
    assert ask(model_folder(data), "How are you?", how(data, served(server.url))) == "How are you? -> 0"


def test_ask_shows_a_terminal_no_escape_codes(data: Path, server: Server) -> None:
    assert (
        ask(model_folder(data), "\x1b[2J\x9b31m wiped\n\tout", how(data, served(server.url)))
        == "[2J31m wiped\n\tout -> 0"
    )
    assert printable("a\x00\x07\x7f\x85b") == "ab"


def test_ask_says_why_there_is_no_answer_and_no_key(data: Path, server: Server) -> None:
    settings = served(server.url, api_key_env="SENTINEL_KEY", retries=0)
    with pytest.raises(Refused, match=r"did not answer: HTTP 400: no \(Bearer \[SENTINEL_KEY\]\)"):
        ask(model_folder(data), "400 | x", how(data, settings))
    with pytest.raises(Refused, match="acquire@absent"):
        ask(data / "models" / "absent", "x", how(data, settings))
    with serving() as gone:
        url = gone.url
    with pytest.raises(TryAgain):
        ask(model_folder(data, "down"), "x", how(data, RunSettings(endpoints={"down": Endpoint(url=url)})))
