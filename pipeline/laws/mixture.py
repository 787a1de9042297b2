"""Laws of mixtures: shares of the domains that are there, by what is known of each and not by where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pipeline.core.methods import Method
from pipeline.kinds.mixture import Domains, Mixture
from pipeline.laws.law import arguments, build, must

NUMBERS = tuple(field.name for field in fields(Domains) if field.name not in ("teacher", "names"))


@dataclass(frozen=True)
class Case:
    """A mixture with arguments."""

    method: Method
    arguments: dict[str, Any]
    mixture: Mixture

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])


def cases(method: Method) -> Iterator[Case]:
    """A mixture with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


def domains(count: int, **known: float) -> Domains:
    """Domains of all sorts; of each the numbers that are given are these."""
    draw = np.random.default_rng(0)
    columns = {name: draw.random(count) for name in NUMBERS}
    columns |= {name: 1 + columns[name] for name in ("teacher_ppl", "student_ppl", "cost")}
    columns |= {"prompts": draw.integers(1, 99, count).astype(np.float64)}
    columns |= {name: np.full(count, value) for name, value in known.items()}
    return Domains("teacher", np.array([f"d{i:02d}" for i in range(count)], object), **columns)


def shares_of_all(case: Case) -> None:
    """Weights are finite, not negative, one per domain, and sum to 1, also of one domain and of the worst. Divide by no
    sum that may be 0."""
    unknown = dict.fromkeys(NUMBERS, math.nan) | {"prompts": 1.0}
    for given in (domains(1), domains(7), domains(3, **unknown), domains(3, teacher_passed=0.0, student_passed=0.0)):
        weights = case.mixture(given)
        must(weights.shape == (len(given),), f"{len(given)} domains give weights of the shape {weights.shape}")
        must(bool(np.isfinite(weights).all() and (weights >= 0).all()), f"a weight is {weights.min()}")
        must(abs(weights.sum() - 1) < 1e-9, f"the weights sum to {weights.sum()}")


def only_what_is_known_counts(case: Case) -> None:
    """In another order the domains have the same weights, and what is given stays as it is. Look at values and not at
    places, and write into nothing."""
    given, before = domains(6), domains(6)
    weights, order = case.mixture(given), np.array([3, 0, 5, 1, 4, 2])
    moved = {name: getattr(given, name)[order] for name in (*NUMBERS, "names")}
    other = Domains(given.teacher, **moved)
    must(bool(np.allclose(case.mixture(other), weights[order], atol=1e-12)), "the order of the domains changes them")
    for name in NUMBERS:
        must(np.array_equal(getattr(given, name), getattr(before, name)), f"it writes into {name}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys((shares_of_all, only_what_is_known_counts), lambda case: True)
