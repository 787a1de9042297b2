"""A preview on a screen, in colour or as plain text. A model's text cannot command the terminal, and a text that is cut
says so."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from pipeline.display import printable


@dataclass(frozen=True)
class Trained:
    """An example: the text before the trained tokens, theirs, and what follows; `trained` of `total` tokens, `unknown`
    of which stand for characters that the tokenizer does not know. `unit` is `places` where these are no tokens.

    Tokens that share the bytes of a character have one text together.
    """

    before: str
    tokens: tuple[str, ...]
    after: str
    trained: int
    total: int
    unknown: int
    unit: str = "tokens"


@dataclass(frozen=True)
class Row:
    """One prompt with its k answers, as rows of `responses`; the rest is about the first of them."""

    samples: tuple[dict[str, Any], ...]
    from_memo: int
    right: tuple[bool | None, ...]
    scores: dict[str, float | str | None]
    trained: Trained | str


@dataclass(frozen=True)
class Preview:
    """What a preview shows: the rows, how many prompts the run would ask, and whose template trains on them."""

    entry: str
    model: str
    prompts: int
    k: int
    rows: tuple[Row, ...]
    student: str | None


# Longer texts are cut, unless all is asked for.
MOST_CHARACTERS, MOST_SHORT = 1200, 80
MOST_TOKENS, LAST_TOKENS = 300, 20
PLAIN_WIDTH, MARGIN = 110, 11
BEGIN, END = "⟦", "⟧"
TRAINED = ("black on green", "black on bright_green")


def console(plain: bool) -> Console:
    """Where to print: in colour on a terminal, otherwise the same words without."""
    plain = plain or not sys.stdout.isatty()
    return Console(
        markup=False, emoji=False, highlight=False, color_system=None if plain else "auto", no_color=plain,
        force_terminal=False if plain else None, width=PLAIN_WIDTH if plain else None,
    )  # fmt: skip


def render(shown: Preview, out: Console, full: bool) -> None:
    """Every row, then what they say together."""
    for number, row in enumerate(shown.rows, 1):
        first = row.samples[0]
        title = f"{number} of {len(shown.rows)}  {first['domain']}  prompt {first['prompt_id'][:12]}"
        out.print(Rule(Text(printable(title), "bold"), align="left", style="dim"))
        _lines(_about(row, shown, full), out)
        out.print()
    out.print(Rule(Text("all of them", "bold"), align="left", style="dim"))
    _lines(((name, Text(printable(text))) for name, text in summary(shown)), out)


def _lines(named: Iterable[tuple[str, Text]], out: Console) -> None:
    """Texts beside their names, wrapped under themselves; a table of rich would fill its lines with spaces."""
    for name, text in named:
        for number, line in enumerate(text.wrap(out, out.width - MARGIN, overflow="fold")):
            margin = (f"{'' if number else name:<{MARGIN}}", "dim")
            out.print(Text.assemble(margin, line), soft_wrap=True)


def _about(row: Row, shown: Preview, full: bool) -> list[tuple[str, Text]]:
    first = row.samples[0]
    most = None if full else MOST_CHARACTERS
    lines = [("prompt", Text(_cut(_conversation(first["messages"]), most)))]
    if first["reasoning"]:
        lines.append(("reasoning", Text(_cut(first["reasoning"], most), "italic")))
    if first["error"] is not None:
        lines.append(("failed", Text(_cut(first["error"], most), "red")))
    else:
        lines.append(("answer", Text(_cut(first["content"] or "(empty)", most))))
        lines.append(("read", _answer_text(first, row.right[0])))
    if shown.k > 1:
        lines.append(("samples", Text(_agreement(row))))
    if row.scores:
        lines.append(("scores", Text(", ".join(f"{name} {_number(value)}" for name, value in row.scores.items()))))
    lines.append(("finish", Text(_finish(row))))
    if isinstance(row.trained, str):
        lines.append(("training", Text(printable(f"not trained on: {row.trained}"), "yellow")))
    else:
        lines.append(("training", _trained(row.trained, shown.student, full)))
    return lines


def _cut(text: str, most: int | None) -> str:
    text = printable(text)
    if most is None or len(text) <= most:
        return text
    return f"{text[:most]} ... [cut: {most} of {len(text)} characters are shown; --full shows all]"


def _conversation(messages: Sequence[dict[str, str]]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _quoted(text: str) -> str:
    text = " ".join(printable(text).split())
    return f'"{text if len(text) <= MOST_SHORT else text[:MOST_SHORT] + "..."}"'


def _answer_text(row: dict[str, Any], right: bool | None) -> Text:
    """The short answer that the verifier reads, and whether it is right."""
    text = Text("nothing could be read" if row["answer"] is None else _quoted(row["answer"]))
    if right is None:
        return text.append("  (no reference to compare with)" if row["reference"] is None else "  (no verifier)")
    text.append("  right" if right else "  wrong", "bold green" if right else "bold red")
    return text.append(f" (the reference is {_quoted(row['reference'])})")


def _agreement(row: Row) -> str:
    """How often the k answers to a prompt say the same, and how many are right."""
    k = len(row.samples)
    counts = Counter(sample["answer"] for sample in row.samples)
    said = [f"{n} of {k} say {_quoted(a)}" if a is not None else f"{n} of {k} unread" for a, n in counts.most_common(4)]
    more = [f"{len(counts) - 4} other answers"] if len(counts) > 4 else []
    known = [right for right in row.right if right is not None]
    return ", ".join([*said, *more]) + (f"; {sum(known)} of {k} are right" if known else "")


def _number(value: float | str | None) -> str:
    return "null" if value is None else printable(value) if isinstance(value, str) else f"{value:.4g}"


def _finish(row: Row) -> str:
    first, k = row.samples[0], len(row.samples)
    tokens = [
        f"{first[column]} tokens {what}"
        for column, what in (("prompt_tokens", "asked"), ("completion_tokens", "answered"))
        if first[column] is not None
    ]
    cost = [] if first["cost_usd"] is None else [f"${first['cost_usd']:.6f}"]
    memo = "from memo" if row.from_memo == k else f"{row.from_memo} of {k} from memo" if row.from_memo else "asked now"
    return ", ".join([first["finish_reason"], *tokens, *cost, memo])


def _trained(example: Trained, student: str | None, full: bool) -> Text:
    """The rendered example, and how much of it is trained on."""
    count = "all" if example.trained == example.total else f"{example.trained} of {example.total}"
    unknown = f"; {example.unknown} of them are unknown to its tokenizer" if example.unknown else ""
    form = "in the template" if example.unit == "tokens" else "by the names"
    about = f"{count} {example.unit}, between {BEGIN} and {END}, {form} of {student}{unknown}\n"
    return Text(about).append_text(marked(example, full))


def marked(example: Trained, full: bool) -> Text:
    """An example; what is trained on stands in brackets, and in green on a terminal."""
    tokens, left_out = example.tokens, ""
    if not full and len(tokens) > MOST_TOKENS + LAST_TOKENS:
        left_out = f" ... [cut: {len(tokens) - MOST_TOKENS - LAST_TOKENS} tokens; --full shows all] ... "
    head = tokens[:MOST_TOKENS] if left_out else tokens
    tail = tokens[-LAST_TOKENS:] if left_out else ()
    before = printable(example.before)
    if not full and len(before) > MOST_CHARACTERS:
        before = f"[cut: the last {MOST_CHARACTERS} of {len(before)} characters] ... {before[-MOST_CHARACTERS:]}"
    text = Text().append(before, "dim").append(BEGIN, "bold")
    for number, token in enumerate(head):
        text.append(printable(token), TRAINED[number % 2])
    text.append(left_out)
    for number, token in enumerate(tail):
        text.append(printable(token), TRAINED[number % 2])
    return text.append(END, "bold").append(printable(example.after), "dim")


def summary(shown: Preview) -> list[tuple[str, str]]:
    """What the rows say together, and what to do next."""
    samples = [sample for row in shown.rows for sample in row.samples]
    known = [right for row in shown.rows for right in row.right if right is not None]
    failed = [sample for sample in samples if sample["error"] is not None]
    answered = [sample for sample in samples if sample["error"] is None]
    n, memo = len(samples), sum(row.from_memo for row in shown.rows)
    trained = sum(not isinstance(row.trained, str) for row in shown.rows)
    lines = [("answers", f"{n} to {len(shown.rows)} prompts, {memo} of them from memo; all are kept for the run")]
    lines.append(("right", f"{sum(known)} of {len(known)} ({sum(known) / len(known):.0%})" if known else "not known"))
    lines.append(("cut off", _count_of(sum(s["finish_reason"] == "length" for s in samples), n) + " (finish length)"))
    cause = f": {failed[0]['error']}" if failed else ""
    lines.append(("failed", _count_of(len(failed), n) + cause))
    lines.append(("training", f"{trained} of {len(shown.rows)} first answers may be trained on"))
    sums = [
        (f"{total / len(answered):.1f} {what}", 1000 * shown.k * total / len(answered))
        for column, what in (("prompt_tokens", "asked"), ("completion_tokens", "answered"))
        if answered and (total := _total(answered, column)) is not None
    ]
    if sums:
        lines.append(("tokens", f"{' and '.join(text for text, _ in sums)} for an answer, on average"))
    cost = _total(answered, "cost_usd") if answered else None
    prices = [f"${1000 * shown.k * cost / len(answered):,.2f}"] if cost is not None else []
    tokens = [f"{sum(total for _, total in sums):,.0f} tokens"] if sums else []
    if prices or tokens:
        lines.append(("per 1,000", f"prompts: {' and '.join([*prices, *tokens])} (k is {shown.k})"))
    text = f"`stillhouse estimate {shown.entry}` says what all {shown.prompts:,} prompts take; "
    lines.append(("next", f"{text}`dvc repro generate@{shown.entry}` asks them"))
    return lines


def _count_of(count: int, n: int) -> str:
    return f"{count} of {n}"


def _total(rows: Sequence[dict[str, Any]], column: str) -> float | None:
    """The sum of a column; None if a row does not know it."""
    values = [row[column] for row in rows]
    return None if None in values else sum(values)
