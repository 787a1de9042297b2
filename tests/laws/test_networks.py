"""Laws that every network obeys: what it shows of a batch is what its model says there, whatever else is in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.contracts import EXAMPLES
from pipeline.core.methods import find, shipped
from pipeline.errors import Refused
from pipeline.model import heads, taps
from pipeline.tables.tensors import arrays, cell
from pipeline.training.places import places
from tests.laws.alone import (
    camera_logits,
    causal_logits,
    class_logits,
    cloud_logits,
    letter_logits,
    node_logits,
    pair_logits,
    patch_logits,
    picture_logits,
    pixel_logits,
    point_logits,
    samples,
    scene_logits,
    shown_logits,
)
from tests.laws.models import (
    IMAGE,
    NAMES,
    PATCHES,
    VOCABULARY,
    bert,
    conv,
    deit,
    denoiser,
    gcn,
    gemma,
    gpt2,
    letters,
    llama,
    llava,
    mlp,
    painter,
    pair,
    patched,
    pixelwise,
    pointnet,
    points,
    segformer,
    surroundings,
    vit,
    words,
)


def rows(*lengths: int) -> pa.Table:
    """Examples of these lengths; the first has two spans."""
    made = []
    for i, length in enumerate(lengths):
        spans = [{"start": 2, "end": 4}, {"start": 6, "end": length}] if i == 0 else [{"start": 3, "end": length}]
        tokens = [(i * 5 + t * t + 2) % VOCABULARY for t in range(length)]
        made.append({"example_id": str(i), "prompt_id": str(i), "token_ids": tokens, "spans": spans, "weight": 1.0 + i})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in NAMES]))


def illustrated(*lengths: int) -> pa.Table:
    """Examples of these lengths behind a picture each, which stands after the first token."""
    plain, made = rows(*lengths).to_pylist(), []
    for i, row in enumerate(plain):
        tokens = [token if token != IMAGE else IMAGE + 1 for token in row["token_ids"]]
        spans = [{"start": span["start"] + PATCHES, "end": span["end"] + PATCHES} for span in row["spans"]]
        told = {"token_ids": [tokens[0], *[IMAGE] * PATCHES, *tokens[1:]], "spans": spans}
        made.append({**row, **told, "inputs": cell({"image": speckled(i, 8)})})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


def classed(inputs: Sequence[Mapping[str, np.ndarray]]) -> pa.Table:
    """What is shown, each with one of three classes; the last is unknown."""
    rows = [
        {
            "example_id": str(i), "prompt_id": str(i), "weight": 1.0 + i, "inputs": cell(each),
            "token_ids": [-1 if i + 1 == len(inputs) else i % 3], "spans": [{"start": 0, "end": 1}],
        }
        for i, each in enumerate(inputs)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


def named(*lengths: int) -> pa.Table:
    """Texts of these lengths, each with one of three classes; the last is unknown."""
    texts = ([(i * 5 + t * t + 2) % VOCABULARY for t in range(length)] for i, length in enumerate(lengths))
    return classed([{"tokens": np.array(text, np.int32)} for text in texts])


def pictured(*seeds: int) -> pa.Table:
    """Pictures, each with one of three classes; the last is unknown."""
    drawn = (np.random.default_rng(seed).integers(0, 256, (8, 8, 3)) for seed in seeds)
    return classed([{"image": image.astype(np.uint8)} for image in drawn])


def linked(*lengths: int) -> pa.Table:
    """Graphs of so many nodes in a ring; all but the first are asked about, and the last one is of no known class."""
    made = []
    for i, length in enumerate(lengths):
        x = np.random.default_rng(length).standard_normal((length, 3)).astype(np.float32)
        ring = np.arange(length), (np.arange(length) + 1) % length
        edges = np.stack([np.concatenate(ring), np.concatenate(ring[::-1])]).astype(np.int32)
        graph = {"x": x, "edges": edges, "at": np.arange(1, length, dtype=np.int32)}
        known = {"token_ids": [*(t % 3 for t in range(2, length)), -1], "spans": [{"start": 0, "end": length - 1}]}
        made.append({"example_id": str(i), "prompt_id": str(i), "weight": 1.0 + i, **known, "inputs": cell(graph)})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


def in_patches(*seeds: int) -> pa.Table:
    """Pictures of four patches; what stands at the last patch of the last one is unknown."""
    made = []
    for i, row in enumerate(pictured(*seeds).to_pylist()):
        hidden, last = np.zeros(4, np.uint8), -1 if i + 1 == len(seeds) else 0
        inputs = cell({**arrays(row["inputs"]), "hidden": hidden})
        made.append({**row, "inputs": inputs, "token_ids": [0, 0, 0, last], "spans": [{"start": 0, "end": 4}]})
    return pa.Table.from_pylist(made, pictured(*seeds).schema)


def spelt(*lengths: int) -> pa.Table:
    """Texts of these lengths, of which all letters but the first are places; the last letter of all is unknown."""
    made = []
    for i, length in enumerate(lengths):
        text = np.array([(i * 5 + t * t + 2) % 6 for t in range(length)], np.int32)
        known = [*text[1:-1].tolist(), -1 if i + 1 == len(lengths) else int(text[-1])]
        spans = [{"start": 0, "end": length - 1}]
        row = {"example_id": str(i), "prompt_id": str(i), "weight": 1.0 + i, "token_ids": known, "spans": spans}
        made.append({**row, "inputs": cell({"tokens": text})})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


def clouds(*lengths: int) -> pa.Table:
    """Clouds of so many points, each with one of three classes; the last is unknown."""
    drawn = (np.random.default_rng(length).standard_normal((length, 3)) for length in lengths)
    return classed([{"points": points.astype(np.float32)} for points in drawn])


def grain(*lengths: int) -> pa.Table:
    """Noise of which pictures are made."""
    return noise(*lengths, shape=(1, 3, 4))


def noise(*lengths: int, shape: tuple[int, ...] = (2,)) -> pa.Table:
    """So much noise, of which nothing is known."""
    made = []
    for i, length in enumerate(lengths):
        drawn = cell({"noise": np.random.default_rng(length).standard_normal((length, *shape)).astype(np.float32)})
        place = {"token_ids": [-1] * length, "spans": [{"start": 0, "end": length}]}
        made.append({"example_id": str(i), "prompt_id": str(i), "weight": 1.0 + i, **place, "inputs": drawn})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


def coloured(*seeds: int) -> pa.Table:
    """Pictures of 8 x 8 with a class for every pixel; the last one is unknown."""
    return dense(seeds, 64, lambda i: {"image": speckled(seeds[i], 8)})


def pointed(*seeds: int) -> pa.Table:
    """Pictures of 4 x 4 that are asked about two of three points, or about all; the last one is unknown."""
    parts = [np.array([0, 2] if i % 2 else [0, 1, 2], np.int32) for i in range(len(seeds))]
    return dense(seeds, 0, lambda i: {"image": speckled(seeds[i], 4), "parts": parts[i]})


def scanned(*lengths: int) -> pa.Table:
    """Scenes of so many points and a picture of 8 x 8 in four areas, of which the places are those with points; a scene
    of nine is without areas, so that every point of it is a place. The last place is unknown."""
    made = []
    for i, length in enumerate(lengths):
        dice = np.random.default_rng(length)
        pixel = dice.integers(0, 64, length).astype(np.int32)
        areas = (np.arange(64).reshape(8, 8) // 16).astype(np.int32)
        shown = {"points": dice.standard_normal((length, 3)).astype(np.float32), "image": speckled(length, 8)}
        shown |= {"pixel": pixel} | ({} if length == 9 else {"areas": areas})
        count = length if length == 9 else len(set(areas.flatten()[pixel]))
        known = {"token_ids": [*(t % 3 for t in range(count - 1)), -1], "spans": [{"start": 0, "end": count}]}
        made.append({"example_id": str(i), "prompt_id": str(i), "weight": 1.0 + i, **known, "inputs": cell(shown)})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


def two_vectors(*seeds: int) -> pa.Table:
    """Vectors of 3 and 5 numbers, each pair with one of three classes; the last is unknown."""
    drawn = (np.random.default_rng(seed).standard_normal(8).astype(np.float32) for seed in seeds)
    return classed([{"one": vector[:3], "other": vector[3:]} for vector in drawn])


def speckled(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def dense(seeds: Sequence[int], places: int, given: Callable[[int], dict[str, np.ndarray]]) -> pa.Table:
    """What is given of each, with a class for every place; the last is unknown."""
    made = []
    for i in range(len(seeds)):
        inputs = given(i)
        count = places or len(inputs["parts"])
        known = {"token_ids": [*(t % 3 for t in range(count - 1)), -1], "spans": [{"start": 0, "end": count}]}
        made.append({"example_id": str(i), "prompt_id": str(i), "weight": 1.0 + i, **known, "inputs": cell(inputs)})
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in (*NAMES, "inputs")]))


@dataclass(frozen=True)
class Case:
    """A network on a model: how rows for it are made, what its model says of one, and a tap of it."""

    network: str
    make: Callable[[], torch.nn.Module]
    rows: Callable[..., pa.Table]
    says: Callable[[Any, dict[str, Any]], torch.Tensor]
    tap: str

    def __str__(self) -> str:
        return f"{self.network}-{self.make.__name__}"

    def opened(self) -> tuple[Any, torch.nn.Module]:
        torch.manual_seed(0)
        return find("network", self.network).factory(), self.make()


CASES = [
    Case("language.causal", gpt2, rows, causal_logits, "transformer.h.0"),
    Case("language.causal", llama, rows, causal_logits, "model.layers.0"),
    Case("language.causal", gemma, rows, causal_logits, "model.layers.0"),
    Case("language.stacked", llava, illustrated, shown_logits, "model.language_model.layers.0"),
    Case("classifier.text", bert, named, class_logits, "bert.encoder.layer.0"),
    Case("classifier.image", vit, pictured, picture_logits, "vit.layers.0"),
    Case("classifier.image", deit, pictured, picture_logits, "deit.layers.0"),
    Case("classifier.image", conv, pictured, picture_logits, "blocks.1.0"),
    Case("masked.patches", patched, in_patches, patch_logits, "vit.layers.0"),
    Case("language.masked", letters, spelt, letter_logits, "bert.encoder.layer.0"),
    Case("language.masked", words, spelt, letter_logits, "bert.encoder.layer.0"),
    Case("dense.pixels", segformer, coloured, pixel_logits, "decode_head.linear_fuse"),
    Case("dense.pixels", pixelwise, coloured, pixel_logits, "blocks.1.0"),
    Case("dense.keypoints", points, pointed, point_logits, "blocks.1.0"),
    Case("graph.nodes", gcn, linked, node_logits, "layers.1"),
    Case("graph.nodes", mlp, linked, node_logits, "layers.1"),
    Case("points.cloud", pointnet, clouds, cloud_logits, "layers.1"),
    Case("points.scene", surroundings, scanned, scene_logits, "layers.0"),
    Case("points.scene", pixelwise, scanned, camera_logits, "blocks.1.0"),
    Case("pairs.encoder", pair, two_vectors, pair_logits, "other"),
    Case("points.denoiser", denoiser, noise, samples, "layers.1"),
    Case("images.denoiser", painter, grain, samples, "layers.1"),
]


def logits_of(network: Any, model: torch.nn.Module, table: pa.Table) -> torch.Tensor:
    with torch.no_grad():
        seen = network.look(model, network.collate(table), ())
        return seen.heads["main"](seen.states_ND)


every = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_network_has_models_here() -> None:
    assert set(shipped("network")) == {case.network for case in CASES}


@every
def test_places_are_what_the_model_says_there(case: Case) -> None:
    """On rows of many lengths, padded; and they are the places that `places` tells of, in its order."""
    network, model = case.opened()
    table = case.rows(9, 5, 40)
    found, logits = places(table), logits_of(network, model, table)
    with torch.no_grad():
        expected = torch.cat([case.says(model, row) for row in table.to_pylist()])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    listed = [
        (i, row["token_ids"][t])
        for i, row in enumerate(table.to_pylist())
        for span in row["spans"]
        for t in range(span["start"], span["end"])
    ]
    assert list(zip(found.example_N.tolist(), found.target_N.tolist(), strict=True)) == listed
    assert found.weight_B.tolist() == [1.0, 2.0, 3.0]
    known = sum(target >= 0 for _, target in listed)
    unknown = len(listed) - known
    assert found.counts == {"place": len(listed), "labelled": known, "unlabelled": unknown, "example": 3, "set": 3}


@every
def test_rows_in_another_order_are_the_places_in_another_order(case: Case) -> None:
    network, model = case.opened()
    table = case.rows(9, 7, 12)
    forth, back = logits_of(network, model, table), logits_of(network, model, table.take(pa.array([2, 1, 0])))
    rows = places(table).example_N
    order = torch.cat([(rows == i).nonzero()[:, 0] for i in (2, 1, 0)])
    torch.testing.assert_close(back, forth[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if getattr(case.opened()[0], "apart", False)], ids=str)
def test_rows_that_are_collated_apart_are_a_part_of_all(case: Case) -> None:
    """What the trainer takes out of a table that is collated once is what it would have collated."""
    network, _ = case.opened()
    table, some = case.rows(9, 7, 12), [2, 0]
    every, few = network.collate(table), network.collate(table.take(pa.array(some)))
    assert all(torch.equal(every[name][some], few[name]) for name in few)
    taken, made = places(table).among(torch.tensor(some)), places(table.take(pa.array(some)))
    for name in ("target_N", "example_N", "size_R", "weight_B", "set_B", "counts"):
        torch.testing.assert_close(getattr(taken, name), getattr(made, name))


@every
def test_taps_stand_at_the_places(case: Case) -> None:
    network, model = case.opened()
    table = case.rows(9, 5)
    with torch.no_grad():
        seen = network.look(model, network.collate(table), ("last", case.tap))
        alone = network.look(model, network.collate(case.rows(9)), (case.tap,))
    assert seen.features["last"].shape == seen.features[case.tap].shape == (len(places(table).target_N), 16)
    first = alone.features[case.tap]
    torch.testing.assert_close(seen.features[case.tap][: len(first)], first, rtol=1e-4, atol=1e-5)
    assert seen.features["last"].std() > 0 and not torch.equal(seen.features["last"], seen.features[case.tap])
    with pytest.raises(Refused, match="no tap 'nowhere'"):
        network.look(model, network.collate(table), ("nowhere",))


@pytest.mark.parametrize("case", [c for c in CASES if "look" in find("network", c.network).traits["gives"]], ids=str)
def test_what_is_put_at_the_places_is_there(case: Case) -> None:
    """And nowhere else: what was there, put back, changes nothing. A frozen model hands its gradient on to it."""
    network, model = case.opened()
    model.requires_grad_(False)
    inputs = network.collate(case.rows(9, 5))
    before = network.look(model, inputs, ("last", case.tap)).features
    other = torch.full_like(before[case.tap], 0.5).requires_grad_()

    def features(make: Callable[[torch.Tensor], torch.Tensor]) -> Mapping[str, torch.Tensor]:
        with taps.put(model, {case.tap: lambda output: network.put(output, inputs, make)}):
            seen: Mapping[str, torch.Tensor] = network.look(model, inputs, ("last", case.tap)).features
        return seen

    torch.testing.assert_close(features(lambda states: states)["last"], before["last"])
    half = features(lambda states: torch.where(torch.arange(len(states))[:, None] < 1, other, states))[case.tap]
    torch.testing.assert_close(half[1:], before[case.tap][1:])
    changed = features(lambda states: other)
    torch.testing.assert_close(changed[case.tap], other)
    assert not torch.allclose(changed["last"], before["last"], atol=1e-3)
    (gradient,) = torch.autograd.grad(changed["last"].square().sum(), other)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    torch.testing.assert_close(network.look(model, inputs, ("last",)).features["last"], before["last"])
    with pytest.raises(Refused, match="no tap 'nowhere'"), taps.put(model, {"nowhere": lambda output: output}):
        pass


@every
def test_a_gradient_reaches_every_weight(case: Case) -> None:
    network, model = case.opened()
    seen = network.look(model, network.collate(case.rows(9, 5)), ())
    seen.heads["main"](seen.states_ND).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    # The last norm of a vision tower is for its pooled state, which is not shown.
    assert all(name in reached or "post_layernorm" in name for name, _ in model.named_parameters())


@every
def test_it_is_kept_and_opened_to_the_same_bits(case: Case, tmp_path: Path) -> None:
    network, model = case.opened()
    network.save(model, tmp_path)
    table = case.rows(9, 5)
    again = network.load(tmp_path, "float32")
    torch.testing.assert_close(logits_of(network, again, table), logits_of(network, model, table), rtol=1e-6, atol=1e-6)


def test_a_first_token_that_nothing_predicts_is_refused() -> None:
    table = rows(9).to_pylist()
    table[0]["spans"] = [{"start": 0, "end": 3}]
    broken = pa.Table.from_pylist(table, rows(9).schema)
    with pytest.raises(ValueError, match="nothing predicts it"):
        find("network", "language.causal").factory().collate(broken)


def test_a_wrong_network_breaks_a_law() -> None:
    """The laws can fail: a place that is one off, and one that sees the padding."""

    class OneOff:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def collate(self, table: pa.Table) -> dict[str, torch.Tensor]:
            inputs = self.inner.collate(table)
            return {**inputs, "at_N": inputs["at_N"] + 1}

        def look(self, *given: Any) -> Any:
            return self.inner.look(*given)

    network, model = CASES[1].opened()
    with torch.no_grad():
        expected = torch.cat([causal_logits(model, row) for row in rows(9, 5).to_pylist()])
    assert not torch.allclose(logits_of(OneOff(network), model, rows(9, 5)), expected, rtol=1e-2)


NAMING = [case for case in CASES if "student_NV" in find("network", case.network).traits["gives"]]


@pytest.mark.parametrize("case", NAMING, ids=str)
def test_heads_beside_its_own_are_kept_and_looked_at(case: Case, tmp_path: Path) -> None:
    """To the bit, in a folder of their own: other programs find the model that they know."""
    network, model = case.opened()
    network.save(model, tmp_path)
    plain = {file.name for file in tmp_path.iterdir()}
    made = torch.nn.Linear(16, 5)
    heads.attach(model, {"kd": made}, {"kd": heads.Share(share=0.25)})
    (tmp_path / "more").mkdir()
    network.save(model, tmp_path / "more")
    assert {file.name for file in (tmp_path / "more").iterdir()} == plain | {"heads"}
    assert (tmp_path / "more/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    loaded = network.load(tmp_path / "more", "float32")
    assert heads.shares(loaded) == {"kd": heads.Share(share=0.25)} and heads.of(network.load(tmp_path, "float32")) == {}
    inputs = network.collate(case.rows(9, 5))
    if case.make is gemma:
        with pytest.raises(Refused, match="does more to its logits than its head does"):
            network.look(loaded, inputs, ())
        return
    with torch.no_grad():
        one, other = (network.look(each, inputs, ()) for each in (model, loaded))
        assert torch.equal(one.heads["kd"](one.states_ND), other.heads["kd"](other.states_ND))
        assert other.heads["kd"](other.states_ND).shape == (len(other.states_ND), 5)


def test_a_part_of_a_network_is_what_is_cut_out_of_it(tmp_path: Path) -> None:
    """Of the last layers and the first numbers within; more than there are is all, and all is left as it was."""
    for name in ("base", "small"):
        (tmp_path / name).mkdir()
    sizes = {"width": 8, "layers": 3, "heads": 2, "context": 16}
    card = find("origin", "text.masked").factory(alphabet="abcd", seed=1, run=1, **sizes)(tmp_path / "base")
    (tmp_path / "base/model.json").write_text(json.dumps(card), "utf-8")
    network = find("network", "language.masked").factory()
    begun = network.load(tmp_path / "base", "float32")
    with torch.no_grad():
        for weight in begun.parameters():
            weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(weight.numel()))
    network.save(begun, tmp_path / "base")
    find("builder", "parts.extracted").factory(layers=2, width=5)(tmp_path / "base", tmp_path, tmp_path / "small", 0)
    net, small = (network.load(tmp_path / name, "float32") for name in ("base", "small"))
    inputs, tap = network.collate(spelt(9, 5)), "bert.encoder.layer.{}.attention.self.key"

    def seen(model: torch.nn.Module, shape: list[int] | None, layer: int) -> Mapping[str, torch.Tensor]:
        shaped = inputs if shape is None else {**inputs, "shape": torch.tensor([shape]).expand(2, -1)}
        with torch.no_grad():
            features: Mapping[str, torch.Tensor] = network.look(model, shaped, ("last", tap.format(layer))).features
        return {"last": features["last"], "key": features[tap.format(layer)]}

    whole, part, cut = seen(net, None, 2), seen(net, [2, 5], 2), seen(small, None, 1)
    for name in ("last", "key"):
        torch.testing.assert_close(part[name], cut[name], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(part[name], whole[name], atol=1e-3)
        torch.testing.assert_close(seen(net, [3, 99], 2)[name], whole[name])
        torch.testing.assert_close(seen(net, None, 2)[name], whole[name])
    with pytest.raises(Refused, match="has 3 layers of 32 numbers, and 4 of 5 are asked for"):
        find("builder", "parts.extracted").factory(layers=4, width=5)(tmp_path / "base", tmp_path, tmp_path / "x", 0)
    with pytest.raises(Refused, match="has no layers that could be left out"):
        network.look(letters_without_layers(), {**inputs, "shape": torch.tensor([[1, 1]])}, ())


def letters_without_layers() -> torch.nn.Module:
    model: Any = letters()
    del model.bert.encoder.layer
    return model
