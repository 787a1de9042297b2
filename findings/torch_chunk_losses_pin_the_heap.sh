#!/usr/bin/env bash
# A chunked loss needs twice the memory and more if the few numbers that each chunk came to are kept as tensors.
#
# Versions: torch 2.13.0 on a CPU, with the allocator of glibc (2.36; torch's own builds use it).
# Behaviour: a loss over a large vocabulary is made some positions at a time, so that no more than a chunk of logits is
#   there at once. A tensor with a chunk's loss, `value.detach()`, lies in the heap above what the chunk needed. While it
#   is kept, what is freed below it cannot grow together with what is freed above, and torch asks for aligned blocks,
#   which fit into no hole of their own size: the next chunk takes new memory, and so on. 64 tensors of 16 bytes hold more
#   than 100 MiB. No reference to the logits is kept: what grows is the heap, and it does not shrink before the end.
# The usual guess: a detached loss of a few numbers costs a few bytes, and lists of them are summed when a step ends.
# Why it matters: chunks are made to save just this memory. Whoever keeps the loss of each chunk, for a log or for a
#   schedule that wants its mean, gives most of it back, and no tool that counts tensors shows where it is.
# What to do: add a chunk's sum to a number, or into a tensor that was there before the first chunk.
# Output seen:
#   summed: 78 MiB above what there was
#   kept as 64 tensors, 1024 bytes together: 208 MiB above what there was
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
cat > "$place/step.py" <<'PYTHON'
import sys

import torch

POSITIONS, OUTCOMES, WIDTH, CHUNK = 256, 152_000, 64, 4


def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024


def step(keep):
    kept, total = [], 0.0
    for start in range(0, POSITIONS, CHUNK):
        some = states[start : start + CHUNK]
        with torch.no_grad():
            logits, log_p = some @ head.T, (some @ teacher.T).log_softmax(1)
        value = (log_p.exp() * (log_p - logits.requires_grad_().log_softmax(1))).sum(1)
        value.sum().backward()
        if keep:
            kept.append(value.detach())
        else:
            total += value.detach().sum().item()
    return kept


torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
head, teacher = (torch.randn(OUTCOMES, WIDTH, generator=draw) * 0.05 for _ in range(2))
states = torch.randn(POSITIONS, WIDTH, generator=draw)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
kept = step(sys.argv[1] == "keep")
rise = resident("VmHWM") - before
what = f"kept as {len(kept)} tensors, {sum(k.nbytes for k in kept)} bytes together" if kept else "summed"
print(f"{what}: {rise:.0f} MiB above what there was", file=sys.stderr)
print(rise)
PYTHON
summed=$("$place/venv/bin/python" "$place/step.py" sum)
kept=$("$place/venv/bin/python" "$place/step.py" keep)
"$place/venv/bin/python" -c "assert $kept > $summed + 60, 'it has changed: $summed MiB summed, $kept MiB kept'"
