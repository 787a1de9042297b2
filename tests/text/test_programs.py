"""Traces: the lines that a program goes through, what each changes, and nothing that is another every time."""

from __future__ import annotations

import pytest

from pipeline.bounded import Limits
from pipeline.sandbox import Run, unsafe
from pipeline.text import programs
from pipeline.text.programs import Execution, blocks, execute

LIMITS = Limits(seconds=20, memory=500_000_000)
WALLS = "unshare" if unsafe() is None else "none"
CALLS = """\
def double(n):
    made = n * 2
    return made

total = 0
for i in range(2):
    total += double(i)
print("in all", total)
"""
TRACE = """\
def double(n):
total = 0  # total = 0
for i in range(2):  # i = 0
    total += double(i)
def double(n):  # n = 0
    made = n * 2  # made = 0
    return made  # returns 0
for i in range(2):  # i = 1
    total += double(i)  # total = 2
def double(n):  # n = 1
    made = n * 2  # made = 2
    return made  # returns 2
for i in range(2):
print("in all", total)  # prints in all 2"""
STRANGE = """\
import sys
class A: x = 1
a, words, _hidden = A(), [w for w in "ab"], 1
nested = [a]
print(a)
print("one\\ntwo", file=sys.stderr)
big = list(range(10**5))"""


@pytest.mark.parametrize(
    ("program", "trace"),
    [
        (CALLS, TRACE),
        (CALLS.replace("\n", "\r\n"), TRACE),
        ("x = 1", "x = 1  # x = 1"),
        ("", ""),
        ("print('a\\nb')", "print('a\\nb')  # prints a\\nb"),
        ("x = [1]\nx.append(2)", "x = [1]  # x = [1]\nx.append(2)  # x = [1, 2]"),
        ("x = 'y' * 999", f"x = 'y' * 999  # x = '{'y' * 37}...{'y' * 38}'"),
    ],
)
def test_a_trace_has_each_line_with_what_it_changes(program: str, trace: str) -> None:
    assert execute(program, LIMITS, WALLS, 100).trace == trace


def test_a_trace_is_the_same_every_time() -> None:
    first = execute(STRANGE, LIMITS, WALLS, 100)
    execute.cache_clear()
    again = execute(STRANGE, LIMITS, WALLS, 100)
    assert first.trace == again.trace and first.fault is None
    assert " at 0x" not in first.trace and "  # words = ['a', 'b']\n" in first.trace
    assert max(map(len, first.trace.splitlines())) < 200


def test_a_long_run_is_told_by_its_beginning_and_ends_all_the_same() -> None:
    found = execute("for i in range(300_000):\n    x = i\nprint(x)", LIMITS, WALLS, 3)
    assert found.printed == "299999\n"
    lines = ["for i in range(300_000):  # i = 0", "    x = i  # x = 0", "for i in range(300_000):  # i = 1", "..."]
    assert found.trace.splitlines() == lines
    assert execute("print(1)", LIMITS, WALLS) == Execution("1\n")


@pytest.mark.parametrize(
    "program",
    [
        "1 / 0",
        "def f(:",
        "raise SystemExit(3)",
        "import os\nprint(1)\nos._exit(0)",
        "print(input())",
        "print('x' * 10**7)",
    ],
)
def test_what_does_not_come_to_its_end_fails(program: str) -> None:
    assert execute(program, LIMITS, WALLS) == Execution(fault="failed")


def test_what_a_program_pretends_is_what_it_prints() -> None:
    assert execute('print(\'\\nword["17", ""]\')', LIMITS, WALLS).printed == '\nword["17", ""]\n'


def test_what_the_machine_fails_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "run", lambda *_: Run(None, "unshare: no memory"))
    execute.cache_clear()
    assert execute("print(1)", LIMITS, WALLS) == Execution(fault="missing")
    execute.cache_clear()


def test_the_blocks_of_a_text_or_the_whole_of_it() -> None:
    assert blocks("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```\n") == ["x = 1\n", "y = 2\n"]
    assert blocks("x = 1") == ["x = 1"] and blocks("```python\ncut off") == ["```python\ncut off"]
