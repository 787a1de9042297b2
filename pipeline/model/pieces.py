"""What every token of a tokenizer spells, in bytes: what two tokenizers have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.model.chat import Chat

# The blank as SentencePiece writes it, and a byte as its fallback does.
BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def pieces(chat: Chat) -> list[bytes]:
    """The bytes of each token by its id; none for a special token, which spells nothing.

    A blank that a tokenizer puts before a text is part of its first token's bytes.
    """
    spec = json.loads(chat.tokenizer.to_str())
    added = {token["id"]: b"" if token["special"] else token["content"].encode() for token in spec["added_tokens"]}
    kinds = set(_types(spec["decoder"]))
    vocabulary = chat.tokenizer.get_vocab(with_added_tokens=True)
    found = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        found[number] = added[number] if number in added else _spelt(token, kinds)
    return found


def _types(part: Any) -> Iterator[str]:
    """The types of a decoder's parts."""
    if part is not None:
        yield part["type"]
        for inner in part.get("decoders", []):
            yield from _types(inner)


def _spelt(token: str, kinds: set[str]) -> bytes:
    if "ByteLevel" in kinds:
        return bytes(BYTES[sign] for sign in token) if all(sign in BYTES for sign in token) else token.encode()
    byte = BYTE.fullmatch(token) if "ByteFallback" in kinds else None
    if byte is not None:
        return bytes([int(byte[1], 16)])
    if "WordPiece" in kinds:
        return token[2:].encode() if token.startswith("##") else b" " + token.encode()
    if "BPEDecoder" in kinds:
        return token.replace("</w>", " ").encode()
    return token.replace(BLANK, " ").encode()


def _byte_signs() -> dict[str, int]:
    """Which character stands for which byte in GPT-2's tokenizers: itself if it can be seen, else one above 255."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


BYTES = _byte_signs()
