"""Models run in this process with `transformers`.

On a CPU in float32 an answer does not depend on what else is in its batch: rows are batched with prompts of exactly
their own length, so nothing is padded, and a batch never has fewer than MIN_ROWS rows, below which the matrix
library takes another path (measured: rows of products with 4 to 2,048 rows are bit-equal). Each request draws from
its own generator.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.chat import Chat
from pipeline.execution import RunSettings
from pipeline.plugins import backend, lazy
from pipeline.protocol import LOCAL, Answer, GenerateRequest, Reading, Sampling, Tokens

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

MIN_ROWS = 8
BUCKET = 16
# Float32 logits held at once while reading: 64 Mi elements are 256 MiB.
MAX_LOGITS = 1 << 26


@backend(gives=LOCAL)
@contextmanager
def model(*, folder: Path, card: dict[str, str], settings: RunSettings) -> Iterator[LocalModel]:
    """A transformers folder, loaded here.

    Paper: none.
    Differs: sampling is by inversion of the cumulative distribution with each request's own uniform numbers.
    """
    torch.set_num_threads(settings.threads)
    yield LocalModel(folder, card.get("dtype", "float32"), device_of(settings), settings.batch_rows)


def device_of(settings: RunSettings) -> str:
    """The device to run on: as set, or the GPU if there is one."""
    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(folder: Path, dtype: str) -> transformers.PreTrainedModel:
    """The causal language model of a folder, in evaluation mode."""
    # Rows are padded on the right or not at all, so the advice to pass a mask does not apply.
    transformers.utils.logging.set_verbosity_error()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


class LocalModel:
    """A loaded model with its tokenizer."""

    def __init__(self, folder: Path, dtype: str, device: str, batch_rows: int) -> None:
        self.chat = Chat(folder / "tokenizer")
        self.device = device
        self.batch_rows = batch_rows
        self.net = load(folder, dtype).to(device)
        self.context: int = getattr(self.net.config, "max_position_embeddings", 1 << 30)

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; a prompt that leaves no room for an answer is an answer with an error."""
        tokens = {r.prompt_id: self.chat.prompt(r.messages) for r in requests}
        by_length: dict[int, list[GenerateRequest]] = defaultdict(list)
        for request in sorted(requests, key=lambda r: (r.prompt_id, r.sample)):
            by_length[len(tokens[request.prompt_id])].append(request)
        for length, group in sorted(by_length.items()):
            room = min(sampling.max_tokens, self.context - length)
            if room < 1:
                error = (
                    f"the prompt has {length} tokens; the model's context of {self.context} leaves no room to answer"
                )
                yield from (Answer(r.request_id, None, "error", error=error, prompt_tokens=length) for r in group)
                continue
            for start in range(0, len(group), self.batch_rows):
                batch = group[start : start + self.batch_rows]
                yield from self._answer(batch, [tokens[r.prompt_id] for r in batch], sampling, room)

    def _answer(
        self, batch: Sequence[GenerateRequest], prompts: list[list[int]], sampling: Sampling, room: int
    ) -> Iterator[Answer]:
        rows = len(batch)
        uniform = np.stack([np.random.Generator(np.random.Philox(key=r.seed)).random(room) for r in batch])
        ids, logprobs = self._decode(prompts, uniform, sampling, room)
        for row in range(rows):
            taken = ids[row]
            stopped = bool(taken) and taken[-1] == self.chat.eos_id
            text = self.chat.decode(taken)
            cut = min((text.find(s) for s in sampling.stop if s in text), default=-1)
            yield Answer(
                batch[row].request_id,
                text if cut < 0 else text[:cut],
                "stop" if stopped or cut >= 0 else "length",
                token_ids=taken,
                logprobs=logprobs[row],
                prompt_tokens=len(prompts[row]),
                completion_tokens=len(taken),
            )

    def _decode(
        self, prompts: list[list[int]], uniform: np.ndarray, sampling: Sampling, room: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and their log-probabilities, row by row; prompts have one length, uniform is [rows, room]."""
        rows = len(prompts)
        ids: list[list[int]] = [[] for _ in range(rows)]
        logprobs: list[list[float]] = [[] for _ in range(rows)]
        # Samples of one prompt share its prefill; rows are repeated up to MIN_ROWS.
        distinct = sorted(set(map(tuple, prompts)))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        filled = distinct + [distinct[0]] * (MIN_ROWS - len(distinct))
        live = list(range(rows)) + [0] * (MIN_ROWS - rows)
        done = np.zeros(len(live), dtype=bool)
        done[rows:] = True
        with torch.inference_mode():
            cache = transformers.DynamicCache(config=self.net.config)
            out = self.net(
                torch.tensor(filled, device=self.device), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            spread = torch.tensor([place[tuple(prompts[r])] for r in live], device=self.device)
            cache.batch_select_indices(spread)
            logits_RV = out.logits[:, -1].float()[spread]
            for step in range(room):
                log_p = torch.log_softmax(logits_RV, -1)
                chosen = _choose(logits_RV, uniform[live, step], sampling)
                chosen_log_p = log_p.gather(1, chosen[:, None])[:, 0].tolist()
                for i, (token, value) in enumerate(zip(chosen.tolist(), chosen_log_p, strict=True)):
                    if not done[i]:
                        ids[live[i]].append(token)
                        logprobs[live[i]].append(value)
                        done[i] = token == self.chat.eos_id
                if done.all() or step == room - 1:
                    break
                if done.mean() > 0.125 and len(live) > MIN_ROWS:
                    keep = np.flatnonzero(~done)
                    keep = np.concatenate([keep, np.flatnonzero(done)[: max(0, MIN_ROWS - len(keep))]])
                    kept = torch.from_numpy(keep).to(self.device)
                    cache.batch_select_indices(kept)
                    chosen, live, done = chosen[kept], [live[i] for i in keep], done[keep]
                out = self.net(chosen[:, None], past_key_values=cache, use_cache=True)
                logits_RV = out.logits[:, -1].float()
        return ids, logprobs

    def read(self, sequences: Sequence[Tokens], *, top_k: int = 0, embedding: bool = False) -> Iterator[Reading]:
        """Read every sequence once. Rows are padded on the right, which a causal model's earlier positions cannot
        see, to a length that depends on the row alone."""
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for sequence in sorted(sequences, key=lambda s: s.id):
            by_length[math.ceil(len(sequence.token_ids) / BUCKET) * BUCKET].append(sequence)
        vocabulary = self.net.get_output_embeddings().weight.shape[0]
        for length, group in sorted(by_length.items()):
            width = min(length, self.context)
            rows = max(1, min(self.batch_rows, MAX_LOGITS // (width * vocabulary)))
            for start in range(0, len(group), rows):
                yield from self._read(group[start : start + rows], width, top_k, embedding)

    def _read(self, batch: list[Tokens], width: int, top_k: int, embedding: bool) -> Iterator[Reading]:
        ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
        for row, sequence in enumerate(batch):
            ids_BT[row, : len(sequence.token_ids)] = torch.tensor(sequence.token_ids)
        lengths = [len(sequence.positions) for sequence in batch]
        row_N = torch.tensor([row for row, length in enumerate(lengths) for _ in range(length)], device=self.device)
        at_N = torch.tensor([t for sequence in batch for t in sequence.positions], device=self.device)
        ids_BT = ids_BT.to(self.device)
        with torch.inference_mode():
            out = self.net(ids_BT, use_cache=False, output_hidden_states=embedding)
            log_p_NV = torch.log_softmax(out.logits[row_N, at_N - 1].float(), -1)
            target = log_p_NV.gather(1, ids_BT[row_N, at_N][:, None])[:, 0]
            found = {"target_logprob": target}
            if top_k:
                values, taken = log_p_NV.topk(min(top_k, log_p_NV.shape[1]), -1)
                found |= {"topk_ids": taken.int(), "topk_logprobs": values, "tail_mass": _tail(log_p_NV, taken)}
            pieces = {name: tensor.cpu().split(lengths) for name, tensor in found.items()}
            for row, sequence in enumerate(batch):
                states = out.hidden_states[-1][row, sequence.positions].float() if embedding else None
                yield Reading(
                    sequence.id,
                    embedding=None if states is None else states.mean(0).cpu().numpy(),
                    **{name: piece[row].numpy() for name, piece in pieces.items()},
                )


def _tail(log_p_NV: torch.Tensor, taken_NK: torch.Tensor) -> torch.Tensor:
    """The probability [N] of all tokens but the taken ones, summed and not subtracted, so that it is never below 0."""
    return log_p_NV.exp().scatter(1, taken_NK, 0.0).sum(-1)


def _choose(logits_RV: torch.Tensor, uniform_R: np.ndarray, sampling: Sampling) -> torch.Tensor:
    """One token per row, [R]: the likeliest at temperature 0, else by inversion of the cumulative distribution."""
    if sampling.temperature == 0:
        return logits_RV.argmax(-1)
    p_RV = torch.softmax(logits_RV.double() / sampling.temperature, -1)
    if sampling.top_p < 1:
        sorted_p, order = p_RV.sort(-1, descending=True)
        outside = sorted_p.cumsum(-1) - sorted_p >= sampling.top_p
        p_RV = p_RV.masked_fill(outside.gather(1, order.argsort(-1)), 0.0)
    cumulative_RV = p_RV.cumsum(-1)
    goal_R1 = torch.from_numpy(uniform_R).to(logits_RV.device)[:, None] * cumulative_RV[:, -1:]
    return torch.searchsorted(cumulative_RV, goal_R1, right=True)[:, 0].clamp(max=logits_RV.shape[1] - 1)
