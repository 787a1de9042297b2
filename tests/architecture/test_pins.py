"""What is installed is what is pinned, and what is pinned is what the project asks for."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# A wheel of torch for a GPU brings the libraries of its maker; which ones is torch's own affair.
TORCH_OWN = ("nvidia-", "cuda-", "triton")
# For machines with a GPU, where the extra's own range decides; `make vllm-cpu` pins what is tested here.
ELSEWHERE = {"vllm"}
# What vLLM's own bounds keep behind ours.
VLLM_BOUNDS = {"numpy", "setuptools"}


def pinned(file: str = "constraints.txt") -> dict[str, Version]:
    lines = (ROOT / file).read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    for pin in pins:
        (only,) = pin.specifier
        assert only.operator == "==", f"{pin} is not one version"
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in pins}


def asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"].items()
    extras = [text for extra, texts in optional for text in texts if extra not in ELSEWHERE]
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


def test_every_dependency_is_pinned_within_what_is_asked() -> None:
    pins = pinned()
    loose = [str(r) for r in asked() if canonicalize_name(r.name) not in pins]
    assert loose == []
    outside = [str(r) for r in asked() if pins[canonicalize_name(r.name)] not in r.specifier]
    assert outside == []


def test_vllm_s_environment_has_our_versions() -> None:
    ours, theirs = pinned(), pinned("benchmarks/vllm.txt")
    assert {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]} == VLLM_BOUNDS


def test_what_is_needed_here_is_installed_as_pinned() -> None:
    """Follows the requirements of what is installed, so that nothing comes in unpinned."""
    pins, here = pinned(), {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    waiting = [Requirement(f"{here['stillhouse'].metadata['Name']}[dev]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    wrong: list[str] = []
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name.startswith(TORCH_OWN):
            continue
        seen.add((name, extras))
        if name not in here:
            wrong.append(f"{name} is needed and not installed")
            continue
        if name != "stillhouse":
            # A local label, such as +cpu, is the same version of the same code.
            version = Version(Version(here[name].version).public)
            if name not in pins:
                wrong.append(f"{name} {version} is needed and not pinned")
            elif pins[name] != version:
                wrong.append(f"{name} {version} is installed, and {pins[name]} is pinned")
        for text in here[name].requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in (*extras, "")):
                waiting.append(needed)
    assert wrong == []
