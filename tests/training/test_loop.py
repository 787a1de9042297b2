"""Training is a function of its rows and recipe: not of stops, how a step is cut, or where the teacher stands."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import pyarrow as pa  # noqa: E402
from peft.tuners.lora import LoraLayer  # noqa: E402

from pipeline.contracts import EXAMPLES  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.objective import Loss, Objective, Reduced, Step, View  # noqa: E402
from pipeline.model.load import load  # noqa: E402
from pipeline.training import checkpoints, loop, optimizers  # noqa: E402
from pipeline.training.adapter import LINEAR, with_adapter  # noqa: E402
from pipeline.training.checkpoints import Checkpoints  # noqa: E402
from pipeline.training.recipe import Recipe  # noqa: E402
from pipeline.training.rows import Rows  # noqa: E402
from pipeline.training.terms import Term  # noqa: E402

ROOT = Path(__file__).parents[2]
VOCABULARY = 24
ROWS = [
    {
        "token_ids": (tokens := [(i * 7 + t * t) % VOCABULARY for t in range(8 + i % 9)]),
        "spans": [{"start": 3, "end": len(tokens)}],
        "weight": 1.0 + i % 3,
    }
    for i in range(64)
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def student() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.1, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def recipe(**changed: object) -> Recipe:
    return Recipe.model_validate({"epochs": 4, "batch_rows": 8, "warmup_steps": 3, "seed": 17, **changed})


def held(place: Path, rows: Sequence[dict]) -> Rows:
    """Rows as a training holds them."""
    place.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(
        [{"example_id": f"{i:04d}", "prompt_id": f"p{i // 2:04d}", **row} for i, row in enumerate(rows)],
        pa.schema([EXAMPLES.schema.field(n) for n in ("example_id", "prompt_id", "token_ids", "spans", "weight")]),
    )
    with pa.ipc.new_file(str(place / "rows.arrow"), table.schema) as file:
        file.write_table(table)
    return Rows(place / "rows.arrow")


def term(name: str = "supervised.cross_entropy", objective: Objective | None = None, **changed: object) -> Term:
    method = find("objective", name)
    return Term(1.0, objective or method.factory(), frozenset(method.traits["reads"]), **changed)  # type: ignore[arg-type]


def fit(
    place: Path,
    given: Recipe,
    model: transformers.PreTrainedModel | None = None,
    rows: Sequence[dict] = ROWS,
    checkpoint_steps: int = 1000,
    terms: Sequence[Term] | None = None,
) -> tuple[transformers.PreTrainedModel, list[dict[str, float]]]:
    net = model or student()
    torch.manual_seed(3)
    net = net if given.adapter is None else with_adapter(net, given.adapter)
    trainer = loop.Trainer(
        {"student": net},
        {"student": find("network", "language.causal").factory()},
        [loop.Turn(("student",), terms or [term()])],
        held(place.with_name(place.name + "_rows"), rows),
        given,
        "cpu",
    )
    curve = trainer.run(Checkpoints(place), checkpoint_steps, lambda done, total, note: None)
    return (net if given.adapter is None else net.merge_and_unload()), curve


def distance(one: torch.nn.Module, two: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().items(), two.state_dict().items(), strict=True)
    return max(float((a - b).abs().max()) for (_, a), (_, b) in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    """With dropout, so that the state of the random numbers is part of it."""
    whole, curve = fit(tmp_path / "whole", recipe(optimizer=optimizer), checkpoint_steps=13)
    kept = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert kept == ["checkpoint-26", "checkpoint-32"]
    shutil.copytree(tmp_path / "whole" / "checkpoint-26", tmp_path / "stopped" / "checkpoint-26")
    # A kill while the next one was written: newer, and without its last mark.
    torn = tmp_path / "stopped" / "checkpoint-30"
    shutil.copytree(tmp_path / "whole" / "checkpoint-32", torn)
    (torn / checkpoints.COMPLETE).unlink()
    resumed, curve_of_resumed = fit(tmp_path / "stopped", recipe(optimizer=optimizer), checkpoint_steps=13)
    assert distance(whole, resumed) == 0
    assert curve_of_resumed == curve
    assert not torn.exists()


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / checkpoints.COMPLETE).touch()
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-100").exists()


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    one, curve = fit(tmp_path, recipe())
    again, same = fit(tmp_path, recipe())
    assert distance(one, again) == 0 and same == curve


def test_a_step_in_two_halves_is_the_step(tmp_path: Path) -> None:
    plain = {"optimizer": "adamw", "epochs": 2}
    models = []
    for name, cut in (("one", {"batch_rows": 32}), ("two", {"batch_rows": 16, "accumulate": 2})):
        model = student()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        models.append(fit(tmp_path / name, recipe(**plain, **cut), model)[0])
    assert distance(student(), models[0]) > 0
    assert distance(*models) < 1e-6


def test_an_objective_with_memory_is_told_of_every_step(tmp_path: Path) -> None:
    """Once per step of the optimizer, with the loss of all its micro-batches and the means of what it measured."""

    class Remembers:
        def __init__(self) -> None:
            self.told: list[tuple[Step, Reduced]] = []

        def __call__(self, view: View) -> Loss:
            value_N = torch.nn.functional.cross_entropy(view.student_NV, view.target_N, reduction="none")
            return Loss(value_N, view.weight_N, {"right": (view.student_NV.argmax(1) == view.target_N).double()})

        def update(self, step: Step, reduced: Reduced) -> None:
            self.told.append((step, reduced))

    memory = Remembers()
    given = recipe(epochs=2, batch_rows=8, accumulate=2)
    _, curve = fit(tmp_path / "run", given, terms=[term(objective=memory)])
    steps, told = zip(*memory.told, strict=True)
    assert [(s.number, s.of, s.epoch, s.epochs) for s in steps] == [(n, 8, n // 4, 2) for n in range(8)]
    assert all(0 <= t.metrics["right"] <= 1 for t in told)
    assert sum(t.items for t in told) == 2 * sum(len(row["token_ids"]) - 3 for row in ROWS)
    assert [t.value for t in told] == pytest.approx([point["loss"] for point in curve], rel=1e-5)


def test_both_optimizers_are_saved_and_loaded() -> None:
    def stepped(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for step in range(steps):
            torch.manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()

    model = student()
    optimizer = optimizers.optimizer_for(model, recipe(optimizer="muon"))
    assert isinstance(optimizer, optimizers.Pair)
    counts = [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in optimizer.optimizers]
    assert sum(counts) == sum(p.numel() for p in model.parameters()) and min(counts) > 0
    stepped(model, optimizer, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    other = student()
    other.load_state_dict(model.state_dict())
    loaded = optimizers.optimizer_for(other, recipe(optimizer="muon"))
    loaded.load_state_dict(saved)
    # The schedule reaches the rates through the pair's own groups.
    for chosen in (optimizer, loaded):
        for group in chosen.param_groups:
            group["lr"] = group["lr"] / 2
    stepped(model, optimizer, 2)
    stepped(other, loaded, 2)
    assert distance(model, other) == 0


class Transposed(torch.nn.Module):
    """The same two layers and head, with weights as GPT-2 keeps them, [in, out], or as all others do, [out, in]."""

    def __init__(self, as_gpt2: bool, tied: bool) -> None:
        super().__init__()
        conv = transformers.pytorch_utils.Conv1D
        self.wte = torch.nn.Embedding(VOCABULARY, 8)
        self.up = conv(32, 8) if as_gpt2 else torch.nn.Linear(8, 32)
        self.down = conv(8, 32) if as_gpt2 else torch.nn.Linear(32, 8)
        self.head = torch.nn.Linear(8, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.wte.weight
        for number, p in enumerate(self.parameters()):
            torch.manual_seed(number)
            drawn = torch.randn(max(p.shape), min(p.shape)) if p.ndim == 2 else torch.randn(p.shape)
            wide = p.ndim == 2 and p.shape[0] < p.shape[1]
            p.data = (drawn.T if wide else drawn).contiguous()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_muon_moves_a_layer_by_its_shape_however_its_weight_is_stored(decay: float) -> None:
    """The step of a matrix [out, in] is 10 rate sqrt(max(1, out / in)) times a matrix that is nearly orthogonal."""
    moved = []
    for as_gpt2 in (False, True):
        model = Transposed(as_gpt2, tied=False)
        for layer in (model.up, model.down):
            torch.manual_seed(7)
            drawn = torch.randn(32, 8)
            layer.weight.grad = drawn if layer.weight.shape == drawn.shape else drawn.T.contiguous()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizers.optimizer_for(model, recipe(optimizer="muon", learning_rate=1e-3, weight_decay=decay)).step()
        steps = [getattr(model, name).weight.detach() - before[f"{name}.weight"] for name in ("up", "down")]
        moved.append([step.T if as_gpt2 else step for step in steps])
    for linear, gpt2 in zip(*moved, strict=True):
        torch.testing.assert_close(gpt2, linear, rtol=1e-2, atol=1e-5)
    if not decay:
        # Newton-Schulz gives singular values around 1: 8 of them, times the length of the step.
        up, down = (float(step.norm()) / (0.01 * 8**0.5) for step in moved[0])
        assert 1.4 < up < 2.4 and 0.7 < down < 1.2


def test_muon_is_torchs_on_weights_as_torch_keeps_them() -> None:
    """To the rounding of bfloat16, in which torch's computes; several steps, so that momentum counts."""
    torch.manual_seed(1)
    start = [torch.randn(shape) for shape in ((12, 8), (8, 12), (8, 12))]
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    group = {"lr": 0.02, "weight_decay": 0.1}
    mine = optimizers.Muon([
        {"params": ours[:1], "length": (12 / 8) ** 0.5, **group}, {"params": ours[1:], "length": 1.0, **group},
    ])  # fmt: skip
    torchs = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
    for step in range(4):
        torch.manual_seed(step)
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        torchs.step()
    for w, a, b in zip(start, ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * (b - w).norm()


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_no_embedding_and_no_head(tied: bool) -> None:
    model = Transposed(as_gpt2=False, tied=tied)
    optimizer = optimizers.optimizer_for(model, recipe(optimizer="muon"))
    assert isinstance(optimizer, optimizers.Pair)
    (muon,) = (o for o in optimizer.optimizers if isinstance(o, optimizers.Muon))
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    assert taken == {id(model.up.weight), id(model.down.weight)}


def test_an_untied_llama_trains_its_head_with_adamw() -> None:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    optimizer = optimizers.optimizer_for(model, recipe(optimizer="muon"))
    (muon,) = (o for o in optimizer.optimizers if isinstance(o, optimizers.Muon))
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert taken and not any("embed_tokens" in name or "lm_head" in name for name in taken)
    assert len(taken) == 2 * 7


SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
TWO_OF_FOUR = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1,
    "topk_group": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
}  # fmt: skip
# Plain models, and mixtures of experts with dense layers first, with shared experts, and with nothing but experts.
KINDS = {
    "GPT2": {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0,
             "eos_token_id": 1},
    "Llama": SHAPE,
    "Qwen3": {**SHAPE, "head_dim": 8},
    "Gemma2": {**SHAPE, "head_dim": 8},
    "Mixtral": {**SHAPE, "num_local_experts": 4},
    "Qwen2Moe": {**SHAPE, **TWO_OF_FOUR, "shared_expert_intermediate_size": 8, "mlp_only_layers": [0]},
    "Qwen3Moe": {**SHAPE, **TWO_OF_FOUR, "head_dim": 8, "mlp_only_layers": [0]},
    "DeepseekV3": {**SHAPE, **LATENT, "first_k_dense_replace": 1},
    "DeepseekV2": {**SHAPE, **LATENT, "first_k_dense_replace": 1},
    "GraniteMoeShared": {**SHAPE, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 8},
    "GptOss": {**SHAPE, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "Olmoe": {**SHAPE, "num_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def kind_of(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**KINDS[name]))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("name", KINDS)
def test_every_linear_layer_but_the_head_gets_an_adapter(name: str, optimizer: str) -> None:
    """Dense and shared layers of a mixture too, and its experts; all of them move, whatever the optimizer."""
    model, given = kind_of(name), recipe(adapter={"rank": 2, "alpha": 4.0}, optimizer=optimizer)
    kind, before, head = model.config.model_type, copy.deepcopy(model.state_dict()), model.get_output_embeddings()
    assert given.adapter is not None
    linear = {n for n, m in model.named_modules() if isinstance(m, LINEAR) and m is not head}
    experts = {n for n, p in model.named_parameters() if p.ndim == 3}
    tuned = with_adapter(model, given.adapter)
    adapted = {n.removeprefix("base_model.model.") for n, m in tuned.named_modules() if isinstance(m, LoraLayer)}
    assert linear <= adapted and {n.rpartition(".")[0] for n in experts} <= adapted
    assert model.config.model_type == kind
    step = optimizers.optimizer_for(tuned, given)
    # The first step moves B alone, and so the product.
    for _ in range(2):
        step.zero_grad()
        tuned(input_ids=torch.arange(16).reshape(2, 8)).logits.log_softmax(-1)[:, :, 3].mean().neg().backward()
        step.step()
    after = tuned.merge_and_unload().state_dict()
    assert after.keys() == before.keys()
    moved = {n for n, v in after.items() if not torch.equal(v, before[n])}
    assert moved == {f"{n}.weight" for n in linear} | experts


def test_experts_and_dropout_are_refused() -> None:
    adapter = recipe(adapter={"rank": 2, "alpha": 4.0, "dropout": 0.1}).adapter
    assert adapter is not None and with_adapter(kind_of("Llama"), adapter)
    with pytest.raises(Refused, match=r"adapter\.dropout: 0\.1: .*experts.gate_up_proj.*write `dropout: 0`"):
        with_adapter(kind_of("Mixtral"), adapter)


def test_adapters_are_trained_by_muon(tmp_path: Path) -> None:
    """Every trained weight is a matrix then, and none is left for the other optimizer."""
    given = recipe(adapter={"rank": 2, "alpha": 4.0}, epochs=1, optimizer="muon")
    before = student()
    tuned, curve = fit(tmp_path, given)
    assert curve[-1]["loss"] > 0 and distance(tuned, before) > 0


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model = student()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        fit(tmp_path, recipe(), model)


def test_adapters_are_merged_into_a_plain_folder(tmp_path: Path) -> None:
    before = student()
    tuned, _ = fit(tmp_path / "checkpoints", recipe(adapter={"rank": 2, "alpha": 4.0}, epochs=2, learning_rate=1e-2))
    tuned.save_pretrained(tmp_path / "model")
    assert not list((tmp_path / "model").glob("adapter*"))
    back = load(tmp_path / "model", "float32")
    assert back.state_dict().keys() == before.state_dict().keys()
    moved = {n for n, v in back.state_dict().items() if not torch.equal(v, before.state_dict()[n])}
    assert moved and not any("wte" in name or "lm_head" in name for name in moved)
    tokens = torch.tensor([ROWS[0]["token_ids"]])
    with torch.no_grad():
        assert torch.allclose(back(tokens).logits, tuned(tokens).logits, atol=1e-5)
