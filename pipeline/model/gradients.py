"""Gradients of a model's loss on one text: in a few numbers, or followed for a step to see what it does elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.backend import PLAIN, Reading, Tokens, Want
from pipeline.model.folder import MOMENTS
from pipeline.tables import ids

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

# As in LESS, under the root.
EPSILON = 1e-8


class Learner(Protocol):
    """A model in this process that may learn from a text for a moment."""

    net: torch.nn.Module
    folder: Path | None

    def readings(self, sequences: Sequence[Tokens], want: Want) -> Iterable[Reading]:
        """What it says of them, without what is wanted of gradients."""
        ...

    def loss(self, tokens: Tokens) -> torch.Tensor:
        """Its mean loss over the tokens that are asked about, as a number that has a gradient."""
        ...


def studied(model: Learner, sequences: Sequence[Tokens], want: Want) -> Iterator[Reading]:
    """Its readings with what is wanted of their gradients, one by one, so that no other text counts."""
    by_id = {tokens.id: tokens for tokens in sequences}
    student = Student(model)
    moments = _moments(model.folder) if want.adam else {}
    before = student.mean(want.descent.target) if want.descent else 0.0
    for reading in model.readings(sequences, want):
        gradient = student.gradient(by_id[reading.id])
        found: dict[str, Any] = {}
        if want.gradient:
            direction = student.adams(gradient, moments) if want.adam else gradient
            found["gradient"] = student.projected(direction, want.gradient)
        if want.descent is not None:
            after = student.after(gradient, want.descent.rate, want.descent.target)
            found["descent"] = np.array([before, after], np.float64)
        yield replace(reading, **found)


def _moments(folder: Path | None) -> dict[str, torch.Tensor]:
    if folder is None or not (folder / MOMENTS).exists():
        raise Refused(f"a model without {MOMENTS} has no moments of AdamW: train it with `keep_moments: true`")
    from safetensors.torch import load_file

    return load_file(folder / MOMENTS)


def adams(
    gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, beta1: float, beta2: float
) -> torch.Tensor:
    """The direction in which AdamW with these moments would go by a gradient, without the correction for its start."""
    first, second = first.lerp(gradient, 1 - beta1), second.lerp(gradient**2, 1 - beta2)
    return first / (second + EPSILON).sqrt()


class Student:
    """A model whose weights are moved and put back; those that are shared are one weight."""

    def __init__(self, model: Learner) -> None:
        self.model = model
        self.weights = {name: weight for name, weight in model.net.named_parameters() if weight.requires_grad}
        self.drawn: dict[str, np.ndarray] = {}

    def gradient(self, tokens: Tokens) -> tuple[torch.Tensor, ...]:
        """The gradient of the mean loss on one text, by weight."""
        with torch.enable_grad():
            return torch.autograd.grad(self.model.loss(tokens), list(self.weights.values()), materialize_grads=True)

    def adams(self, gradient: Sequence[torch.Tensor], moments: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """`adams` of a gradient, by weight."""
        beta1, beta2 = moments["betas"].tolist()
        found = []
        for name, slope in zip(self.weights, gradient, strict=True):
            first, second = (moments[f"{order}.{name}"].to(slope.device) for order in ("first", "second"))
            found.append(adams(slope.float(), first, second, beta1, beta2))
        return found

    def mean(self, target: Sequence[Tokens]) -> float:
        """The mean over some texts of their mean losses."""
        losses = {reading.id: -reading.target_logprob.mean() for reading in self.model.readings(target, PLAIN)}
        return float(np.mean([losses[tokens.id] for tokens in target], dtype=np.float64))

    def after(self, gradient: Sequence[torch.Tensor], rate: float, target: Sequence[Tokens]) -> float:
        """`mean` where the weights have gone one step along the gradient."""
        with torch.no_grad():
            kept = [weight.clone() for weight in self.weights.values()]
            try:
                for weight, slope in zip(self.weights.values(), gradient, strict=True):
                    weight.sub_(slope, alpha=rate)
                return self.mean(target)
            finally:
                for weight, before in zip(self.weights.values(), kept, strict=True):
                    weight.copy_(before)

    def projected(self, gradient: Sequence[torch.Tensor], width: int) -> np.ndarray:
        """A gradient in `width` numbers, whose inner products are those of gradients up to about 1 / sqrt(width).

        Each number of a gradient is added to one of the places, or taken from it; which, is drawn by the weight's name,
        so that all texts, parts and checkpoints of one shape share a projection.
        """
        # Places 0, 2, 4 ... are added to, the next ones taken from.
        found = np.zeros(2 * width)
        for (name, weight), values in zip(self.weights.items(), gradient, strict=True):
            if name not in self.drawn:
                draw = ids.generator(width, "projection", name)
                self.drawn[name] = draw.integers(0, 2 * width, weight.numel(), np.int32)
            found += np.bincount(self.drawn[name], values.float().flatten().cpu().numpy(), 2 * width)
        return (found[::2] - found[1::2]).astype(np.float32)
