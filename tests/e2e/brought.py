"""What a user brings of their own: prompts, a teacher, a student; and how they edit a recipe for it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import torch
import transformers

from pipeline.contracts import RESPONSES
from pipeline.model.chat import Chat
from pipeline.model.folder import TOKENIZER_FILES
from pipeline.origins.fresh import gpt2
from pipeline.tables import parquet
from tests.e2e.conftest import BIN, ROOT, Workspace

ALPHABET = "abcdefghijk"
# What a user changes in a recipe, and only where it says `<-`.
EDITS = {"max_tokens: 64": "max_tokens: 8", "learning_rate: 0.001": "learning_rate: 0.01"}


def task(text: str) -> str:
    """The task that no shipped model has seen: every letter becomes the next one."""
    return "".join(ALPHABET[ALPHABET.index(letter) + 1] for letter in text)


def bring(folder: Path) -> None:
    """200 rows of JSONL, a teacher that knows the task, a student of another architecture."""
    (folder / "teacher").mkdir(parents=True)
    gpt2(alphabet=ALPHABET, prompt_width=4, width=48, layers=2, heads=2, context=24, seed=1)(folder / "teacher")
    shutil.rmtree(folder / "teacher" / "tokenizer")
    teach(folder / "teacher")
    (folder / "student").mkdir()
    for name in TOKENIZER_FILES:
        if (folder / "teacher" / name).exists():
            shutil.copyfile(folder / "teacher" / name, folder / "student" / name)
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        vocab_size=len(ALPHABET) + 5, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=24, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "student")
    texts = sorted({a + b + c for a in ALPHABET[:-1] for b in ALPHABET[:-1] for c in ALPHABET[:-1]})
    rows = [{"question": text, "answer": task(text)} for text in random.Random(0).sample(texts, 200)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def teach(folder: Path) -> None:
    """Train a model on the task for a few seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    chat, model = Chat(folder), transformers.GPT2LMHeadModel.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    drawn = random.Random(4)
    for _ in range(220):
        texts = ["".join(drawn.choices(ALPHABET[:-1], k=3)) for _ in range(48)]
        examples = [chat.example([{"role": "user", "content": text}], task(text)) for text in texts]
        ids = torch.tensor([example.token_ids for example in examples])
        labels = ids.clone()
        labels[:, : examples[0].spans[0][0]] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # `transformers serve` draws only where the model's own generation_config.json says so.
    model.generation_config.do_sample = True
    model.save_pretrained(folder)


def use(workspace: Workspace, recipe: str, edits: dict[str, str]) -> None:
    """Put a recipe in place, and edit it where it says that one may."""
    (workspace.root / "recipes").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "recipes" / recipe, workspace.root / "recipes" / recipe)
    workspace.run(str(BIN / "python"), "-m", "pipeline", "use", f"recipes/{recipe}", "--force")
    file = workspace.root / "params.yaml"
    lines = file.read_text("utf-8").splitlines()
    for old, new in edits.items():
        places = [i for i, line in enumerate(lines) if old in line and "<-" in line]
        assert places, f"{recipe} has nothing to edit that says {old!r}"
        for i in places:
            lines[i] = lines[i].replace(old, new)
    file.write_text("\n".join(lines) + "\n", "utf-8")


def stillhouse(workspace: Workspace, *command: str) -> str:
    return workspace.run(str(BIN / "python"), "-m", "pipeline", *command).stdout


def metrics(workspace: Workspace) -> dict[str, dict[str, float]]:
    return json.loads((workspace.data / "reports" / "metrics.json").read_text("utf-8"))


def answers(workspace: Workspace, table: str) -> list[dict]:
    return parquet.Scan(RESPONSES, (workspace.data / "responses" / table,)).pylist()
