"""What reading a token costs: CPU of `read` with a model in this process, beside lm-eval and plain padded batches.

    make bench-scoring                                    # three minutes of two cores
    python benchmarks/scoring.py --rounds 1 --sequences 16 --out /tmp/try.json

A random Llama (hidden 256, 4 layers, vocabulary 32,000) reads sequences of 20 to 400 tokens; asked about is the last
30% of each. Every method is a process of its own with one thread that has loaded the same folder; rounds go from one
process to the next. CPU is user and system time of the reading alone. lm-eval lives in `.venv-peers`
(`make bench-peers`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from gateway import commit, goal, machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "scoring.json"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
VOCABULARY, LONGEST, BATCH = 32_000, 400, 16
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
Sequences = list[tuple[list[int], list[int]]]
Read = Callable[[Sequences], list[float]]


def sequences(count: int) -> Sequences:
    """Tokens that are given and tokens that are asked about, as lengths come in a file: in no order."""
    draw = random.Random(0)
    made = []
    for _ in range(count):
        tokens = [draw.randrange(5, VOCABULARY) for _ in range(draw.randint(20, LONGEST))]
        asked = max(1, int(len(tokens) * 0.3))
        made.append((tokens[:-asked], tokens[-asked:]))
    return made


def make_model(folder: Path) -> None:
    """A random model and its tokenizer, in the form that every method reads."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=688,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    names = [*SPECIAL.values(), *(f"t{i}" for i in range(len(SPECIAL), VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
    for place in (folder, folder / "tokenizer"):
        whole.save_pretrained(place)


def ours(folder: Path) -> Read:
    """The backend as a stage opens it."""
    from pipeline.backends import local
    from pipeline.core.run import How
    from pipeline.core.settings import RunSettings
    from pipeline.kinds.backend import Tokens

    how = How(RunSettings(device="cpu"), folder, "scoring")
    backend = local.LocalModel.of(folder, "float32", how)

    def read(asked: Sequences) -> list[float]:
        tokens = [
            Tokens(f"{i:06d}", given + wanted, range(len(given), len(given) + len(wanted)))
            for i, (given, wanted) in enumerate(asked)
        ]
        found = {reading.id: float(reading.target_logprob.sum()) for reading in backend.read(tokens)}
        return [found[t.id] for t in tokens]

    return read


def plain(folder: Path) -> Read:
    """Padded batches and a log-softmax over every position, as it is usually written."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(folder).eval()

    @torch.no_grad()
    def read(asked: Sequences) -> list[float]:
        found = []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            longest = max(len(given) + len(wanted) for given, wanted in batch)
            ids, mask = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(2))
            for row, (given, wanted) in enumerate(batch):
                tokens = torch.tensor(given + wanted)
                ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            log_p = torch.log_softmax(net(ids, attention_mask=mask, use_cache=False).logits.float(), -1)
            targets = log_p[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
            for row, (given, wanted) in enumerate(batch):
                found.append(float(targets[row, len(given) - 1 :][: len(wanted)].sum()))
        return found

    return read


def lm_eval(folder: Path) -> Read:
    """HFLM as the harness calls it for multiple choice and perplexity."""
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=BATCH, max_length=512)

    def read(asked: Sequences) -> list[float]:
        requests = [((str(i), str(i)), given, wanted) for i, (given, wanted) in enumerate(asked)]
        return [value for value, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)]

    return read


METHODS: dict[str, tuple[Path, Callable[[Path], Read]]] = {
    "ours": (Path(sys.executable), ours),
    "lm-eval HFLM, batch 16": (PEERS, lm_eval),
    "plain padded, file order, batch 16": (Path(sys.executable), plain),
}


def serve(method: str, folder: Path, count: int) -> None:
    """Load once; for every line that arrives, read all sequences and say what that took."""
    import torch

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    read = METHODS[method][1](folder)
    asked = sequences(count)
    # What a first call makes once is nobody's cost per token.
    read(asked[:2])
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        before = time.process_time()
        found = read(asked)
        said = {
            "cpu_s": time.process_time() - before,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "sums": found,
        }
        print(json.dumps(said), file=answers, flush=True)


def measured(folder: Path, rounds: int, count: int) -> dict[str, list[dict[str, Any]]]:
    """What every method said in every round."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    servers: dict[str, subprocess.Popen[str]] = {}
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}

    def line(name: str) -> str:
        pipe = servers[name].stdout
        assert pipe is not None
        return pipe.readline() or sys.exit(f"scoring: {name} ended with {servers[name].wait()}")

    try:
        with (folder / "stderr").open("w") as errors:
            for name, (python, _) in METHODS.items():
                command = [python, __file__, "--serve", name, "--folder", folder, "--sequences", str(count)]
                servers[name] = subprocess.Popen(
                    command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                )
                line(name)
            for number in range(rounds):
                for name, server in servers.items():
                    print("read", file=server.stdin, flush=True)
                    said[name].append(json.loads(line(name)))
                    print(f"{number + 1} {name}: {said[name][-1]['cpu_s']:.2f} cpu s", flush=True)
    except SystemExit:
        print((folder / "stderr").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
    return said


def result(said: dict[str, list[dict[str, Any]]], count: int) -> dict[str, object]:
    """What the rounds say."""
    tokens = sum(len(given) + len(wanted) for given, wanted in sequences(count))
    first = said["ours"]
    rows = [
        {
            "method": name,
            "cpu_s": round(median(s["cpu_s"] for s in all_said), 2),
            "tokens_per_cpu_s": round(tokens / median(s["cpu_s"] for s in all_said)),
            "ratio": round(median(s["cpu_s"] / o["cpu_s"] for s, o in zip(all_said, first, strict=True)), 2),
            "peak_rss_mib": round(max(s["peak_rss_mib"] for s in all_said)),
            "furthest_sum": max(abs(a - b) for a, b in zip(all_said[0]["sums"], first[0]["sums"], strict=True)),
        }
        for name, all_said in said.items()
    ]
    ratio = {row["method"]: row["ratio"] for row in rows}
    furthest = max(row["furthest_sum"] for row in rows)
    for row in rows:
        row["furthest_sum"] = float(f"{row['furthest_sum']:.1e}")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
        "rounds": len(first),
        "rows": rows,
        "goals": [
            goal("tokens per CPU-second at least 1.8 x lm-eval's", ratio["lm-eval HFLM, batch 16"], least=1.8),
            goal("at least 2.8 x plain padded batches", ratio["plain padded, file order, batch 16"], least=2.8),
            {
                "goal": "sums of log-probabilities at most 1e-3 from every other method's",
                "reached": float(f"{furthest:.1e}"),
                "met": furthest <= 1e-3,
            },
        ],
        "notes": [
            f"{count} sequences, {tokens:,} tokens. `ratio` is CPU over ours, the median of the rounds' ratios; peak "
            "memory holds the imports and the model; `furthest sum` is the largest difference of a sequence's summed "
            "log-probability from ours.",
        ],
    }


def versions() -> dict[str, str]:
    """The packages compared, those of the peer marked where they are not ours."""
    say = "import sys, importlib.metadata as m; print(*(f'{n}={m.version(n)}' for n in sys.argv[1:]))"
    found = {"python": sys.version.split()[0]}
    for python, names in ((Path(sys.executable), "torch transformers"), (PEERS, "lm_eval torch transformers")):
        listed = subprocess.run([python, "-c", say, *names.split()], capture_output=True, check=True, text=True).stdout
        for name, version in (pair.split("=", 1) for pair in listed.split()):
            if found.setdefault(name, version) != version:
                found[f"peer's {name}"] = version
    return found


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--sequences", type=int, default=96)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--serve", help=argparse.SUPPRESS)
    top.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.serve:
        serve(given.serve, given.folder, given.sequences)
        return
    if not PEERS.exists():
        sys.exit(f"scoring: {PEERS.relative_to(ROOT)} is missing; `make bench-peers` makes it")
    with tempfile.TemporaryDirectory() as temporary:
        make_model(Path(temporary))
        said = measured(Path(temporary), given.rounds, given.sequences)
    given.out.write_text(json.dumps(result(said, given.sequences), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
