"""Speculative decoding: a draft model proposes tokens, a target takes or replaces them, and what comes out is drawn as
the target alone would draw it.

Leviathan et al. 2023 (arXiv 2211.17192), algorithm 1; Chen et al. 2023 (arXiv 2302.01318). One text at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.methods import lazy

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")


@dataclass
class Decoded:
    """The tokens of an answer; at which of its places a proposal was judged, and whether it was taken; how often the
    target was asked."""

    token_ids: list[int] = field(default_factory=list)
    judged: dict[int, bool] = field(default_factory=dict)
    calls: int = 0


class _Side:
    """A model and what it has computed of the text so far."""

    def __init__(self, net: transformers.PreTrainedModel) -> None:
        self.net, self.known = net, 0
        self.cache = transformers.DynamicCache(config=net.config)

    def after(self, tokens: Sequence[int], places: int, temperature: float) -> np.ndarray:
        """What it says comes after each of the last so many tokens, as probabilities [places, V]; at temperature 0 all
        of it is on the likeliest."""
        fresh = torch.tensor([tokens[self.known :]], device=self.net.device)
        logits_TV = self.net(fresh, past_key_values=self.cache, use_cache=True).logits[0, -places:]
        self.known = len(tokens)
        if temperature == 0:
            return torch.nn.functional.one_hot(logits_TV.argmax(-1), logits_TV.shape[-1]).double().cpu().numpy()
        return torch.softmax(logits_TV.double() / temperature, -1).cpu().numpy()

    def forget(self, length: int) -> None:
        """Keep what is computed of the first so many tokens."""
        if self.known > length:
            self.cache.crop(length)
            self.known = length


def decode(
    draft: transformers.PreTrainedModel,
    target: transformers.PreTrainedModel,
    prompt: Sequence[int],
    ends: Collection[int],
    *,
    max_tokens: int,
    ahead: int,
    temperature: float,
    seed: int,
) -> Decoded:
    """The target's answer to a prompt, of which the draft proposes `ahead` tokens at a time."""
    drafter, judge, draw = _Side(draft), _Side(target), np.random.default_rng(seed)
    text, found = list(prompt), Decoded()

    def chosen(p_V: np.ndarray) -> int:
        return min(int(np.searchsorted(p_V.cumsum(), draw.random() * p_V.sum(), side="right")), len(p_V) - 1)

    with torch.inference_mode():
        while len(found.token_ids) < max_tokens and not (found.token_ids and found.token_ids[-1] in ends):
            begin, said = len(text), list[np.ndarray]()
            while len(said) < ahead and not (said and text[-1] in ends):
                said.append(drafter.after(text, 1, temperature)[0])
                text.append(chosen(said[-1]))
            proposed, text = text[begin:], text[:begin]
            p_TV = judge.after([*text, *proposed], len(proposed) + 1, temperature)
            found.calls += 1
            for p_V, q_V, token in zip(p_TV, said, proposed, strict=False):
                taken = bool(draw.random() * q_V[token] < p_V[token])
                found.judged[len(text) - len(prompt)] = taken
                text.append(token if taken else chosen(np.maximum(p_V - q_V, 0.0)))
                if not taken or token in ends:
                    break
            else:
                text.append(chosen(p_TV[-1]))
            found.token_ids = text[len(prompt) :][:max_tokens]
            # The last token was not shown to either model.
            for side in (drafter, judge):
                side.forget(len(text) - 1)
    found.judged = {place: taken for place, taken in found.judged.items() if place < len(found.token_ids)}
    return found
