"""What a stored distribution takes and what it changes: bytes of a loss token's outcomes, and the error of the loss.

    make bench-cache                                      # five minutes of one core
    python benchmarks/teacher_cache.py --places 256 --out /tmp/try.json

Teachers have random weights (states of width 256, a head of V outcomes, logits with a standard deviation of 1 or 3), so
that ids have no pattern: the worst case for them. Plain is float16 and int32 ids; ours are the columns of `store:
compact` as they lie in the Parquet file. DistillKit is not on PyPI and is computed after its documentation: ids of
ceil(log2 V) bits, the likeliest `exact` in bfloat16, for the others a polynomial of their rank in float32 terms; at
k = 128 its recommended setting (16 exact, terms 0 to 4 and sqrt), else its budget one (1 exact, terms 0, 1, sqrt), and
the mass of all others is given to it. The loss is forward KL over K + 1 outcomes against a student that is the teacher
with noise, and its error is relative to that from float32, of the mean over all places. Reading is beside a training
step of a GPT-2 of width 256, 4 layers and 32,000 outcomes, CPU of one thread each.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gateway import commit, goal, machine

RESULT = Path(__file__).parent / "results" / "teacher_cache.json"
WIDTH, NOISE, ROW, CHUNK = 256, 0.7, 32, 64
VOCABULARIES, WIDTHS, SPREADS = (32_000, 152_000), (8, 32, 128), (1.0, 3.0)


def logits(places: int, vocabulary: int, spread: float) -> Iterator[tuple[Any, Any]]:
    """Teacher's and student's logits [C, V], some places at a time."""
    import torch

    torch.manual_seed(vocabulary)
    head = torch.randn(WIDTH, vocabulary) * spread / math.sqrt(WIDTH)
    for start in range(0, places, CHUNK):
        teacher = torch.randn(min(CHUNK, places - start), WIDTH) @ head
        yield teacher, teacher + NOISE * torch.randn_like(teacher)


def measured(places: int, vocabulary: int, spread: float) -> Iterator[dict[str, Any]]:
    """The rows of one teacher."""
    import torch

    kept: dict[int, list[tuple[Any, ...]]] = {k: [] for k in WIDTHS}
    for teacher, student in logits(places, vocabulary, spread):
        log_p = teacher.log_softmax(1)
        top = log_p.topk(max(WIDTHS), 1)
        for k in WIDTHS:
            ids, values = top.indices[:, :k], top.values[:, :k]
            tail = log_p.exp().scatter(1, ids, 0).sum(1)
            kept[k].append((ids.int(), values, tail, _apart(student, ids)))
    for k, pieces in kept.items():
        ids, values, tail, student = (torch.cat(each) for each in zip(*pieces, strict=True))
        exact, plain_bytes = _loss(values, tail, student), 6.0 * k
        yield _row(
            "plain", vocabulary, spread, k, plain_bytes, plain_bytes, _loss(values.half().float(), tail, student), exact
        )
        size, told = _ours(ids.numpy(), values.numpy(), tail.numpy())
        order = np.argsort(ids.numpy(), 1), np.argsort(told[0], 1)
        back = np.empty_like(told[1])
        np.put_along_axis(back, order[0], np.take_along_axis(told[1], order[1], 1), 1)
        yield _row(
            "ours", vocabulary, spread, k, size, plain_bytes, _loss(torch.from_numpy(back), tail, student), exact
        )
        size, near = _distillkit(values, vocabulary)
        yield _row(
            "DistillKit, as documented", vocabulary, spread, k, size, plain_bytes, _loss(near, tail, student), exact
        )


def _apart(student: Any, ids: Any) -> Any:
    from pipeline.model import distributions

    return distributions.apart(student, ids).log_softmax(1)


def _loss(values: Any, tail: Any, student: Any) -> float:
    """Forward KL over K + 1 outcomes, as `model.distributions` forms it, the mean over all places."""
    import torch

    log_p = torch.cat([values, tail.clamp_min(1e-37).log()[:, None]], 1).log_softmax(1)
    return float((log_p.double().exp() * (log_p - student).double()).sum(1).mean())


def _row(
    method: str, V: int, spread: float, k: int, size: float, plain: float, loss: float, exact: float
) -> dict[str, Any]:
    return {
        "method": method, "vocabulary": V, "spread": spread, "k": k, "bytes": round(size, 1),
        "ratio": round(plain / size, 2), "loss": round(exact, 5),
        "error_percent": round(100 * abs(loss / exact - 1), 4),
    }  # fmt: skip


def _ours(ids: np.ndarray, values: np.ndarray, tail: np.ndarray) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """Bytes a place of the two columns in a file of signals, and what is read back."""
    import pyarrow.parquet as pq

    from pipeline.contracts import SIGNALS
    from pipeline.tables import parquet
    from pipeline.tables.compact import COLUMNS, plain

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parquet.write_part(SIGNALS, place, 0, [_batch(ids, values, tail)])
        file = pq.ParquetFile(place / parquet.part_name(0))
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        size = sum(c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in COLUMNS)
        back = plain(file.read())
    found = (back[name].combine_chunks().flatten().flatten().to_numpy() for name in ("topk_ids", "topk_logprobs"))
    one, two = (each.reshape(ids.shape) for each in found)
    return size / len(ids), (one, two)


def _batch(ids: np.ndarray, values: np.ndarray, tail: np.ndarray) -> Any:
    """Rows of signals of ROW places each, stored compactly."""
    from pipeline.contracts import SIGNALS
    from pipeline.tables.compact import packed

    cut = range(0, len(ids), ROW)
    names = [f"{i:032x}" for i in range(len(cut))]
    text = ("domain", "template_hash", "tokenizer_hash", "teacher_id")
    return SIGNALS.batch(
        example_id=names, prompt_id=names, token_ids=[[0] * (ROW + 1)] * len(names),
        spans=[[{"start": 1, "end": ROW + 1}]] * len(names), response_ids=[["r"]] * len(names),
        weight=[1.0] * len(names), temperature=[1.0] * len(names), **{name: ["same"] * len(names) for name in text},
        tail_mass=[tail[i : i + ROW] for i in cut], target_logprob=[tail[i : i + ROW] for i in cut],
        **packed([ids[i : i + ROW] for i in cut], [values[i : i + ROW] for i in cut]),
    )  # fmt: skip


def _distillkit(values: Any, vocabulary: int) -> tuple[float, Any]:
    """Bytes a place, and the log-probabilities that a polynomial of the rank leaves."""
    import torch

    k = values.shape[1]
    exact, powers = (16, (0, 1, 2, 3, 4, 0.5)) if k == 128 else (1, (0, 1, 0.5))
    ranks = torch.arange(k - exact, dtype=torch.float64) / (k - exact)
    basis = torch.stack([ranks**power for power in powers], 1)
    terms = torch.linalg.lstsq(basis, values[:, exact:].double().T).solution.float()
    near = torch.cat([values[:, :exact].bfloat16().float(), (basis.float() @ terms).T], 1)
    return k * math.ceil(math.log2(vocabulary)) / 8 + 2 * exact + 4 * len(powers), near


def reading_cost(places: int) -> dict[str, float]:
    """Microseconds of CPU a place: to make outcomes of what is stored, and to train on it; k = 32."""
    import torch
    import transformers

    from pipeline.model import distributions
    from pipeline.tables.compact import plain
    from pipeline.training.chunks import loss_in_chunks

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    ids = np.stack([draw.choice(VOCABULARIES[0], 32, replace=False) for _ in range(places)]).astype(np.int32)
    values = -np.sort(draw.exponential(1, (places, 32)), 1).astype(np.float32) - 4
    batch = _batch(ids, values, 1 - np.exp(values).sum(1))
    began = time.process_time()
    plain(batch)
    read = time.process_time() - began
    config = transformers.GPT2Config(
        vocab_size=VOCABULARIES[0], n_embd=WIDTH, n_layer=4, n_head=4, n_positions=ROW, bos_token_id=0, eos_token_id=1
    )
    model = transformers.GPT2LMHeadModel(config)
    ids_NK, log_p = torch.from_numpy(ids).long(), torch.from_numpy(np.c_[values, np.log(1 - np.exp(values).sum(1))])

    def value(logits: Any, at: slice) -> Any:
        log_q = distributions.apart(logits, ids_NK[at]).log_softmax(1)
        return distributions.kl(log_p[at].float().log_softmax(1), log_q).sum()

    began = time.process_time()
    states = model.transformer(torch.randint(0, VOCABULARIES[0], (places // ROW, ROW))).last_hidden_state
    loss_in_chunks(states.flatten(0, 1), model.lm_head, value).backward()
    step = time.process_time() - began
    return {"read_us": 1e6 * read / places, "step_us": 1e6 * step / places}


def main() -> None:
    """Measure, and write the result."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--places", type=int, default=1024)
    command.add_argument("--out", type=Path, default=RESULT)
    given = command.parse_args()
    rows = [row for V in VOCABULARIES for spread in SPREADS for row in measured(given.places, V, spread)]
    cost = reading_cost(given.places)
    ours = [row for row in rows if row["method"] == "ours"]
    theirs = [row for row in rows if row["method"].startswith("DistillKit")]
    better = [
        o["bytes"] < t["bytes"] or o["error_percent"] < t["error_percent"] for o, t in zip(ours, theirs, strict=True)
    ]
    share = cost["read_us"] / cost["step_us"]
    least = min(row["ratio"] for row in ours if row["k"] == 32)
    goals = [
        goal("k = 32: at least 2.2 x smaller than float16 and int32", least, least=2.2),
        goal("the loss changed by less than 0.1 %", max(row["error_percent"] for row in ours), most=0.1),
        goal(f"of {len(ours)} settings: smaller or more exact than DistillKit's", sum(better), least=len(ours)),
        goal("reading at most 3 % of a training step's CPU", 100 * share, most=3.0),
    ]
    found = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "commit": commit(), "rounds": 1,
        "versions": {name: version(name) for name in ("torch", "pyarrow", "numpy")}, "rows": rows, "goals": goals,
        "notes": [
            f"{given.places} places a teacher. `bytes` are those of a place's ids and log-probabilities; the mass of "
            f"all others and the target's log-probability are 8 more, in float32. Reading takes "
            f"{cost['read_us']:.1f} us a place and a step {cost['step_us']:.0f} us; it is read once a training."
        ],
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
