"""What sampling a token costs: CPU of `generate` with a tiny model in this process, beside transformers' own.

    make bench-sampling                                   # two minutes of two cores
    python benchmarks/sampling.py --rounds 1 --prompts 256 --out /tmp/try.json

A random GPT-2 (width 128, 3 layers, 4 heads, 64 tokens) answers prompts of 18 tokens with at most 64; an answer ends by
chance, at 1 token in 64. Counted are useful tokens: those up to an answer's end. One process, one thread, methods in
turn; ours renders its prompts, seeds every row and decodes the texts, which is counted too.
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
from importlib.metadata import version
from pathlib import Path
from statistics import median

from gateway import commit, goal, machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "sampling.json"
EMBEDDED = ROOT / "data" / "embedded" / "teacher"
NEW, BATCHES = 64, (256, 1024)
# Answers all prompts in batches of one size; returns the number of useful tokens.
Generate = Callable[[int], int]


def make_model(folder: Path) -> None:
    """A random model of the shipped teacher's size, with its tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    torch.manual_seed(0)
    # The shipped tokenizer's numbers.
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=128, n_layer=3, n_head=4, n_positions=96, **tokens)
    ).save_pretrained(folder)
    (folder / "tokenizer").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EMBEDDED / file, folder / "tokenizer")


def prompts(count: int) -> list[str]:
    """Texts of 16 characters: 18 tokens with the template's two."""
    draw = random.Random(1)
    return ["".join(draw.choices("0123456789abcdefghijklmnopqrstuvwxyz+-*/", k=16)) for _ in range(count)]


def ours(folder: Path, texts: list[str]) -> Generate:
    """The backend as a stage opens it."""
    from pipeline.backends import local
    from pipeline.core.run import How
    from pipeline.core.settings import RunSettings
    from pipeline.kinds.backend import GenerateRequest, Sampling

    requests = [
        GenerateRequest(f"{i:06d}", f"{i:06d}", [{"role": "user", "content": text}], 0, i)
        for i, text in enumerate(texts)
    ]
    opened = {
        rows: local.LocalModel.of(
            folder, "float32", How(RunSettings(device="cpu", batch_rows=rows), folder, "sampling")
        )
        for rows in BATCHES
    }

    def generate(rows: int) -> int:
        answers = opened[rows].generate(requests, Sampling(1.0, 1.0, NEW))
        return sum(answer.completion_tokens or 0 for answer in answers)

    return generate


def plain(folder: Path, texts: list[str]) -> Generate:
    """`model.generate` over batches of one length."""
    import torch
    from transformers import AutoModelForCausalLM

    from pipeline.model.chat import Chat

    net, chat = AutoModelForCausalLM.from_pretrained(folder).eval(), Chat(folder / "tokenizer")
    prompts_NT = torch.tensor([chat.prompt([{"role": "user", "content": text}]) for text in texts])

    @torch.inference_mode()
    def generate(rows: int) -> int:
        useful = 0
        for ids in prompts_NT.split(rows):
            new = net.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, max_new_tokens=NEW
            )[:, ids.shape[1] :]
            ended = new == chat.eos_id
            first = torch.where(ended.any(1), ended.int().argmax(1) + 1, torch.tensor(new.shape[1]))
            useful += int(first.sum())
        return useful

    return generate


def measured(folder: Path, rounds: int, count: int) -> dict[tuple[str, int], list[tuple[float, int]]]:
    """CPU-seconds and useful tokens of every round, by method and batch."""
    import torch

    torch.set_num_threads(1)
    texts = prompts(count)
    methods = {"ours": ours(folder, texts), "transformers generate": plain(folder, texts)}
    spent: dict[tuple[str, int], list[tuple[float, int]]] = {(name, rows): [] for rows in BATCHES for name in methods}
    # The first round makes once what later ones have.
    for number in range(rounds + 1):
        for name, rows in spent:
            before = time.process_time()
            useful = methods[name](rows)
            cpu = time.process_time() - before
            if number:
                spent[name, rows].append((cpu, useful))
                print(f"{number} {name}, batch {rows}: {useful / cpu:,.0f} tokens a cpu s", flush=True)
    return spent


def result(spent: dict[tuple[str, int], list[tuple[float, int]]], count: int) -> dict[str, object]:
    """What the rounds say."""
    rows = [
        {
            "method": name,
            "batch": batch,
            "cpu_s": round(median(cpu for cpu, _ in found), 2),
            "tokens_per_cpu_s": round(median(useful / cpu for cpu, useful in found)),
            "ratio": round(
                median(
                    (own_useful / own_cpu) / (useful / cpu)
                    for (cpu, useful), (own_cpu, own_useful) in zip(found, spent["ours", batch], strict=True)
                ),
                2,
            ),
        }
        for (name, batch), found in spent.items()
    ]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("torch", "transformers")},
        },
        "rounds": len(spent["ours", BATCHES[0]]),
        "rows": rows,
        "goals": [
            goal(
                f"useful tokens per CPU-second at least 1.7 x transformers' generate, batch {row['batch']}",
                row["ratio"],
                least=1.7,
            )
            for row in rows
            if row["method"] != "ours"
        ],
        "notes": [
            f"{count:,} prompts. `ratio` is our useful tokens per CPU-second over the method's, the median of the "
            "rounds' ratios. Ours calls the model's own forward pass, with one exception: GPT-2's activation is one "
            "kernel and not eight, in every model that is loaded.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=5)
    top.add_argument("--prompts", type=int, default=1024)
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        make_model(Path(temporary))
        spent = measured(Path(temporary), given.rounds, given.prompts)
    given.out.write_text(json.dumps(result(spent, given.prompts), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
