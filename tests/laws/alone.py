"""What the models of the laws say of a row by itself, each in its own words and without the network that is tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pipeline.tables.tensors import arrays


def causal_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """What the model itself says before every place of a row."""
    whole = model(torch.tensor([row["token_ids"]])).logits[0]
    return whole[[t - 1 for span in row["spans"] for t in range(span["start"], span["end"])]]


def shown_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """As `causal_logits`, with the picture."""
    image = torch.from_numpy(np.array(arrays(row["inputs"])["image"])).permute(2, 0, 1)[None]
    whole = model(torch.tensor([row["token_ids"]]), pixel_values=(image / 255 - 0.5) / 0.25).logits[0]
    return whole[[t - 1 for span in row["spans"] for t in range(span["start"], span["end"])]]


def class_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    return model(torch.tensor(arrays(row["inputs"])["tokens"][None].astype("int64"))).logits


def picture_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    image = torch.from_numpy(np.array(arrays(row["inputs"])["image"])).permute(2, 0, 1)[None]
    said = model((image / 255 - 0.5) / 0.25)
    return getattr(said, "logits", said)


def patch_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """By the encoder that has nothing to hide."""
    image = torch.from_numpy(np.array(arrays(row["inputs"])["image"])).permute(2, 0, 1)[None]
    return model.classifier(model.vit((image / 255 - 0.5) / 0.25).last_hidden_state[0, 1:])


def letter_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """A word at a time."""
    first, *others = arrays(row["inputs"])["tokens"].tolist()
    run = model.config.run
    words = [others[i : i + run] for i in range(0, len(others), run)]
    numbers = [sum(letter * 6**i for i, letter in enumerate(word)) for word in words]
    states = model.bert(torch.tensor([[first, *numbers]])).last_hidden_state[0, 1:]
    each = [state + model.offset.weight[i] for state, word in zip(states, words, strict=True) for i in range(len(word))]
    return model.classifier(torch.stack(each))


def pixel_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """Of a coarser map, the logits themselves made larger."""
    said = picture_logits(model, row)
    large = torch.nn.functional.interpolate(said, size=(8, 8), mode="bilinear", align_corners=False)
    return large[0].flatten(1).T


def point_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    parts = torch.from_numpy(np.array(arrays(row["inputs"])["parts"])).long()
    return picture_logits(model, row)[0, parts].flatten(1)


def node_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """By dense matrices."""
    given = {name: torch.from_numpy(np.array(value)) for name, value in arrays(row["inputs"]).items()}
    nodes = len(given["x"])
    near = torch.eye(nodes)
    if model.config.linked:
        near[given["edges"][0].long(), given["edges"][1].long()] = 1
    root = near.sum(1).rsqrt()
    near, seen = root[:, None] * near * root, given["x"]
    for layer in model.layers:
        seen = layer(near @ seen).relu()
    return model.classifier(near @ seen)[given["at"].long()]


def cloud_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    points = torch.from_numpy(np.array(arrays(row["inputs"])["points"]))[None]
    return model(points, torch.ones(points.shape[:2], dtype=torch.bool))


def by_area(said: torch.Tensor, at: torch.Tensor, shown: Mapping[str, Any]) -> torch.Tensor:
    """The mean of what is said of pixels `at`, for each area with points, or that of each by itself."""
    if "areas" not in shown:
        return said
    areas = torch.from_numpy(np.array(shown["areas"])).flatten().long()
    own = areas[torch.from_numpy(np.array(shown["pixel"])).long()].unique()
    return torch.stack([said[areas[at] == area].mean(0) for area in own])


def scene_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """Point by point, by its nearest."""
    shown = arrays(row["inputs"])
    points, seen = (torch.from_numpy(np.array(shown["points"])) for _ in range(2))
    near = torch.cdist(points, points).argsort(1)[:, : model.config.neighbours]
    for layer in model.layers:
        told = [torch.stack([torch.cat([seen[i], seen[j] - seen[i]]) for j in near[i]]) for i in range(len(points))]
        seen = torch.stack([layer.layer(each).relu().amax(0) for each in told])
    return by_area(model.classifier(seen), torch.from_numpy(np.array(shown["pixel"])).long(), shown)


def camera_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """Of all pixels of an area, or of the one where a point is seen."""
    shown = arrays(row["inputs"])
    said = picture_logits(model, row)[0].flatten(1).T
    pixel = torch.from_numpy(np.array(shown["pixel"])).long()
    return by_area(said, torch.arange(64), shown) if "areas" in shown else said[pixel]


def pair_logits(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """By the weights."""
    one, other = (torch.from_numpy(np.array(arrays(row["inputs"])[name])) for name in ("one", "other"))
    told, (scale, shift) = model.other.layer(other), model.other.moves(other).chunk(2)
    plain = (told - told.mean()) / (told.var(correction=0) + 1e-5).sqrt()
    return model.classifier((model.one(one) + plain * (1 + scale) + shift) / 2)[None]


def samples(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """What it makes in one step."""
    given = torch.from_numpy(np.array(arrays(row["inputs"])["noise"]))
    return model(given, torch.ones(len(given))).flatten(1)
