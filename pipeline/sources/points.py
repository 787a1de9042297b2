"""Clouds of points, drawn by a procedure: samples of a mixture, and the surfaces of solids."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids

Share = Annotated[float, Field(ge=0, le=1)]
SOLIDS = ("cone", "cube", "cylinder", "pyramid", "sphere", "torus")


@source(verifiers=("clouds.sliced_wasserstein",))
def ring(
    *,
    rows: PositiveInt,
    seed: int,
    points: Annotated[int, Field(ge=2)] = 256,
    modes: Annotated[int, Field(ge=2)] = 8,
    radius: PositiveFloat = 1.5,
    spread: NonNegativeFloat = 0.1,
    fading: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> Rows:
    """Noise, and as many samples of a mixture in the plane: Gaussians evenly on a ring, each with the deviation
    `spread`, and each `fading` times as likely as the one before it. Noise and samples are of no pairs: they are what a
    generator is asked with, and what the cloud that it makes is judged by.

    Paper: Metz et al. 2017 (unrolled GANs, arXiv 1611.02163), the ring of eight Gaussians.
    Differs: nothing to differ from.
    """
    angle_M = 2 * math.pi * np.arange(modes) / modes
    centres_M2 = radius * np.stack([np.cos(angle_M), np.sin(angle_M)], 1)
    chance_M = fading ** np.arange(modes)
    for number in range(rows):
        dice = ids.generator(seed, "points.ring", number)
        mode_N = dice.choice(modes, points, p=chance_M / chance_M.sum())
        made_N2 = centres_M2[mode_N] + spread * dice.standard_normal((points, 2))
        noise_N2 = dice.standard_normal((points, 2))
        yield GivenRow(f"points.ring seed {seed} row {number}", {
            "inputs": {"noise": noise_N2.astype(np.float32)},
            "truth": {"points": made_N2.astype(np.float32), "centres": centres_M2.astype(np.float32)},
            "verifier": "clouds.sliced_wasserstein",
        })  # fmt: skip


@source(verifiers=("text.exact",))
def solids(
    *,
    rows: PositiveInt,
    seed: int,
    points: Annotated[int, Field(ge=4)] = 128,
    noise: NonNegativeFloat = 0.03,
    stretch: NonNegativeFloat = 0.3,
    turned: bool = True,
    hidden: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    labelled: Share = 1.0,
) -> Rows:
    """Points on the surface of one of six solids, and its name: stretched by up to `stretch` of its size in each
    direction, turned about its axis, with `noise` on every point; a share of `hidden` points, those farthest in a
    random direction, is not there. Of a share of `labelled` rows the solution names the solid, of others it says `?`.

    Paper: Qi et al. 2017 (PointNet, arXiv 1612.00593) samples points of meshes so.
    Differs: nothing to differ from.
    """
    for number in range(rows):
        dice = ids.generator(seed, "points.solids", number)
        name = SOLIDS[number % len(SOLIDS)]
        drawn = math.ceil(points / (1 - hidden))
        made = SURFACES[name](dice, drawn) * (1 + stretch * (2 * dice.random(3) - 1))
        turn = 2 * math.pi * dice.random() if turned else 0.0
        about = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
        made = made @ about.T + noise * dice.standard_normal(made.shape)
        made = made[np.argsort(made @ dice.standard_normal(3), kind="stable")[:points]]
        yield GivenRow(f"points.solids seed {seed} row {number}", {
            "inputs": {"points": made[dice.permutation(points)].astype(np.float32)},
            "verifier": "text.exact",
            "reference": name,
            "solution": name if dice.random() < labelled else "?",
        })  # fmt: skip


def _disc(dice: np.random.Generator, count: int) -> np.ndarray:
    """Points of a disc of radius 1, [count, 2]."""
    angle, far = 2 * math.pi * dice.random(count), np.sqrt(dice.random(count))
    return np.stack([far * np.cos(angle), far * np.sin(angle)], 1)


def _sphere(dice: np.random.Generator, count: int) -> np.ndarray:
    made = dice.standard_normal((count, 3))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def _cube(dice: np.random.Generator, count: int) -> np.ndarray:
    made, face = 1.6 * dice.random((count, 3)) - 0.8, dice.integers(0, 6, count)
    made[np.arange(count), face // 2] = np.where(face % 2, 0.8, -0.8)
    return made


def _cylinder(dice: np.random.Generator, count: int) -> np.ndarray:
    flat, angle = _disc(dice, count), 2 * math.pi * dice.random(count)
    lid = dice.random(count) < 1 / 3
    side = np.stack([np.cos(angle), np.sin(angle)], 1)
    height = np.where(lid, np.where(dice.random(count) < 0.5, 0.9, -0.9), 1.8 * dice.random(count) - 0.9)
    return np.column_stack([0.7 * np.where(lid[:, None], flat, side), height])


def _cone(dice: np.random.Generator, count: int) -> np.ndarray:
    flat, floor = _disc(dice, count), dice.random(count) < 0.3
    far = np.linalg.norm(flat, axis=1)
    return np.column_stack([0.9 * flat, np.where(floor, -0.9, 0.9 - 1.8 * far)])


def _pyramid(dice: np.random.Generator, count: int) -> np.ndarray:
    flat, floor = 2 * dice.random((count, 2)) - 1, dice.random(count) < 0.3
    far = np.abs(flat).max(1)
    return np.column_stack([0.8 * flat, np.where(floor, -0.9, 0.9 - 1.8 * far)])


def _torus(dice: np.random.Generator, count: int) -> np.ndarray:
    about, around = 2 * math.pi * dice.random((2, count))
    far = 0.75 + 0.3 * np.cos(around)
    return np.stack([far * np.cos(about), far * np.sin(about), 0.3 * np.sin(around)], 1)


SURFACES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "cone": _cone, "cube": _cube, "cylinder": _cylinder, "pyramid": _pyramid, "sphere": _sphere, "torus": _torus,
}  # fmt: skip
