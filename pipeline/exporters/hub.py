"""Folders as Hugging Face's hub lays them out; nothing is sent there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa

from pipeline.contracts import FLAG, MESSAGES, REAL, TEXT
from pipeline.kinds.exporter import PARQUET, ROWS, Exporter, Sets, Shape, exporter
from pipeline.model.folder import PLACES, TOKENIZER_FILES
from pipeline.tables.plain import write_parquet

SCHEMA = pa.schema({
    "prompt_id": TEXT, "response_id": TEXT, "domain": TEXT, "entry": TEXT, "messages": MESSAGES, "content": TEXT,
    "reasoning": TEXT, "finish_reason": TEXT, "kept": FLAG, "weight": REAL, "right": FLAG,
})  # fmt: skip
# What `save_pretrained` writes of a model; what stands beside it here is Stillhouse's own.
MODEL = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
SERVE = """\
```python
model = AutoModelForCausalLM.from_pretrained("<this folder>")
tokenizer = AutoTokenizer.from_pretrained("<this folder>")
```

`vllm serve <this folder>` and `transformers serve <this folder>` give it an address."""


@exporter(reads="answers")
def dataset(*, dropped: bool = False) -> Exporter:
    """Every kept answer beside its conversation, with ids, domain, weight, and what its verifier says of it; with
    `dropped` those that were not kept, too.

    Paper: none.
    Differs: nothing.
    """

    def write(sets: Sets, out: Path) -> Shape:
        chosen = (answer for answers in sets for answer in answers if answer.kept or dropped)
        rows = ({name: getattr(answer, name) for name in SCHEMA.names} for answer in chosen)
        return Shape(write_parquet(out / PARQUET, SCHEMA, rows), ROWS, '`load_dataset("<this folder>")`', {})

    return write


@exporter(reads="model")
def model() -> Exporter:
    """A language model as transformers, vLLM and others open it: weights, configuration, tokenizer, chat template.

    Paper: none.
    Differs: heads beside the model's own are left out, since nothing else opens them.
    """

    def write(folder: Path, out: Path) -> Shape:
        names = [name for name in TOKENIZER_FILES if name != PLACES]
        for file in sorted(file for pattern in (*MODEL, *names) for file in folder.glob(pattern)):
            shutil.copyfile(file, out / file.name)
        heads = len(list((folder / "heads").glob("*.safetensors")))
        return Shape(0, "", SERVE, {"heads beside its own": heads} if heads else {})

    return write
