"""How a sample becomes noise and is made of it: x_t = signal(t) x + spread(t) e for t from 0 to 1, of which the squares
add up to 1 (the cosine schedule of Nichol & Dhariwal 2021, arXiv 2102.09672). Functions of tensors; torch comes later.

A *denoiser* D(x_t, t) gives the mean of the samples that x_t may have been made of. At t = 1 nothing is left of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.core.methods import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

# The least noise that anything is asked about.
FIRST = 0.02
Denoise = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def signal(t: torch.Tensor) -> torch.Tensor:
    """What is left of the sample; of t = 1 exactly nothing."""
    return torch.sin((1 - t) * (math.pi / 2))


def spread(t: torch.Tensor) -> torch.Tensor:
    """The deviation of the noise."""
    return torch.sin(t * (math.pi / 2))


def along(t_N: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A number of each place, shaped to be multiplied with what the place has."""
    return t_N.reshape(-1, *[1] * (x.dim() - 1))


def noised(x: torch.Tensor, noise: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
    """x_t of samples x [N, ...] at the times t_N."""
    return along(signal(t_N), x) * x + along(spread(t_N), x) * noise


def step(denoise: Denoise, x: torch.Tensor, t_N: torch.Tensor, s_N: torch.Tensor) -> torch.Tensor:
    """x_s of x_t by one step of DDIM: the noise that the denoiser sees in it is put back, less of it."""
    clean = denoise(x, t_N)
    noise = (x - along(signal(t_N), x) * clean) / along(spread(t_N), x)
    return noised(clean, noise, s_N)


def sampled(denoise: Denoise, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Samples [N, ...] of noise in so many steps of DDIM (Song et al. 2021, arXiv 2010.02502), evenly over t."""
    x = noise
    for number in range(steps, 0, -1):
        x = step(denoise, x, *(noise.new_full((len(x),), at / steps) for at in (number, number - 1)))
    return x
