"""Critics: what tells right answers from wrong ones after it has learnt from some that were judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveFloat

from pipeline.contracts import whole
from pipeline.kinds.scorer import Learner, Scorer, quantities_of, scorer
from pipeline.kinds.verifier import metric_of
from pipeline.tables import ids
from pipeline.text.ngrams import bytes_of, plain

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

READS = ("response_id", "prompt_id", "entry", "messages", "content", "verifier", "reference", "answer", "error")
# A run of so many bytes is one number of 64 bits.
LONGEST = 8
BITS = 18
BUCKETS = 1 << BITS
# So many rows at a time: their runs are as many as their bytes, for every length.
BLOCK = 1024
MIX = np.uint64(0x9E3779B97F4A7C15)
# Scores that differ by less are the same: the last bits of an optimum depend on the processor.
DECIMALS = 6


@scorer(reads=READS, score="probability", learns=True)
def linear(
    *,
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0,
    penalty: PositiveFloat = 1.0,
    longest: Annotated[int, Field(ge=1, le=LONGEST)] = LONGEST,
    folds: Annotated[int, Field(ge=2)] = 5,
) -> Learner:
    """The probability that an answer is right, by a logistic regression that learns from those which can be judged.

    Features are the runs of up to `longest` bytes in the prompt and in the answer. Each entry has a critic of its own,
    which learns from the answers that their verifier can judge, of a share `labelled` of the prompts, drawn by name;
    null if the request failed, or where an entry has no right or no wrong answer to learn from.

    An answer that was learnt from is scored by critics of other `folds`, which have not seen its prompt. So the answers
    whose worth is known say what a score is worth: of those that score as high or higher, `precision` is the share of
    right ones, and `size` how many of all they are. Quantities: probability, labelled and right (1 or 0; right is 0
    where it is not labelled), precision, size.

    `where: critic.quantities['precision'] >= 0.9 AND critic.quantities['labelled'] = 0` is a point of that curve, and
    leaves out what the critic was told.

    Paper: West et al. 2022 (Symbolic Knowledge Distillation, arXiv 2110.07178), the critic and its thresholds; also of
    Bhagavatula et al. 2023 (I2D2, arXiv 2212.09246).
    Differs: linear on hashed bytes, where theirs is a fine-tuned RoBERTa; verifiers judge in the place of people.
    """

    def learn(parts: Iterable[pa.Table]) -> Scorer:
        told = pa.concat_tables([_told(part, labelled) for part in parts])
        told = told.sort_by("response_id")
        critics = {
            entry: critic
            for entry in sorted(set(told["entry"].to_pylist()))
            if (critic := _learnt(told.filter(pc.equal(told["entry"], entry)), longest, penalty, folds))
        }

        def score(rows: pa.Table) -> dict[str, pa.Array]:
            names = ("probability", "labelled", "right", "precision", "size")
            found = {name: np.zeros(len(rows)) for name in names}
            known = np.zeros(len(rows), bool)
            answered = rows["error"].is_null().to_numpy() & rows["content"].is_valid().to_numpy()
            entries = np.array(rows["entry"].to_pylist(), object)
            for entry, critic in critics.items():
                at = np.flatnonzero(answered & (entries == entry))
                known[at] = True
                some = rows.take(pa.array(at))
                for name, values in critic.scored(some, longest).items():
                    found[name][at] = values
            return {"score": pa.array(found["probability"], mask=~known), "quantities": quantities_of(**found)}

        return score

    return learn


@scorer(reads=(*READS[:5], "error", "label"), score="probability", learns=True)
def by_hand(
    *,
    penalty: PositiveFloat = 1.0,
    longest: Annotated[int, Field(ge=1, le=LONGEST)] = LONGEST,
    folds: Annotated[int, Field(ge=2)] = 5,
) -> Learner:
    """The probability that a person would call an answer good: `critic.linear` that learns from the labels of
    `stillhouse view` alone.

    Scores, folds and quantities are those of `critic.linear`; `right` is 1 for what was called good.

    Paper: West et al. 2022 (Symbolic Knowledge Distillation, arXiv 2110.07178), the critic and its thresholds.
    Differs: linear on hashed bytes, where theirs is a fine-tuned RoBERTa.
    """
    critic = linear(penalty=penalty, longest=longest, folds=folds)

    def learn(parts: Iterable[pa.Table]) -> Scorer:
        score = critic(map(_judged, parts))
        return lambda rows: score(_judged(rows))

    return learn


def _judged(rows: pa.Table) -> pa.Table:
    """Answers that a label judges, as a verifier would: good where the answer is the reference."""
    said = pc.if_else(pc.equal(rows["label"], 1), "1", "0")
    verifier = pc.if_else(pc.is_valid(said), "text.exact", pa.scalar(None, pa.string()))
    given = {"verifier": verifier, "answer": pc.if_else(pc.is_valid(said), "1", said), "reference": said}
    return pa.table({**{name: rows[name] for name in rows.column_names}, **given})


@dataclass(frozen=True)
class Critic:
    """Weights of features, and what is known of the answers that they were learnt from, in the order of their ids."""

    weights: np.ndarray  # [BUCKETS + 1], the last is the constant
    ids: np.ndarray  # [n]
    right: np.ndarray  # [n]
    probability: np.ndarray  # [n] by critics that have not seen their prompt

    def scored(self, rows: pa.Table, longest: int) -> dict[str, np.ndarray]:
        """What is known of answers, name to one number each."""
        blocks = (features(rows.slice(at, BLOCK), longest) for at in range(0, len(rows), BLOCK))
        probability = np.concatenate([np.zeros(0), *(_probability(block, self.weights) for block in blocks)])
        names = np.array(rows["response_id"].to_pylist(), object)
        own = np.minimum(np.searchsorted(self.ids, names), len(self.ids) - 1)
        told = self.ids[own] == names
        probability = np.where(told, self.probability[own], probability)
        precision, size = curve(self.probability, self.right, probability)
        return {
            "probability": probability,
            "labelled": told.astype(np.float64),
            "right": np.where(told, self.right[own], 0.0),
            "precision": precision,
            "size": size,
        }


def curve(known: np.ndarray, right: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of answers with these scores, [n], the share of right ones among those that score at least `at`, [m], and how
    many these are of all; above the highest score, those of the highest."""
    order = np.argsort(known, kind="stable")
    above = len(known) - np.searchsorted(known[order], np.minimum(at, known.max()), side="left")
    hits = np.cumsum(right[order][::-1])[above - 1]
    return hits / above, above / len(known)


def _told(rows: pa.Table, labelled: float) -> pa.Table:
    """The answers that may be learnt from, with whether they are right."""
    prompts = rows["prompt_id"].to_pylist()
    drawn = {prompt: ids.draw(0, "critic", prompt) < labelled for prompt in set(prompts)}
    at = np.flatnonzero(rows["error"].is_null().to_numpy() & rows["content"].is_valid().to_numpy())
    at = at[[drawn[prompts[i]] for i in at.tolist()]] if len(at) else at
    some = rows.take(pa.array(at))
    cases = zip(*(some[name].to_pylist() for name in ("verifier", "answer", "reference")), strict=True)
    some = some.append_column("right", pa.array([metric_of(*case) for case in cases], pa.float64()))
    return some.filter(some["right"].is_valid())


def _learnt(told: pa.Table, longest: int, penalty: float, folds: int) -> Critic | None:
    """The critic of one entry; None if all answers are right, or all wrong, or one prompt's."""
    right = told["right"].to_numpy()
    fold = np.array([int(folds * ids.draw(0, "fold", prompt)) for prompt in told["prompt_id"].to_pylist()])
    if len(set(right)) < 2 or len(set(fold)) < 2:
        return None
    made = features(told, longest)
    probability = np.empty(len(right))
    for one in sorted(set(fold)):
        seen, own = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
        probability[own] = _probability(made[own], fitted(made[seen], right[seen], penalty))
    names = np.array(told["response_id"].to_pylist(), object)
    return Critic(fitted(made, right, penalty), names, right, probability)


def fitted(made: csr_matrix, right: np.ndarray, penalty: float) -> np.ndarray:
    """The weights with the least cross-entropy in sum plus penalty / 2 times their squares, but for the constant's."""
    from scipy.optimize import minimize

    used = np.unique(np.append(made.indices, made.shape[1] - 1))
    some, sign = made[:, used], 2 * right - 1
    square = np.full(len(used), penalty)
    square[-1] = 1e-6

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (some @ weights)
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        value = np.logaddexp(0, -margin).sum() + 0.5 * (square * weights) @ weights
        return value, some.T @ slope + square * weights

    found = minimize(loss, np.zeros(len(used)), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": 1e-7})
    weights = np.zeros(made.shape[1])
    weights[used] = found.x
    return weights


def _probability(made: csr_matrix, weights: np.ndarray) -> np.ndarray:
    return np.round(1 / (1 + np.exp(-np.clip(made @ weights, -500, 500))), DECIMALS)


def features(rows: pa.Table, longest: int) -> csr_matrix:
    """Which runs of up to `longest` bytes stand in a prompt and in its answer, [n, BUCKETS + 1], each row of length 1
    beside a 1 for the constant."""
    from scipy.sparse import csr_matrix, vstack

    blocks = [_features(rows.slice(at, BLOCK), longest) for at in range(0, len(rows), BLOCK)]
    return vstack(blocks, format="csr") if blocks else csr_matrix((0, BUCKETS + 1))


def _features(rows: pa.Table, longest: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    asked = pa.array(["\n".join(m["content"] for m in turns) for turns in rows["messages"].to_pylist()], pa.string())
    pairs = [_runs(texts, salt, longest) for salt, texts in enumerate((asked, whole(rows["content"])))]
    row, column = np.divmod(np.unique(np.concatenate(pairs)), BUCKETS)
    count = np.bincount(row, minlength=len(rows))
    columns = np.insert(column, np.cumsum(count), BUCKETS)
    values = np.insert(1 / np.sqrt(count)[row], np.cumsum(count), 1.0)
    return csr_matrix((values, columns, np.r_[0, np.cumsum(count + 1)]), (len(rows), BUCKETS + 1))


def _runs(texts: pa.Array, salt: int, longest: int) -> np.ndarray:
    """For every run of bytes inside a text, the text's place times BUCKETS and its own bucket."""
    data, offsets = bytes_of(plain(texts))
    owner = np.repeat(np.arange(len(texts)), np.diff(offsets))
    run, found = np.zeros(len(data), np.uint64), [np.zeros(0, np.int64)]
    for length in range(1, min(longest, len(data)) + 1):
        run = (run[: len(data) - length + 1] << np.uint64(8)) | data[length - 1 :]
        inside = owner[: len(run)] == owner[length - 1 :]
        mixed = (run[inside] ^ np.uint64(salt * LONGEST + length)) * MIX
        mixed = (mixed ^ mixed >> np.uint64(32)) * MIX
        found.append(owner[: len(run)][inside] * BUCKETS + (mixed >> np.uint64(64 - BITS)).astype(np.int64))
    return np.concatenate(found)
