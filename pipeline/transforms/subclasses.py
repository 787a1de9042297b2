"""Subclasses: kinds of a class, which nobody named, by where a teacher's states of it lie."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from pipeline.kinds.objective import Tap
from pipeline.kinds.transform import Signals, Transform, transform
from pipeline.tables import ids
from pipeline.transforms.classes import class_of

# Of what a head reads, a direction whose weight is below this share of the greatest is none.
NOTHING = 1e-5


@transform(adds=("subclasses",), topk=False, random=True)
def lelp(*, kinds: PositiveInt, temperature: PositiveFloat = 1.0, tap: Tap = "last") -> Transform:
    """Probabilities of so many `kinds` of every class, one class after another, as the tap `subclasses`, [N, V kinds].

    The states of a class, less their mean and less what the teacher's head reads of them, are told apart by their
    principal directions, rotated at random so that all vary alike. A kind's probability is that of its class times a
    softmax over the class's coordinates at a temperature. With one kind it is the teacher's distribution.
    Paper: Dalal et al. 2024 (LELP, arXiv 2409.20449).
    Differs: the head's weights are found from the table, by least squares of log-probabilities on states; the class of
    a place is as `classes.mean` says.
    """

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        p_NV = np.exp(dense(signals))
        states_ND, own_ND = (x.features[tap].astype(np.float64) for x in (beside, signals))
        read_RD = _read(states_ND, dense(beside))
        class_N, found = class_of(beside), []
        for c in range(p_NV.shape[1]):
            mean_D, map_DS = _coordinates(states_ND[class_N == c], read_RD, kinds, ids.generator(seed, "lelp", c))
            z_NS = (own_ND - mean_D) @ map_DS / temperature
            share_NS = np.exp(z_NS - z_NS.max(1, keepdims=True))
            found.append(p_NV[:, c, None] * share_NS / share_NS.sum(1, keepdims=True))
        return signals.with_feature("subclasses", np.concatenate(found, 1))

    return make


def dense(signals: Signals) -> np.ndarray:
    """Log-probabilities [N, V] of whole distributions, in the order of the outcomes."""
    found = np.empty(signals.ids_NK.shape)
    np.put_along_axis(found, signals.ids_NK.astype(np.int64), signals.logprobs_NK.astype(np.float64), 1)
    return found


def _read(states_ND: np.ndarray, log_p_NV: np.ndarray) -> np.ndarray:
    """The directions [R, D] of the states that log-probabilities hang on, orthonormal."""
    logits_NV = log_p_NV - log_p_NV.mean(1, keepdims=True)
    given = np.concatenate([states_ND, np.ones((len(states_ND), 1))], 1)
    weight_DV = np.linalg.lstsq(given, logits_NV, rcond=None)[0][:-1]
    _, size, rows = np.linalg.svd(weight_DV.T, full_matrices=False)
    return rows[size > NOTHING * size.max(initial=0)]


def _coordinates(
    states_ND: np.ndarray, read_RD: np.ndarray, kinds: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A class's mean, and the map [D, S] from a state less the mean to coordinates of deviation 1; those for which the
    class has no direction are 0."""
    width = states_ND.shape[1]
    rotation_SS = np.linalg.qr(draw.normal(size=(kinds, kinds)))[0]
    if not len(states_ND):
        return np.zeros(width), np.zeros((width, kinds))
    mean_D = states_ND.mean(0)
    rest_ND = states_ND - mean_D
    rest_ND = rest_ND - rest_ND @ read_RD.T @ read_RD
    _, size, rows_SD = np.linalg.svd(rest_ND, full_matrices=False)
    rows_SD = rows_SD[:kinds][size[:kinds] > NOTHING * max(1.0, size.max(initial=0))]
    # A direction has two signs; its greatest number is positive.
    greatest = np.take_along_axis(rows_SD, np.abs(rows_SD).argmax(1)[:, None], 1) if len(rows_SD) else rows_SD[:, :1]
    map_DS = (rows_SD * np.sign(greatest)).T @ rotation_SS[: len(rows_SD)]
    map_DS = map_DS - read_RD.T @ (read_RD @ map_DS)
    deviation_S = (rest_ND @ map_DS).std(0)
    return mean_D, map_DS / np.where(deviation_S > 0, deviation_S, 1)
