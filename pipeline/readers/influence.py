"""Readers: what a student would learn from an answer, from the gradient of its mean loss over the answer's tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from pipeline.kinds.backend import Descent, Reading, Want
from pipeline.kinds.reader import Reader, reader


@reader(want=lambda arguments: Want(gradient=arguments["width"], adam=arguments["adam"]))
def gradient(*, width: PositiveInt = 1024, adam: bool = False) -> Reader:
    """The direction of the gradient in `width` numbers as `vector`; the score is its length.

    With `adam` it is the direction that AdamW would take, with the moments of a training that has `keep_moments`: for
    answers to learn from, where a target's is the plain gradient. An entry reads with one checkpoint; `target.less`
    takes those of several after one another. Inner products are off by about 1 / sqrt(width).

    Paper: Xia et al. 2024 (LESS, arXiv 2402.04333), section 3: gradients of checkpoints, projected and of length 1.
    Differs: of all weights, where theirs are of a LoRA. Each number of the gradient goes to one place of the
    projection, with a random sign, so that a projection costs no more than the gradient.
    """

    def read(reading: Reading) -> dict[str, Any]:
        assert reading.gradient is not None
        found = reading.gradient.astype(np.float64)
        length = float(np.linalg.norm(found))
        return {
            "score": length,
            "quantities": [("width", float(width))],
            # What teaches nothing has no direction.
            "vector": (found / length).tolist() if length else None,
        }

    return read


@reader(want=lambda arguments: Want(descent=Descent(arguments["rate"])))
def one_step(*, rate: PositiveFloat = 1e-3) -> Reader:
    """By how much the mean loss on `target` falls when the student goes one step of gradient descent on the answer.

    `target` is a table of answers that are right, such as those of `recorded.solutions`; its quantities are the loss
    before and after the step.

    Paper: Liu et al. 2024 (ARTE, arXiv 2406.19227), the student's preference of a question with its rationale.
    Differs: theirs is the accuracy on the target with the answer as the example in the prompt, which a small student
    cannot make use of; a step on it stands for that. It is of the weights, and leaves them as they were.
    """

    def read(reading: Reading) -> dict[str, Any]:
        assert reading.descent is not None
        before, after = reading.descent.tolist()
        return {"score": before - after, "quantities": [("before", before), ("after", after)]}

    return read
