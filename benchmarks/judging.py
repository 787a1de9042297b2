"""What judging an answer costs: CPU of reading and comparing a table of answers, beside the verifiers as they were.

    make bench-judging                                    # eight minutes of one core
    python benchmarks/judging.py --numbers 200000 --expressions 200000

A table is what `generate` has received for prompts of eight samples: solutions in several sentences that end in their
answer, of which some are repeated word by word. Every text is read (`answer_of`), and the table is scored
(`verifier.correct`), with the code of this commit and with that of f3effcb, before the verifiers read whole forms only.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from gateway import commit, goal, machine
from turns import Said, in_turn, serve, versions

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "judging.json"
BEFORE = "f3effcb"
SAMPLES = 8
PYTHON = Path(sys.executable)
# Verifier -> its code's ratio to what it was, at most.
GOALS = {"numeric.last": 1.5, "symbolic.math": 0.7}


def solution(draw: random.Random, last: str) -> str:
    """Some sentences of arithmetic, and an answer."""
    lines = []
    for _ in range(draw.randint(2, 7)):
        a, b = draw.randint(1, 999), draw.randint(1, 99)
        lines.append(
            draw.choice(
                [
                    f"First, there are {a} boxes with {b} books each, so we compute ${a} \\times {b} = {a * b}$.",
                    f"Then {a} - {b} = {a - b}, which means that ${a - b:,} are left \u2013 that\u2019s the rest.",
                    f"Step {b}: multiply by {b} to get {a * b:,} units per day.",
                    f"We know that $x^2 + {b}x = {a}$, and therefore the two sides are the same.",
                ]
            )
        )
    return draw.choice(["\n", " "]).join([*lines, last])


def number(draw: random.Random) -> tuple[str, str]:
    """A reference, and how a model ends its answer."""
    n = draw.choice([draw.randint(0, 99), draw.randint(100, 99_999), draw.randint(1, 999) / 4])
    said = draw.choice(["The answer is {}.", "#### {}", "So she pays ${} in all.", "\\boxed{{{}}}", "It is {} km."])
    return str(n), said.format(f"{n:,}")


def expression(draw: random.Random) -> tuple[str, str]:
    """A reference, and how a model ends its answer: two of three are numbers, as in competition problems."""
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    if draw.random() < 2 / 3:
        said = str(draw.choice([a, a * b, -a, f"{a * b:,}", f"\\frac{{{a}}}{{{b}}}", a / 4]))
    else:
        said = draw.choice([
            f"{a}\\sqrt{{{b}}}", f"(x+{a})(x-{b})", f"\\left({a}, \\frac{{\\pi}}{{{b}}}\\right)", f"[{-a}, {b})",
            f"\\frac{{{a}\\pi}}{{{b}}}", f"x^2 + {a}x - {b}", f"{a}x + {b}y", f"\\{{{a}, {b}\\}}",
        ])  # fmt: skip
    return said, draw.choice(
        ["The answer is $\\boxed{{{}}}$.", "Thus, \\[\\boxed{{{}}}\\]", "The answer is ${}$."]
    ).format(said)


DRAWN: dict[str, Callable[[random.Random], tuple[str, str]]] = {"numeric.last": number, "symbolic.math": expression}


def table(verifier: str, rows: int, seed: int) -> list[dict[str, Any]]:
    """Answers to prompts of one verifier; three of four samples are right, and one of four is said again."""
    draw = random.Random(f"{verifier} {seed}")
    found: list[dict[str, Any]] = []
    while len(found) < rows:
        reference, right = DRAWN[verifier](draw)
        texts: list[str] = []
        for _ in range(SAMPLES):
            if texts and draw.random() < 0.25:
                texts.append(draw.choice(texts))
            else:
                texts.append(solution(draw, right if draw.random() < 0.75 else DRAWN[verifier](draw)[1]))
        found += [{"verifier": verifier, "reference": reference, "content": text, "error": None} for text in texts]
    return found[:rows]


def judged(rows: list[dict[str, Any]]) -> int:
    """Read and score a table as the stages do; the number of answers that are right."""
    import pyarrow as pa

    from pipeline.core.methods import find
    from pipeline.kinds.verifier import answer_of

    answers = [answer_of(row["verifier"], row["content"]) for row in rows]
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in ("verifier", "reference", "error")}
    answered = pa.table({**columns, "answer": pa.array(answers, pa.string())})
    scores = find("scorer", "verifier.correct").factory()(answered)
    return int(sum(score or 0 for score in scores["score"].to_pylist()))


def result(said: dict[str, Said], given: argparse.Namespace) -> dict[str, object]:
    """What the rounds say, but for the first, which loads what is loaded once."""
    rows, goals = [], []
    for verifier, found in said.items():
        count = given.numbers if verifier == "numeric.last" else given.expressions
        of = {name: rounds[1:] for name, rounds in found.items()}
        ratio = median(a["cpu_s"] / b["cpu_s"] for a, b in zip(of["ours"], of[BEFORE], strict=True))
        for name, rounds in of.items():
            rows.append(
                {
                    "method": "ours" if name == "ours" else f"as it was ({name})",
                    "verifier": verifier,
                    "answers": count,
                    "right": round(median(r["right"] for r in rounds)),
                    "cpu_s": round(median(r["cpu_s"] for r in rounds), 2),
                    "us_per_answer": round(median(r["cpu_s"] for r in rounds) / count * 1e6, 1),
                    "ratio": round(ratio if name == "ours" else 1, 2),
                }
            )
        most = GOALS[verifier]
        goals.append(goal(f"{verifier}: at most {most} x the CPU of {BEFORE}", ratio, most=most))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(
            "math-verify latex2sympy2-extended antlr4-python3-runtime sympy", "", Path(sys.executable)
        ),
        "rounds": given.rounds,
        "rows": rows,
        "goals": goals,
        "notes": [
            "`ratio` is CPU over that of the old code, the median of the rounds' ratios; `right` is how many answers "
            "are found right, of which three quarters are meant to be. Every round has answers of its own."
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--numbers", type=int, default=100_000)
    top.add_argument("--expressions", type=int, default=8_000)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    top.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        verifier, rows, old = given.work
        if given.serve != "ours":
            sys.path.insert(0, old)
        seeds = iter(range(10**6))

        def make() -> Callable[[], dict[str, Any]]:
            answers = table(verifier, int(rows), next(seeds))
            return lambda: {"right": judged(answers)}

        serve(make)
        return
    said: dict[str, Said] = {}
    with tempfile.TemporaryDirectory() as temporary:
        old = Path(temporary) / "old"
        packed = subprocess.run(
            ["git", "archive", BEFORE, "pipeline"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            files.extractall(old, filter="data")
        for verifier, rows in (("numeric.last", given.numbers), ("symbolic.math", given.expressions)):
            methods = {"ours": PYTHON, BEFORE: PYTHON}
            work = ["--work", verifier, str(rows), str(old)]
            said[verifier] = in_turn(__file__, methods, work, 1 + given.rounds, Path(temporary))
    given.out.write_text(json.dumps(result(said, given), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
