"""Training: examples or signals to a student, on the Trainer of `transformers`.

An objective never sees a mask or a scalar: the view of the loss tokens is made once per batch (`view.py`), and one
aggregator divides by the count of loss tokens over all micro-batches and ranks.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from pipeline.kinds.objective import DenseTeacher, Loss, Objective, Teacher, TopKTeacher
from pipeline.training.optimizers import optimizer_for
from pipeline.training.recipe import Adapter, Recipe
from pipeline.training.reduce import reduce, summarise
from pipeline.training.view import at_loss, loss_mask, make_view

# Widths are multiples of this, so that few shapes occur and a row's width does not depend on a GPU's taste.
BUCKET = 16
COMPLETE = "complete"


@dataclass(frozen=True)
class Term:
    """One objective of the weighted sum that is trained on, with the fields of the view that it declares."""

    weight: float
    reads: tuple[str, ...]
    objective: Objective


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows of one table to a padded batch.

    token_ids [B, T]; labels [B, T], -100 where there is no loss (the Trainer counts them); weight [B]; for signals
    topk_ids and topk_logprobs [N, K] and tail_mass [N] over the loss tokens, row after row.
    """
    width = math.ceil(max(len(row["token_ids"]) for row in rows) / BUCKET) * BUCKET
    token_ids = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        token_ids[i, : len(row["token_ids"])] = torch.tensor(row["token_ids"])
    loss = loss_mask([row["spans"] for row in rows], width)
    batch = {
        "token_ids": token_ids,
        "labels": token_ids.masked_fill(~loss, -100),
        "weight": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
    }
    if "topk_ids" in rows[0]:
        batch["topk_ids"] = torch.tensor([ids for row in rows for ids in row["topk_ids"]])
        batch["topk_logprobs"] = torch.tensor([values for row in rows for values in row["topk_logprobs"]])
        batch["tail_mass"] = torch.tensor([mass for row in rows for mass in row["tail_mass"]])
        batch["temperature"] = torch.tensor(rows[0]["temperature"])
    return batch


class Student(transformers.Trainer):
    """The Trainer, with the loss taken over a view of the loss tokens."""

    def __init__(self, terms: Sequence[Term], teacher: nn.Module | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.terms = terms
        self.teacher = teacher
        # What each term gave since the last step of the optimizer.
        self.losses: list[list[Loss]] = [[] for _ in terms]
        self.items = 0.0
        # Asks the Trainer to count the loss tokens of the whole step before the first forward pass.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        token_ids = inputs["token_ids"]
        loss_BT = inputs["labels"] != -100
        logits = model(input_ids=token_ids, use_cache=False).logits
        view = make_view(logits, token_ids, loss_BT, inputs["weight"], self._teacher(inputs, loss_BT))
        assert num_items_in_batch is not None
        self.items = float(num_items_in_batch)
        total = torch.zeros((), device=logits.device)
        for term, losses in zip(self.terms, self.losses, strict=True):
            loss = term.objective(view.restrict(term.reads))
            total = total + term.weight * reduce([loss], self.items)
            losses.append(loss.detached())
        # Data parallelism averages gradients over ranks; the normaliser already counts the tokens of all of them.
        return total * self.accelerator.num_processes

    def stepped(self) -> None:
        """Tell every objective with memory what the step that was just made came to."""
        for term, losses in zip(self.terms, self.losses, strict=True):
            if hasattr(term.objective, "update"):
                term.objective.update(summarise(losses, self.items))
            losses.clear()

    def _teacher(self, inputs: dict[str, torch.Tensor], loss_BT: torch.Tensor) -> Teacher | None:
        if self.teacher is not None:
            with torch.no_grad():
                return DenseTeacher(
                    at_loss(self.teacher(input_ids=inputs["token_ids"], use_cache=False).logits, loss_BT)
                )
        if "topk_ids" in inputs:
            stored = float(inputs["temperature"])
            return TopKTeacher(inputs["topk_ids"], inputs["topk_logprobs"], inputs["tail_mass"], stored)
        return None


def train(
    model: transformers.PreTrainedModel,
    rows: Sequence[dict[str, Any]],
    terms: Sequence[Term],
    recipe: Recipe,
    *,
    teacher: nn.Module | None,
    cpu: bool,
    checkpoints: Path,
    checkpoint_steps: int,
    progress: Callable[[int, int, str], None],
) -> tuple[transformers.PreTrainedModel, list[dict[str, float]]]:
    """Train a model on rows of examples or signals; returns it and its curve, a dictionary per step.

    Goes on from the newest complete checkpoint in `checkpoints`, to the same weights as without a stop.
    """
    transformers.set_seed(recipe.seed)
    if recipe.adapter is not None:
        model = with_adapter(model, recipe.adapter)
    steps_per_epoch = math.ceil(len(rows) / (recipe.batch_rows * recipe.accumulate))
    steps = max(1, round(recipe.epochs * steps_per_epoch))
    on_gpu = not cpu
    arguments = transformers.TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_rows,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": round(recipe.decay_share * steps),
            "decay_type": "linear",
            "min_lr_ratio": 0.02,
        },
        warmup_steps=min(recipe.warmup_steps, steps // 2),
        max_grad_norm=recipe.max_grad_norm,
        bf16=on_gpu and recipe.precision != "float32" and torch.cuda.is_bf16_supported(),
        use_cpu=cpu,
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        # Every step, because the Trainer forgets what it has summed since its last log when a run is gone on with.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    watch = Watch(progress)
    trainer = Student(
        terms,
        teacher,
        model=model,
        args=arguments,
        train_dataset=list(rows),
        data_collator=collate,
        optimizers=(optimizer_for(model, recipe), None),
        callbacks=[watch],
    )
    watch.stepped = trainer.stepped
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=newest(checkpoints))
    trained = trainer.model.merge_and_unload() if recipe.adapter is not None else trainer.model
    return trained.eval(), curve_of([h for h in trainer.state.log_history if "loss" in h])


def curve_of(logs: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """One point per step: its loss, the rate, and the norm of the gradient before it was cut."""
    return [
        {"step": log["step"], "loss": log["loss"], "lr": log["learning_rate"], "grad_norm": log["grad_norm"]}
        for log in logs
    ]


class Watch(transformers.TrainerCallback):
    """Reports progress and steps, saves at the last one, and marks a checkpoint that was written whole."""

    def __init__(self, progress: Callable[[int, int, str], None]) -> None:
        self.progress = progress
        self.stepped: Callable[[], None] = lambda: None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stepped()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise FloatingPointError(f"the loss is {logs['loss']} at step {state.global_step}")
            self.progress(state.global_step, state.max_steps, f"steps, loss {logs['loss']:.4f}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def newest(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written whole; those that a kill has torn are removed."""
    found = {int(p.name.split("-")[1]): p for p in checkpoints.glob("checkpoint-*")}
    whole = {step: path for step, path in found.items() if (path / COMPLETE).exists()}
    for step in found.keys() - whole.keys():
        shutil.rmtree(found[step])
    return str(whole[max(whole)]) if whole else None


def with_adapter(model: transformers.PreTrainedModel, adapter: Adapter) -> Any:
    """The model with low-rank adapters on all its linear layers but the head."""
    import peft

    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        # GPT-2 keeps its matrices transposed, in a layer of its own.
        fan_in_fan_out=any(isinstance(m, transformers.pytorch_utils.Conv1D) for m in model.modules()),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, config)


def write_curve(path: Path, curve: Iterable[dict[str, float]]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(point, sort_keys=True) + "\n" for point in curve), "utf-8")
