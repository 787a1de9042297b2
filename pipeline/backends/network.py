"""Models that are no language models, run in this process: each through its network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.methods import find, lazy
from pipeline.core.run import How
from pipeline.kinds.backend import LOCAL, PLAIN, Answer, GenerateRequest, Reading, Sampling, Tokens, Want, backend
from pipeline.model import heads
from pipeline.model.chat import Chat
from pipeline.model.folder import network_of
from pipeline.model.gradients import studied
from pipeline.model.load import device_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@backend(gives=LOCAL, computes=True, finds=("network",))
@contextmanager
def local(*, folder: Path, card: dict[str, Any], how: How) -> Iterator[NetworkModel]:
    """A classifier's folder, loaded here: it answers with the name of an outcome.

    Paper: none.
    Differs: an answer is drawn by inversion of the cumulative distribution with the request's own uniform number.
    """
    torch.set_num_threads(how.settings.threads)
    yield NetworkModel(folder, card.get("dtype", "float32"), how)


class NetworkModel:
    """A loaded model with its network and its form."""

    def __init__(self, folder: Path, dtype: str, how: How) -> None:
        self.folder: Path | None = folder
        form = folder / "tokenizer"
        self.network: Any = find("network", network_of(form)).factory()
        self.chat, self.names = Chat(form), self.network.outcomes(form)
        self.device, self.rows = device_of(how.settings), how.settings.batch_rows
        self.net = self.network.load(folder, dtype).to(self.device)

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; temperature 0 is the likeliest outcome."""
        texts = [self.network.tokens(self.chat, request.messages) for request in requests]
        for batch, log_p_BV, _ in self._looked(texts, ()):
            for i, log_p_V in zip(batch, log_p_BV, strict=True):
                request = requests[i]
                chosen = _choose(log_p_V, request.seed, sampling)
                yield Answer(
                    request.request_id,
                    self.names[chosen],
                    "stop",
                    token_ids=[chosen],
                    logprobs=[float(log_p_V[chosen])],
                    prompt_tokens=len(texts[i]),
                    completion_tokens=1,
                )

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once: its places are outcomes, what is shown are its `inputs`."""
        return studied(self, sequences, want) if want.studies else self.readings(sequences, want)

    def readings(self, sequences: Sequence[Tokens], want: Want) -> Iterator[Reading]:
        """`read`, without what is wanted of gradients."""
        texts = [self.network.shown(sequence.inputs) for sequence in sequences]
        for batch, log_p_BV, features in self._looked(texts, ("last",) if want.embedding else want.taps):
            order_BK = np.argsort(-log_p_BV, axis=1, kind="stable")[:, : want.top_k or 1]
            for row, i in enumerate(batch):
                log_p_V, order_K = log_p_BV[row], order_BK[row]
                top: dict[str, Any] = {}
                if want.top_k:
                    rest = np.delete(np.exp(log_p_V), order_K).sum(dtype=np.float32)
                    top = {
                        "topk_ids": order_K[None].astype(np.int32),
                        "topk_logprobs": log_p_V[order_K][None],
                        "tail_mass": np.array([rest], np.float32),
                    }
                if want.top_k and want.temperatures:
                    others = np.delete(log_p_V, order_K)
                    tails = [np.exp(others / t).sum() / np.exp(log_p_V / t).sum() for t in want.temperatures]
                    top["tempered"] = np.array([tails], np.float32)
                yield Reading(
                    sequences[i].id,
                    np.array([log_p_V[max(_target(sequences[i]), 0)]], np.float32),
                    embedding=features["last"][row] if want.embedding else None,
                    features={name: features[name][row : row + 1] for name in want.taps},
                    **top,
                )

    def loss(self, tokens: Tokens) -> torch.Tensor:
        """The loss on the outcome that is asked about."""
        logits_1V, _ = self._seen([self.network.shown(tokens.inputs)], ())
        target_1 = torch.tensor([max(_target(tokens), 0)], device=self.device)
        return torch.nn.functional.cross_entropy(logits_1V.float(), target_1)

    def _looked(
        self, texts: Sequence[np.ndarray], taps: Sequence[str]
    ) -> Iterator[tuple[list[int], np.ndarray, dict[str, np.ndarray]]]:
        """Numbers of some texts, their log-probabilities [B, V] and taps [B, D]; texts of like lengths together."""
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            with torch.inference_mode():
                logits_BV, seen = self._seen([texts[i] for i in batch], taps)
                log_p_BV = logits_BV.float().log_softmax(1).cpu().numpy()
                features = {name: value.float().cpu().numpy() for name, value in seen.items()}
            yield batch, log_p_BV, features

    def _seen(
        self, texts: Sequence[np.ndarray], taps: Sequence[str]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Logits [B, V] of some texts, and taps."""
        inputs = {name: value.to(self.device) for name, value in self.network.batch(texts).items()}
        seen = self.network.look(self.net, inputs, taps)
        return heads.answer(seen.states_ND, seen.heads, heads.shares(self.net)), seen.features


def _target(sequence: Tokens) -> int:
    """The outcome that is asked about."""
    return int(np.asarray(sequence.token_ids)[0])


def _choose(log_p_V: np.ndarray, seed: int, sampling: Sampling) -> int:
    if sampling.temperature == 0:
        return int(log_p_V.argmax())
    p_V = np.exp((log_p_V.astype(np.float64) - log_p_V.max()) / sampling.temperature)
    cumulative = np.cumsum(p_V)
    draw = np.random.Generator(np.random.Philox(key=seed)).random()
    return int(min(np.searchsorted(cumulative, draw * cumulative[-1], side="right"), len(p_V) - 1))
