"""Laws of rules: every find has its evidence, of copies the first stays, and a template filled otherwise is no copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import Method
from pipeline.kinds.rule import Alone, Rule, Texts
from pipeline.laws.law import arguments, build, must
from pipeline.text.items import texts_from

SAID = (
    "", " ", "12", "I'm sorry, but I cannot help with that.", "Write to ann@example.org or call +44 20 7946 0958.",
    "the same again " * 12, "Guten Morgen, wie geht es Ihnen heute an diesem sehr sch\u00f6nen Tag?", "\x00\x1b[31m",
    "\u5c0f\u660e\u6709\u5341\u4e8c\u4e2a\u82f9\u679c\u4ed6\u6bcf\u5929\u5403\u4e24\u4e2a\u8bf7\u95ee\u8fd8\u5269\u591a\u5c11",
    "Pay with 4111 1111 1111 1111, or to DE89 3704 0044 0532 0130 00.", "\U0001f600 \u0661\u0662", "a" * 5_000,
)  # fmt: skip
# Nine words and more between the numbers, as instructions have.
TEMPLATE = (
    "On the first day of a long week the old baker sold {} loaves of dark bread from the small shop beside the river, "
    "and on the day after that he sold {} more of them before the heavy rain came down over the whole town."
)


@dataclass(frozen=True)
class Case:
    """A rule with arguments."""

    method: Method
    arguments: dict[str, Any]
    rule: Rule

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    @property
    def sees(self) -> str:
        return self.method.traits["sees"]

    def finds(self, texts: Texts, benchmark: Texts) -> Mapping[int, str]:
        """What it finds."""
        return self.rule(texts, benchmark)


def cases(method: Method) -> Iterator[Case]:
    """A rule with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


def texts(said: Sequence[str], prefix: str = "t") -> Texts:
    """Texts with ids in their order."""
    return texts_from([f"{prefix}{i:04d}" for i in range(len(said))], pa.array(list(said), pa.string()))


@cache
def pool() -> Texts:
    """What people ask and models say, with copies of some and what a benchmark has."""
    random = np.random.default_rng(3)
    words = np.array([f"word{i}" for i in range(300)])
    drawn = [" ".join(random.choice(words, size)) for size in random.integers(2, 40, 30)]
    near = [text.replace(" ", " so ", 1) for text in drawn[:8]]
    copied = [f"Once more: {text} and no more" for text in benchmark().raw[:6].to_pylist()]
    return texts([*SAID, *drawn, *near, *copied, *(text.upper() for text in drawn[4:12]), *SAID[3:6]])


@cache
def benchmark() -> Texts:
    """Items of ten words and more."""
    random = np.random.default_rng(4)
    words = np.array([f"item{i}" for i in range(400)])
    return texts([" ".join(random.choice(words, size)) for size in random.integers(10, 30, 20)], "b")


def every_find_has_evidence(case: Case) -> None:
    """What is found are positions of texts, each with what shows it, the same each time. Give a sentence for each."""
    found = case.finds(pool(), benchmark())
    for i, evidence in found.items():
        must(isinstance(i, int) and 0 <= i < len(pool()), f"{i!r} is no position of {len(pool())} texts")
        must(isinstance(evidence, str) and evidence.strip() != "", f"text {i} has the evidence {evidence!r}")
    must(dict(case.finds(pool(), benchmark())) == dict(found), "it finds something else the second time")


def nothing_is_found_in_nothing(case: Case) -> None:
    """There may be no texts, and no benchmark. Look at what there is."""
    none = texts([])
    must(not case.finds(none, benchmark()), "it finds something where there is no text")
    must(case.sees != "benchmark" or not case.finds(pool(), none), "it finds copies of a benchmark without items")


def what_is_left_is_left(case: Case) -> None:
    """Once what it finds is gone, it finds nothing. Hold a text against those that stay, or against nothing."""
    found = case.finds(pool(), benchmark())
    left = [text for i, text in enumerate(pool().raw.to_pylist()) if i not in found]
    again = case.finds(texts(left), benchmark())
    must(not again, f"of what it left it finds {len(again)} more: {next(iter(again.values()), '')}")


def other_texts_change_nothing(case: Case) -> None:
    """Only a rule that sees the pool may look at other texts. Declare `sees="pool"`, or judge each by itself."""
    said, found = pool().raw.to_pylist(), case.finds(pool(), benchmark())
    alone = [{*case.finds(texts([text]), benchmark())} for text in said]
    must([bool(one) for one in alone] == [i in found for i in range(len(said))], "a text by itself is judged otherwise")
    if case.sees == "text":
        must(isinstance(case.rule, Alone), 'it says `sees="text"` and is no `Alone`')
        must(dict(case.finds(pool(), texts([]))) == dict(found), "it looks at the benchmark")


def of_copies_the_first_stays(case: Case) -> None:
    """Of texts that are one, the first stays and no other. Keep the one with the lowest id."""
    said = [text for text in benchmark().raw.to_pylist() for _ in range(3)]
    found = {*case.finds(texts(said), texts([]))}
    expected = {i for i in range(len(said)) if i % 3}
    must(found in (expected, set()), f"of three copies each it drops {sorted(found ^ expected)[:5]}")


def a_template_filled_otherwise_stays(case: Case) -> None:
    """A template that is filled with other numbers is another task. Hold texts against each other only where they ask
    for the same (`text/items.py`), and take out what a benchmark's items have in common."""
    ours = [TEMPLATE.format(100 + i, 300 + 7 * i) for i in range(20)]
    theirs = [TEMPLATE.format(500 + i, 700 + 7 * i) for i in range(20)]
    found = case.finds(texts(ours), texts(theirs, "b"))
    must(not found, f"of 20 instances of a template it drops {len(found)}: {next(iter(found.values()), '')}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = {
    every_find_has_evidence: lambda case: True,
    nothing_is_found_in_nothing: lambda case: True,
    what_is_left_is_left: lambda case: True,
    other_texts_change_nothing: lambda case: case.sees != "pool",
    of_copies_the_first_stays: lambda case: case.sees == "pool",
    a_template_filled_otherwise_stays: lambda case: case.sees != "text",
}
