"""Short words with a class: data that a small classifier learns, made by a procedure."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids
from pipeline.text.procedures import Dice

OUTCOMES = "abcd"
# This many repeats in a row mean that there are no other words.
REPEATS = 20_000


@source(verifiers=("text.exact",))
def commonest(
    *,
    rows: PositiveInt,
    seed: int,
    length: Annotated[int, Field(ge=3, le=60)] = 15,
    slip: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Rows:
    """Distinct words over a, b, c and d; the class is the letter that occurs most often, and no word has a tie.

    The domain is by how much it leads (`narrow` is by one). `slip` is the share of rows whose solution is another
    letter; references are always right, and the words do not depend on it.

    Paper: none; the task was made for this demonstration.
    Differs: nothing to differ from.
    """
    dice, repeats = Dice(ids.seed_of(seed, "letters.commonest", length)), 0
    seen: set[str] = set()
    while len(seen) < rows:
        word = dice.word(OUTCOMES, length)
        (first, most), *others = Counter(word).most_common(2)
        lead = most - (others[0][1] if others else 0)
        if word in seen or lead == 0:
            repeats += 1
            if repeats == REPEATS:
                raise Refused(
                    f"letters.commonest: words of {length} letters give only {len(seen)} rows, and {rows} are asked "
                    f"for. Ask for fewer, or for longer words."
                )
            continue
        repeats = 0
        seen.add(word)
        wrong = [letter for letter in OUTCOMES if letter != first]
        given = wrong[int(3 * ids.draw(seed, "wrong", word))] if ids.draw(seed, "slip", word) < slip else first
        yield GivenRow(
            f"letters.commonest seed {seed}",
            {
                "messages": [{"role": "user", "content": word}],
                "domain": "narrow" if lead == 1 else "wide",
                "level": 0 if lead > 1 else 1,
                "group": "".join(sorted(word)) + word[:3],
                "verifier": "text.exact",
                "reference": first,
                "solution": given,
            },
        )
