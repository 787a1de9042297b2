"""Models that are no language models, run in this process: each through its network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.methods import find, lazy
from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL, PLAIN, Answer, GenerateRequest, Reading, Sampling, Tokens, Want, backend
from pipeline.model import heads
from pipeline.model.folder import network_of
from pipeline.model.gradients import studied
from pipeline.model.load import device_of
from pipeline.tables.tensors import cell, said_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@backend(gives=LOCAL, computes=True, finds=("network",), shown=True)
@contextmanager
def local(*, folder: Path, card: dict[str, Any], how: How) -> Iterator[NetworkModel]:
    """A classifier's folder, loaded here: it answers with the name of an outcome, one a line where it has several
    places; a denoiser answers with the samples that it makes.

    Paper: none.
    Differs: an answer is drawn by inversion of the cumulative distribution with the request's own uniform number.
    """
    torch.set_num_threads(how.settings.threads)
    yield NetworkModel(folder, card.get("dtype", "float32"), how)


class NetworkModel:
    """A loaded model with its network and its form."""

    def __init__(self, folder: Path, dtype: str, how: How) -> None:
        self.folder: Path | None = folder
        self.form = folder / "tokenizer"
        self.network: Any = find("network", network_of(self.form)).factory()
        self.names = self.network.outcomes(self.form)
        self.device, self.rows = device_of(how.settings), how.settings.batch_rows
        self.net = self.network.load(folder, dtype).to(self.device)

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; temperature 0 is the likeliest outcome."""
        shown = [self._asked(request) for request in requests]
        if hasattr(self.network, "makes"):
            yield from self._made(requests, shown)
            return
        for i, log_p_NV, _ in self._looked(shown, ()):
            chosen = _choose(log_p_NV, requests[i].seed, sampling)
            yield Answer(
                requests[i].request_id,
                "\n".join(self.names[outcome] for outcome in chosen),
                "stop",
                token_ids=chosen.tolist(),
                logprobs=log_p_NV[np.arange(len(chosen)), chosen].astype(float).tolist(),
                prompt_tokens=self.network.length(shown[i]),
                completion_tokens=len(chosen),
            )

    def _made(self, requests: Sequence[GenerateRequest], shown: Sequence[Any]) -> Iterator[Answer]:
        """Answers that are arrays, of a network that makes them."""
        for start in range(0, len(shown), self.rows):
            some = shown[start : start + self.rows]
            inputs = {name: value.to(self.device) for name, value in self.network.batch(some).items()}
            with torch.inference_mode():
                made = self.network.makes(self.net, inputs).float().cpu().numpy()
            ends = np.cumsum([self.network.places(one) for one in some])[:-1]
            for request, one in zip(requests[start:], np.split(made, ends), strict=False):
                outputs = cell({self.network.made: one})
                yield Answer(request.request_id, said_of(outputs), "stop", completion_tokens=len(one), outputs=outputs)

    def _asked(self, request: GenerateRequest) -> Any:
        try:
            return self.network.asked(self.form, request.messages, request.inputs)
        except Refused as error:
            raise Refused(f"prompt {request.prompt_id} {error}") from error

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once: its places are outcomes, what is shown are its `inputs`."""
        return studied(self, sequences, want) if want.studies else self.readings(sequences, want)

    def readings(self, sequences: Sequence[Tokens], want: Want) -> Iterator[Reading]:
        """`read`, without what is wanted of gradients."""
        shown = [self.network.shown(sequence.inputs) for sequence in sequences]
        for i, log_p_PV, seen in self._looked(shown, ("last",) if want.embedding else want.taps):
            at_N, target_N = _asked_places(sequences[i])
            log_p_NV = log_p_PV[at_N]
            top: dict[str, Any] = {}
            if want.top_k:
                order_NK = np.argsort(-log_p_NV, axis=1, kind="stable")[:, : want.top_k]
                others_NV = log_p_NV.copy()
                np.put_along_axis(others_NV, order_NK, -np.inf, 1)
                top = {
                    "topk_ids": order_NK.astype(np.int32),
                    "topk_logprobs": np.take_along_axis(log_p_NV, order_NK, 1),
                    "tail_mass": np.exp(others_NV).sum(1, dtype=np.float32),
                }
                if want.temperatures:
                    tails = [np.exp(others_NV / t).sum(1) / np.exp(log_p_NV / t).sum(1) for t in want.temperatures]
                    top["tempered"] = np.stack(tails, 1).astype(np.float32)
            yield Reading(
                sequences[i].id,
                log_p_NV[np.arange(len(at_N)), target_N].astype(np.float32),
                embedding=seen["last"][at_N].mean(0) if want.embedding else None,
                features={name: seen[name][at_N] for name in want.taps},
                **top,
            )

    def loss(self, tokens: Tokens) -> torch.Tensor:
        """The mean loss on the outcomes that are asked about."""
        at_N, target_N = _asked_places(tokens)
        logits_PV, _ = self._seen([self.network.shown(tokens.inputs)], ())
        at, target = (torch.from_numpy(each).to(self.device) for each in (at_N, target_N))
        return torch.nn.functional.cross_entropy(logits_PV[at].float(), target)

    def _looked(
        self, shown: Sequence[Any], taps: Sequence[str]
    ) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
        """The number of each of what is shown, its log-probabilities [P, V] and taps [P, D]; texts of like lengths are
        looked at together."""
        order = sorted(range(len(shown)), key=lambda i: (self.network.length(shown[i]) or 0, i))
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            with torch.inference_mode():
                logits_NV, seen = self._seen([shown[i] for i in batch], taps)
                log_p_NV = logits_NV.float().log_softmax(1).cpu().numpy()
                features = {name: value.float().cpu().numpy() for name, value in seen.items()}
            ends = np.cumsum([self.network.places(shown[i]) for i in batch])[:-1]
            parts = {name: np.split(value, ends) for name, value in features.items()}
            for row, log_p_PV in enumerate(np.split(log_p_NV, ends)):
                yield batch[row], log_p_PV, {name: each[row] for name, each in parts.items()}

    def _seen(self, shown: Sequence[Any], taps: Sequence[str]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Logits [N, V] at all places of what is shown, and taps."""
        inputs = {name: value.to(self.device) for name, value in self.network.batch(shown).items()}
        seen = self.network.look(self.net, inputs, taps)
        return heads.answer(seen.states_ND, seen.heads, heads.shares(self.net)), seen.features


def _asked_places(sequence: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The places [N] of a sequence that are asked about, and the outcomes there; an unknown one stands as the first."""
    at_N = np.asarray(sequence.positions, np.int64)
    return at_N, np.maximum(np.asarray(sequence.token_ids, np.int64)[at_N], 0)


def _choose(log_p_NV: np.ndarray, seed: int, sampling: Sampling) -> np.ndarray:
    """The outcome at each place, [N]."""
    if sampling.temperature == 0:
        return log_p_NV.argmax(1)
    p_NV = np.exp((log_p_NV.astype(np.float64) - log_p_NV.max(1, keepdims=True)) / sampling.temperature)
    cumulative_NV = np.cumsum(p_NV, 1)
    draws_N1 = np.random.Generator(np.random.Philox(key=seed)).random((len(p_NV), 1))
    return np.minimum((cumulative_NV <= draws_N1 * cumulative_NV[:, -1:]).sum(1), p_NV.shape[1] - 1)
