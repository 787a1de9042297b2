"""The programs in a text: what they print when they are run, and the lines that they go through."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import ByteSize, Field

from pipeline.bounded import Limits
from pipeline.core.settings import Bytes
from pipeline.kinds.verifier import answer_of, metric_of, reference_of
from pipeline.sandbox import Walls, run

Memory = Annotated[Bytes, Field(ge=100_000_000)]
MEMORY = ByteSize(500_000_000)
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Runs are seldom repeated, and a trace is long.
RECENT = 2_000
# It runs a program and says, behind a word that the program does not know, what that printed and which lines it went
# through, each with the names that were changed. What is another in every process, such as an address, is left out.
TRACED = """
import contextlib, inspect, io, json, re, reprlib, sys
program, word, most = {!r}, {!r}, {!r}
lines, printed, steps, at = program.split("\\n"), io.StringIO(), [], {{}}
short, told = reprlib.Repr(), 0
short.maxlist = short.maxtuple = short.maxdict = short.maxset = 20
short.maxstring = short.maxlong = short.maxother = 80

def plain(value):
    text = short.repr(value)
    return None if text.startswith("<") or " at 0x" in text else text

def close(frame, now, *more):
    global told
    step, before = at.pop(frame, (None, {{}}))
    if step is not None:
        changed = [name + " = " + text for name, text in now.items() if text and before.get(name) != text]
        said = re.sub(" at 0x[0-9a-f]+", "", printed.getvalue()[told:]).rstrip("\\n").replace("\\n", "\\\\n")
        told = len(printed.getvalue())
        notes = ", ".join([*changed, *(["prints " + said] if said else []), *more])
        steps[step] += "  # " + notes if notes else ""

def trace(frame, event, value):
    code = frame.f_code
    function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    if code.co_filename != "program" or not (function or code.co_name == "<module>"):
        return None
    now = {{name: plain(value) for name, value in frame.f_locals.items() if not name.startswith("_")}}
    if event == "return":
        close(frame, now, *(["returns " + plain(value)] if value is not None and plain(value) else []))
    elif event == "line" or event == "call" and function:
        close(frame, now)
        if len(steps) == most:
            steps.append("...")
            sys.settrace(None)
        else:
            at[frame] = len(steps), {{}} if event == "call" else now
            steps.append(lines[frame.f_lineno - 1].rstrip())
    return trace

code, names = compile(program, "program", "exec"), {{"__name__": "__main__"}}
try:
    with contextlib.redirect_stdout(printed):
        sys.settrace(trace if most else None)
        exec(code, names)
except SystemExit as end:
    if end.code:
        raise
finally:
    sys.settrace(None)
print(word, json.dumps([printed.getvalue(), "\\n".join(steps)]), word, flush=True)
"""


@dataclass(frozen=True)
class Execution:
    """What came of a program: what it printed and its trace, or why it did not come to its end: it failed, its time ran
    out (`late`), or the machine failed it (`missing`)."""

    printed: str = ""
    trace: str = ""
    fault: Literal["failed", "late", "missing"] | None = None


def blocks(text: str) -> list[str]:
    """The blocks of code of a text, or the whole of one that has none."""
    return BLOCK.findall(text) or [text]


@lru_cache(RECENT)
def execute(program: str, limits: Limits, walls: Walls, steps: int = 0) -> Execution:
    """Run a program of Python, and tell the first `steps` lines that it goes through."""
    word, program = secrets.token_hex(16), program.replace("\r\n", "\n").replace("\r", "\n")
    found = run(TRACED.format(program, word, steps), limits, walls)
    if found.missing:
        return Execution(fault="missing")
    if found.late:
        return Execution(fault="late")
    record = found.output.split(word)
    return Execution(*json.loads(record[1])) if len(record) == 3 else Execution(fault="failed")


def prints(verifier: str | None, printed: str, reference: str | None) -> bool:
    """Whether a program printed the right answer: that alone, as a reference is read, or in other words."""
    if verifier is None:
        return False
    answer = reference_of(verifier, printed.strip()) or answer_of(verifier, printed)
    return metric_of(verifier, answer, reference) == 1
