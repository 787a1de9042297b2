"""Texts to tokens: a text from its beginning, one that goes on after another, and special tokens that are only written.

A tokenizer cuts what stands together: cut as one text, the last characters of a prompt and the first of an answer may
be one token. So both are cut apart, and a text that goes on is cut without the blank that some tokenizers put before
every beginning. Where `</s>` is written in a prompt or an answer it is text: a stand-in takes the place of its first
character until it has been cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

# Characters that Unicode keeps for a program's own use.
STAND_INS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class Cutter:
    """A tokenizer, and the texts of its special tokens."""

    def __init__(self, tokenizer: Tokenizer, special: Collection[str]) -> None:
        self.tokenizer, self.special = tokenizer, frozenset(special)
        self.written = _any_of(special)
        self.added = sorted(
            (t.content for t in tokenizer.get_added_tokens_decoder().values() if t.content), key=len, reverse=True
        )

    @cached_property
    def _going_on(self) -> Tokenizer:
        """The tokenizer without what it puts before a beginning."""
        return self._changed(self.tokenizer) if _begins(self.tokenizer) else self.tokenizer

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer of a text that goes on, to which special tokens are text."""
        return self._changed(self.tokenizer, without=self.special)

    @staticmethod
    def _changed(tokenizer: Tokenizer, without: Collection[str] = ()) -> Tokenizer:
        spec = json.loads(tokenizer.to_str())
        for key in BEGINNERS:
            spec[key] = _going_on(spec[key])
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in without]
        return Tokenizer.from_str(json.dumps({**spec, "post_processor": None}))

    def stand_ins(self, texts: Iterable[str]) -> dict[str, str]:
        """First characters of the special tokens that are written in some texts -> what stands for each."""
        texts = list(texts)
        firsts = sorted({found[0] for text in texts for found in self.written.findall(text)})
        free = (mark for mark in STAND_INS if not any(mark in text for text in texts)) if firsts else ()
        return dict(zip(firsts, free, strict=False))

    def hidden(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """A text of the same length in which no special token is written."""
        return self.written.sub(lambda m: stand_ins[m[0][0]] + m[0][1:], text) if stand_ins else text

    def shown(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """The text as it was before `hidden`."""
        return text.translate({ord(mark): first for first, mark in stand_ins.items()}) if stand_ins else text

    def cut(self, text: str, stand_ins: Mapping[str, str] = {}, after: str | None = None) -> list[int]:
        """A text in tokens [T], from its beginning or `after` another; what stands in for a special token's first
        character makes it text."""
        ids: list[int] = []
        for piece, literal in self._pieces(text, stand_ins) if text else ():
            if literal:
                ids += self._literally(piece)
            elif after is None:
                ids += _ids(self.tokenizer, piece)
            else:
                ids += self._after(after, piece)
            # What was only written as a token ends like any other text.
            after = "." if literal else piece or after
        return ids

    def _pieces(self, text: str, stand_ins: Mapping[str, str]) -> Iterable[tuple[str, bool]]:
        """The text in order, and whether a piece is a special token's text."""
        if not stand_ins:
            return [(text, False)]
        marks = "".join(stand_ins.values())
        pieces, begin = [], 0
        for mark in re.finditer(f"[{re.escape(marks)}]", text):
            rest = self.shown(mark[0], stand_ins) + text[mark.end() :]
            token = self.written.match(rest)
            # A template may have cut it: then its first character is all that there is.
            length = len(token[0]) if token else 1
            pieces += [(text[begin : mark.start()], False), (rest[:length], True)]
            begin = mark.start() + length
        return [*pieces, (text[begin:], False)]

    def _after(self, before: str, text: str) -> list[int]:
        """A text in tokens that goes on after another. After an added token every tokenizer begins as it is used to."""
        if self._going_on is self.tokenizer:
            return _ids(self.tokenizer, text)
        lead = next((token for token in self.added if before.endswith(token)), "")
        if lead:
            return _ids(self.tokenizer, lead + text)[1:]
        begin = min((text.index(token) for token in self.added if token in text), default=len(text))
        head, tail = text[:begin], text[begin:]
        return _ids(self._going_on, head) + _ids(self.tokenizer, tail)

    def _literally(self, text: str) -> list[int]:
        known = {self.tokenizer.token_to_id(token) for token in self.special}
        ids = _ids(self._plain, text)
        if known.isdisjoint(ids):
            return ids
        # A vocabulary may hold the token's text as one of its own pieces.
        return [i for letter in text for i in _ids(self._plain, letter)]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text in tokens alone; where each stands in it, which takes longer to find, nobody asks."""
    [found] = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    return found.ids


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of some texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, texts), key=len, reverse=True))) or r"(?!)")


# What of a tokenizer may put a blank before a text: SentencePiece's marks in three forms, and GPT-2's option.
BEGINNERS = ("normalizer", "pre_tokenizer")


def _begins(tokenizer: Tokenizer) -> bool:
    spec = json.loads(tokenizer.to_str())
    return any(_going_on(spec[key]) != spec[key] for key in BEGINNERS)


def _going_on(part: Any) -> Any:
    """The description of a normalizer or pre-tokenizer, without the blank before a text."""
    match part:
        case {"type": "Prepend"}:
            return None
        case {"type": "Metaspace"}:
            return {**part, "prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return {**part, "add_prefix_space": False}
        case {"type": "Sequence"}:
            key = next(key for key in ("normalizers", "pretokenizers") if key in part)
            return {**part, key: [found for p in part[key] if (found := _going_on(p)) is not None]}
    return part
