"""What a model thought before it answered."""

from __future__ import annotations

import re


def split_thinking(text: str) -> tuple[str | None, str]:
    """Inline thinking and the answer after it. A template may have opened <think> before the model's first token."""
    if "think>" not in text:
        return None, text
    opened = re.match(r"\s*<think>", text)
    begin = opened.end() if opened else 0
    end = text.find("</think>", begin)
    if end < 0:
        # Cut off while thinking: there is no answer yet.
        return (text[begin:].strip(), "") if opened else (None, text)
    if not opened and "<think>" in text[:end]:
        return None, text
    return text[begin:end].strip(), text[end + len("</think>") :].lstrip()
