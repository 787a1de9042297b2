"""Laws of exporters: rows that are read as they were written, of texts that nothing changed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.contracts import SIGNALS
from pipeline.core.methods import Method
from pipeline.kinds.exporter import Answer, Exporter, Shape
from pipeline.laws.law import arguments, build, must
from pipeline.tables import plain
from pipeline.tables.parquet import folder_digest

# Texts that a careless writer breaks: lines, quotes, marks of other formats, letters beyond the first plane.
HOSTILE = ("a\nb\r\nc", 'say "no", {{ bos }}', "</s><|im_end|>", "\u2028 𝒳é\u0301 \ufeff", "- --- : #", " \t")


def answers() -> list[list[Answer]]:
    """Answers to a few prompts, of which the first sample is kept and the second is wrong."""
    made = []
    for n, text in enumerate(HOSTILE):
        turns = [{"role": "user", "content": f"question {n} {text}"}]
        if n % 2:
            turns = [{"role": "system", "content": f"system {n} {text}"}, *turns]
        told = [(0, True, f"kept {n} {text}"), (1, False, f"dropped {n} {text}")]
        made.append([
            Answer(
                response_id=f"{n}{sample}", prompt_id=str(n), domain="d", entry="teacher", messages=turns, content=said,
                reasoning=f"thought {n} {text}" if n % 3 else None, finish_reason="stop", kept=kept, weight=1.0 + n,
                right=kept,
            )
            for sample, kept, said in told
        ])  # fmt: skip
    return made


def prompts() -> list[dict[str, Any]]:
    """Rows of a pool."""
    return [
        {"prompt_id": some[0].prompt_id, "messages": some[0].messages, "reference": f"answer {n}"}
        for n, some in enumerate(answers())
    ]


def signals() -> list[pa.RecordBatch]:
    """Two rows, of two and one places and two outcomes."""
    told = {"domain": "d", "weight": 1.0, "template_hash": "t", "tokenizer_hash": "t", "response_ids": ["r"]}
    rows = [
        {
            "example_id": f"e{n}", "prompt_id": f"p{n}", "token_ids": [5, 6, 7, 8],
            "spans": [{"start": 3 - n, "end": 4}], "teacher_id": "t", "topk_ids": [[8, 1]] * (n + 1),
            "topk_logprobs": [np.log([0.5, 0.25]).tolist()] * (n + 1), "tail_mass": [0.25] * (n + 1),
            "target_logprob": [0.0] * (n + 1), "temperature": 1.0, **told,
        }
        for n in range(2)
    ]  # fmt: skip
    return [SIGNALS.rows(rows)]


GIVEN: dict[str, Callable[[], Any]] = {"answers": answers, "prompts": prompts, "signals": signals}


@dataclass(frozen=True)
class Case:
    """An exporter with arguments."""

    method: Method
    arguments: dict[str, Any]
    exporter: Exporter

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    def made(self, out: Path) -> Shape:
        """What it makes of the rows of its kind."""
        out.mkdir()
        return self.exporter(GIVEN[self.method.traits["reads"]](), out)

    def rows(self) -> list[dict[str, Any]]:
        """The rows that it writes."""
        with tempfile.TemporaryDirectory() as place:
            shape = self.made(Path(place) / "out")
            return list(plain.read(Path(place) / "out", shape.files))


def cases(method: Method) -> Iterator[Case]:
    """An exporter of rows with several arguments; what reads a model is no case."""
    if method.traits["reads"] in GIVEN:
        yield from (Case(method, given, build(method, given)) for given in arguments(method, {}))


def texts(value: Any) -> Iterator[str]:
    """All texts in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def rows_are_counted(case: Case) -> None:
    """Every row is read again from the files that the shape names, all with the same columns. Count rows as they are
    written, and name files as `ROWS` does."""
    with tempfile.TemporaryDirectory() as place:
        shape = case.made(Path(place) / "out")
        rows = list(plain.read(Path(place) / "out", shape.files))
    must(len(rows) == shape.rows > 0, f"{shape.rows} rows are said, and {len(rows)} are read")
    must(len({tuple(row) for row in rows}) == 1, "rows have different columns")


def no_text_is_changed(case: Case) -> None:
    """Every row holds whole, in its words and signs, a question and, of answers, an answer that was given. Write texts
    as they are, through a writer that quotes them."""
    given = answers()
    for row in case.rows():
        said = list(texts(row))
        asked = [turn["content"] for some in given for turn in some[0].messages if turn["role"] == "user"]
        must(any(question in text for question in asked for text in said), f"no question is whole in {row}")
        if case.method.traits["reads"] == "answers":
            known = [answer.content for some in given for answer in some]
            must(any(content in text for content in known for text in said), f"no answer is whole in {row}")


def what_was_dropped_is_not_learnt(case: Case) -> None:
    """An answer that was not kept stands in no row, but as `rejected`, or in a row that says `kept: false`. Write what
    `kept` gives."""
    rows = [{key: value for key, value in row.items() if key != "rejected"} for row in case.rows()]
    said = [text for row in rows if row.get("kept") is not False for text in texts(row)]
    must(not any(text.startswith("dropped") for text in said), "an answer that was dropped is among them")


def the_same_of_the_same(case: Case) -> None:
    """The same rows give the same bytes. Write no time and no place."""
    with tempfile.TemporaryDirectory() as place:
        first, second = (Path(place) / name for name in ("first", "second"))
        must(case.made(first) == case.made(second), "a second call tells something else")
        must(folder_digest(first) == folder_digest(second), "a second call gives other bytes")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = {
    rows_are_counted: lambda case: True,
    no_text_is_changed: lambda case: case.method.traits["reads"] != "signals",
    what_was_dropped_is_not_learnt: lambda case: case.method.traits["reads"] == "answers",
    the_same_of_the_same: lambda case: True,
}
