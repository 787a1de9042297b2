"""What a model thought before it answered: told from the answer, and put back before it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# What models write around a thought; the first pair is what a thought is written with where nothing says otherwise.
MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
)
# Harmony: a reply is a row of messages, each in a channel; all but `final` are thought.
HARMONY = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")
CHANNEL = re.compile(
    r"(?:<\|start\|>[^<]*)?<\|channel\|>\s*(?P<channel>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<said>.*?)(?:<\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
# The same from a server that leaves the marks out.
BARE_CHANNELS = re.compile(r"\s*analysis(?P<thought>.*?)assistantfinal(?P<said>.*)", re.DOTALL)
INLINE = frozenset(mark for pair in MARKS for mark in pair)

# Keys under which a message, or a part of one, has its text; and the types of parts.
TEXTS = ("text", "thinking", "reasoning", "content", "summary", "refusal")
SPOKEN = ("text", "output_text", "refusal")
THOUGHT = (
    "thinking", "thought", "reasoning", "reasoning_text", "reasoning_content", "summary_text", "reasoning.text",
    "reasoning.summary",
)  # fmt: skip
# Thoughts that nobody but the vendor can read.
SEALED = ("redacted_thinking", "reasoning.encrypted")


def telling(special: Collection[str]) -> frozenset[str]:
    """Of a tokenizer's special tokens those that tell a thought from an answer: decoding must keep them.

    Some of harmony's, such as `<|end|>`, mean something else where there are no channels.
    """
    return frozenset(special) & (INLINE.union(HARMONY) if "<|channel|>" in special else INLINE)


def split_thinking(text: str) -> tuple[str | None, str]:
    """A thought and the answer after it. A template may have opened the thought before the model's first token."""
    start = text.lstrip()
    if start.startswith(("<|channel|>", "<|start|>")) and CHANNEL.match(start):
        return _channels(start)
    if bare := BARE_CHANNELS.match(text):
        return bare["thought"].strip(), bare["said"].lstrip()
    for opening, closing in MARKS:
        if start.startswith(opening):
            thought, closed, said = start.removeprefix(opening).partition(closing)
            # Cut off while thinking: there is no answer yet.
            return thought.strip(), said.lstrip() if closed else ""
    for opening, closing in MARKS:
        thought, closed, said = text.partition(closing)
        if closed and opening not in thought:
            return thought.strip(), said.lstrip()
    return None, text


def _channels(text: str) -> tuple[str | None, str]:
    thoughts: list[str] = []
    said: list[str] = []
    for message in CHANNEL.finditer(text):
        (said if message["channel"] == "final" else thoughts).append(message["said"])
    return "\n".join(t.strip() for t in thoughts) or None, "".join(said).lstrip()


def with_thinking(reasoning: str | None, answer: str, marks: tuple[str, str] = MARKS[0]) -> str:
    """An answer with its thought written before it, as `split_thinking` takes it apart."""
    return answer if not reasoning else f"{marks[0]}\n{reasoning.strip()}\n{marks[1]}\n\n{answer}"


def parted(content: object) -> tuple[str | None, str]:
    """The thought and the text of a message's content: a text, or a list of parts.

    Raises `ValueError` that names what is neither.
    """
    thoughts: list[str] = []
    said: list[str] = []
    if isinstance(content, str):
        return None, content
    if not isinstance(content, list):
        raise ValueError(f"a content of the type {type(content).__name__}")
    for part in content:
        kind = (part.get("type") or "text") if isinstance(part, Mapping) else type(part).__name__
        if kind in SEALED:
            continue
        if kind not in (*SPOKEN, *THOUGHT):
            raise ValueError(f"a part of the type {kind}, which is neither text nor a thought")
        (thoughts if kind in THOUGHT else said).append(written(part))
    return "\n".join(filter(None, thoughts)) or None, "".join(said)


def written(part: object) -> str:
    """The text in a part, in parts of a part, or in a list of them; `ValueError` if there is none."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "\n".join(map(written, part))
    if isinstance(part, Mapping):
        if part.get("type") in SEALED:
            return ""
        held = next((part[key] for key in TEXTS if part.get(key) is not None), None)
        if held is not None:
            return written(held)
    raise ValueError(f"a part without text ({type(part).__name__})")
