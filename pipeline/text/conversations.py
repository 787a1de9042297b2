"""The shapes in which people keep conversations, read into one: messages, and the answer that came with them."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.kinds.source import Message
from pipeline.text.columns import number_text
from pipeline.text.thinking import parted, with_thinking, written

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
# Keys under which a turn has the thought before it, and those under which it calls tools.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
CALLS = ("tool_calls", "function_call")
SHAPES = "`messages`, `prompt`, `conversations` (ShareGPT) or `instruction` (Alpaca)"


class NotAConversation(ValueError):
    """The row has no conversation to be answered; the text says why."""


def conversation(row: Mapping[str, object], *, wordless: bool = False) -> tuple[list[Message], str | None]:
    """The turns up to the user's last one, and the answer that follows it, if the row has one.

    A `wordless` row asks about something else than words: it needs none of its own.
    """
    # A file that holds rows of several shapes fills what a row has not with null, or with a list of nothing.
    present = {k: v for k, v in row.items() if v is not None and not (isinstance(v, list) and not v)}
    _no_tools(present)
    if "messages" in present:
        turns = _turns(present["messages"], "messages")
    elif "conversations" in present:
        turns = _turns(present["conversations"], "conversations")
    elif "prompt" in present:
        turns = _prompt(present["prompt"]) + _completion(present.get("completion"))
    elif "instruction" in present:
        turns = _alpaca(present)
    elif wordless:
        turns = _prompt("")
    else:
        raise NotAConversation(f"no prompt: it has none of {SHAPES}; name yours under `columns:`")
    if isinstance(present.get("system"), str) and present["system"] and turns and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": str(present["system"])}, *turns]
    answer = None
    if turns and turns[-1]["role"] == "assistant":
        answer = turns.pop()["content"]
    if not turns or turns[-1]["role"] != "user":
        raise NotAConversation("the last turn, or the last before an answer, is not the user's")
    if not turns[-1]["content"].strip() and not wordless:
        raise NotAConversation("the prompt is empty")
    solution = present.get("solution")
    if isinstance(solution, str) or number_text(solution) is not None:
        answer = number_text(solution) or str(solution)
    return turns, answer


def _prompt(prompt: object) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _turns(prompt, "prompt")


def _completion(completion: object) -> list[Message]:
    if completion is None:
        return []
    if isinstance(completion, str):
        return [{"role": "assistant", "content": completion}]
    return _turns(completion, "completion")


def _turns(turns: object, where: str) -> list[Message]:
    """A list of turns as {role, content} or as {from, value}."""
    if not isinstance(turns, list):
        raise NotAConversation(f"{where} must be a list of turns, not {type(turns).__name__}")
    read = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise NotAConversation(f"a turn of {where} must be a mapping, not {type(turn).__name__}")
        turn = {key: value for key, value in turn.items() if value is not None}
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise NotAConversation(f"a turn of {where} has the role {role!r}; known are {', '.join(ROLES)}")
        for key in CALLS:
            if turn.get(key):
                raise NotAConversation(f"a turn of {where} calls a tool ({key}); tool calls are not supported")
        # A thought stays with what was said after it; a chat template knows what to do with those of earlier turns.
        read.append({"role": ROLES[role], "content": with_thinking(*_apart(turn, content, where))})
    return read


def _apart(turn: Mapping[str, object], content: object, where: str) -> tuple[str | None, str]:
    """The thought and the text of a turn."""
    try:
        thought, said = parted(content)
        apart = next((written(turn[key]) for key in THOUGHTS if turn.get(key)), None)
    except ValueError as error:
        raise NotAConversation(f"a turn of {where} has a content that is not text but {error}") from error
    return "\n".join(filter(None, (apart, thought))) or None, said


def _no_tools(row: Mapping[str, object]) -> None:
    """Refuse a conversation that is held with tools in hand: what they are would be lost."""
    for key in ("tools", "functions"):
        listed = row.get(key)
        if isinstance(listed, list) and any(isinstance(one, Mapping) for one in listed):
            raise NotAConversation(f"the conversation has tools ({key}); tool calls are not supported")


def _alpaca(row: Mapping[str, object]) -> list[Message]:
    """`instruction` with `input` below it, after the turns of `history`, answered by `output`."""
    turns: list[Message] = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise NotAConversation("history must be a list of pairs")
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise NotAConversation("history must be a list of pairs of texts")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    for name in ("instruction", "input", "output"):
        if not isinstance(row.get(name) or "", str):
            raise NotAConversation(f"{name} must be text, not {type(row[name]).__name__}")
    asked = "\n".join(str(row[name]) for name in ("instruction", "input") if row.get(name))
    turns.append({"role": "user", "content": asked})
    return turns + _completion(row.get("output") or None)
