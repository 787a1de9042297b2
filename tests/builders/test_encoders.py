"""A classifier that begins with another model's encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.model.folder import network_of  # noqa: E402
from tests.networks.test_classifier import made  # noqa: E402

PICTURES: dict[str, Any] = {"size": [8, 8], "channels": 1, "patch": 4, "layers": 1, "heads": 2}
TEXTS: dict[str, Any] = {"alphabet": "acgt", "layers": 1, "heads": 2, "context": 16}
NAMES: dict[str, Any] = {"outcomes": ["a", "b"], "seed": 1}


def opened(folder: Path) -> Any:
    return find("network", network_of(folder / "tokenizer")).factory().load(folder, "float32")


@pytest.mark.parametrize(
    ("base", "donor", "given"), [("vision.vit", "vision.patches", PICTURES), ("text.bert", "text.masked", TEXTS)]
)
def test_the_encoder_is_the_donors_and_the_head_the_bases(
    tmp_path: Path, base: str, donor: str, given: dict[str, Any]
) -> None:
    one = made(tmp_path / "base", base, **given, width=8, **NAMES)
    two = made(tmp_path / "donor", donor, **given, width=8, seed=2)
    out = tmp_path / "out"
    out.mkdir()
    taken = find("builder", "encoders.taken").factory()
    (out / "model.json").write_text(json.dumps(taken(one, two, out, 0)), "utf-8")
    net, begins, gives = opened(out), opened(one), opened(two)
    weights, own = net.base_model.state_dict(), begins.base_model.state_dict()
    theirs = gives.base_model.state_dict()
    assert all(torch.equal(weights[name], theirs.get(name, own[name])) for name in weights)
    assert sum(not torch.equal(weights[name], own[name]) for name in weights) > 5
    assert torch.equal(net.classifier.weight, begins.classifier.weight)
    wide = made(tmp_path / "wide", donor, **given, width=16, seed=2)
    with pytest.raises(Refused, match=r"the encoder of wide is not as large as that of base: .* differs"):
        taken(one, wide, tmp_path, 0)


def test_two_classifiers_look_at_a_half_each(tmp_path: Path) -> None:
    """What either half shows moves its own states alone, which are those of the classifier that it was."""
    one = made(tmp_path / "one", "vision.vit", **PICTURES, width=8, **NAMES)
    two = made(tmp_path / "two", "vision.conv", **{k: PICTURES[k] for k in ("size", "channels")}, widths=[8], **NAMES)
    out = tmp_path / "out"
    out.mkdir()
    fused = find("builder", "encoders.fused").factory()
    (out / "model.json").write_text(json.dumps(fused(one, two, out, 3)), "utf-8")
    network, net = find("network", "classifier.image").factory(), opened(out)
    assert network.outcomes(out / "tokenizer") == ["a", "b"] and network.width(net) == 2
    image = torch.rand(2, 1, 8, 16)
    with torch.no_grad():
        both = network.look(net, {"image": image}, ()).states_ND
        halves = [
            network.look(opened(folder), {"image": half}, ()).states_ND
            for folder, half in zip((one, two), image.chunk(2, 3), strict=True)
        ]
    torch.testing.assert_close(both, torch.cat(halves, 1))
    wide = made(tmp_path / "wide", "vision.vit", **{**PICTURES, "size": [8, 12]}, width=8, **NAMES)
    with pytest.raises(Refused, match="one and wide do not look at pictures of one size"):
        fused(one, wide, tmp_path, 0)
