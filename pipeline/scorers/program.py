"""Scorers that run the programs which an answer holds, each in a sandbox."""

from __future__ import annotations

import json
import math
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveFloat

from pipeline.bounded import Limits
from pipeline.kinds.scorer import Scorer, quantities_of, scorer, siblings, together
from pipeline.kinds.verifier import RECENT
from pipeline.sandbox import Walls, run
from pipeline.text.programs import MEMORY, Memory, blocks, execute, prints

Verdict = Literal["passed", "failed", "late", "missing"]
VALUES: dict[Verdict, float] = {"passed": 1, "failed": 0, "late": 0, "missing": math.nan}
# A test that ends the program early has not passed: the word at the end of its output says that the end was reached.
TRIED = """
program, test, word = {!r}, {!r}, {!r}
names = {{"__name__": "program"}}
exec(compile(program, "program", "exec"), names)
exec(compile(test, "test", "exec"), names)
print("\\n" + word, flush=True)
"""


@scorer(reads=("content", "reference", "error"), score="passed / (tests - missing)")
def tests(*, seconds: PositiveFloat = 10.0, memory: Memory = MEMORY, sandbox: Walls = "unshare") -> Scorer:
    """The share of the reference's unit tests that an answer's program passes; null without reference, if the request
    failed, or if no test could be run.

    The program is the first block of code, or else the whole text, in Python. The reference is a JSON list of tests,
    programs that go on where it ends (`assert add(1, 2) == 3`), or is one test. Each is run in a process of its own,
    within `seconds` and `memory`, and passes if it comes to its end. Quantities: passed, late (their time ran out: they
    fail), missing (the machine failed them: they do not count), tests.

    Paper: Chen et al. 2021 (Codex, arXiv 2107.03374), section 2.2, with the sandbox of section 2.3.
    Differs: the share of tests, of which "all" is a rule (`quantities['passed'] = quantities['tests']`).
    """
    limits = Limits(seconds, memory)

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        cases = zip(*(rows[name].to_pylist() for name in ("content", "reference", "error")), strict=True)
        found = [
            [verdict_of(blocks(content)[0], test, limits, sandbox) for test in tests_of(reference)]
            if error is None and content is not None and reference is not None
            else []
            for content, reference, error in cases
        ]
        passed, late, missing = (
            np.array([some.count(verdict) for some in found], np.float64) for verdict in ("passed", "late", "missing")
        )
        count = np.array([len(some) for some in found], np.float64)
        return {
            "score": pa.array(passed / np.maximum(count - missing, 1), mask=count == missing),
            "quantities": quantities_of(passed=passed, late=late, missing=missing, tests=count),
        }

    return score


@scorer(reads=("response_id", "prompt_id", "entry", "content", "error"), score="passed / tests")
def cross(*, seconds: PositiveFloat = 10.0, memory: Memory = MEMORY, sandbox: Walls = "unshare") -> Scorer:
    """The share of its siblings' tests that an answer's program passes, where answers hold a program and a test of it:
    their first block of code, and those after it; null if the request failed, or if no test could be run.

    The `vector` says it test by test, in the order of the siblings' ids: 1 passed, 0 failed, -1 missing. Quantities:
    passed, tests (that were run); of its own test: discriminates, the mean score of programs that pass it less that of
    those that fail; constant, that all pass or all fail; test_rank, from 1 for the best, 0 if it holds none; and
    varied, that both programs and tests differ among the siblings, without which a prompt teaches nothing.

    Paper: EvoSyn 2025 (arXiv 2510.17928), cross-execution, the evolved strategy and zero-variance pruning.
    Differs: a constant test is ranked below all others, where the released strategy likes those that all pass; a run
    that the machine failed is missing in every mean.
    """
    limits = Limits(seconds, memory)

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        names = ("passed", "tests", "discriminates", "constant", "test_rank", "varied")
        columns = {name: np.zeros(len(rows)) for name in names}
        vectors: list[list[float] | None] = [None] * len(rows)
        ids, contents = rows["response_id"].to_pylist(), rows["content"].to_pylist()
        errors = rows["error"].to_pylist()
        for members in together(siblings(rows)):
            answered = [i for i in members.tolist() if errors[i] is None and contents[i]]
            held = {i: blocks(contents[i]) for i in sorted(answered, key=ids.__getitem__)}
            testers = [i for i, parts in held.items() if len(parts) > 1]
            matrix = np.array([
                [VALUES[verdict_of(parts[0], "\n".join(held[j][1:]), limits, sandbox)] for j in testers]
                for parts in held.values()
            ], np.float64).reshape(len(held), len(testers))  # fmt: skip
            ranked = strategy(matrix)
            place = np.argsort(np.lexsort((np.arange(len(testers)), -ranked.discriminates, ranked.constant)))
            for row, i in enumerate(held):
                vectors[i] = np.where(np.isnan(matrix[row]), -1, matrix[row]).tolist()
                columns["passed"][i] = np.nansum(matrix[row])
                columns["tests"][i] = np.isfinite(matrix[row]).sum()
                columns["varied"][i] = ranked.varied
            for column, i in enumerate(testers):
                columns["discriminates"][i] = ranked.discriminates[column]
                columns["constant"][i] = ranked.constant[column]
                columns["test_rank"][i] = place[column] + 1
        return {
            "score": pa.array(columns["passed"] / np.maximum(columns["tests"], 1), mask=columns["tests"] == 0),
            "quantities": quantities_of(**columns),
            "vector": pa.array(vectors, pa.list_(pa.float32())),
        }

    return score


@scorer(reads=("content", "verifier", "reference", "error"), score="correct")
def output(*, seconds: PositiveFloat = 10.0, memory: Memory = MEMORY, sandbox: Walls = "unshare") -> Scorer:
    """1 if an answer's program prints the right answer, 0 if not; null without verifier or reference, if the request
    failed, or if the machine failed the program.

    The program is the first block of code, or else the whole text, in Python. What it prints is compared by the
    prompt's verifier, as a reference is read or else as an answer. Quantities: correct, late (its time ran out),
    failed (it did not come to its end).

    Paper: Chen et al. 2023, Program of Thoughts (arXiv 2211.12588).
    Differs: the program prints its answer, and no name such as `ans` is looked up.
    """
    limits = Limits(seconds, memory)

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        cases = zip(*(rows[name].to_pylist() for name in ("content", "verifier", "reference", "error")), strict=True)
        columns = {name: np.zeros(len(rows)) for name in ("correct", "late", "failed")}
        unjudged = np.zeros(len(rows), bool)
        for i, (content, verifier, reference, error) in enumerate(cases):
            unjudged[i] = error is not None or None in (content, verifier, reference)
            if not unjudged[i]:
                found = execute(blocks(content)[0], limits, sandbox)
                unjudged[i] = found.fault == "missing"
                columns["correct"][i] = found.fault is None and prints(verifier, found.printed, reference)
                columns["late"][i], columns["failed"][i] = found.fault == "late", found.fault == "failed"
        return {"score": pa.array(columns["correct"], mask=unjudged), "quantities": quantities_of(**columns)}

    return score


@lru_cache(RECENT)
def verdict_of(program: str, test: str, limits: Limits, walls: Walls) -> Verdict:
    """What comes of a test after a program: late is one whose time ran out, missing one that the machine failed."""
    word = secrets.token_hex(16)
    found = run(TRIED.format(program, test, word), limits, walls)
    if found.missing:
        return "missing"
    if found.late:
        return "late"
    return "passed" if found.output.endswith(f"\n{word}\n") else "failed"


def tests_of(reference: str) -> list[str]:
    """The tests that a reference is."""
    try:
        found = json.loads(reference)
    except (ValueError, RecursionError):
        return [reference]
    return found if isinstance(found, list) and all(isinstance(test, str) for test in found) else [reference]


@dataclass(frozen=True)
class Ranked:
    """What a strategy makes of M programs and N tests."""

    solves: np.ndarray  # [M] the share of tests that a program passes
    discriminates: np.ndarray  # [N] the mean of that over programs which pass a test, less that over those which fail
    constant: np.ndarray  # [N] whether all programs pass a test, or all fail
    varied: bool


def strategy(matrix: np.ndarray) -> Ranked:
    """Judge programs by tests and tests by programs, from 1 where a program passes a test, 0 where not, NaN if missing,
    [M, N]."""
    run, passed = np.isfinite(matrix), matrix == 1
    solves = passed.sum(1) / np.maximum(run.sum(1), 1)
    failed = run & ~passed

    def mean(which: np.ndarray) -> np.ndarray:
        return (solves[:, None] * which).sum(0) / np.maximum(which.sum(0), 1)

    constant = ~(passed.any(0) & failed.any(0))
    found = mean(passed) - mean(failed)
    varied = len(set(solves.tolist())) > 1 and len(set(found.tolist())) > 1
    return Ranked(solves, found, constant, varied)
