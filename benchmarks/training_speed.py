"""What training on a token costs: the trainer beside TRL's SFTTrainer and a plain padded loop, on rows of mixed length.

    make bench-training                                   # half an hour of two cores
    python benchmarks/training_speed.py --rounds 1 --rows 16 --out /tmp/try.json

A random Llama (width 256, 4 layers, vocabulary 32,000, tied head) learns rows of 40 to 600 tokens by cross-entropy on
the last 60% of each: one epoch, 8 rows a step, AdamW, float32, one thread, a process a method that begins every round
with the same weights. The plain loop takes the trainer's order and rates, a step's rows padded to its longest, and
all logits; so it says what the losses should be. TRL is measured at its defaults and at the best setting that was
found for it: rows packed, no checkpointing of gradients, as many tokens a step in two packs at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from gateway import commit, goal, machine
from turns import PEERS, ROOT, Said, in_turn, serve, versions

HERE = Path(__file__).parent
RESULT = HERE / "results" / "training_speed.json"
VOCABULARY, SHORTEST, LONGEST, SHARE, A_STEP, RATE = 32_000, 40, 600, 0.6, 8, 1e-3
# A row's tokens, and the first of them that is learnt.
Rows = list[tuple[list[int], int]]
# Trains a fresh model; what it says is its losses, step by step, if they can be compared.
Train = Callable[[], dict[str, Any]]


def rows(count: int) -> Rows:
    """Random tokens, as lengths come in a file: in no order."""
    draw = random.Random(0)
    made = []
    for _ in range(count):
        tokens = [draw.randrange(5, VOCABULARY) for _ in range(draw.randint(SHORTEST, LONGEST))]
        made.append((tokens, len(tokens) - int(len(tokens) * SHARE)))
    return made


def model() -> Any:
    """The same random weights every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=688,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def recipe() -> Any:
    """Ours and the plain loop's: a constant rate."""
    from pipeline.training.recipe import Recipe

    return Recipe(epochs=1, batch_rows=A_STEP, learning_rate=RATE, warmup_steps=0, decay_share=0, seed=17)


def held(given: Rows, folder: Path) -> Any:
    """The rows as a training holds them."""
    import pyarrow as pa

    from pipeline.contracts import EXAMPLES
    from pipeline.training.rows import Rows as Held

    names = ("example_id", "prompt_id", "token_ids", "spans", "weight")
    columns = [
        {
            "example_id": f"{i:06d}",
            "prompt_id": f"{i:06d}",
            "token_ids": tokens,
            "spans": [{"start": first, "end": len(tokens)}],
            "weight": 1.0,
        }
        for i, (tokens, first) in enumerate(given)
    ]
    table = pa.Table.from_pylist(columns, pa.schema([EXAMPLES.schema.field(name) for name in names]))
    with pa.ipc.new_file(str(folder / "rows.arrow"), table.schema) as file:
        file.write_table(table)
    return Held(folder / "rows.arrow")


def ours(given: Rows, folder: Path) -> Train:
    """The trainer as the stage starts it, checkpoint of the last step included."""
    from pipeline.core.methods import find
    from pipeline.training.checkpoints import Checkpoints
    from pipeline.training.fit import _keep_pages
    from pipeline.training.loop import Trainer, Turn
    from pipeline.training.terms import Term

    _keep_pages()
    method = find("objective", "supervised.cross_entropy")
    term = Term(1.0, method.factory(), frozenset(method.traits["reads"]))
    network = find("network", "language.causal").factory()
    trainer = Trainer(
        {"student": model()}, {"student": network}, [Turn(("student",), [term])], held(given, folder), recipe(), "cpu"
    )
    kept = folder / "checkpoints"
    shutil.rmtree(kept, ignore_errors=True)
    return lambda: {"losses": [p["loss"] for p in trainer.run(Checkpoints(kept), 10**9, lambda *_: None)]}


def plain(given: Rows, folder: Path) -> Train:
    """Padded to the longest of a step, all logits, the loss where it counts."""
    import torch
    from torch.nn.functional import cross_entropy

    from pipeline.kinds.objective import Step
    from pipeline.training.loop import rate_at
    from pipeline.training.order import Order

    settings = recipe()
    order = Order(held(given, folder).prompt_ids, settings, sets=False)
    net = model().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0, fused=True)

    def train() -> dict[str, Any]:
        losses = []
        for number in range(order.steps):
            chosen = [given[i] for i in order.at(number)]
            ids = torch.zeros(len(chosen), max(len(tokens) for tokens, _ in chosen), dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
            for row, (tokens, first) in enumerate(chosen):
                ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
                labels[row, first : len(tokens)] = ids[row, first : len(tokens)]
            logits = net(ids, attention_mask=mask, use_cache=False).logits
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), settings.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate_at(settings, Step(number, order.steps, 0, 1))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return {"losses": losses}

    return train


def tokenizer() -> Any:
    """What a peer's trainer wants beside a model; the rows are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = {f"t{i}": i for i in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="t0")), pad_token="t0", eos_token="t1"
    )


def trl(given: Rows, folder: Path, **changed: Any) -> Train:
    """SFTTrainer, without what it writes; in float32, since bfloat16 is slower on a CPU without it."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        num_train_epochs=1,
        learning_rate=RATE,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **{"per_device_train_batch_size": A_STEP, **changed},
    )
    mask = [[0] * first + [1] * (len(tokens) - first) for tokens, first in given]
    data = Dataset.from_dict({"input_ids": [tokens for tokens, _ in given], "completion_mask": mask})
    trainer = SFTTrainer(model=model(), args=settings, train_dataset=data, processing_class=tokenizer())

    def train() -> dict[str, Any]:
        trainer.train()
        return {}

    return train


def trl_packed(given: Rows, folder: Path) -> Train:
    """Its best of: packs of 600 or 1,024, one to four of them at once; rows one, two or eight at a time, with and
    without sorting by length; with and without checkpointing of gradients."""
    return trl(
        given,
        folder,
        packing=True,
        max_length=LONGEST,
        gradient_checkpointing=False,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )


OWN = Path(sys.executable)
PLAIN, DEFAULTS, PACKED = "plain loop, padded", "TRL SFTTrainer, defaults", "TRL SFTTrainer, packing"
METHODS: dict[str, tuple[Path, Callable[[Rows, Path], Train]]] = {
    "ours": (OWN, ours),
    PLAIN: (OWN, plain),
    DEFAULTS: (PEERS, trl),
    PACKED: (PEERS, trl_packed),
}


def result(said: Said, count: int) -> dict[str, object]:
    """What the rounds say."""
    tokens = sum(len(tokens) for tokens, _ in rows(count))
    first = said["ours"]
    table = [
        {
            "method": name,
            "cpu_s": round(median(s["cpu_s"] for s in rounds), 1),
            "tokens_per_cpu_s": round(tokens / median(s["cpu_s"] for s in rounds)),
            "ratio": round(median(s["cpu_s"] / o["cpu_s"] for s, o in zip(rounds, first, strict=True)), 2),
            "rise_mib": round(rounds[0]["rise_mib"]),
        }
        for name, rounds in said.items()
    ]
    ratio, rise = ({row["method"]: row[column] for row in table} for column in ("ratio", "rise_mib"))
    goals = []
    if len(said) == len(METHODS):
        pairs = zip(first[0]["losses"], said[PLAIN][0]["losses"], strict=True)
        apart = max(abs(a - b) for a, b in pairs)
        goals = [
            goal("tokens per CPU-second at least 3.0 x TRL's defaults", ratio[DEFAULTS], least=3.0),
            goal("at least 1.3 x its best setting", ratio[PACKED], least=1.3),
            goal("rise of memory at most 0.6 GB", rise["ours"] * 2**20 / 1e9, most=0.6),
            {
                "goal": "the loss of every step within 1e-4 of the plain loop's",
                "reached": float(f"{apart:.1e}"),
                "met": apart <= 1e-4,
            },
        ]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions("torch transformers", "trl torch transformers"),
        "rounds": len(first),
        "rows": table,
        "goals": goals,
        "notes": [
            f"{count} rows, {tokens:,} tokens. `ratio` is CPU over ours, the median of the rounds' ratios; `rise` is "
            "the highest resident memory of the first training above that with the model loaded: gradients, optimizer, "
            "activations.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--rows", type=int, default=96)
    top.add_argument("--only", nargs="*", default=[""], help="only methods that begin with one of these; no goals then")
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        import torch

        torch.set_num_threads(1)
        work = METHODS[given.serve][1]
        with tempfile.TemporaryDirectory() as temporary:
            # What a first call makes once is nobody's cost per token.
            work([(tokens[:SHORTEST], 20) for tokens, _ in rows(A_STEP)], Path(temporary))()
            asked = rows(given.rows)
            serve(lambda: work(asked, Path(temporary)))
        return
    if not PEERS.exists():
        sys.exit(f"training_speed: {PEERS.relative_to(ROOT)} is missing; `make bench-peers` makes it")
    with tempfile.TemporaryDirectory() as temporary:
        methods = {name: python for name, (python, _) in METHODS.items() if name.startswith(tuple(given.only))}
        said = in_turn(__file__, methods, ["--rows", str(given.rows)], given.rounds, Path(temporary))
    given.out.write_text(json.dumps(result(said, given.rows), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
