"""Write docs/verifiers.md from the tests' tables: what each verifier reads, and what it leaves unread.

python docs/fill_verifiers.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "verifiers.md"

ABOUT = """# What verifiers read

Written by `python docs/fill_verifiers.py` from the tables that `tests/verifiers` holds true: a text, and the short
answer that is read out of it. `unread` is none, which is never right; half an answer is not read. `⏎` is a line break.

A row names its verifier by its name, or with parameters: `text.choice {choices: 4, index_from: 0}`. In `params.yaml` an
entry of `ingest` says `verifier: text.choice`, or `verifier: {use: text.choice, choices: 4, index_from: 0}`.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Rows of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell(value) for value in row)} |"
    yield ""


def cell(value: object) -> str:
    """What is written, so that it can be seen."""
    if value is None:
        return "unread"
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = (sign if sign.isprintable() or sign == "\n" else f"\\u{ord(sign):04x}" for sign in str(value))
    text = "".join(shown).replace("\n", "⏎")
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text or text != text.strip() or not text else f"`{text}`"


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT))
    from tests.verifiers import forms, verdicts

    lines = [ABOUT, "## Numbers and expressions", ""]
    lines += ["To `symbolic.math` a comma parts a list, letters are names, and `5-3` is an expression.", ""]
    for about, rows in forms.NUMBERS.items():
        lines += [f"**{about[0].upper()}{about[1:]}**", "", *table(("written", "numeric.last", "symbolic.math"), rows)]
    lines += ["**The parameter `decimal` of `numeric.last`**", ""]
    lines += table(("decimal", "written", "read"), forms.DECIMALS)
    lines += ["**The final expression of a text, to `symbolic.math`**", ""]
    lines += table(("written", "read"), forms.EXPRESSIONS)
    lines += ["## Letters", "", *table(("written", "text.choice"), forms.LETTERS)]
    lines += ["## Texts", ""]
    for verifier, rows in forms.TEXTS.items():
        lines += table(("written", verifier), rows)
    lines += [
        "## References",
        "",
        "What `ingest` keeps of one; a row with another is refused, by its file and line.",
        "",
    ]
    kept = ((verifier, given, "refused" if found is None else found) for verifier, given, found in verdicts.REFERENCES)
    lines += table(("verifier", "reference", "kept"), kept)
    lines += ["## Right, or one vote", "", "An answer beside a reference, or beside another answer.", ""]
    lines += table(("verifier", "one", "other", "the same"), verdicts.SAME)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
