"""An example as its student reads it, in text, whatever its network is: what is shown, and what is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.preview_screen import BEGIN, END, Trained
from pipeline.core.methods import find
from pipeline.display import listed
from pipeline.kinds.network import HIDDEN
from pipeline.model.chat import Chat
from pipeline.model.folder import network_of
from pipeline.networks.classifier import TOKENS
from pipeline.stages.pack import Params as PackParams
from pipeline.stages.pack import _packed
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import arrays, said_of

# So many names stand one by one; of more it is told how many there are of each.
ONE_BY_ONE = 24


class Form:
    """The folder `tokenizer/` of a student, and its network."""

    def __init__(self, folder: Path) -> None:
        method = find("network", network_of(folder))
        self.folder: Path = folder
        self.network: Any = method.factory()
        self.speaks = bool(method.traits.get("thoughts"))
        # The names of its outcomes are letters, or words, of a text.
        self.spells = {"text", HIDDEN} <= set(method.traits["takes"])
        self.chat = Chat(folder) if (folder / "tokenizer.json").exists() else None

    def packed(self, params: PackParams, response: dict[str, Any]) -> tuple[Trained, int]:
        """What `pack` makes of an answer, and how long it is."""
        packed = _packed(params, self.network, self.folder, response)
        example = self.trained(packed.token_ids, packed.spans, packed.inputs or response["inputs"])
        return example, packed.length or len(packed.token_ids)

    def trained(self, token_ids: Sequence[int], spans: Sequence[tuple[int, int]], inputs: Cell | None) -> Trained:
        """An example of `pack`, whose tokens are names of outcomes where the student speaks no language."""
        if self.speaks:
            return self._said(token_ids, spans)
        learnt = [token_ids[at] for start, end in spans for at in range(start, end)]
        known = [outcome for outcome in learnt if outcome >= 0]
        names = self.network.outcomes(self.folder)
        rest = len(learnt) - len(known) if names else 0
        if not names:
            told = f"{self.network.made} for each"
        else:
            told = self._text(known) if self.spells else _told([names[outcome] for outcome in known])
        after = f" {rest} unknown" if rest else ""
        return Trained(f"{self._shown(inputs)} -> ", (told,), after, len(learnt) - rest, len(token_ids), 0, "places")

    def _shown(self, inputs: Cell | None) -> str:
        """What a student is shown beside an example's tokens: a text as it is, of others what they are."""
        texts = [array for array in inputs or () if array["name"] == TOKENS and self.chat]
        others = said_of([array for array in inputs or () if array not in texts])
        return " ".join([*(self._text(arrays(texts)[TOKENS]) for _ in texts), *filter(None, [others])])

    def _text(self, token_ids: Any) -> str:
        assert self.chat is not None
        tokenizer, numbers = self.chat.tokenizer, [int(token) for token in token_ids]
        if tokenizer.decoder is None:
            return "".join(tokenizer.id_to_token(number) or f"<{number}>" for number in numbers)
        return tokenizer.decode(numbers, skip_special_tokens=False)

    def _said(self, token_ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> Trained:
        assert self.chat is not None
        *earlier, (start, end) = spans
        before, at = "", 0
        for begins, ends in earlier:
            before += f"{self._text(token_ids[at:begins])}{BEGIN}{self._text(token_ids[begins:ends])}{END}"
            at = ends
        whole, each = self._text(token_ids[start:end]), tuple(self._text([token]) for token in token_ids[start:end])
        tokens = each if "".join(each) == whole else (whole,)
        unk = self.chat.tokenizer.token_to_id(self.chat.special.get("unk_token", ""))
        unknown = 0 if unk is None else list(token_ids[start:end]).count(unk)
        trained = sum(ends - begins for begins, ends in spans)
        before, after = before + self._text(token_ids[at:start]), self._text(token_ids[end:])
        return Trained(before, tokens, after, trained, len(token_ids), unknown)


def _told(names: Sequence[str]) -> str:
    """Names of places in their order; of many how often each is there."""
    if len(names) <= ONE_BY_ONE:
        return ", ".join(names)
    return listed([f"{name} ({count})" for name, count in Counter(names).most_common()])
