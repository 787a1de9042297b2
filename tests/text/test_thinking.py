"""A thought is told from the answer after it, however a model or a server marks it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.text.thinking import MARKS, parted, split_thinking, with_thinking

HARMONY = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("[THINK]a[/THINK]b", "a", "b"),
        ("[THINK]a", "a", ""),
        ("<thinking>\na\n</thinking>\n\nb", "a", "b"),
        ("a</thinking>b", "a", "b"),
        ("<thought>a</thought> b", "a", "b"),
        ("<reasoning>\na\n</reasoning>\n<answer>b</answer>", "a", "<answer>b</answer>"),
        ("<|START_THINKING|>a<|END_THINKING|>b", "a", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "a", "b"),
        ("<seed:think>a</seed:think>b", "a", "b"),
        ("\u25c1think\u25b7a\u25c1/think\u25b7b", "a", "b"),
        ("<think>[THINK]a[/THINK]</think>b", "[THINK]a[/THINK]", "b"),
        (HARMONY, "a", "b"),
        (HARMONY + "<|return|>", "a", "b"),
        ("<|start|>assistant" + HARMONY, "a", "b"),
        ("<|channel|>final<|message|>b<|return|>", None, "b"),
        ("<|channel|>final <|constrain|>json<|message|>{}", None, "{}"),
        ("<|channel|>analysis<|message|>cut off", "cut off", ""),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>c<|end|>"
         "<|start|>assistant<|channel|>final<|message|>b", "a\nc", "b"),
        ("analysisWe add.assistantfinalb", "We add.", "b"),
        # What is none.
        ("The mark [THINK] opens and [/THINK] closes.", None, None),
        ("The tag <thinking> opens and </thinking> closes.", None, None),
        ("analysis of the final assistant", None, None),
        ("Harmony writes <|channel|>final<|message|>b.", None, None),
        ("1 < 2 and 3 > 2", None, None),
        ("", None, None),
    ],
)  # fmt: skip
def test_a_thought_is_told_from_the_answer(text: str, thought: str | None, answer: str | None) -> None:
    assert split_thinking(text) == (thought, text if answer is None else answer)


@pytest.mark.parametrize("marks", MARKS)
def test_what_is_put_together_comes_apart(marks: tuple[str, str]) -> None:
    for thought, answer in [("a", "b"), ("2 + 2\n\nis 4", "4\n"), ("x", "")]:
        assert split_thinking(with_thinking(thought, answer, marks)) == (thought, answer)
    assert with_thinking(None, "b", marks) == with_thinking("", "b", marks) == "b"


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("content", "thought", "said"),
    [
        ([{"type": "thinking", "thinking": [text("3 and 5")]}, text("8")], "3 and 5", "8"),
        ("8", None, "8"),
        ([text("8")], None, "8"),
        ([text("8"), text(" apples")], None, "8 apples"),
        ([], None, ""),
        ([{"text": "8"}], None, "8"),
        ([{"type": None, "text": "8", "thinking": None}], None, "8"),
        ([{"type": "output_text", "text": "8", "annotations": []}], None, "8"),
        ([{"type": "refusal", "refusal": "No."}], None, "No."),
        ([{"type": "thinking", "thinking": "a", "signature": "s"}, text("8")], "a", "8"),
        ([{"type": "reasoning", "text": "a"}, text("8")], "a", "8"),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, text("8")], "a", "8"),
        ([{"type": "reasoning.text", "text": "a"}], "a", ""),
        ([{"type": "thinking", "thinking": "a"}, {"type": "thinking", "thinking": "b"}, text("8")], "a\nb", "8"),
        ([{"type": "redacted_thinking", "data": "AAAA"}, text("8")], None, "8"),
        ([{"type": "reasoning.encrypted", "data": "AAAA"}, text("8")], None, "8"),
        ([{"type": "thought", "content": "a"}, text("8")], "a", "8"),
    ],
)
def test_parts_are_read(content: Any, thought: str | None, said: str) -> None:
    assert parted(content) == (thought, said)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "image_url"),
        ([{"type": "tool_use", "input": {}}], "tool_use"),
        ([{"type": "audio", "data": "x"}], "audio"),
        ([text("8"), {"type": "file"}], "file"),
        ([{"type": "text"}], "without text"),
        ([{"type": "text", "text": None}], "without text"),
        ([{"type": "thinking", "thinking": 3}], "without text"),
        (["8"], "type str"),
        ([8], "type int"),
        ([None], "NoneType"),
        (8, "type int"),
        ({"text": "8"}, "type dict"),
    ],
)
def test_what_is_neither_text_nor_a_thought_is_named(content: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parted(content)
