"""What a distillation loss costs: CPU and memory of forward KL and its gradient, beside dense forms, TRL's and Liger's.

    make bench-divergence                                 # ten minutes of two cores
    python benchmarks/divergence.py --rounds 1 --sizes 32000 --out /tmp/try.json

States of width 256 at 4 x 256 positions, of which 60% count, meet a student's head and a live teacher's; the loss is
the mean KL(teacher || student), the gradient goes to the states and the student's head. Float32, one thread, a process
a method. Ours is the trainer's own way from states to loss, with `divergence.forward` as a recipe names it; a stored
teacher has 32 outcomes a place. The peers are given every position with their own mask, as their trainers do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gateway import commit, goal, machine
from turns import PEERS, ROOT, Said, in_turn, serve, versions

HERE = Path(__file__).parent
RESULT = HERE / "results" / "divergence.json"
WIDTH, SEQUENCES, LENGTH, SHARE, STORED = 256, 4, 256, 0.6, 32
# Outcomes and sequences of the check against float64.
SMALL = 2000, 1


@dataclass
class Work:
    """States and heads of both models, and which positions count."""

    states: Any
    head: Any
    teacher_states: Any
    teacher_head: Any
    counts: Any

    def grown(self, dtype: Any) -> Work:
        """The same numbers, learnt anew, in another type."""
        import torch

        copied = [t.detach().to(dtype) for t in (self.states, self.teacher_states)]
        heads = []
        for head in (self.head, self.teacher_head):
            heads.append(torch.nn.Linear(head.in_features, head.out_features, bias=False, dtype=dtype))
            heads[-1].weight = torch.nn.Parameter(head.weight.detach().to(dtype))
        heads[1].requires_grad_(False)
        return Work(copied[0].requires_grad_(), heads[0], copied[1], heads[1], self.counts)


def work(outcomes: int, sequences: int = SEQUENCES) -> Work:
    """A student that is near its teacher."""
    import torch

    draw = torch.Generator().manual_seed(0)
    places = sequences * LENGTH
    normal = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    head, teacher_head = (torch.nn.Linear(WIDTH, outcomes, bias=False) for _ in range(2))
    head.weight = torch.nn.Parameter(normal(outcomes, WIDTH) * 0.06)
    teacher_head.weight = torch.nn.Parameter(head.weight.detach() + normal(outcomes, WIDTH) * 0.03, requires_grad=False)
    states = normal(places, WIDTH) * 1.5
    near = states + normal(places, WIDTH) * 0.3
    counts = torch.rand(places, generator=draw) < SHARE
    return Work(states.requires_grad_(), head, near, teacher_head, counts)


def ours(given: Work) -> Callable[[], Any]:
    """The trainer's loss of a micro-batch, its teacher live."""
    return _ours(given, "teacher", None)


def ours_stored(given: Work) -> Callable[[], Any]:
    """The same from a stored top-k."""
    import torch

    from pipeline.kinds.objective import TopKTeacher

    with torch.no_grad():
        pieces = []
        for states in given.teacher_states[given.counts].split(64):
            top, ids = given.teacher_head(states).log_softmax(1).topk(STORED)
            pieces.append((ids.int(), top, 1 - top.exp().sum(1)))
    return _ours(given, None, TopKTeacher(*(torch.cat(column) for column in zip(*pieces, strict=True))))


def _ours(given: Work, against: str | None, stored: Any) -> Callable[[], Any]:
    import torch

    from pipeline.core.methods import find
    from pipeline.kinds.network import Seen
    from pipeline.kinds.objective import Step
    from pipeline.training.places import Places
    from pipeline.training.terms import Role, Term, loss_of

    method = find("objective", "divergence.forward")
    term = Term(1.0, method.factory(), frozenset(method.traits["reads"]), against=against)
    at = given.counts.nonzero()[:, 0]
    ones = torch.ones(SEQUENCES)
    places = Places(
        target_N=torch.zeros(len(at), dtype=torch.long),
        example_N=at // LENGTH,
        weight_B=ones,
        set_B=ones.long(),
        reward_B=ones,
        counts={},
        teacher=stored,
    )

    class Shown:
        """What a network shows of a batch, without the network."""

        def __init__(self, states: Any, head: Any) -> None:
            self.states, self.head = states, head

        def look(self, *_: object) -> Seen:
            return Seen(self.states[at], {"main": self.head})

    roles: dict[str, Any] = {"student": Role(given.head, Shown(given.states, given.head), True)}  # type: ignore[arg-type]
    if against:
        roles[against] = Role(given.teacher_head, Shown(given.teacher_states, given.teacher_head), False)  # type: ignore[arg-type]
    return lambda: loss_of([term], {}, places, roles, Step(0, 1, 0, 1), {"place": len(at)})


def everywhere(given: Work) -> Callable[[], Any]:
    """As it is usually written: all logits, then the mask."""
    import torch
    from torch.nn.functional import kl_div, log_softmax

    def loss() -> Any:
        # As two models' outputs give them: both are held while they are compared.
        logits = given.head(given.states)
        with torch.no_grad():
            teacher = given.teacher_head(given.teacher_states)
        each = kl_div(log_softmax(logits, -1), log_softmax(teacher, -1), reduction="none", log_target=True).sum(-1)
        return (each * given.counts).sum() / given.counts.sum()

    return loss


def counted(given: Work) -> Callable[[], Any]:
    """The same at the positions that count."""
    import torch
    from torch.nn.functional import kl_div, log_softmax

    def loss() -> Any:
        logits = given.head(given.states[given.counts])
        with torch.no_grad():
            teacher = given.teacher_head(given.teacher_states[given.counts])
        each = kl_div(log_softmax(logits, -1), log_softmax(teacher, -1), reduction="none", log_target=True)
        return each.sum() / given.counts.sum()

    return loss


def trl(given: Work) -> Callable[[], Any]:
    """The loss of its DistillationTrainer."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def loss() -> Any:
        batch = [t.view(-1, LENGTH, WIDTH) for t in (given.states, given.teacher_states)]
        heads = given.head.weight, given.teacher_head.weight
        return _chunked_divergence_loss(*batch, *heads, given.counts.view(-1, LENGTH), beta=0.0)[0]

    return loss


def liger(given: Work, compiled: bool = False) -> Callable[[], Any]:
    """Its fused loss with a linear head, uncompiled."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    fused = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=compiled)
    labels = torch.where(given.counts, 1, -100)

    def loss() -> Any:
        return fused(given.states, given.head.weight, given.teacher_states, given.teacher_head.weight, labels)

    return loss


def liger_compiled(given: Work) -> Callable[[], Any]:
    """The same compiled, which needs a C++ compiler and half a minute before the first step."""
    return liger(given, compiled=True)


OWN = Path(sys.executable)
NAIVE, COUNTED = "dense, all positions", "dense, positions that count"
METHODS: dict[str, tuple[Path, Callable[[Work], Callable[[], Any]]]] = {
    "ours": (OWN, ours),
    "ours, stored top-32": (OWN, ours_stored),
    COUNTED: (OWN, counted),
    NAIVE: (OWN, everywhere),
    "TRL chunked divergence": (PEERS, trl),
    "Liger fused JSD, beta 0": (PEERS, liger),
    "Liger fused JSD, beta 0, compiled": (PEERS, liger_compiled),
}


def step(method: str, given: Work) -> Callable[[], dict[str, Any]]:
    """A loss and its gradient, which is left in the tensors of the work."""
    loss_of_it = METHODS[method][1](given)

    def once() -> dict[str, Any]:
        given.states.grad = given.head.weight.grad = None
        loss = loss_of_it()
        loss.backward()
        return {"loss": float(loss.detach())}

    return once


def furthest(method: str) -> float | None:
    """The largest error of a small work's gradient, relative to its largest entry in float64; null for a top-k, whose
    loss is another."""
    import torch

    if "stored" in method:
        return None
    small = work(*SMALL)
    step(method, small)()
    exact = small.grown(torch.float64)
    everywhere(exact)().backward()
    pairs = ((small.states, exact.states), (small.head.weight, exact.head.weight))
    return max(float((a.grad - b.grad).abs().max() / b.grad.abs().max()) for a, b in pairs)


def result(said: dict[int, Said]) -> dict[str, object]:
    """What the rounds say."""
    rows = []
    ratio: dict[tuple[int, str], float] = {}
    for size, methods in said.items():
        first, naive = methods["ours"], methods[NAIVE]
        for name, rounds in methods.items():
            ratio[size, name] = median(s["cpu_s"] / o["cpu_s"] for s, o in zip(rounds[1:], first[1:], strict=True))
            rise = rounds[0]["rise_mib"]
            error = rounds[0]["furthest"]
            rows.append(
                {
                    "method": name,
                    "outcomes": size,
                    "cpu_s": round(median(s["cpu_s"] for s in rounds[1:]), 2),
                    "ratio": round(ratio[size, name], 2),
                    "rise_mib": round(rise),
                    "rise_to_dense": round(rise / naive[0]["rise_mib"], 2),
                    "furthest_gradient": None if error is None else float(f"{error:.1e}"),
                }
            )
    goals = []
    for size in said:
        if len(said[size]) < len(METHODS):
            continue
        rises = {row["method"]: row["rise_to_dense"] for row in rows if row["outcomes"] == size}
        goals += [
            goal(f"CPU over dense at all positions, V = {size:,}: at most 0.50", 1 / ratio[size, NAIVE], most=0.5),
            goal(f"CPU over dense where it counts, V = {size:,}: at most 0.85", 1 / ratio[size, COUNTED], most=0.85),
            goal(f"memory over dense at all positions, V = {size:,}: at most 0.12", rises["ours"], most=0.12),
            goal(f"TRL at least 2.3 x our CPU, V = {size:,}", ratio[size, "TRL chunked divergence"], least=2.3),
            goal(f"Liger at least 1.8 x our CPU, V = {size:,}", ratio[size, "Liger fused JSD, beta 0"], least=1.8),
        ]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions("torch", "torch trl liger-kernel"),
        "rounds": len(next(iter(said.values()))["ours"]) - 1,
        "rows": rows,
        "goals": goals,
        "notes": [
            "`ratio` is CPU over ours, the median of the rounds' ratios; `rise` is the highest resident memory of the "
            "first step above that before it, the head's gradient included; its CPU is not counted; `furthest "
            f"gradient` the largest error against float64 (V = {SMALL[0]:,}), relative to the largest entry.",
            "A top-k teacher's loss has K + 1 outcomes and is another number; no peer trains from one.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--sizes", type=int, nargs="+", default=[32_000, 152_000])
    top.add_argument("--only", nargs="*", default=[""], help="only methods that begin with one of these; no goals then")
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        import torch

        torch.set_num_threads(1)
        error = furthest(given.serve)
        once = step(given.serve, work(given.sizes[0]))
        serve(lambda: lambda: {**once(), "furthest": error})
        return
    if not PEERS.exists():
        sys.exit(f"divergence: {PEERS.relative_to(ROOT)} is missing; `make bench-peers` makes it")
    said: dict[int, Said] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in given.sizes:
            methods = {name: python for name, (python, _) in METHODS.items() if name.startswith(tuple(given.only))}
            said[size] = in_turn(__file__, methods, ["--sizes", str(size)], 1 + given.rounds, Path(temporary))
    given.out.write_text(json.dumps(result(said), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
