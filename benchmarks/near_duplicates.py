"""What finding near-duplicates costs: CPU and memory of `duplicates.minhash`, beside rensa's MinHash and bands.

    make bench-duplicates                                 # a quarter of an hour of one core
    python benchmarks/near_duplicates.py --sizes 50000 --most 0

Documents are of 66 words on average, drawn by Zipf's law from 30,000; every fifth has copies in which up to 5 %
of the words are others, and some are copied word by word. Ours compares runs of five words at a Jaccard similarity
of 0.8 and verifies every pair; rensa is given the same runs, as its users do, and 14 bands of 8 hashes, and verifies
none. Recall is the share of planted pairs at 0.8 or more of which one is dropped; `false` counts dropped documents
without a planted pair at 0.4.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gateway import commit, goal, machine
from turns import Said, in_turn, serve, versions

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "near_duplicates.json"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
WORDS, BANDS, ROWS = 5, 14, 8
Planted = np.ndarray


def documents(count: int, seed: int) -> tuple[list[str], Planted]:
    """Texts, and the pairs of them that are copies: positions and Jaccard similarity of their runs of words, [P, 3]."""
    draw = np.random.default_rng(seed)
    vocabulary = np.array(["".join(map(chr, draw.integers(97, 123, n))) for n in draw.integers(3, 10, 30_000)], object)
    chances = np.cumsum(1 / np.arange(1, len(vocabulary) + 1))

    def words(n: int) -> np.ndarray:
        return np.searchsorted(chances, draw.random(n) * chances[-1])

    made: list[np.ndarray] = []
    of: list[int] = []
    while len(made) < count:
        first = words(int(np.clip(draw.lognormal(4.03, 0.35), 20, 400)))
        kind = draw.random()
        copies = 1 if kind < 0.03 else int(draw.integers(1, 4)) if kind < 0.2 else 0
        of += [len(made)] * (1 + copies)
        made.append(first)
        for _ in range(copies):
            copy, changed = first.copy(), draw.random(len(first)) < (0 if kind < 0.03 else draw.random() * 0.05)
            copy[changed] = words(int(changed.sum()))
            made.append(copy)
    place = draw.permutation(count)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(count):
        groups[of[i]].append(i)
    pairs = []
    for group in groups.values():
        runs = [
            set(zip(*(made[i][k : len(made[i]) - WORDS + 1 + k].tolist() for k in range(WORDS)), strict=True))
            for i in group
        ]
        for a in range(len(group)):
            for b in range(a):
                likeness = len(runs[a] & runs[b]) / max(len(runs[a] | runs[b]), 1)
                pairs.append((place[group[a]], place[group[b]], likeness))
    texts = [""] * count
    for i in range(count):
        texts[place[i]] = " ".join(vocabulary[made[i]])
    return texts, np.array(pairs).reshape(-1, 3)


def told(dropped: set[int], count: int, planted: Planted) -> dict[str, Any]:
    """How much of what was planted was found, and how much else."""
    gone = np.zeros(count, bool)
    gone[list(dropped)] = True
    first, second, likeness = planted[:, 0].astype(int), planted[:, 1].astype(int), planted[:, 2]
    near, copied = likeness >= 0.8, np.zeros(count, bool)
    copied[np.r_[first[likeness >= 0.4], second[likeness >= 0.4]]] = True
    missed = ~gone[first] & ~gone[second] & near
    return {"recall": 1 - missed.sum() / near.sum(), "false": int((gone & ~copied).sum())}


def ours(count: int, seed: int) -> Callable[[], dict[str, Any]]:
    """From texts as they came to those that are dropped."""
    import pyarrow as pa

    from pipeline.rules.duplicates import minhash
    from pipeline.text.items import texts_from

    texts, planted = documents(count, seed)
    names, raw = [f"{i:08d}" for i in range(count)], pa.array(texts)
    del texts

    def work() -> dict[str, Any]:
        pool = texts_from(names, raw)
        return told({*minhash(threshold=0.8, words=WORDS)(pool, pool)}, count, planted)

    return work


def rensa(count: int, seed: int) -> Callable[[], dict[str, Any]]:
    """Runs of words as sets of strings, one MinHash of each, bands, and union of what they say."""
    from rensa import RMinHash, RMinHashLSH

    texts, planted = documents(count, seed)

    def runs(text: str) -> list[str]:
        words = text.split()
        return list({" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)})

    def work() -> dict[str, Any]:
        hashes = RMinHash.from_token_sets([runs(text) for text in texts], num_perm=BANDS * ROWS, seed=42)
        index = RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
        index.insert_pairs(enumerate(hashes))
        root = list(range(count))

        def find(i: int) -> int:
            while root[i] != i:
                root[i] = i = root[root[i]]
            return i

        for i, alike in enumerate(index.query_all(hashes)):
            for j in alike:
                low, high = sorted((find(i), find(j)))
                root[high] = low
        return told({i for i in range(count) if find(i) != i}, count, planted)

    return work


def row(method: str, count: int, rounds: list[dict[str, Any]], ratio: float, memory: float) -> dict[str, object]:
    """What the rounds of a method say; memory is that of the first, which nothing given back can serve."""
    cpu = median(r["cpu_s"] for r in rounds)
    return {
        "method": method,
        "documents": count,
        "cpu_s": round(cpu, 2),
        "documents_per_cpu_s": round(count / cpu),
        "ratio": round(ratio, 2),
        "rise_mib": round(rounds[0]["rise_mib"]),
        "memory_ratio": round(memory, 2),
        "recall": round(min(r["recall"] for r in rounds), 4),
        "false": max(r["false"] for r in rounds),
    }


def result(said: dict[int, Said], most: int, given: argparse.Namespace) -> dict[str, object]:
    """The rows of every size, and the goals at the larger of those that rensa did too."""
    rows, goals = [], []
    for count, found in said.items():
        ours = found["ours"]
        for method, rounds in found.items():
            ratio = median(theirs["cpu_s"] / mine["cpu_s"] for theirs, mine in zip(rounds, ours, strict=True))
            rows.append(row(method, count, rounds, ratio, rounds[0]["rise_mib"] / ours[0]["rise_mib"]))
    theirs = [r for r in rows if r["method"] == "rensa"][-1]
    goals.append(goal(f"rensa at least 2.2 x our CPU, {theirs['documents']:,} documents", theirs["ratio"], least=2.2))
    goals.append(goal("rensa at least 2.5 x our memory", theirs["memory_ratio"], least=2.5))
    goals.append(goal("recall at least 0.995", min(r["recall"] for r in rows if r["method"] == "ours"), least=0.995))
    if most:
        of = {r["documents"]: r["cpu_s"] for r in rows if r["method"] == "ours"}
        base = max(given.sizes)
        allowed = 1.1 * most / base
        goals.append(
            goal(f"{most:,} documents: at most {allowed:.0f} x the CPU of {base:,}", of[most] / of[base], most=allowed)
        )
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions("numpy pyarrow", "rensa", PEERS),
        "rounds": given.rounds,
        "rows": rows,
        "goals": goals,
        "notes": [
            "`ratio` is CPU over ours, the median of the rounds' ratios, and `memory_ratio` that of the first round's "
            "rise above the documents themselves, which both hold. Every round has documents of its own.",
            "Ours verifies each pair by its exact Jaccard, which rensa leaves to whoever calls it.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000])
    top.add_argument("--most", type=int, default=2_000_000, help="ours alone, once; 0 for not at all")
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    top.add_argument("--work", type=int, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        seeds = iter(range(1, 10**6))
        serve(lambda: {"ours": ours, "rensa": rensa}[given.serve](given.work, next(seeds)))
        return
    said: dict[int, Said] = {}
    with tempfile.TemporaryDirectory() as place:
        for count in given.sizes:
            methods = {"ours": Path(sys.executable), "rensa": PEERS}
            said[count] = in_turn(__file__, methods, ["--work", str(count)], given.rounds, Path(place))
        if given.most:
            arguments = ["--work", str(given.most)]
            said[given.most] = in_turn(__file__, {"ours": Path(sys.executable)}, arguments, 1, Path(place))
    given.out.write_text(json.dumps(result(said, given.most, given), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
