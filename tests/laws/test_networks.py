"""Laws that every network obeys: what it shows of a batch is what its model says there, whatever else is in it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
import transformers

from pipeline.contracts import EXAMPLES
from pipeline.core.methods import available, find
from pipeline.errors import Refused
from pipeline.training.places import places

VOCABULARY = 24
SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1}
LLAMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip


def gpt2() -> torch.nn.Module:
    config = transformers.GPT2Config(n_positions=64, n_embd=16, n_layer=2, n_head=2, **SHAPE)
    return transformers.GPT2LMHeadModel(config).eval()


def llama() -> torch.nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, **LLAMA)).eval()


def gemma() -> torch.nn.Module:
    """Its logits are more than its head: they are capped."""
    return transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**SHAPE, **LLAMA, final_logit_softcapping=0.5)
    ).eval()


MODELS = {"language.causal": (gpt2, llama, gemma)}
TAPS = {"language.causal": {gpt2: "transformer.h.0", llama: "model.layers.0", gemma: "model.layers.0"}}
CASES = [(name, make) for name in available("network") for make in MODELS.get(name, ())]


def rows(*lengths: int) -> pa.Table:
    """Examples of these lengths; the first has two spans."""
    made = []
    for i, length in enumerate(lengths):
        spans = [{"start": 2, "end": 4}, {"start": 6, "end": length}] if i == 0 else [{"start": 3, "end": length}]
        tokens = [(i * 5 + t * t + 2) % VOCABULARY for t in range(length)]
        made.append({"example_id": str(i), "prompt_id": str(i), "token_ids": tokens, "spans": spans, "weight": 1.0 + i})
    names = ("example_id", "prompt_id", "token_ids", "spans", "weight")
    return pa.Table.from_pylist(made, pa.schema([EXAMPLES.schema.field(name) for name in names]))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].__name__}")
def case(request: pytest.FixtureRequest) -> tuple[Any, torch.nn.Module, str]:
    name, make = request.param
    torch.manual_seed(0)
    return find("network", name).factory(), make(), TAPS[name][make]


def logits_of(network: Any, model: torch.nn.Module, table: pa.Table) -> torch.Tensor:
    with torch.no_grad():
        seen = network.look(model, network.collate(table), ())
        return seen.heads["main"](seen.states_ND)


def test_every_network_has_models_here() -> None:
    assert set(available("network")) == set(MODELS)


def test_places_are_what_the_model_says_before_them(case: Any) -> None:
    network, model, _ = case
    table = rows(9, 5)
    found, logits = places(table), logits_of(network, model, table)
    expected, targets = [], []
    for row in table.to_pylist():
        with torch.no_grad():
            whole = model(torch.tensor([row["token_ids"]])).logits[0]
        at = [t for span in row["spans"] for t in range(span["start"], span["end"])]
        expected.append(whole[[t - 1 for t in at]])
        targets += [row["token_ids"][t] for t in at]
    torch.testing.assert_close(logits, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert found.target_N.tolist() == targets
    assert found.example_N.tolist() == [0] * 5 + [1] * 2 and found.weight_B.tolist() == [1.0, 2.0]
    assert found.counts == {"place": 7, "labelled": 7, "unlabelled": 0, "example": 2, "set": 2}


def test_a_row_looks_the_same_alone_and_among_longer_ones(case: Any) -> None:
    network, model, _ = case
    among, alone = logits_of(network, model, rows(9, 40)), logits_of(network, model, rows(9))
    torch.testing.assert_close(among[: len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_rows_in_another_order_are_the_places_in_another_order(case: Any) -> None:
    network, model, _ = case
    table = rows(9, 7, 12)
    forth, back = logits_of(network, model, table), logits_of(network, model, table.take(pa.array([2, 1, 0])))
    torch.testing.assert_close(torch.cat([back[-5:], back[9:13], back[:9]]), forth, rtol=1e-4, atol=1e-5)


def test_taps_stand_at_the_places(case: Any) -> None:
    network, model, tap = case
    inputs = network.collate(rows(9, 5))
    with torch.no_grad():
        seen = network.look(model, inputs, ("last", tap))
        states = model(inputs["token_ids"], output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(seen.features[tap], states.flatten(0, 1)[inputs["at_N"]])
    assert seen.features["last"].shape == (7, 16)
    with pytest.raises(Refused, match="no tap 'nowhere'"):
        network.look(model, inputs, ("nowhere",))


def test_a_gradient_reaches_every_weight(case: Any) -> None:
    network, model, _ = case
    seen = network.look(model, network.collate(rows(9, 5)), ())
    seen.heads["main"](seen.states_ND).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_first_token_that_nothing_predicts_is_refused() -> None:
    table = rows(9).to_pylist()
    table[0]["spans"] = [{"start": 0, "end": 3}]
    broken = pa.Table.from_pylist(table, rows(9).schema)
    with pytest.raises(ValueError, match="nothing predicts it"):
        find("network", "language.causal").factory().collate(broken)
