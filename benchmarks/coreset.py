"""What choosing a coreset costs: CPU of k-centre and of facility location, beside a product a pick and apricot.

    make bench-coreset                                    # five minutes of one core
    python benchmarks/coreset.py --rounds 1 --k-center 5000 100 --facility 1000 50 --out /tmp/try.json

Vectors are like a model's of 384 numbers: of length 1, most of their spread in few directions, in clusters of uneven
size, one of twenty a near copy. Ours is the selector as `select` calls it, reasons of all answers included. k-centre
stands beside the plain algorithm in numpy, one product of all vectors with the last pick for every pick; facility
location, of cosines that are not below 0, beside apricot's lazy greedy on the matrix of all pairs, made by numpy.
"""

from __future__ import annotations

import argparse
import json
import sys
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
RESULT = HERE / "results" / "coreset.json"
OWN, PEERS = Path(sys.executable), ROOT / ".venv-peers-coreset" / "bin" / "python"
WIDTH = 384
# Vectors [n, WIDTH] and the number of picks, to the places picked.
Choose = Callable[[Any, int], Any]


def vectors(rows: int) -> Any:
    """The same in every process."""
    import numpy as np

    draw = np.random.default_rng(0)
    spread = (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)

    def noise(count: int) -> Any:
        return draw.standard_normal((count, WIDTH), dtype=np.float32) * spread

    clusters = max(50, rows // 100)
    share = np.arange(1, clusters + 1) ** -0.7
    points = noise(clusters)[draw.choice(clusters, rows, p=share / share.sum())] + 0.7 * noise(rows)
    copies = rows // 20
    points[-copies:] = points[draw.integers(0, rows - copies, copies)] + 0.24 * noise(copies)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return np.ascontiguousarray(points[draw.permutation(rows)])


def ours(method: str) -> Choose:
    """A selector that ships, with the arguments that it has by itself."""
    import numpy as np

    from pipeline.core.methods import find
    from pipeline.kinds.selector import Budget, Candidates

    selector = find("selector", method).factory(vector="vector", labelled="none")

    def choose(points: Any, picks: int) -> Any:
        rows = len(points)
        names = np.array([f"{i:08d}" for i in range(rows)], object)
        columns = {"vector": points, "none": np.zeros(rows)}
        answers = Candidates(names, names, np.full(rows, "d", object), np.ones(rows, int), columns)
        return np.flatnonzero(selector(answers, Budget(rows=picks), 0).kept)

    return choose


def a_product_a_pick(points: Any, picks: int) -> Any:
    """The plain greedy algorithm of k-centre, in single precision."""
    import numpy as np

    nearest, chosen = np.full(len(points), np.inf, np.float32), [0]
    while len(chosen) < picks:
        np.minimum(nearest, 2 - 2 * (points @ points[chosen[-1]]), out=nearest)
        nearest[chosen[-1]] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


def apricot(points: Any, picks: int) -> Any:
    """Its facility location on all pairs."""
    import numpy as np
    from apricot import FacilityLocationSelection

    selector = FacilityLocationSelection(picks, metric="precomputed", optimizer="lazy")
    selector.fit(np.maximum(points @ points.T, 0).astype(np.float64))
    return selector.ranking[:picks]


# Work -> method -> the interpreter it runs in and what makes it.
METHODS: dict[str, dict[str, tuple[Path, Callable[[], Choose]]]] = {
    "k-centre": {
        "ours": (OWN, lambda: ours("diversity.k_center")),
        "a product a pick": (OWN, lambda: a_product_a_pick),
    },
    "facility location": {
        "ours": (OWN, lambda: ours("submodular.facility_location")),
        "apricot": (PEERS, lambda: apricot),
    },
}


def stood_for(points: Any, picked: Any) -> float:
    """The sum of all greatest cosines to a picked one, which facility location raises."""
    return sum(
        float((points[at : at + 4096] @ points[picked].T).max(1).clip(0).sum()) for at in range(0, len(points), 4096)
    )


def result(said: dict[str, Said], sizes: dict[str, list[int]]) -> dict[str, object]:
    """What the rounds say, but for the first, in which a peer compiles."""
    rows, goals = [], []
    for work, methods in said.items():
        points = vectors(sizes[work][0])
        worth = {name: stood_for(points, rounds[0]["picked"]) for name, rounds in methods.items()}
        own, (peer, theirs) = methods["ours"], next((n, r) for n, r in methods.items() if n != "ours")
        ratios = [o["cpu_s"] / t["cpu_s"] for o, t in zip(own[1:], theirs[1:], strict=True)]
        for name, rounds in methods.items():
            rows.append(
                {
                    "method": name,
                    "work": work,
                    "answers": sizes[work][0],
                    "picks": sizes[work][1],
                    "cpu_s": round(median(r["cpu_s"] for r in rounds[1:]), 2),
                    "ratio": round(median(ratios), 3) if name == "ours" else 1,
                    "rise_mib": round(rounds[0]["rise_mib"]),
                    "stood_for": round(worth[name], 1),
                }
            )
        if work == "k-centre":
            same = sum(sorted(o["picked"]) == sorted(t["picked"]) for o, t in zip(own, theirs, strict=True)) / len(own)
            goals += [
                goal("k-centre: at most 0.22 x the CPU of a product a pick", median(ratios), most=0.22),
                goal("k-centre: the picks of the plain algorithm, share of rounds", same, least=1),
            ]
        else:
            share = 100 * worth["ours"] / worth[peer]
            less = own[0]["rise_mib"] / theirs[0]["rise_mib"]
            goals += [
                goal(f"facility location: at most 0.25 x the CPU of {peer}", median(ratios), most=0.25),
                goal(f"facility location: at least 99.5 % of what {peer} reaches", share, least=99.5),
                goal(f"facility location: at most 0.5 x the memory of {peer}", less, most=0.5),
            ]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions("numpy scipy", "apricot-select numpy numba", PEERS),
        "rounds": len(said["k-centre"]["ours"]) - 1,
        "rows": rows,
        "goals": goals,
        "notes": [
            "`ratio` is CPU over the method's that stands beside it, the median of the rounds' ratios; `rise` is the "
            "highest resident memory of the first round above that before it; `stood for` the sum over all answers of "
            "the greatest cosine to a pick.",
            "Of ours in facility location, five sixths find each answer's nearest: the product of all pairs, and the "
            "partition of its rows.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--k-center", type=int, nargs=2, default=[50_000, 1000], metavar=("ANSWERS", "PICKS"))
    top.add_argument("--facility", type=int, nargs=2, default=[10_000, 200], metavar=("ANSWERS", "PICKS"))
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    top.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        work, rows, picks = given.work
        points, choose = vectors(int(rows)), METHODS[work][given.serve][1]()

        serve(lambda: lambda: {"picked": [int(i) for i in choose(points, int(picks))]})
        return
    if not PEERS.exists():
        sys.exit(f"coreset: {PEERS.relative_to(ROOT)} is missing; `make bench-peers` makes it")
    sizes = dict(zip(METHODS, (given.k_center, given.facility), strict=True))
    said: dict[str, Said] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for work, methods in METHODS.items():
            pythons = {name: python for name, (python, _) in methods.items()}
            arguments = ["--work", work, *map(str, sizes[work])]
            said[work] = in_turn(__file__, pythons, arguments, 1 + given.rounds, Path(temporary))
    given.out.write_text(json.dumps(result(said, sizes), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
