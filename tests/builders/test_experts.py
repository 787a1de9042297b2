"""Experts begin as the layer that they are made of, and what is no Llama is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")

from pipeline.contracts import EXAMPLES  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.laws.builder import model, opened  # noqa: E402
from pipeline.laws.law import build  # noqa: E402
from pipeline.tables.tensors import cell  # noqa: E402

ROUTER = "model.language_model.layers.0.mlp.gate"


def made(out: Path, network: str = "language.stacked", **given: Any) -> tuple[Path, Path]:
    """The folders of a model and of what is made of it."""
    base = Path(model(network, 0).name) / "model_0"
    out.mkdir()
    card = build(find("builder", "experts.upcycled"), given)(base, base, out, 3)
    (out / "model.json").write_text(json.dumps(card), "utf-8")
    return base, out


def shown(folder: Path, *taps: str) -> Any:
    """What a model shows of an answer to a picture."""
    network, net = opened(folder)
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    inputs = cell({"image": picture})
    packed = network.pack(folder / "tokenizer", [{"role": "user", "content": "abba"}], "dad", inputs)
    spans = [{"start": start, "end": end} for start, end in packed.spans]
    row = {"token_ids": packed.token_ids, "spans": spans, "inputs": inputs}
    schema = pa.schema([EXAMPLES.schema.field(name) for name in row])
    with torch.no_grad():
        return network.look(net, network.collate(pa.Table.from_pylist([row], schema)), taps)


def test_what_is_made_says_what_the_base_said_whatever_its_router_picks(tmp_path: Path) -> None:
    base, out = made(tmp_path / "out", experts=3, chosen=2)
    torch.testing.assert_close(shown(out).states_ND, shown(base).states_ND, rtol=0, atol=1e-5)
    _, net = opened(out)
    weights = dict(net.named_parameters())
    experts = weights["model.language_model.layers.0.mlp.experts.down_proj"]
    assert experts.shape[0] == 3 and torch.equal(experts[0], experts[2])
    assert shown(out, ROUTER).features[ROUTER].shape == (4, 3)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "another kind of model": ({"network": "language.causal"}, "model_0 is no Llama without biases"),
    "more chosen than there are": ({"experts": 2, "chosen": 3}, "3 of 2 experts cannot be chosen"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_made_so_is_refused(case: str, tmp_path: Path) -> None:
    given, told = CASES[case]
    with pytest.raises(Refused, match=told):
        made(tmp_path / "out", **given)
