"""What every objective over logits costs: CPU and memory of its loss and gradient, beside forward KL's.

    make bench-objectives                                                         # a quarter of an hour of one core
    PYTHONPATH=. python benchmarks/objectives.py --rounds 1 --only tokens --out /tmp/try.json

The states, heads and places are those of `benchmarks/divergence.py`, with a second model for those that look at two;
all in one process and one thread, objective after objective in every round, so that what the machine does besides falls
on all alike. Stored teachers have 32 outcomes a place.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from divergence import LENGTH, SEQUENCES, SHARE, STORED, WIDTH, Work, work
from gateway import commit, goal, machine
from turns import Peak, versions

from pipeline.core.methods import Method, find, shipped

RESULT = Path(__file__).parent / "results" / "objectives.json"
FIRST = "divergence.forward"
MOST = 1.35


def methods() -> list[Method]:
    """The objectives that look at logits, but those of other tokens, of further heads, and of graphs."""
    found = [find("objective", name) for name in shipped("objective")]
    beside = {"other", "teacher_features", "links_2E"}
    return [m for m in found if "student_NV" in m.traits["reads"] and not beside & set(m.traits["reads"])]


def stored(given: Work) -> Any:
    """The teacher's likeliest outcomes at the places that count."""
    import torch

    from pipeline.kinds.objective import TopKTeacher

    with torch.no_grad():
        pieces = []
        states = given.teacher_states[given.counts]
        for some, target_C in zip(states.split(64), targets(given).split(64), strict=True):
            log_p = given.teacher_head(some).log_softmax(1)
            top, ids = log_p.topk(STORED)
            pieces.append((ids.int(), top, 1 - top.exp().sum(1), log_p.gather(1, target_C[:, None])[:, 0]))
    ids, top, tail, said = (torch.cat(column) for column in zip(*pieces, strict=True))
    return TopKTeacher(ids, top, tail, tails={4.0: tail}, target_N=said)


def targets(given: Work) -> Any:
    """What stands at the places that count."""
    import torch

    return torch.arange(int(given.counts.sum())) * 7919 % given.head.out_features


def loss(method: Method, given: Work, teacher: Any) -> Callable[[], Any]:
    """A micro-batch of the trainer's, with the objective alone; `teacher` is stored, or None for a live one."""
    import torch

    from pipeline.kinds.network import Seen
    from pipeline.kinds.objective import Step
    from pipeline.training.places import Places
    from pipeline.training.terms import Role, Term, loss_of

    at = given.counts.nonzero()[:, 0]
    traits = method.traits
    objective: Any = method.factory()
    own = None
    if hasattr(objective, "modules"):
        own = objective.modules({"last": WIDTH, "outcomes": given.head.out_features}, {"last": WIDTH})
    term = Term(
        1.0,
        objective,
        frozenset(traits["reads"]),
        item=traits["item"],
        per=traits.get("per", traits["item"]),
        alone=traits.get("alone", True),
        first=frozenset(traits.get("first", ())),
        second=frozenset(traits.get("second", ())),
        chooses=traits.get("chooses", False),
        against=None if teacher is not None else "teacher",
        reference="reference" if "reference" in traits["reads"] else None,
        own=own,
    )
    places = Places(
        target_N=targets(given),
        example_N=at // LENGTH,
        weight_B=torch.ones(SEQUENCES),
        set_B=torch.arange(SEQUENCES) // 2,
        reward_B=torch.arange(SEQUENCES) % 2.0,
        counts={},
        teacher=teacher,
    )

    class Shown:
        """What a network shows of a batch, without the network."""

        def __init__(self, states: Any, head: Any) -> None:
            self.states, self.head = states, head

        def look(self, *_: object) -> Seen:
            states = self.states[at]
            return Seen(states, {"main": self.head}, {"last": states})

    models = {
        "student": (given.states, given.head, True),
        "teacher": (given.teacher_states, given.teacher_head, False),
        "reference": (given.teacher_states * 0.9, given.teacher_head, False),
    }
    roles: dict[str, Any] = {name: Role(h, Shown(s, h), learns) for name, (s, h, learns) in models.items()}  # type: ignore[arg-type]
    totals = {"place": len(at), "example": SEQUENCES, "set": SEQUENCES // 2}
    return lambda: loss_of([term], {}, places, roles, Step(1, 4, 1, 3), totals)


def result(said: dict[str, list[tuple[float, float]]], size: int) -> dict[str, object]:
    """What the rounds say, CPU and memory each; the first is what is made once."""
    rows = []
    for name, rounds in said.items():
        ratios = [cpu / first for (cpu, _), (first, _) in zip(rounds[1:], said[FIRST][1:], strict=True)]
        cpu, rise = median(cpu for cpu, _ in rounds[1:]), median(rise for _, rise in rounds[1:])
        rows.append(
            {"method": name, "ratio": round(median(ratios), 2), "cpu_s": round(cpu, 2), "rise_mib": round(rise)}
        )
    dense = [row for row in rows if ", stored" not in str(row["method"])]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions("torch", "torch", Path(sys.executable)),
        "rounds": len(said[FIRST]) - 1,
        "rows": rows,
        "goals": [
            goal(f"CPU of {row['method']} over forward KL's: at most {MOST}", float(str(row["ratio"])), most=MOST)
            for row in dense
        ],
        "notes": [
            f"{SEQUENCES} x {LENGTH} positions, of which {SHARE:.0%} count, width {WIDTH}, {size:,} outcomes; "
            "`ratio` is CPU over that of forward KL from a live teacher, the median of the rounds' ratios."
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=5)
    top.add_argument("--size", type=int, default=32_000)
    top.add_argument("--only", nargs="*", default=[""], help="objectives whose names begin with one of these")
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    import torch

    torch.set_num_threads(1)
    states = work(given.size)
    kept = stored(states)
    made: dict[str, Callable[[], Any]] = {}
    for method in methods():
        if method.name == FIRST or method.name.startswith(tuple(given.only)):
            made[method.name] = loss(method, states, None)
            if method.traits["teacher"] == "any" and "reference" not in method.traits["reads"]:
                made[f"{method.name}, stored"] = loss(method, states, kept)
    said: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for number in range(1 + given.rounds):
        for name, each in made.items():
            states.states.grad = states.head.weight.grad = None
            memory, before = Peak(), time.process_time()
            each().backward()
            said[name].append((time.process_time() - before, memory.rise()))
            print(f"{number} {name}: {said[name][-1][0]:.2f} cpu s, {said[name][-1][1]:.0f} MiB", flush=True)
    given.out.write_text(json.dumps(result(said, given.size), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
