"""Fitting: stored rows and a model folder become a student's model folder."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.model.chat import Chat
from pipeline.model.folder import TOKENIZER_FILES, finish
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan
from pipeline.training.recipe import StudentParams


def fit(params: StudentParams, rows: Scan, student: Path, teacher: Path | None, out: Path, how: How, name: str) -> None:
    """Train a student on stored rows, beside a live teacher if there is one."""
    from pipeline.model.load import device_of, load
    from pipeline.training import loop

    data = sorted(rows.pylist(), key=lambda row: row["example_id"])
    if not data:
        raise Refused(f"{how.label}: data/{params.of} has no rows; look at the reasons in its selection")
    _check_tokenizers(data[0]["tokenizer_hash"], student, teacher, params.of)
    import torch

    torch.set_num_threads(how.settings.threads)
    device = device_of(how.settings)
    inputs = [parquet.folder_digest(folder) for folder in (*rows.folders, student, *([teacher] if teacher else []))]
    packages = [version(package) for package in ("torch", "transformers", "accelerate")]
    kept = how.checkpoints / name
    place = kept / ids.digest(how.code, params.model_dump(mode="json"), inputs, packages, device, how.settings.threads)
    terms = [loop.Term(t.weight, tuple(t.use.method.traits["reads"]), t.use.build()) for t in params.objectives]
    model, curve = loop.train(
        load(student, "float32"),
        data,
        terms,
        params,
        teacher=load(teacher, card_of(teacher)["dtype"]).to(device) if teacher else None,
        cpu=device == "cpu",
        checkpoints=place,
        checkpoint_steps=how.settings.checkpoint_steps,
        progress=how.progress,
    )
    model.save_pretrained(out)
    for file in TOKENIZER_FILES:
        if (student / file).exists():
            shutil.copyfile(student / file, out / file)
    (out / "model.json").write_text(json.dumps(finish(out, "float32"), indent=1, sort_keys=True) + "\n", "utf-8")
    loop.write_curve(out / "training.jsonl", curve)
    # The last checkpoint stays until the next success: a kill before DVC has seen the output costs nothing.
    for old in kept.iterdir():
        if old != place:
            shutil.rmtree(old)


def _check_tokenizers(examples: str, student: Path, teacher: Path | None, of: str) -> None:
    for role, folder in (("student", student), ("teacher", teacher)):
        if folder is not None and Chat(folder / "tokenizer").tokenizer_hash != examples:
            raise Refused(
                f"data/{of} was cut with another tokenizer than that of the {role} in {folder}. Pack it with "
                f"`student: {student.name}`, and use a teacher of the same vocabulary for a logit objective."
            )
