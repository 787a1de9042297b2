"""Laws of operators: children of parents that are there, and the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.methods import Method
from pipeline.kinds.operator import ELICITED, Child, Operator, Parent, Unreadable
from pipeline.kinds.source import BadRow, GivenRow
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.laws.law import arguments, build, must
from pipeline.tables import ids
from pipeline.text.intake import Intake

SAID = (
    "1. One more task.\n2. And another, of two\nlines.", "The answer is 12.", "", "12", "{braces} and {} and %s",
    "Question: what is it?\nAnswer: no", '{"points": 3}', '[{"prompt": "One more.", "reference": 4}, 5]',
    "1. mul 012 4\n2. sort this", "rev abcd", "\u5c0f\u660e\u6709\u82f9\u679c",
)  # fmt: skip
# What an argument of a marked type is given.
MARKED = {"teacher": "c", "student": "d", "questions": ("Is it long?", "Does it have {braces}?")}


@dataclass(frozen=True)
class Case:
    """An operator with arguments."""

    method: Method
    arguments: dict[str, Any]
    operator: Operator

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    def makes(self, parents: Sequence[Parent], seed: int = 3) -> list[Child | Unreadable]:
        """All that it makes."""
        return list(self.operator(parents, seed))


def cases(method: Method) -> Iterator[Case]:
    """An operator with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, MARKED))


def parents_for(method: Method, count: int = 10) -> list[Parent]:
    """Parents of all sorts, in the order of their ids: prompts, or three answers to each, as the operator reads."""
    made = []
    for i in range(count):
        messages = [{"role": "system", "content": "Be brief."}] * (i % 2)
        messages.append({"role": "user", "content": f"What is {i} + {i} {{here}}?"})
        reference = None if i % 5 == 4 else str(2 * i)
        verifier = None if reference is None else "numeric.last"
        prompt = ids.prompt_id(messages)
        asked = Parent(prompt, prompt, messages, "ab"[i % 2], None if i % 3 else i, verifier, reference, None)
        if method.traits["reads"] == "prompts":
            made.append(asked)
            continue
        program = f"```python\nprint({i} + {i})\n```"
        for j, said in enumerate((f"It is {2 * i}.", SAID[i % len(SAID)], program if i % 4 else "It is -1.")):
            answer = answer_of(verifier, said)
            metric = metric_of(verifier, answer, reference)
            right = None if metric is None else metric == 1
            own = ids.digest("answer", i, j)
            made.append(replace(asked, id=own, entry="cdd"[j], content=said, answer=answer, right=right))
    return sorted(made, key=lambda parent: parent.id)


def children_of_parents_that_are_there(case: Case) -> None:
    """Every child has parents, all of them given, and is a prompt that can be read. Give `messages` or a `prompt` that
    is not empty; say what cannot be used as `Unreadable`, and make nothing of nothing."""
    must(case.method.traits["elicitation"] in ELICITED, f"its trait `elicitation` is none of {', '.join(ELICITED)}")
    parents = parents_for(case.method)
    known = {id(parent) for parent in parents}
    made = case.makes(parents)
    must(any(isinstance(one, Child) for one in made), "it makes nothing of any parent")
    intake = Intake({}, "d", None, None, 100_000, on_repeat="first")
    for one in made:
        named = [one.parent] if isinstance(one, Unreadable) else list(one.parents)
        must(bool(named) and all(id(parent) in known for parent in named), "a child has parents that were not given")
        if isinstance(one, Child):
            read = intake.read(GivenRow("here", {"domain": "d", **one.columns}))
            must(not isinstance(read, BadRow), f"a child is no prompt: {read}")
    must(not case.makes([]), "it makes something of nothing")


def the_same_for_the_same_seed(case: Case) -> None:
    """The same parents and seed make the same children. Draw by the seed and by names, `ids.generator`, and keep
    nothing between calls."""
    parents = parents_for(case.method)
    must(case.makes(parents) == case.makes(parents), "it makes something else when it is called again")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (children_of_parents_that_are_there, the_same_for_the_same_seed), lambda case: True
)
