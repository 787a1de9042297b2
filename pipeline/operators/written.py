"""Operators that read the prompts that a model wrote out of its answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PositiveInt

from pipeline.kinds.operator import Child, Operator, Parent, Unreadable, operator
from pipeline.text.programs import blocks

KEYS = ("prompt", "reference", "level", "domain")
NUMBERED = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:(?:task|question|problem)[ \t]*)?\d{1,3}[.):][ \t]*", re.I | re.M)


def _sections(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    if "prompt" not in groups or not groups.keys() <= set(KEYS):
        raise ValueError(f"needs a group (?P<prompt>...), and may have others named {', '.join(KEYS[1:])}")
    return pattern


Sections = Annotated[str, AfterValidator(_sections)]


@operator(reads="answers", elicitation="labeling")
def prompts(*, form: Literal["numbered", "lines", "whole"] = "numbered", least: PositiveInt = 1) -> Operator:
    """The prompts in an answer: one below each number, one on each line, or the whole of it; one of fewer than `least`
    characters is none.

    Paper: Wang et al. 2023 (arXiv 2212.10560), section 2.2, and Xu et al. 2024 (arXiv 2304.12244).
    Differs: no prompt has an answer from here; a model is asked for it.
    """

    def read(parents: Sequence[Parent], seed: int) -> Iterator[Child | Unreadable]:
        for parent in parents:
            found = [text for text in map(str.strip, texts(parent.content or "", form)) if len(text) >= least]
            if not found:
                yield Unreadable(parent, f"no prompt is written in it ({form})")
            yield from (Child([parent], {"prompt": text}) for text in found)

    return read


def texts(content: str, form: str) -> list[str]:
    """The texts in an answer, in one of the three forms."""
    if form == "whole":
        return [content]
    # What stands before the first number is no prompt.
    return content.splitlines() if form == "lines" else NUMBERED.split(content)[1:]


@operator(reads="answers", elicitation="labeling")
def tasks(*, sections: Sections | None = None) -> Operator:
    """The tasks in an answer, with their right answers: the objects of a JSON list, also in a block of code, or every
    place that a regular expression with named groups finds (`(?ms)^Task: (?P<prompt>.*?)^Answer: (?P<reference>.*?)$`).

    A key or a group is `prompt`, `reference`, `level` (a whole number) or `domain`; others are left out. The `verifier`
    of the entry reads the references, and one that it cannot read is told.

    Paper: EvoSyn 2025 (arXiv 2510.17928), problems in titled sections; Di Palo et al. 2024 (arXiv 2411.05045),
    generated samples with labels.
    Differs: what cannot be read is told and left out; a model is not asked again.
    """

    def read(parents: Sequence[Parent], seed: int) -> Iterator[Child | Unreadable]:
        for parent in parents:
            text = parent.content or ""
            found = _listed(text) if sections is None else [match.groupdict() for match in re.finditer(sections, text)]
            if not found:
                yield Unreadable(parent, f"no tasks are written in it ({'JSON' if sections is None else 'sections'})")
            for task in found:
                if isinstance(task, Mapping) and task.get("prompt"):
                    yield Child([parent], {key: _plain(key, task[key]) for key in KEYS if task.get(key) is not None})
                else:
                    yield Unreadable(parent, "a task has no prompt")

    return read


def _listed(content: str) -> list[Any]:
    """The list in a text of JSON, which may stand alone in an object; an object with a prompt is a list of one."""
    text = blocks(content)[0]
    start = re.search(r"[\[{]", text)
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start.start() if start else 0)
    except (ValueError, RecursionError):
        return []
    if isinstance(found, Mapping) and "prompt" not in found:
        found = next((value for value in found.values() if isinstance(value, list)), [])
    return found if isinstance(found, list) else [found]


def _plain(key: str, value: Any) -> Any:
    """A value as a row has it: a level that is written as a text is the number that it says."""
    if not isinstance(value, str):
        return value
    return int(value) if key == "level" and re.fullmatch(r"\s*\d{1,9}\s*", value) else value.strip()
