"""Operators that run the programs which an answer holds, each in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import PositiveFloat, PositiveInt

from pipeline.bounded import Limits
from pipeline.kinds.operator import Child, Operator, Parent, Unreadable, of_each, operator
from pipeline.sandbox import Walls
from pipeline.text.programs import MEMORY, Memory, blocks, execute, prints

FAULTS = {
    "failed": "its program does not come to its end",
    "late": "its program's time ran out",
    "missing": "the machine failed its program",
}


@operator(reads="answers", elicitation="labeling")
def traced(
    *, steps: PositiveInt = 100, seconds: PositiveFloat = 10.0, memory: Memory = MEMORY, sandbox: Walls = "unshare"
) -> Operator:
    """The prompts themselves, each with the trace of the first of its programs that prints the right answer as its
    `solution`: the first `steps` lines that are gone through, with the names that each changes and what it prints.

    A program is the first block of code of an answer, or else the whole of it, in Python, run within `seconds` and
    `memory`. What it prints is compared by the prompt's verifier, as a reference is read or else as an answer. An entry
    of generate with `elicit: {template: ...}` makes the trace a chain of thought; its students see the prompt alone.

    Paper: Hu et al. 2024, Visual Program Distillation (arXiv 2312.03052), section 3.2: programs are run, verified and
    rewritten; programs that print are those of Program of Thoughts (arXiv 2211.12588).
    Differs: of several right programs the first by its answer's id is kept, not the likeliest; no model judges outputs;
    prompts of which no program is right are left out, and stay in the pool that they are of.
    """
    limits = Limits(seconds, memory)

    def read(parents: Sequence[Parent], seed: int) -> Iterator[Child | Unreadable]:
        for answers in of_each(parents).values():
            for answer in answers:
                found = execute(blocks(answer.said)[0], limits, sandbox, steps)
                if found.fault is None and prints(answer.verifier, found.printed, answer.reference):
                    own = ("messages", "level", "verifier", "reference")
                    yield Child([answer], {name: getattr(answer, name) for name in own} | {"solution": found.trace})
                    break
                yield Unreadable(answer, FAULTS[found.fault] if found.fault else "its program prints something else")

    return read
