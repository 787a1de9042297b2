"""Students that write: a small GPT-2 over characters, trained from nothing on questions and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.tables import ids

# A character is its place here; the first is padding, the second ends an answer.
SIGNS = "_.01x="
Pair = tuple[str, str]


def rows_of_bits(rng: np.random.Generator, rows: int, bits: int) -> list[str]:
    """Questions whether the number of ones among so many bits is odd."""
    return ["".join(map(str, row)) + "=" for row in rng.integers(2, size=(rows, bits))]


def parities(question: str) -> list[int]:
    """Whether it is odd so far, after every bit."""
    return list(np.cumsum([int(sign) for sign in question[:-1]]) % 2)


def steps(question: str) -> str:
    """The parity after every bit; the last is the answer."""
    return "".join(map(str, parities(question)))


def detours(rng: np.random.Generator, question: str, share: float = 0.2) -> str:
    """The same with slips, each of which is struck out and mended."""
    return "".join(f"{1 - odd}x{odd}" if rng.random() < share else str(odd) for odd in parities(question))


def last(question: str) -> str:
    """The answer alone."""
    return str(parities(question)[-1])


class Writer:
    """The student; what it is trained on, step by step, is up to whoever trains it."""

    def __init__(self, seed: int, longest: int) -> None:
        torch.manual_seed(ids.seed_of(seed, "writer"))
        self.longest = longest
        shape = GPT2Config(
            vocab_size=len(SIGNS), n_positions=longest, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
        self.net = GPT2LMHeadModel(shape)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=2e-3, weight_decay=0.01)

    def learn(self, pairs: Sequence[Pair]) -> int:
        """One step on some questions with their answers; returns how many characters it was trained on."""
        texts = [question + answer + "." for question, answer in pairs]
        width = max(map(len, texts))
        read = torch.tensor([[SIGNS.index(sign) for sign in text.ljust(width, "_")] for text in texts])
        learnt = read.clone()
        for row, (question, answer) in zip(learnt, pairs, strict=True):
            row[: len(question)], row[len(question) + len(answer) + 1 :] = -100, -100
        self.net.train()
        self.net(input_ids=read, labels=learnt).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return int((learnt >= 0).sum())

    def train(self, pairs: Sequence[Pair], count: int, seed: int, rows: int = 64) -> None:
        """So many steps on rows that are drawn anew for each."""
        rng = ids.generator(seed, "writer", "rows")
        for _ in range(count):
            self.learn([pairs[i] for i in rng.integers(len(pairs), size=rows)])

    @torch.no_grad()
    def says(self, questions: Sequence[str]) -> list[str]:
        """Its greedy answers to questions of one length, as long as its context has room."""
        self.net.eval()
        read = torch.tensor([[SIGNS.index(sign) for sign in question] for question in questions])
        for _ in range(self.longest - read.shape[1]):
            read = torch.cat([read, self.net(input_ids=read).logits[:, -1].argmax(1, keepdim=True)], 1)
        answers = ["".join(SIGNS[i] for i in row) for row in read[:, len(questions[0]) :].tolist()]
        return [answer.partition(".")[0] for answer in answers]

    def right(self, questions: Sequence[str]) -> float:
        """The share of questions whose answer ends with the right bit."""
        said = self.says(questions)
        return float(np.mean([a[-1:] == last(q) for a, q in zip(said, questions, strict=True)]))


def answered(questions: Sequence[str], by: Callable[[str], str]) -> list[Pair]:
    """Questions with what a teacher says to each."""
    return [(question, by(question)) for question in questions]
