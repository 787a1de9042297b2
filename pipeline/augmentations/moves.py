"""Pictures that are moved, turned over, or cut out: the same class at another place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.augmentation import Augmentation, Made, augmentation

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Share = Annotated[float, Field(ge=0, le=1)]
Least = Annotated[float, Field(gt=0, le=1)]
# Parts of a side that `led` sees of a picture.
GRID = 4


@augmentation(takes=("image",), keeps_signals=False)
def shifted(*, most: PositiveInt = 2) -> Augmentation:
    """Each picture is moved by up to `most` pixels in either direction; its border fills what becomes free.

    Paper: Krizhevsky et al. 2012 (AlexNet), translations.
    Differs: the border is repeated.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        image = inputs["image"]
        wide = torch.nn.functional.pad(image, [most] * 4, mode="replicate")
        corner_B2 = torch.randint(2 * most + 1, (len(image), 2), generator=draw)
        y_BH, x_BW = (corner_B2[:, i, None] + torch.arange(image.shape[2 + i]) for i in (0, 1))
        row_B = torch.arange(len(image))
        # Indices apart from each other come first: [B, H, W, C].
        moved = wide[row_B[:, None, None], :, y_BH[:, :, None], x_BW[:, None, :]]
        return Made({**inputs, "image": moved.permute(0, 3, 1, 2)}, row_B)

    return make


@augmentation(takes=("image",), keeps_signals=False)
def flipped(*, share: Share = 0.5) -> Augmentation:
    """A share of the pictures is turned over, left for right.

    Paper: Krizhevsky et al. 2012 (AlexNet), reflections.
    Differs: nothing.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        image = inputs["image"]
        turned_B = torch.rand(len(image), generator=draw) < share
        made = torch.where(turned_B[:, None, None, None], image.flip(3), image)
        return Made({**inputs, "image": made}, torch.arange(len(image)))

    return make


@augmentation(takes=("image",), keeps_signals=False)
def cropped(*, least: Least = 0.5) -> Augmentation:
    """Of each picture a part with at least this share of its area, in its own proportions, as large as the whole was.

    Paper: Szegedy et al. 2015 (GoogLeNet), crops.
    Differs: the proportions are kept; between pixels it is linear.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        image = inputs["image"]
        side_B = (least + (1 - least) * torch.rand(len(image), generator=draw)).sqrt()
        middle_B2 = (2 * torch.rand(len(image), 2, generator=draw) - 1) * (1 - side_B)[:, None]
        corner_B23 = torch.cat([side_B[:, None, None] * torch.eye(2), middle_B2[:, :, None]], 2)
        at_BHW2 = torch.nn.functional.affine_grid(corner_B23, list(image.shape), align_corners=False)
        made = torch.nn.functional.grid_sample(image, at_BHW2, padding_mode="border", align_corners=False)
        return Made({**inputs, "image": made}, torch.arange(len(image)))

    return make


@augmentation(takes=("image",), keeps_signals=False, learns=True)
def led(*, most: PositiveFloat = 2.0) -> Augmentation:
    """Each picture is moved by up to `most` pixels in either direction, as far as a small trained network says of the
    picture and of two numbers that are drawn; its border fills what becomes free.

    It learns in turns that train `led`: with a negative weight on what keeps the student by its teacher, it finds moves
    after which the two differ, and a term of the teacher's keeps these within what the teacher knows.
    Paper: inspired by Nix et al. 2023 (HARD, hard augmentations for robust distillation, arXiv 2305.14890), of whose
    augmentors and terms an abstract was read.
    Differs: one kind of augmentation, by a network of each picture; the border is repeated, and between pixels it is
    linear.
    """
    return Led(most)


class Led:
    """See `led`; `module` is what learns."""

    def __init__(self, most: float) -> None:
        nn = torch.nn
        self.most, self.module = most, nn.Sequential(nn.Linear(GRID**2 + 2, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh())

    def __call__(self, inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        at = next(self.module.parameters()).device
        image = inputs["image"].to(at)
        seen = torch.nn.functional.adaptive_avg_pool2d(image.mean(1, keepdim=True), GRID).flatten(1)
        drawn = torch.randn(len(image), 2, generator=draw).to(at)
        # The grid's unit is half of a side, the width first.
        half_2 = torch.tensor(image.shape[:1:-1], device=at) / 2
        by_B2 = self.module(torch.cat([seen, drawn], 1)) * self.most / half_2
        corner_B23 = torch.cat([torch.eye(2, device=at).expand(len(image), 2, 2), by_B2[:, :, None]], 2)
        at_BHW2 = torch.nn.functional.affine_grid(corner_B23, list(image.shape), align_corners=False)
        made = torch.nn.functional.grid_sample(image, at_BHW2, padding_mode="border", align_corners=False)
        return Made({**inputs, "image": made}, torch.arange(len(image)))
