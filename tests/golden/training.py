"""The golden training: what the default students lose at every step, and the bytes that they end with.

    python -m tests.golden.training check data [default|small]
    python -m tests.golden.training write data [small|default]

Write both anew, first the small one, which forgets the other: results that were made by another training are out of
date (`benchmarks/made_by.py`).

Rounding differs between types of processor, and a training doubles what differs every step or two: two types agreed to
1e-6 for ten steps, to 5e-4 at step 20, not at all at step 100, while the mean of fifty steps kept within a tenth. So
every step and the weights' hash hold on the type that is written beside them; on another the first EARLY steps hold to
the same TOLERANCE, and the mean of every WINDOW steps to DRIFT.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

GOLDEN = Path(__file__).parent / "data" / "training.json"
STUDENTS = ("random_sft", "coverage_sft", "kd")
# Relative, on the loss of a step.
TOLERANCE = 2e-3
EARLY = 20
# Relative, on the mean loss of so many steps.
DRIFT = 0.15
WINDOW = 50


def machine() -> dict[str, str]:
    """What rounding depends on: the type of processor, what torch uses of it, and torch itself."""
    import torch

    file = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in file.read_text("utf-8").splitlines()) if file.exists() else ()
    told = {key.strip(): value.strip() for key, _, value in lines}
    processor = " ".join(told.get(key, "?") for key in ("vendor_id", "cpu family", "model"))
    return {
        "architecture": platform.machine(),
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def of(data: Path) -> dict[str, dict[str, Any]]:
    """The losses and the weights' hash of every student of a run."""
    found = {}
    for name in STUDENTS:
        folder = data / "models" / name
        lines = (folder / "training.jsonl").read_text("utf-8").splitlines()
        weights = hashlib.blake2b((folder / "model.safetensors").read_bytes(), digest_size=16).hexdigest()
        found[name] = {"losses": [json.loads(line)["loss"] for line in lines], "weights": weights}
    return found


def differences(data: Path, run: str) -> list[str]:
    """What differs from the golden training, in words; empty if nothing does."""
    golden = json.loads(GOLDEN.read_text("utf-8"))
    same, texts = golden["machine"] == machine(), []
    for name, student in of(data).items():
        kept = golden[run][name]
        now, then = np.array(student["losses"]), np.array(kept["losses"])
        if len(now) != len(then):
            texts.append(f"{name}: {len(now)} steps, and {len(then)} are golden")
            continue
        exact = len(then) if same else EARLY
        for step in np.flatnonzero(np.abs(now - then)[:exact] > TOLERANCE * np.abs(then)[:exact])[:1]:
            texts.append(f"{name}: loss {now[step]} at step {step + 1}, and {then[step]} is golden")
        means = [sliding_window_view(losses, min(WINDOW, len(then))).mean(-1) for losses in (now, then)]
        for step in np.flatnonzero(np.abs(means[0] - means[1]) > DRIFT * np.abs(means[1]))[:1]:
            span = f"from step {step + 1} over {WINDOW} steps"
            texts.append(f"{name}: mean loss {means[0][step]} {span}, and {means[1][step]} is golden")
        if same and student["weights"] != kept["weights"]:
            texts.append(f"{name}: the weights' hash is {student['weights']}, and {kept['weights']} is golden")
    return texts


def digest() -> str:
    """The golden losses of the default run as one hash."""
    default = json.loads(GOLDEN.read_text("utf-8")).get("default")
    if default is None:
        raise SystemExit("the golden training of the default run is to be written: `make repro`, then see this file")
    said = json.dumps({name: student["losses"] for name, student in default.items()}, sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def write(data: Path, run: str) -> None:
    """Take a run for golden."""
    golden = json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    if golden.get("machine") not in (None, machine()):
        golden = {}
    if run == "small":
        golden.pop("default", None)
    golden |= {"machine": machine(), run: of(data)}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    action, place, run = [*sys.argv[1:], "default"][:3]
    if action == "write":
        write(Path(place), run)
    elif wrong := differences(Path(place), run):
        raise SystemExit("\n".join(wrong))
    else:
        print(f"the students of {place} are the golden ones" + ("" if run == "default" else f" ({run})"))
