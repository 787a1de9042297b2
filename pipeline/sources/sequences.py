"""Sequences made by a procedure: of letters, and of what users of a shop take."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids

BASES = "acgt"
Share = Annotated[float, Field(ge=0, le=1)]


@source(verifiers=("text.exact",))
def dna(
    *,
    rows: PositiveInt,
    seed: int,
    length: Annotated[int, Field(ge=6, le=500)] = 36,
    motifs: Annotated[int, Field(ge=2, le=64)] = 4,
    motif: Annotated[int, Field(ge=3)] = 9,
    copies: PositiveInt = 2,
    step: PositiveInt = 3,
    mutated: Share = 0.1,
    slip: Share = 0.0,
) -> Rows:
    """DNA by a Markov chain, in which `copies` of one of the `motifs` stand, each letter of them changed with the
    probability `mutated`; the class is which motif it is.

    Motifs of `motif` letters and the chain, in which the next letter hangs on the two before it, are drawn once for all
    seeds. A copy begins at a multiple of `step`, as a codon does. The solution of a share of `slip` is another motif.

    Paper: none; the task was made for this demonstration.
    Differs: nothing to differ from.
    """
    if copies * (motif + step) > length:
        raise Refused(f"sequences.dna: {copies} copies of {motif} letters do not fit {length}; ask for more `length`")
    laws = ids.generator(0, "sequences.dna", motifs, motif)
    planted = laws.integers(4, size=(motifs, motif))
    chain = laws.dirichlet(np.full(4, 0.7), size=(4, 4)).cumsum(2)
    names = [f"motif {i}" for i in range(motifs)]
    for number in range(rows):
        dice = ids.generator(seed, "sequences.dna", number)
        letters, which = list(dice.integers(4, size=2)), int(dice.integers(motifs))
        for chance in dice.random(length - 2):
            letters.append(int(np.searchsorted(chain[letters[-2], letters[-1]], chance).clip(0, 3)))
        free = length // copies // step * step
        for copy in range(copies):
            start = copy * free + step * int(dice.integers((free - motif) // step + 1))
            changed = np.where(dice.random(motif) < mutated, dice.integers(4, size=motif), planted[which])
            letters[start : start + motif] = changed.tolist()
        others = [name for i, name in enumerate(names) if i != which]
        wrong = ids.draw(seed, "slip", number) < slip
        yield GivenRow(
            f"sequences.dna seed {seed} row {number}",
            {
                "messages": [{"role": "user", "content": "".join(BASES[letter] for letter in letters)}],
                "domain": "dna",
                "verifier": "text.exact",
                "reference": names[which],
                "solution": others[int(len(others) * ids.draw(seed, "wrong", number))] if wrong else names[which],
            },
        )


@source(verifiers=("text.exact",))
def baskets(
    *,
    rows: PositiveInt,
    seed: int,
    ask: Literal["item", "next"] = "item",
    kinds: Annotated[int, Field(ge=2, le=64)] = 8,
    items: Annotated[int, Field(ge=2, le=1000)] = 240,
    latent: PositiveInt = 6,
    own: PositiveInt = 8,
    strengths: tuple[NonNegativeFloat, NonNegativeFloat] = (0.7, 1.5),
    numbers: tuple[PositiveInt, PositiveInt] = (24, 48),
    noise: NonNegativeFloat = 0.1,
    hides: Literal["nothing", "one", "other"] = "nothing",
    length: PositiveInt = 8,
    stray: Share = 0.1,
) -> Rows:
    """Things of a shop in two vectors each, or what its users took. With `ask: item`, a new thing's two vectors, `one`
    of who took it and `other` of what its text means: both mix `latent` numbers, which hang on its kind, with as many
    as `own` of their own, so many times as strong; what it `hides` is all zeros; the class is the kind. With `ask:
    next`, the names of `length` things that a user took one after another, of `items` in all; the class is the kind of
    the next, which hangs on the kind of the last and is, with the probability `stray`, any.

    Kinds, what follows them, and how vectors are mixed are drawn once for all seeds.

    Paper: none; the task was made for this demonstration of PRORec 2025 (arXiv 2502.06269).
    Differs: nothing to differ from.
    """
    if items < kinds:
        raise Refused(f"sequences.baskets: {items} items cannot be of {kinds} kinds; ask for more `items`")
    laws = ids.generator(0, "sequences.baskets", kinds, latent, own, *numbers)
    meant = laws.normal(size=(kinds, latent))
    mixes = [laws.normal(size=(latent + own, width)) / np.sqrt(latent + own) for width in numbers]
    follows = laws.permutation(kinds)
    kind_of = np.arange(items) % kinds
    for number in range(rows):
        dice = ids.generator(seed, "sequences.baskets", number)
        if ask == "item":
            kind = int(dice.integers(kinds))
            vectors = _vectors(dice, meant[kind], mixes, own, strengths, noise)
            shown = {name: np.zeros_like(vector) if name == hides else vector for name, vector in vectors.items()}
            told: dict[str, object] = {"inputs": shown}
        else:
            walk = [int(dice.integers(kinds))]
            for _ in range(length):
                walk.append(int(dice.integers(kinds)) if dice.random() < stray else int(follows[walk[-1]]))
            *taken, kind = walk
            names = [f"i{dice.choice(np.flatnonzero(kind_of == each)):03d}" for each in taken]
            told = {"messages": [{"role": "user", "content": " ".join(names)}]}
        name = f"kind {kind}"
        told |= {"domain": "baskets", "verifier": "text.exact", "reference": name, "solution": name}
        yield GivenRow(f"sequences.baskets seed {seed} row {number}", told)


def _vectors(
    dice: np.random.Generator,
    meant: np.ndarray,
    mixes: list[np.ndarray],
    own: int,
    strengths: tuple[float, float],
    noise: float,
) -> dict[str, np.ndarray]:
    """The two vectors of a thing that means so much, and a little of its own."""
    meant = meant + 0.2 * dice.normal(size=len(meant))
    found = {}
    for name, mix, strength in zip(("one", "other"), mixes, strengths, strict=True):
        whole = np.concatenate([meant, strength * dice.normal(size=own)]) @ mix
        found[name] = (whole + noise * dice.normal(size=len(whole))).astype(np.float32)
    return found
