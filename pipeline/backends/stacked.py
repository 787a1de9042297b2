"""Language models that are shown a picture, run in this process with `transformers`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.backends.local import ROWS, _choose, _look, _uniform
from pipeline.contracts import EXAMPLES
from pipeline.core.methods import find, lazy
from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL, PLAIN, Answer, GenerateRequest, Reading, Sampling, Tokens, Want, backend
from pipeline.model.chat import Chat
from pipeline.model.folder import network_of
from pipeline.model.gradients import studied
from pipeline.model.load import device_of
from pipeline.text.thinking import split_thinking

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Shown = tuple[list[int], np.ndarray]


@backend(gives=LOCAL, computes=True, finds=("network",), renders=lambda card: True, shown=True)
@contextmanager
def local(*, folder: Path, card: dict[str, Any], how: How) -> Iterator[StackedModel]:
    """A vision-language model's folder, loaded here.

    Paper: none.
    Differs: as `local.model`: sampling is by inversion of the cumulative distribution with each request's own numbers.
    """
    torch.set_num_threads(how.settings.threads)
    yield StackedModel(folder, card.get("dtype", "float32"), how)


class StackedModel:
    """A loaded model with its network and its form. Prompts of one length are asked together, filled up to a multiple
    of ROWS (`backends/local.py` says why)."""

    def __init__(self, folder: Path, dtype: str, how: How) -> None:
        self.folder: Path | None = folder
        self.form = folder / "tokenizer"
        self.chat = Chat(self.form)
        self.network: Any = find("network", network_of(self.form)).factory()
        self.device, self.rows = device_of(how.settings), how.settings.batch_rows
        self.net = self.network.load(folder, dtype).to(self.device)
        self.ends = frozenset(self.chat.end_ids)
        self.mark = torch.tensor([self.net.config.image_token_id], device=self.device)
        self.context: int = self.net.config.text_config.max_position_embeddings

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; a prompt that leaves no room for an answer is an answer with an error."""
        by_length: dict[int, list[tuple[GenerateRequest, Shown]]] = defaultdict(list)
        for request in requests:
            shown = self._asked(request)
            length = len(shown[0])
            if length < self.context:
                by_length[length].append((request, shown))
                continue
            error = f"the prompt has {length} tokens; the model's context of {self.context} leaves no room to answer"
            yield Answer(request.request_id, None, "error", error=error, prompt_tokens=length)
        for _, group in sorted(by_length.items()):
            for start in range(0, len(group), self.rows):
                yield from self._answered(group[start : start + self.rows], sampling)

    def _asked(self, request: GenerateRequest) -> Shown:
        try:
            found: Shown = self.network.asked(self.form, request.messages, request.inputs)
        except Refused as error:
            raise Refused(f"prompt {request.prompt_id} {error}") from error
        return found

    def _answered(self, batch: Sequence[tuple[GenerateRequest, Shown]], sampling: Sampling) -> Iterator[Answer]:
        length = len(batch[0][1][0])
        room = min(sampling.max_tokens, self.context - length)
        uniform = _uniform([request.seed for request, _ in batch], room)
        taken, logprobs = self._decode([shown for _, shown in batch], room, uniform, sampling)
        for row, (request, _) in enumerate(batch):
            text, stopped = sampling.until_stop(self.chat.decode(taken[row]))
            reasoning, content = split_thinking(text)
            yield Answer(
                request.request_id,
                content,
                "stop" if stopped or not self.ends.isdisjoint(taken[row][-1:]) else "length",
                reasoning=reasoning or None,
                token_ids=taken[row],
                logprobs=logprobs[row],
                prompt_tokens=length,
                completion_tokens=len(taken[row]),
            )

    def _decode(
        self, shown: Sequence[Shown], room: int, uniform: np.ndarray, sampling: Sampling
    ) -> tuple[list[list[int]], list[list[float]]]:
        """At most `room` tokens for each prompt, and their log-probabilities."""
        rows = len(shown)
        filled = [*shown, *[shown[0]] * (-rows % ROWS)]
        uniform = np.concatenate([uniform, np.repeat(uniform[:1], len(filled) - rows, 0)])
        taken: list[list[int]] = [[] for _ in shown]
        logprobs: list[list[float]] = [[] for _ in shown]
        done = np.zeros(rows, bool)
        pictures = self._to_device(self.network.image.batch([picture for _, picture in filled]))
        with torch.inference_mode():
            given = {"pixel_values": self.network.given(self.net, pictures)}
            tokens_RT = torch.tensor([tokens for tokens, _ in filled], device=self.device)
            cache = None
            for step in range(room):
                out = self.net(tokens_RT, past_key_values=cache, use_cache=True, logits_to_keep=1, **given)
                cache, given, logits_RV = out.past_key_values, {}, out.logits[:, -1].float()
                # The mark of a patch is a token, and no answer's.
                words_RV = logits_RV.index_fill(1, self.mark, -torch.inf)
                chosen_R = _choose(words_RV, uniform[:, step], sampling)
                said_R = logits_RV.log_softmax(-1).gather(1, chosen_R[:, None])[:, 0].tolist()
                for row in np.flatnonzero(~done):
                    token = int(chosen_R[row])
                    taken[row].append(token)
                    logprobs[row].append(said_R[row])
                    text = self.chat.decode(taken[row]) if sampling.stop else ""
                    done[row] = token in self.ends or any(stop in text for stop in sampling.stop)
                if done.all():
                    break
                tokens_RT = chosen_R[:, None]
        return taken, logprobs

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once, those of like lengths together."""
        return studied(self, sequences, want) if want.studies else self.readings(sequences, want)

    def readings(self, sequences: Sequence[Tokens], want: Want) -> Iterator[Reading]:
        """`read`, without what is wanted of gradients."""
        order = sorted(sequences, key=lambda sequence: (len(sequence.token_ids), sequence.id))
        for start in range(0, len(order), self.rows):
            batch = order[start : start + self.rows]
            taps = ("last",) if want.embedding else want.taps
            with torch.inference_mode():
                logits_NV, target_N, seen = self._seen(batch, taps)
                found = {
                    k: v.cpu().numpy() for k, v in _look(logits_NV, target_N, want.top_k, want.temperatures).items()
                }
                features = {name: value.float().cpu().numpy() for name, value in seen.items()}
            begin = 0
            for sequence in batch:
                own = slice(begin, begin := begin + len(sequence.positions))
                looks = {name: whole[own] for name, whole in found.items()}
                mean = features["last"][own].mean(0) if want.embedding else None
                kept = {name: features[name][own] for name in want.taps}
                yield Reading(sequence.id, embedding=mean, features=kept, **looks)

    def loss(self, tokens: Tokens) -> torch.Tensor:
        """The mean loss over the tokens that are asked about."""
        logits_NV, target_N, _ = self._seen([tokens], ())
        return torch.nn.functional.cross_entropy(logits_NV.float(), target_N)

    def _seen(
        self, batch: Sequence[Tokens], taps: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]]:
        """Logits [N, V] at the positions that are asked about, what stands there, and taps."""
        rows = [
            {
                "token_ids": np.asarray(sequence.token_ids), "inputs": sequence.inputs,
                "spans": [{"start": int(at), "end": int(at) + 1} for at in sequence.positions],
            }
            for sequence in batch
        ]  # fmt: skip
        names = ("token_ids", "spans", "inputs")
        table = pa.Table.from_pylist(rows, pa.schema([EXAMPLES.schema.field(name) for name in names]))
        seen = self.network.look(self.net, self._to_device(self.network.collate(table)), taps)
        target = [int(sequence.token_ids[at]) for sequence in batch for at in sequence.positions]
        return seen.heads["main"](seen.states_ND), torch.tensor(target, device=self.device), seen.features

    def _to_device(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(self.device) for name, value in inputs.items()}
