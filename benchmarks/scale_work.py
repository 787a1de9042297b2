"""What `scale.py` measures: a stage on tables of its size, of this tree or of an older one that stands in `PYTHONPATH`.

python scale_work.py make DATA ROWS    # the tables that stages begin with
python scale_work.py STAGE DATA
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

SAMPLES, PARTS, BENCH, SOME = 8, 4, 1_000, 80_000
TRAIN, TEACHER, BASE = "responses/train", "responses/train/teacher", "responses/train/base"
VOTES, CHOSEN = "scores/responses/train/votes", "selections/responses/train/mine"
# Stage -> its entry, its parameters, what it reads, and what it writes.
WORK: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, ...]], str]] = {
    "ingest": ("web", {"pool": "web", "use": "files.jsonl", "path": "", "parts": PARTS}, {}, "prompts/web/web"),
    "curate": (
        "train",
        {"instance": "train", "against": "bench"},
        {"prompts": ("prompts/train",), "against": ("prompts/bench",)},
        "drops/train",
    ),
    "score": (
        "votes",
        {"of": TRAIN, "use": "consistency.agreement", "normalise": "number"},
        {"responses": (TEACHER, BASE)},
        VOTES,
    ),
    "quality": (
        "answers",
        {"of": TRAIN, "suite": "responses"},
        {"checked": (TEACHER, BASE)},
        f"quality/{TRAIN}/answers",
    ),
    "gaps": (
        "main",
        {"of": TRAIN, "teacher": "teacher", "student": "base", "solved": "votes.score >= 0.5"},
        {"responses": (TEACHER, BASE), "scores": (VOTES,)},
        "gaps/main",
    ),
    "select": (
        "mine",
        {"of": TRAIN, "use": "mixture.coverage", "by": "votes.score", "prefer": 0.6, "seed": 17},
        {"responses": (TEACHER, BASE), "scores": (VOTES,), "gates": (), "gaps": ()},
        CHOSEN,
    ),
    "pack": (
        "mine",
        {"of": TRAIN, "by": "mine", "student": "base"},
        {"responses": (TEACHER, BASE), "selection": (CHOSEN,), "tokenizer": ("models/base/tokenizer",)},
        "examples/mine",
    ),
    "report": (
        "report",
        {"seed": 17},
        {
            "prompts": ("prompts/train",), "drops": ("drops/train",), "responses": (TEACHER, BASE), "scores": (VOTES,),
            "gaps": ("gaps/main",), "selections": (CHOSEN,), "examples": ("examples/mine",), "evals": (),
            "models": (), "quality": ("quality",),
        },
        "reports",
    ),
    "generate": (
        "words",
        {"pool": "train", "model": "words", "k": SAMPLES, "temperature": 1.0, "seed": 17},
        {"prompts": ("prompts/few",), "drops": ("drops/few",), "model": ("models/words",)},
        "responses/few/words",
    ),
}  # fmt: skip


def make(data: Path, rows: int) -> None:
    """The tables: so many answers, eight a prompt of one model and one of another, and as many prompts."""
    contracts, write = _tree("contracts"), _tree("tables.parquet", "tables").write
    responses, prompts, drops = (contracts.TABLES[name] for name in ("responses", "prompts", "drops"))
    for entry, folder, each in (("teacher", TEACHER, SAMPLES), ("base", BASE, 1)):
        write(responses, data / folder, PARTS, (_batch(responses, one) for one in _answers(rows, entry, each)))
    for pool, count, seed in (("train", rows, 1), ("bench", BENCH, 2), ("few", rows // SAMPLES, 3)):
        made = (_batch(prompts, one) for one in _prompts(count, seed))
        write(prompts, data / "prompts" / pool, 1 if pool == "bench" else PARTS, made)
    write(drops, data / "drops" / "few", PARTS, [])
    with (data / "web.jsonl").open("w") as file:
        for some in _prompts(rows, 4):
            for text, place in zip(some["messages"], some["source"], strict=True):
                file.write(json.dumps({"prompt": text[0]["content"], "reference": place, "domain": "words"}) + "\n")
    (data / "models" / "base").mkdir(parents=True)
    (data / "models" / "base" / "tokenizer").symlink_to(Path.cwd() / "data" / "embedded" / "base")
    _run("acquire", "words", {"use": "fake.words"}, {}, "models/words", data)


def _tree(*modules: str) -> Any:
    """The first of these modules that the tree has; an import alone might find it in a package that is installed."""
    found = (name for name in modules if Path("pipeline", *name.split(".")).with_suffix(".py").exists())
    return importlib.import_module(f"pipeline.{next(found)}")


def _names(draw: np.random.Generator, count: int) -> list[str]:
    """Ids by chance."""
    text = draw.bytes(16 * count).hex()
    return [text[at : at + 32] for at in range(0, len(text), 32)]


def _batch(table: Any, given: dict[str, Any]) -> pa.RecordBatch:
    """Columns of a table, as the tree calls them; those that it has not are left out."""
    return table.batch(**{name: values for name, values in given.items() if name in table.columns})


def _answers(rows: int, entry: str, each: int) -> Iterator[dict[str, Any]]:
    """Sums of which some are easy; a wrong answer is near the right one."""
    for first in range(0, rows // SAMPLES, SOME // SAMPLES):
        asked = np.random.default_rng((7, first))
        count = min(SOME // SAMPLES, rows // SAMPLES - first)
        prompts, a, b = _names(asked, count), *asked.integers(0, 100_000, (2, count))
        draw = np.random.default_rng((each, first))
        wrong = (draw.random((count, each)) > draw.random((count, 1))) * draw.integers(1, 6, (count, each))
        said = (a[:, None] + b[:, None] + wrong).ravel().tolist()
        of = [i for i in range(count) for _ in range(each)]
        n, padding = len(of), "so " * 45
        yield {
            "response_id": _names(draw, n), "request_id": _names(draw, n), "prompt_id": [prompts[i] for i in of],
            "messages": [[{"role": "user", "content": f"add {a[i]} {b[i]}"}] for i in of],
            "domain": [f"sum {(first + i) % 8}" for i in of], "entry": [entry] * n, "model": [entry] * n,
            "model_id": ["m"] * n, "sample": [j for _ in range(count) for j in range(each)], "seed": list(range(n)),
            "content": [f"{a[i]}+{b[i]} is, all being added, {padding}#{s}" for i, s in zip(of, said, strict=True)],
            "answer": list(map(str, said)), "finish_reason": ["stop"] * n, "attempts": [1] * n,
            "completion_tokens": [60] * n, "prompt_tokens": [12] * n,
        }  # fmt: skip


def _prompts(rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """Words by Zipf's law."""
    chances = np.cumsum(1 / np.arange(1, 30_001))
    for first in range(0, rows, SOME):
        draw = np.random.default_rng((seed, first))
        count = min(SOME, rows - first)
        lengths = draw.integers(10, 31, count)
        words = np.searchsorted(chances, draw.random(lengths.sum()) * chances[-1]).tolist()
        ends = np.cumsum(lengths).tolist()
        texts = [
            " ".join(f"w{word}" for word in words[start:end]) + f" {first + i}"
            for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
        ]
        names = _names(draw, count)
        yield {
            "prompt_id": names, "messages": [[{"role": "user", "content": text}] for text in texts],
            "domain": ["words"] * count, "source": [f"line {first + i}" for i in range(count)], "group": names,
        }  # fmt: skip


def work(stage: str, data: Path) -> None:
    """Run one stage."""
    name, given, inputs, output = WORK[stage]
    given = dict(given)
    if stage == "ingest":
        given["path"] = str(data / "web.jsonl")
    if stage == "select":
        scan = _tree("tables.parquet", "tables").Scan(_tree("contracts").RESPONSES, (data / TEACHER,))
        given["budget_rows"] = scan.count() // SAMPLES
    if stage == "report":
        for one, (entry, told, reads, writes) in WORK.items():
            _plan(one, entry, {**told, "path": "web.jsonl"} if one == "ingest" else told, reads, writes, data)
    _run(stage, name, given, inputs, output, data)
    status = Path("/proc/self/status").read_text().splitlines()
    print(
        json.dumps({"resident_mib": next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))})
    )


def _instance(stage: str, name: str, given: Any, inputs: Any, output: str) -> Any:
    core = _tree("core.stage", "stage")
    return core.Instance(stage, name, core.stage_named(stage).params.model_validate(given), inputs, output, "")


def _plan(stage: str, name: str, given: Any, inputs: Any, output: str, data: Path) -> None:
    """A plan, as the report reads it."""
    file = data / "plan" / stage / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_instance(stage, name, given, inputs, output).to_json(), "utf-8")


def _run(stage: str, name: str, given: Any, inputs: Any, output: str, data: Path) -> None:
    settings = _tree("core.settings", "execution").RunSettings()
    _tree("core.driver", "stage").run_instance(
        _instance(stage, name, given, inputs, output), settings, data, data.parent
    )


if __name__ == "__main__":
    os.chdir(os.environ["PYTHONPATH"])
    make(Path(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "make" else work(sys.argv[1], Path(sys.argv[2]))
