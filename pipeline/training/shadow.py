"""A shadow of the student: its moving average, or what it was at the end of the last epoch."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn


class Shadow:
    """Follows the student after every step or epoch: shadow = decay * shadow + (1 - decay) * student."""

    def __init__(self, every: Literal["step", "epoch"], decay: float) -> None:
        self.every, self.decay = every, decay
        self.module: nn.Module

    def begin(self, student: nn.Module) -> None:
        """Stand where the student stands."""
        self.module = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, *, ends_epoch: bool) -> None:
        """Take in a step of the student."""
        if self.every == "epoch" and not ends_epoch:
            return
        for own, new in zip(self.module.state_dict().values(), student.state_dict().values(), strict=True):
            if own.is_floating_point():
                own.lerp_(new.detach().to(own.dtype), 1 - self.decay)
            else:
                own.copy_(new)
