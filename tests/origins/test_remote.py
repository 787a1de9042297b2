"""Served models and models of the hub: what they give, and what lies in their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from pipeline.core.methods import Use, find
from pipeline.core.settings import RunSettings
from pipeline.core.stage import stage_named
from pipeline.errors import Refused
from pipeline.kinds.backend import engine_of
from pipeline.kinds.origin import Origin
from tests.commands.test_doctor import plan_of, served, tokenizer, weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def gives(**entry) -> frozenset[str]:
    return stage_named("acquire").params.model_validate(entry).gives()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_an_endpoint_gives_what_its_entry_says_that_it_can() -> None:
    served = {"use": "remote.endpoint", "model": "m", "version": "1"}
    assert gives(**served) == {"generate"}
    assert gives(**served, logprobs=True) == {"generate", "token_logprobs"}
    every = gives(**served, logprobs=True, structured=True, read=True, tokenizer="t")
    assert every == set(find("backend", "http.openai").traits["gives"])


def test_an_endpoint_is_known_by_its_declared_name_and_version(tmp_path: Path) -> None:
    folder = tokenizer(tmp_path / "tokenizer")
    arguments = {"model": "m", "version": "1", "tokenizer": str(folder), "logprobs": True}
    use = Use[Origin](name="remote.endpoint", arguments=arguments)
    (tmp_path / "out").mkdir()
    card = use.build()(tmp_path / "out")
    assert (card["model_id"], card["backend"], card["token_ids"]) == ("m@1", "http.openai", True)
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").exists()
    assert json.dumps(card)


def test_an_endpoint_with_one_price_or_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="price_out together"):
        Use[Origin](name="remote.endpoint", arguments={"model": "m", "version": "1", "price_in": 1.0}).build()
    use = Use[Origin](
        name="remote.endpoint", arguments={"model": "m", "version": "1", "tokenizer": str(tmp_path / "no")}
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match=r"tokenizer\.json"):
        use.build()(tmp_path / "out")


def test_what_does_not_go_together_is_found_by_the_plan(tmp_path: Path) -> None:
    def faults(settings: RunSettings | None = None, **entry) -> list[str]:
        plan = plan_of(settings, teacher={"use": "remote.endpoint", "model": "m", "version": "1", **entry})
        return plan.instances["acquire@teacher"].params.check(plan)

    assert faults() == []
    for entry in ({"api": "completions"}, {"read": True}):
        [fault] = faults(**entry)
        assert "needs `tokenizer`" in fault
        assert faults(**entry, tokenizer=str(tmp_path)) == []
    capped = served("http://127.0.0.1:9/v1", max_cost=1.0)
    assert faults(capped, price_in=0.0, price_out=0.0) == []
    [fault] = faults(capped)
    assert "run.endpoints.teacher.max_cost needs prices" in fault


def test_the_template_that_renders_prompts_here_shapes_the_answers(tmp_path: Path) -> None:
    engines = []
    for number, (api, template) in enumerate(
        [("chat", "a"), ("chat", "b"), ("completions", "a"), ("completions", "b"), ("completions", "b")]
    ):
        folder = tokenizer(tmp_path / str(number), "{{ messages[0]['content'] }}" + template)
        arguments = {"model": "m", "version": "1", "api": api, "tokenizer": str(folder)}
        out = tmp_path / f"out{number}"
        out.mkdir()
        engines.append(engine_of(Use[Origin](name="remote.endpoint", arguments=arguments).build()(out)))
    assert engines[0] == engines[1]
    assert engines[3] == engines[4]
    assert len(set(engines)) == 3


@pytest.mark.parametrize("wrong", [{"revision": "main"}, {"revision": COMMIT, "trust_remote_code": True}])
def test_a_hub_model_needs_a_commit_and_never_brings_code(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Use[Origin](name="remote.hub", arguments={"repo": "org/model", **wrong})


def test_a_hub_model_comes_from_the_cache_and_is_known_by_its_weights(tmp_path: Path, cache: Path) -> None:
    weights(tokenizer(cache / "models--org--model" / "snapshots" / COMMIT))
    (cache / "models--org--model" / "snapshots" / COMMIT / "modeling.py").write_text("raise SystemExit")
    cards = []
    for use in (
        Use[Origin](name="remote.hub", arguments={"repo": "org/model", "revision": COMMIT}),
        Use[Origin](name="local.folder", arguments={"path": str(weights(tokenizer(tmp_path / "same")))}),
    ):
        out = tmp_path / use.name
        out.mkdir()
        cards.append(use.build()(out))
        assert not list(out.glob("*.py"))
    assert cards[0] == cards[1]


def test_a_hub_model_that_is_not_cached_is_refused_offline(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "out").mkdir()
    use = Use[Origin](name="remote.hub", arguments={"repo": "org/model", "revision": COMMIT})
    with pytest.raises(Refused, match="HF_HUB_OFFLINE=0"):
        use.build()(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
