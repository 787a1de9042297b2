"""Mixtures by a formula: how far the student is behind, how often it is right, how much there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.kinds.mixture import Domains, Mixture, mixture, smoothed

Share = Annotated[float, Field(ge=0, le=1)]


@mixture(reads=("teacher_ppl", "student_ppl"))
def ddk(
    *, alpha: Share = 0.5, temperature: PositiveFloat = 1.0, previous: Mapping[str, NonNegativeFloat] | None = None
) -> Mixture:
    """A share by the exponential of the ratio of perplexities, student to teacher, on the teacher's answers.

    `previous` are the weights of the turn before, on which those of now are multiplied; `temperature` divides the
    ratio. A domain that was not read counts as one without a gap.

    Paper: Liu et al. 2024 (DDK, arXiv 2407.16154). Eq. 2; without `previous` and with alpha 1 it is eq. 1.
    Differs: without `previous`, too, (1 - alpha) is spread evenly, so no domain falls below (1 - alpha) / domains.
    """

    def mix(domains: Domains) -> np.ndarray:
        ratio = domains.student_ppl / domains.teacher_ppl
        ratio = np.where(np.isnan(ratio), 1.0, ratio) / temperature
        pull = np.exp(ratio - ratio.max())
        if previous is not None:
            pull = pull * np.array([previous.get(name, 0.0) for name in domains.names])
        return smoothed(pull, alpha)

    return mix


@mixture()
def behind(*, alpha: Share = 0.5) -> Mixture:
    """A share by how much more often the teacher's answers are solved than the student's.

    Paper: none; DDK's aim where no perplexities were read.
    Differs: nothing.
    """

    def mix(domains: Domains) -> np.ndarray:
        gap = np.nan_to_num(domains.teacher_passed) - np.nan_to_num(domains.student_passed)
        return smoothed(np.maximum(gap, 0.0), alpha)

    return mix


@mixture()
def band(*, low: Share = 0.2, high: Share = 0.8, alpha: Share = 1.0) -> Mixture:
    """Equal shares for the domains of which the student solves from `low` to `high` of its answers.

    What it never solves teaches it little yet, and what it always solves little more. Where no domain is in the band
    all get the same.

    Paper: Bae et al. 2025 (online difficulty filtering, arXiv 2504.03380): a band of pass rates.
    Differs: the band is of domains and not of prompts; `where` of a selection can hold prompts to one.
    """

    def mix(domains: Domains) -> np.ndarray:
        rate = domains.student_passed
        return smoothed(((rate >= low) & (rate <= high)).astype(np.float64), alpha)

    return mix


@mixture()
def size(*, temperature: PositiveFloat = 1.0) -> Mixture:
    """A share by the number of prompts to the power of 1 / temperature: 1 leaves the pool as it is, more evens it out.

    Paper: Arivazhagan et al. 2019 (massively multilingual translation, arXiv 1907.05019): sampling with a temperature.
    Differs: nothing.
    """

    def mix(domains: Domains) -> np.ndarray:
        return smoothed((domains.prompts / domains.prompts.max()) ** (1 / temperature), 1.0)

    return mix
