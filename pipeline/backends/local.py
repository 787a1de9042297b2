"""Models run in this process with `transformers`.

On a CPU in float32 neither an answer nor a reading depends on what else is in its batch, bit for bit. Three things make
it so. A row is padded to a width that follows from its own length. A prompt that is padded has at least one column of
padding, since attention without any is computed on another path. And rows are filled up to a multiple of ROWS: matrix
products with fewer than 4 rows take another path (measured: those with 4 to 4,096 are bit-equal), and so does what is
left of an elementwise function (SiLU, for one) after the last 32 numbers. Each request draws from its own generator.
Elsewhere batches do show; how often is measured and said.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.methods import lazy
from pipeline.core.run import How
from pipeline.kinds.backend import LOCAL, PLAIN, Answer, GenerateRequest, Reading, Sampling, Tokens, Want, backend
from pipeline.model.chat import Chat
from pipeline.text.thinking import split_thinking

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

from pipeline.model.gradients import studied
from pipeline.model.load import device_of, load
from pipeline.model.taps import Taps

ROWS = 8
# Prompts shorter than this are batched with those of their own length, and not padded.
PAD_FROM = 64
# A batch is read with at most this many tokens, or READ_ROW tokens for each of batch_rows where that is more.
READ_TOKENS, READ_ROW = 4096, 8
# Logits held at once while reading, and those of them looked at together: 64 Mi float32 are 256 MiB.
MAX_LOGITS, CHUNK = 1 << 26, 1 << 20
# Columns that the cache of keys and values gains when it is full. Few: attention reads a large cache with wide gaps
# between its rows at half the speed on a CPU (measured with 64).
ROOM = 8
# Answers asked again, where an answer may depend on its batch.
AGAIN = 16


@backend(gives=LOCAL, computes=True, renders=lambda card: True)
@contextmanager
def model(*, folder: Path, card: dict[str, Any], how: How) -> Iterator[LocalModel]:
    """A transformers folder, loaded here.

    Paper: none.
    Differs: sampling is by inversion of the cumulative distribution with each request's own uniform numbers.
    """
    torch.set_num_threads(how.settings.threads)
    yield LocalModel.of(folder, card.get("dtype", "float32"), how)


def prompt_width(length: int) -> int:
    """Columns that a prompt is padded to: its own length below PAD_FROM; above, at least one more than it has and at
    most an eighth more, so that prompts of many lengths share their batches."""
    if length < PAD_FROM:
        return length
    step = 1 << (length.bit_length() - 4)
    return (length // step + 1) * step


def read_width(length: int) -> int:
    """Columns that a sequence is padded to when it is read: a multiple of 16, or of about an eighth of its length."""
    step = 1 << max(4, length.bit_length() - 4)
    return math.ceil(length / step) * step


class LocalModel:
    """A model with its tokenizer: loaded from a folder, or one that is being trained."""

    def __init__(self, net: transformers.PreTrainedModel, chat: Chat, how: How, folder: Path | None = None) -> None:
        self.chat, self.how, self.net, self.folder = chat, how, net, folder
        self.device = net.device.type
        self.batch_rows = how.settings.batch_rows
        self.ends = frozenset(chat.end_ids)
        self.head = self.net.get_output_embeddings()
        self.context: int = getattr(self.net.config, "max_position_embeddings", 1 << 30)
        self.exact = self.device == "cpu" and net.dtype == torch.float32
        self.compared = self.exact

    @classmethod
    def of(cls, folder: Path, dtype: str, how: How) -> LocalModel:
        """The model of a folder."""
        return cls(load(folder, dtype).to(device_of(how.settings)), Chat(folder / "tokenizer"), how, folder)

    def complete(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[int]]:
        """An answer to each prompt, in tokens and in order; a seed is one answer's own."""
        answers: list[list[int]] = [[] for _ in prompts]
        by_width: dict[int, list[int]] = defaultdict(list)
        for row, prompt in enumerate(prompts):
            by_width[prompt_width(len(prompt))].append(row)
        for width, group in sorted(by_width.items()):
            for start in range(0, len(group), self.batch_rows):
                rows = group[start : start + self.batch_rows]
                rooms = [min(sampling.max_tokens, self.context - len(prompts[row])) for row in rows]
                uniform = _uniform([seeds[row] for row in rows], max(rooms))
                tokens, _ = self._decode([list(prompts[row]) for row in rows], width, rooms, uniform, sampling)
                for row, taken in zip(rows, tokens, strict=True):
                    answers[row] = taken
        return answers

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; a prompt that leaves no room for an answer is an answer with an error."""
        for answers in self.arrivals(requests, sampling):
            yield from answers

    def arrivals(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every request once, a batch at a time."""
        again = [] if self.compared else list(requests[:: math.ceil(len(requests) / AGAIN) or 1])
        first: dict[str, list[int] | None] = {request.request_id: None for request in again}
        for answers in self._generate(requests, sampling, self.batch_rows):
            first |= {a.request_id: a.token_ids for a in answers if a.request_id in first}
            yield answers
        if again:
            self.compared = True
            second = {a.request_id: a.token_ids for batch in self._generate(again, sampling, ROWS) for a in batch}
            changed = sum(first[key] != second[key] for key in first)
            self.how.say(
                f"{changed} of {len(first)} answers came out different when asked again in batches of {ROWS}: on "
                f"{self.device} in {self.net.dtype} rounding depends on what else is in a batch. Answers that are kept "
                f"stay as they are; those made anew after the memo is lost may differ that often."
            )

    def _generate(self, requests: Sequence[GenerateRequest], sampling: Sampling, rows: int) -> Iterator[list[Answer]]:
        tokens = {r.prompt_id: self.chat.prompt(r.messages) for r in requests}
        by_width: dict[int, list[GenerateRequest]] = defaultdict(list)
        for request in sorted(requests, key=lambda r: (r.prompt_id, r.sample)):
            length = len(tokens[request.prompt_id])
            if length < self.context:
                by_width[prompt_width(length)].append(request)
                continue
            error = f"the prompt has {length} tokens; the model's context of {self.context} leaves no room to answer"
            yield [Answer(request.request_id, None, "error", error=error, prompt_tokens=length)]
        for width, group in sorted(by_width.items()):
            for start in range(0, len(group), rows):
                batch = group[start : start + rows]
                yield list(self._answer(batch, [tokens[r.prompt_id] for r in batch], width, sampling))

    def _answer(
        self, batch: Sequence[GenerateRequest], prompts: list[list[int]], width: int, sampling: Sampling
    ) -> Iterator[Answer]:
        rooms = [min(sampling.max_tokens, self.context - len(prompt)) for prompt in prompts]
        uniform = _uniform([r.seed for r in batch], max(rooms))
        ids, logprobs = self._decode(prompts, width, rooms, uniform, sampling)
        for row, taken in enumerate(ids):
            text, stopped = sampling.until_stop(self.chat.decode(taken))
            reasoning, content = split_thinking(text)
            yield Answer(
                batch[row].request_id,
                content,
                "stop" if stopped or not self.ends.isdisjoint(taken[-1:]) else "length",
                reasoning=reasoning or None,
                token_ids=taken,
                logprobs=logprobs[row],
                prompt_tokens=len(prompts[row]),
                completion_tokens=len(taken),
            )

    def _decode(
        self, prompts: list[list[int]], width: int, rooms: list[int], uniform: np.ndarray, sampling: Sampling
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and their log-probabilities, row by row; at most rooms[row] of them, drawn by uniform[row]."""
        rows = len(prompts)
        ids: list[list[int]] = [[] for _ in range(rows)]
        logprobs: list[list[float]] = [[] for _ in range(rows)]
        stopped = self._stops(sampling.stop)
        # Samples of one prompt share its prefill; rows are repeated up to a multiple of ROWS.
        distinct = sorted(set(map(tuple, prompts)))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        filled = distinct + [distinct[0]] * (-len(distinct) % ROWS)
        live = list(range(rows)) + [0] * (-rows % ROWS)
        done = np.zeros(len(live), dtype=bool)
        done[rows:] = True
        with torch.inference_mode():
            cache = _growing_cache(self.net.config)
            ids_RT = torch.tensor([[0] * (width - len(p)) + list(p) for p in filled], device=self.device)
            pads_R = torch.tensor([width - len(p) for p in filled], device=self.device)
            padded = width >= PAD_FROM
            out = self.net(
                ids_RT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **(self._around(pads_R, 0, width) if padded else {}),
            )
            kept = torch.tensor([place[tuple(prompts[r])] for r in live], device=self.device)
            cache.batch_select_indices(kept)
            pads_R, logits_RV = pads_R[kept], out.logits[:, -1].float()[kept]
            for step in range(max(rooms)):
                log_p_RV = torch.log_softmax(logits_RV, -1)
                chosen_R = _choose(logits_RV, uniform[live, step], sampling)
                chosen_log_p = log_p_RV.gather(1, chosen_R[:, None])[:, 0].tolist()
                for i, (token, value) in enumerate(zip(chosen_R.tolist(), chosen_log_p, strict=True)):
                    if not done[i]:
                        taken = ids[live[i]]
                        taken.append(token)
                        logprobs[live[i]].append(value)
                        done[i] = token in self.ends or len(taken) == rooms[live[i]] or stopped(taken)
                if done.all():
                    break
                if (keep := _closed_up(done)) is not None:
                    kept = torch.from_numpy(keep).to(self.device)
                    cache.batch_select_indices(kept)
                    pads_R, chosen_R, live, done = pads_R[kept], chosen_R[kept], [live[i] for i in keep], done[keep]
                out = self.net(
                    chosen_R[:, None],
                    past_key_values=cache,
                    use_cache=True,
                    **(self._around(pads_R, width + step, width + step + 1) if padded else {}),
                )
                logits_RV = out.logits[:, -1].float()
        return ids, logprobs

    def _around(self, pads_R: torch.Tensor, start: int, end: int) -> dict[str, torch.Tensor]:
        """What a model is told of columns start to end, where the first pads_R columns of a row are padding."""
        columns_RT = torch.arange(end, device=self.device) - pads_R[:, None]
        # A row that is done goes on beside others, past the last position that there is.
        at_RT = columns_RT[:, start:].clamp(0, self.context - 1)
        told = {"attention_mask": (columns_RT >= 0).long(), "position_ids": at_RT}
        if "position_ids" not in inspect.signature(self.net.forward).parameters:
            del told["position_ids"]
        return told

    def _stops(self, stop: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether the newest of some tokens ends the answer. The text is looked at only where that token may have
        brought a stop string's last character; one that is missed here is cut off all the same, later."""
        last = {s[-1] for s in stop} | {"\N{REPLACEMENT CHARACTER}"}

        @functools.cache
        def may_end(token: int) -> bool:
            return not last.isdisjoint(self.chat.decode([token]))

        def stopped(taken: list[int]) -> bool:
            if not stop or not may_end(taken[-1]):
                return False
            text = self.chat.decode(taken)
            return any(s in text for s in stop)

        return stopped

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once. Rows are padded on the right, which a causal model's earlier positions cannot
        see."""
        return studied(self, sequences, want) if want.studies else self.readings(sequences, want)

    def readings(self, sequences: Sequence[Tokens], want: Want) -> Iterator[Reading]:
        """`read`, without what is wanted of gradients."""
        by_width: dict[int, list[Tokens]] = defaultdict(list)
        for sequence in sorted(sequences, key=lambda s: s.id):
            by_width[min(read_width(len(sequence.token_ids)), self.context)].append(sequence)
        positions = MAX_LOGITS // self.head.weight.shape[0]
        for width, group in sorted(by_width.items()):
            rows = min(self.batch_rows, max(READ_TOKENS, READ_ROW * self.batch_rows) // width)
            batch: list[Tokens] = []
            for sequence in group:
                asked = sum(len(s.positions) for s in [*batch, sequence])
                if batch and (len(batch) == rows or asked > positions):
                    yield from self._read(batch, width, want)
                    batch = []
                batch.append(sequence)
            yield from self._read(batch, width, want)

    def _read(self, batch: list[Tokens], width: int, want: Want) -> Iterator[Reading]:
        ids_BT, asked_N = self._laid_out(batch, width)
        with torch.inference_mode():
            logits_NV, states_BTD, taps = self._heard(ids_BT, asked_N - 1, want.taps)
            target_N = ids_BT.flatten()[asked_N]
            rows = max(ROWS, CHUNK // logits_NV.shape[1])
            looked = [
                _look(*some, want.top_k, want.temperatures)
                for some in zip(logits_NV.split(rows), target_N.split(rows), strict=True)
            ]
            found = {name: torch.cat([some[name] for some in looked]).cpu().numpy() for name in looked[0]}
            means = [
                states_BTD[row, s.positions].float().mean(0).cpu().numpy() if want.embedding else None
                for row, s in enumerate(batch)
            ]
        start = 0
        for sequence, mean in zip(batch, means, strict=True):
            own = slice(start, start := start + len(sequence.positions))
            features = {name: whole[own] for name, whole in taps.items()}
            looks = {name: whole[own] for name, whole in found.items()}
            yield Reading(sequence.id, embedding=mean, features=features, **looks)

    def loss(self, tokens: Tokens) -> torch.Tensor:
        """The mean loss over the tokens that are asked about."""
        ids_BT, asked_N = self._laid_out([tokens], len(tokens.token_ids))
        logits_NV, _, _ = self._heard(ids_BT, asked_N - 1, ())
        N = len(tokens.positions)
        return torch.nn.functional.cross_entropy(logits_NV[:N].float(), ids_BT[0, asked_N[:N]])

    def _laid_out(self, batch: Sequence[Tokens], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [B, T] and the positions in them, flattened, that are asked about, filled up to a multiple of ROWS."""
        ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
        for row, sequence in enumerate(batch):
            ids_BT[row, : len(sequence.token_ids)] = torch.tensor(sequence.token_ids)
        asked = [row * width + t for row, sequence in enumerate(batch) for t in sequence.positions]
        asked_N = torch.tensor(asked + [1] * (-len(asked) % ROWS))
        return ids_BT.to(self.device), asked_N.to(self.device)

    def _heard(
        self, ids_BT: torch.Tensor, at_N: torch.Tensor, taps: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]:
        """Logits [N, V] at some positions of the flattened batch, the states [B, T, D] that the head was given, and
        taps [N, D] by name.

        The head is handed those positions alone, as one row: the logits of all others are never made, and what an
        architecture does to its logits (a soft cap, a scale) is done as always.
        """
        seen: list[torch.Tensor] = []

        def only(_head: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            seen.append(given[0])
            return given[0].flatten(0, 1)[at_N][None], *given[1:]

        with Taps(self.net, [t for t in taps if t != "last"]) as tapped, self.head.register_forward_pre_hook(only):
            logits_NV = self.net(ids_BT, use_cache=False).logits[0]
        [states_BTD] = seen
        whole = {**tapped, "last": states_BTD}
        features = {name: whole[name].flatten(0, 1)[at_N].float().cpu().numpy() for name in taps}
        return logits_NV, states_BTD, features


def _uniform(seeds: Sequence[int], draws: int) -> np.ndarray:
    """Uniform numbers [R, draws], a row from each seed."""
    return np.stack([np.random.Generator(np.random.Philox(key=seed)).random(draws) for seed in seeds])


def _look(
    logits_NV: torch.Tensor, target_N: torch.Tensor, top_k: int, temperatures: Sequence[float]
) -> dict[str, torch.Tensor]:
    """What a Reading says of some positions. The tail is summed and not subtracted, so that it is never below 0."""
    log_p_NV = torch.log_softmax(logits_NV.float(), -1)
    found = {"target_logprob": log_p_NV.gather(1, target_N[:, None])[:, 0]}
    if top_k:
        values, taken = log_p_NV.topk(min(top_k, log_p_NV.shape[1]), -1)
        tail = log_p_NV.exp().scatter(1, taken, 0.0).sum(-1)
        found |= {"topk_ids": taken.int(), "topk_logprobs": values, "tail_mass": tail}
        tails = [(log_p_NV / t).softmax(-1).scatter(1, taken, 0.0).sum(-1) for t in temperatures]
        if tails:
            found["tempered"] = torch.stack(tails, 1)
    return found


def _growing_cache(config: transformers.PretrainedConfig) -> transformers.DynamicCache:
    """The cache that `transformers` would take, with layers that keep room for coming columns."""
    cache = transformers.DynamicCache(config=config)
    plain = transformers.cache_utils.DynamicLayer
    cache.layers = [_growing_layer()() if type(layer) is plain else layer for layer in cache.layers]
    return cache


@functools.cache
def _growing_layer() -> type:
    """The class of a cache layer; a function because `transformers` is imported late."""

    class GrowingLayer(transformers.cache_utils.DynamicLayer):
        """Keys and values are views of wider tensors: a step writes its column and does not copy the others."""

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            given = key_states, value_states
            if not self.is_initialized:
                self.lazy_initialization(*given)
                self.wide = self.keys, self.values = [states[:, :, :0] for states in given]
            start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
            if end > self.wide[0].shape[2]:
                self.wide = [_widened(held, end + ROOM) for held in (self.keys, self.values)]
            for wide, states in zip(self.wide, given, strict=True):
                wide[:, :, start:end] = states
            self.keys, self.values = (wide[:, :, :end] for wide in self.wide)
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            rows, columns = len(indices), self.keys.shape[2]
            if rows > len(self.keys):
                self.wide = [_widened(held[indices], columns + ROOM) for held in (self.keys, self.values)]
            else:
                moved = (indices != torch.arange(rows, device=indices.device)).nonzero()[:, 0]
                for held in (self.keys, self.values):
                    held[moved] = held[indices[moved]]
                self.wide = [wide[:rows] for wide in self.wide]
            self.keys, self.values = (wide[:, :, :columns] for wide in self.wide)

    return GrowingLayer


def _widened(held_BHTD: torch.Tensor, columns: int) -> torch.Tensor:
    """A copy with more columns T, the new ones not yet written."""
    batch, heads, held, size = held_BHTD.shape
    wide = held_BHTD.new_empty(batch, heads, columns, size)
    wide[:, :, :held] = held_BHTD
    return wide


def _closed_up(done_R: np.ndarray) -> np.ndarray | None:
    """The rows to go on with when those that are done are worth dropping: as many as are needed, a multiple of ROWS;
    rows from behind take the places of done ones, and all others stay where they are."""
    needed = math.ceil((~done_R).sum() / ROWS) * ROWS
    if needed > len(done_R) * 15 / 16:
        return None
    keep_R = np.arange(needed)
    moved = needed + np.flatnonzero(~done_R[needed:])
    keep_R[np.flatnonzero(done_R[:needed])[: len(moved)]] = moved
    return keep_R


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
