"""Rows of examples to what stands at their places, without making a Python number.

A place is a position of `token_ids` that lies in one of the row's `spans`. N places of a batch, B rows, K stored
outcomes of a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch

from pipeline.kinds.objective import TopKTeacher
from pipeline.tables.lists import inside, lengths, padded, values, whole
from pipeline.tables.tensors import arrays


@dataclass(frozen=True)
class Beside:
    """What a teacher of other tokens reads of the same rows (`across.py`).

    inputs: what its network looks at; target_M: what stands at its M places; groups: by alignment, [G, 4], places of
    the student from and to, and of the teacher; outcome_U: the student's outcome for each of the teacher's, or -1.
    """

    inputs: Mapping[str, torch.Tensor]
    target_M: torch.Tensor
    groups: Mapping[str, torch.Tensor]
    outcome_U: torch.Tensor

    def to(self, device: str) -> Beside:
        """The same on a device."""
        inputs, groups = ({n: value.to(device) for n, value in of.items()} for of in (self.inputs, self.groups))
        return Beside(inputs, self.target_M.to(device), groups, self.outcome_U.to(device))


@dataclass(frozen=True)
class Places:
    """What a batch's rows say about its places, and how many items of every unit it holds (`Loss`).

    target_N: the outcome that stands there, -1 where it is unknown; example_N: the row it belongs to; set_B: the
    prompt a row is an answer to, numbered within the batch; reward_B: NaN where a row has none; reference_N: the
    stored log-probability of the target; links_2E: which places learn from which, where a network links them. size_R:
    how many places stand in each row, of which an example has several once copies of it are made; truth: what is to be
    made there by the name of the array, [N, ...]; draws: what a play plays with, [N, ...] each.
    """

    target_N: torch.Tensor
    example_N: torch.Tensor
    weight_B: torch.Tensor
    set_B: torch.Tensor
    reward_B: torch.Tensor
    counts: Mapping[str, int]
    teacher: TopKTeacher | None = None
    reference_N: torch.Tensor | None = None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    beside: Beside | None = None
    links_2E: torch.Tensor | None = None
    size_R: torch.Tensor | None = None
    truth: Mapping[str, torch.Tensor] = field(default_factory=dict)
    draws: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def linked(self, links_2E: torch.Tensor) -> Places:
        """The same with these links."""
        counts = {"link": links_2E.shape[1], "neighbour": links_2E.shape[1] + len(self.target_N)}
        return replace(self, links_2E=links_2E, counts={**self.counts, **counts})

    def to(self, device: str) -> Places:
        """The same on a device."""
        moved = {k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, torch.Tensor)}
        named = {name: getattr(self, name) for name in ("features", "truth", "draws")}
        named = {name: {n: value.to(device) for n, value in of.items()} for name, of in named.items()}
        teacher = self.teacher
        if teacher is not None:
            tensors = {k: v.to(device) for k, v in teacher.__dict__.items() if isinstance(v, torch.Tensor)}
            tails = {temperature: tail_N.to(device) for temperature, tail_N in teacher.tails.items()}
            teacher = replace(teacher, **tensors, tails=tails)  # type: ignore[arg-type]
        beside = None if self.beside is None else self.beside.to(device)
        return replace(self, **moved, **named, teacher=teacher, beside=beside)  # type: ignore[arg-type]

    def of(self, row_R: torch.Tensor) -> Places:
        """The places of these rows; a row may stand there several times."""
        assert self.size_R is not None
        size_R = self.size_R[row_R]
        before_R, first_R = size_R.cumsum(0) - size_R, (self.size_R.cumsum(0) - self.size_R)[row_R]
        at_N = torch.arange(int(size_R.sum())) + (first_R - before_R).repeat_interleave(size_R)
        return replace(
            self,
            example_N=self.example_N[at_N],
            size_R=size_R,
            teacher=None if self.teacher is None else self.teacher.at(at_N),
            reference_N=None if self.reference_N is None else self.reference_N[at_N],
            features={name: value[at_N] for name, value in self.features.items()},
            truth={name: value[at_N] for name, value in self.truth.items()},
        ).named(self.target_N[at_N])

    def hiding(self, hidden_BP: torch.Tensor) -> Places:
        """The same, where what stands at a place that is seen is unknown."""
        return self.named(self.target_N.masked_fill(hidden_BP[hidden_BP >= 0] == 0, -1))

    def named(self, target_N: torch.Tensor) -> Places:
        """The same places with these outcomes."""
        known = int((target_N >= 0).sum())
        counts = {"place": len(target_N), "labelled": known, "unlabelled": len(target_N) - known}
        return replace(self, target_N=target_N, counts={**self.counts, **counts})

    def among(self, row_R: torch.Tensor) -> Places:
        """What `places` says of these rows alone, each of which has one place and stands there once."""
        sets = self.set_B[row_R].unique(return_inverse=True)[1]
        found = self.of(row_R)
        counts = {**found.counts, "example": len(row_R), "set": int(sets.max()) + 1}
        return replace(
            found,
            example_N=torch.arange(len(row_R)),
            weight_B=self.weight_B[row_R],
            set_B=sets,
            reward_B=self.reward_B[row_R],
            counts=counts,
        )


def places(rows: pa.Table) -> Places:
    """The places of some rows of `examples` or `signals`, row after row."""
    tokens = whole(rows, "token_ids")
    sizes = lengths(tokens)
    width = int(sizes.max(initial=1))
    at_BT = inside(whole(rows, "spans"), width)
    target_N = torch.from_numpy(padded(values(tokens).to_numpy(), sizes, width)[at_BT].astype(np.int64))
    prompts = rows["prompt_id"].to_numpy().astype(str)
    sets = np.unique(prompts, return_inverse=True)[1].reshape(-1)
    reward = rows["reward"].to_numpy() if "reward" in rows.column_names else np.full(len(rows), np.nan)
    known = int((target_N >= 0).sum())
    found = Places(
        target_N=target_N,
        example_N=torch.from_numpy(np.repeat(np.arange(len(sizes)), at_BT.sum(1))),
        weight_B=torch.from_numpy(rows["weight"].to_numpy().astype(np.float32)),
        set_B=torch.from_numpy(sets.astype(np.int64)),
        reward_B=torch.from_numpy(reward.astype(np.float32)),
        counts={
            "place": len(target_N),
            "labelled": known,
            "unlabelled": len(target_N) - known,
            "example": len(sizes),
            "set": int(sets.max(initial=-1)) + 1,
        },
        size_R=torch.from_numpy(at_BT.sum(1)),
    )
    found = replace(found, truth=_truth(rows))
    if "topk_ids" not in rows.column_names:
        return found
    ids, logprobs = (values(whole(rows, name)) for name in ("topk_ids", "topk_logprobs"))
    shape = len(ids), -1
    teacher = TopKTeacher(
        torch.from_numpy(values(ids).to_numpy().reshape(shape).copy()),
        torch.from_numpy(values(logprobs).to_numpy().reshape(shape).copy()),
        _reals(rows, "tail_mass"),
        float(rows["temperature"][0].as_py()),
        _tails(rows),
        _reals(rows, "target_logprob"),
    )
    return replace(found, teacher=teacher, reference_N=teacher.target_N, features=_features(rows))


def _features(rows: pa.Table) -> dict[str, torch.Tensor]:
    """The stored taps of a teacher, [N, D] each."""
    cells = rows["features"].to_pylist() if "features" in rows.column_names else []
    if not cells or cells[0] is None:
        return {}
    taps = [arrays(cell) for cell in cells]
    return {name: torch.from_numpy(np.concatenate([tap[name] for tap in taps])) for name in taps[0]}


def _truth(rows: pa.Table) -> dict[str, torch.Tensor]:
    """What the rows are to make, by name."""
    cells = rows["outputs"].to_pylist() if "outputs" in rows.column_names else []
    if not cells or None in cells:
        return {}
    named = [arrays(cell) for cell in cells]
    return {name: torch.from_numpy(np.concatenate([each[name] for each in named])) for name in named[0]}


def _tails(rows: pa.Table) -> dict[float, torch.Tensor]:
    """The mass of all others at further temperatures, [N] each."""
    column = whole(rows, "tempered") if "tempered" in rows.column_names else None
    if column is None or column.null_count:
        return {}
    each, count = values(column), int(lengths(column)[0])
    tails = each.field("tail_mass")
    return {
        temperature: torch.from_numpy(
            values(tails.take(pa.array(range(i, len(each), count)))).to_numpy().astype(np.float32)
        )
        for i, temperature in enumerate(each.field("temperature").to_pylist()[:count])
    }


def _reals(rows: pa.Table, column: str) -> torch.Tensor:
    return torch.from_numpy(values(whole(rows, column)).to_numpy().astype(np.float32))
