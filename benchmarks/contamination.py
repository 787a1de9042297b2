"""What finding contamination costs: CPU of the rule `contamination.ngram`, beside a set of strings in Python.

    make bench-contamination                              # five minutes of one core
    python benchmarks/contamination.py --documents 5000 --rounds 1

Two of a hundred documents carry twenty words of a benchmark's item, some of them capitalised or with a comma. Both
make their index and look every document up, from texts as they came; the set holds every run of thirteen words as one
string.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gateway import commit, goal, machine
from near_duplicates import documents
from turns import Said, in_turn, serve, versions

HERE = Path(__file__).parent
RESULT = HERE / "results" / "contamination.json"
WORDS, SPAN, LENGTH, SHARE = 13, 20, 60, 0.02


def planted(count: int, items: int, seed: int) -> tuple[list[str], list[str], set[int]]:
    """Documents, a benchmark's items, and the documents that have a part of one."""
    texts, _ = documents(count, seed)
    draw = np.random.default_rng(seed)
    vocabulary = np.array(" ".join(texts[:2000]).split(), object)
    benchmark = [" ".join(draw.choice(vocabulary, LENGTH)) for _ in range(items)]
    chosen = draw.choice(count, round(count * SHARE), replace=False).tolist()
    for i in chosen:
        begin = int(draw.integers(LENGTH - SPAN))
        span = benchmark[int(draw.integers(items))].split()[begin : begin + SPAN]
        span = [word.capitalize() if k % 5 == 0 else word + "," * (k % 7 == 0) for k, word in enumerate(span)]
        words = texts[i].split()
        place = int(draw.integers(len(words)))
        texts[i] = " ".join([*words[:place], *span, *words[place:]])
    return texts, benchmark, set(chosen)


def told(found: set[int], chosen: set[int]) -> dict[str, Any]:
    """How much of what was planted was found, and how much else."""
    return {"recall": len(found & chosen) / len(chosen), "false": len(found - chosen)}


def ours(texts: list[str], benchmark: list[str], chosen: set[int]) -> Callable[[], dict[str, Any]]:
    """The rule, with the comparable forms that it is given."""
    import pyarrow as pa

    from pipeline.rules.contamination import ngram
    from pipeline.text.items import texts_from

    raw, items = pa.array(texts), pa.array(benchmark)
    names, others = [f"{i:08d}" for i in range(len(texts))], [f"{i:08d}" for i in range(len(benchmark))]

    def work() -> dict[str, Any]:
        return told({*ngram(words=WORDS)(texts_from(names, raw), texts_from(others, items))}, chosen)

    return work


def strings(texts: list[str], benchmark: list[str], chosen: set[int]) -> Callable[[], dict[str, Any]]:
    """A set of all runs of words as strings."""
    plain = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)

    def runs(text: str) -> list[str]:
        words = text.translate(plain).split()
        return [" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]

    def work() -> dict[str, Any]:
        index = {run for item in benchmark for run in runs(item)}
        return told({i for i, text in enumerate(texts) if any(run in index for run in runs(text))}, chosen)

    return work


METHODS = {"ours": ours, "set of strings": strings}


def result(said: Said, given: argparse.Namespace) -> dict[str, object]:
    """What the rounds say, but for the first, which loads what is loaded once."""
    of, rows = {name: rounds[1:] for name, rounds in said.items()}, []
    for name, rounds in of.items():
        cpu = median(r["cpu_s"] for r in rounds)
        ratio = median(a["cpu_s"] / b["cpu_s"] for a, b in zip(rounds, of["set of strings"], strict=True))
        rows.append({
            "method": name,
            "documents": given.documents,
            "items": given.items,
            "cpu_s": round(cpu, 2),
            "documents_per_cpu_s": round(given.documents / cpu),
            "ratio": round(ratio, 2),
            "recall": min(r["recall"] for r in rounds),
            "false": max(r["false"] for r in rounds),
        })  # fmt: skip
    mine = rows[0]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions("numpy pyarrow", "", Path(sys.executable)),
        "rounds": given.rounds,
        "rows": rows,
        "goals": [
            goal("at most 0.3 x the CPU of a set of strings", mine["ratio"], most=0.3),
            goal("recall of what is planted is 1", mine["recall"], least=1),
            goal("nothing else is found", mine["false"], most=0),
        ],
        "notes": [
            "`ratio` is CPU over that of the set, the median of the rounds' ratios; every round has its own texts.",
            "Of ours, a third is the space between words and a third the hashes of their runs, passes of numpy over "
            "every byte. The ratio hangs on how fast a processor runs Python beside that: 0.28 to 0.39 on three types.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=5)
    top.add_argument("--documents", type=int, default=50_000)
    top.add_argument("--items", type=int, default=3_000)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        seeds = iter(range(1, 10**6))
        serve(lambda: METHODS[given.serve](*planted(given.documents, given.items, next(seeds))))
        return
    arguments = ["--documents", str(given.documents), "--items", str(given.items)]
    with tempfile.TemporaryDirectory() as place:
        methods = dict.fromkeys(METHODS, Path(sys.executable))
        said = in_turn(__file__, methods, arguments, 1 + given.rounds, Path(place))
    given.out.write_text(json.dumps(result(said, given), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
