"""Where a text says what its answer is: boxes, GSM8K's mark, and the words that announce one."""

from __future__ import annotations

import re
from collections.abc import Iterator

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>\d+|[A-Za-z]\b))")
MARK = re.compile(r"(?<!#)####(?!#)[ \t]*(?P<rest>[^\n]*)")
# `answer` in the languages in which models are asked most, and what stands between the word and the answer.
ANSWER = (
    r"answer|solution|result|antwort|lösung|ergebnis|respuesta|réponse|reponse|risposta|resposta|antwoord|svar(?:et)?"
    r"|odpowiedź|odpověď|ответ|відповідь|απάντηση|cevap|yanıt|jawaban|đáp án|उत्तर|الإجابة|الجواب|答案|答え|正解|정답"
)
IS = r"\b(?:is|ist|lautet|es|est|è|é|är|er|jest|adalah|là|είναι|हैं?|هي|هو)\b|は|是|为|為|는|은"
ANNOUNCED = re.compile(rf"(?:{ANSWER})[^.\n:=?!]{{0,40}}?(?:(?:{IS})\s*:?|[:=])[ \t]*", re.IGNORECASE)


def boxes(text: str) -> Iterator[str]:
    r"""What stands in every `\boxed{}` of a text that is closed, from left to right; a box in a box is of the outer."""
    at = 0
    while found := BOX.search(text, at):
        if found["bare"]:
            at = found.end()
            yield found["bare"]
            continue
        end = _closing(text, found.end())
        at = found.end() if end is None else end + 1
        if end is not None and text[found.end() : end].strip():
            yield text[found.end() : end].strip()


def _closing(text: str, at: int) -> int | None:
    """Where the brace that was opened before `at` is closed."""
    depth = 1
    for brace in re.finditer(r"\\[{}\\]|[{}]", text[at:]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return at + brace.start()
    return None


def last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` that holds something."""
    found = list(boxes(text)) if "\\boxed" in text or "\\fbox" in text else []
    return found[-1] if found else None


def marked_line(text: str) -> str | None:
    """What stands behind the last `####` on its line, as in GSM8K."""
    found = list(MARK.finditer(text)) if "####" in text else []
    return found[-1]["rest"].strip() if found else None


def given_answer(reference: str) -> str:
    """The answer in a reference: behind its last `####`, in its last box, behind `the answer is`, or all of it."""
    for found in (marked_line(reference), last_box(reference)):
        if found is not None:
            return found
    announced = ANNOUNCED.search(reference)
    return reference[announced.end() :] if announced else reference
