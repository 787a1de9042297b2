"""Laws of transforms: signals of the same places, whole distributions, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pipeline.core.graph import adds
from pipeline.core.methods import Method
from pipeline.kinds.transform import Signals, Transform
from pipeline.laws.law import arguments, build, must

# Examples, places, outcomes, and the width of a tap.
B, N, V, D = 40, 60, 4, 6
TAP = "last"


@dataclass(frozen=True)
class Case:
    """A transform with arguments, on whole distributions or on stored ones of the likeliest outcomes."""

    method: Method
    arguments: dict[str, Any]
    transform: Transform
    k: int

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items()), f"K={self.k}"])

    def beside(self) -> Signals:
        """The other table: another teacher's on the same examples where it must be, else others of the same teacher."""
        return table(1, self.k, of=0 if self.method.traits.get("aligned") else 1)


def cases(method: Method) -> Iterator[Case]:
    """A transform with several arguments; on stored top-k only where it takes them."""
    for given in arguments(method, {"tap": TAP}):
        for k in (V, V - 1) if method.traits.get("topk", True) else (V,):
            yield Case(method, given, build(method, given), k)


def table(seed: int, k: int = V, of: int | None = None) -> Signals:
    """Signals of a teacher that has a head of its states, on the examples `of` a seed, or of the same one; a fifth of
    the outcomes are unknown."""
    rows, draw = np.random.default_rng(seed if of is None else of), np.random.default_rng([seed, 1])
    row_N = np.sort(np.concatenate([np.arange(B), rows.integers(0, B, N - B)]))
    target_N, weight_B, unknown_N = rows.integers(0, V, N), rows.random(B) + 0.5, rows.random(N) < 0.2
    states_ND = draw.normal(size=(N, D)) + 2 * np.eye(V, D)[target_N]
    logits_NV = states_ND @ np.random.default_rng(9).normal(size=(D, V))
    log_p = logits_NV - np.log(np.exp(logits_NV).sum(1, keepdims=True))
    ids_NK = np.argsort(-log_p, axis=1, kind="stable")[:, :k]
    top = np.take_along_axis(log_p, ids_NK, 1)
    return Signals(
        example_B=np.array([f"{i:04d}" for i in range(B)]),
        weight_B=weight_B.astype(np.float32),
        row_N=row_N,
        target_N=np.where(unknown_N, -1, target_N),
        ids_NK=ids_NK.astype(np.int32),
        logprobs_NK=top.astype(np.float32),
        tail_N=np.clip(1 - np.exp(top).sum(1), 0, 1).astype(np.float32),
        target_logprob_N=log_p[np.arange(N), target_N].astype(np.float32),
        features={TAP: states_ND.astype(np.float32)},
        said_B=np.array([{"Is it large?": ["yes", "no", None][i % 3 :], "Is it red?": ["no"]} for i in range(B)]),
    )


def same_places_whole_distributions(case: Case) -> None:
    """It gives the same examples and places; K outcomes a place, likeliest first, none twice, that sum with the tail to
    1; finite numbers; and the taps that it declares. Use `with_outcomes` and `with_feature`, and give `adds`."""
    given = table(0, case.k)
    made = case.transform(given, case.beside(), 0)
    for name in ("example_B", "row_N", "target_N"):
        must(np.array_equal(getattr(made, name), getattr(given, name)), f"{name} is another one")
    must(len({len(made.row_N), len(made.ids_NK), len(made.logprobs_NK), len(made.tail_N)}) == 1, "places are missing")
    must(made.ids_NK.shape == made.logprobs_NK.shape, "it has as many outcomes as log-probabilities in no place")
    mass_N = np.exp(made.logprobs_NK).sum(1) + made.tail_N
    must(bool(np.abs(mass_N - 1).max() < 1e-3), f"a distribution sums to {mass_N[np.abs(mass_N - 1).argmax()]}")
    must(bool((np.diff(made.logprobs_NK, axis=1) <= 0).all()), "the likeliest outcome does not stand first")
    must(all(len({*row}) == len(row) for row in made.ids_NK.tolist()), "an outcome stands twice in a place")
    numbers = [made.weight_B, made.logprobs_NK, made.tail_N, made.target_logprob_N, *made.features.values()]
    must(all(np.isfinite(each).all() for each in numbers), "a number is not finite")
    added = set(made.features) - set(given.features)
    filled = case.method.arguments.model_validate(case.arguments).model_dump()
    must(added == {*adds(case.method, filled)}, f"it adds the taps {sorted(added)}")
    must(all(len(each) == N for each in made.features.values()), "a tap has not a row for every place")


def order_of_examples_is_irrelevant(case: Case) -> None:
    """The order of the examples means nothing. Break ties by value, and draw by name."""
    given, beside = table(0, case.k), case.beside()
    order = np.random.default_rng(5).permutation(B)
    aligned = case.method.traits.get("aligned")
    first = turned(case.transform(given, beside, 0), order)
    second = case.transform(turned(given, order), turned(beside, order) if aligned else beside, 0)
    for field in fields(Signals):
        one, two = getattr(first, field.name), getattr(second, field.name)
        pairs = [(one[tap], two[tap]) for tap in one] if isinstance(one, dict) else [(one, two)]
        for a, b in pairs:
            near = np.allclose(a, b, atol=1e-4) if a.dtype.kind == "f" else np.array_equal(a, b)
            must(near, f"{field.name} differs")


def turned(signals: Signals, order: np.ndarray) -> Signals:
    """The same examples in another order; they keep their names."""
    at = np.concatenate([np.flatnonzero(signals.row_N == i) for i in order])
    place = np.argsort(order)
    return replace(
        signals,
        row_N=place[signals.row_N[at]],
        features={name: value[at] for name, value in signals.features.items()},
        **{f.name: getattr(signals, f.name)[order] for f in fields(Signals) if f.name.endswith("_B")},
        **{
            f.name: getattr(signals, f.name)[at]
            for f in fields(Signals)
            if f.name.endswith(("_N", "_NK")) and f.name != "row_N"
        },
    )


def a_function_of_what_it_is_given(case: Case) -> None:
    """A second call gives the same, another seed something else only where `random` says so, and what it is given
    stays as it is. Keep nothing, and write into nothing."""
    given, beside = table(0, case.k), case.beside()
    first, second, other = (case.transform(given, beside, seed) for seed in (0, 0, 1))
    must(same(first, second), "a second call gives something else")
    must(same(given, table(0, case.k)) and same(beside, case.beside()), "it writes into what it is given")
    if not case.method.traits["random"]:
        must(same(first, other), "another seed gives something else; say `random=True`")


def same(one: Signals, other: Signals) -> bool:
    """Whether two tables are equal to the bit."""
    plain = [f.name for f in fields(Signals) if f.name != "features"]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in plain) and (
        one.features.keys() == other.features.keys()
        and all(np.array_equal(value, other.features[name]) for name, value in one.features.items())
    )


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (same_places_whole_distributions, order_of_examples_is_irrelevant, a_function_of_what_it_is_given),
    lambda case: True,
)
