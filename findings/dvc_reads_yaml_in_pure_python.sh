#!/usr/bin/env bash
# DVC, installed as its package says, reads dvc.yaml and dvc.lock with a YAML parser in Python.
#
# Version: dvc 3.67.1 with ruamel.yaml 0.19.1.
# Behaviour: ruamel.yaml up to 0.18 brought its parser in C (ruamel.yaml.clib); 0.19 names it as an extra only, and DVC
#   asks for no extra. So `pip install dvc` now has no C parser, says nothing, and reads every file several times slower.
# The usual guess: a new release of a dependency changes no speed by a factor, and `pip install dvc` is DVC as it is meant.
# Why it matters: DVC reads dvc.lock at the start of every command and again at every stage that it runs. With some
#   thirty stages that is half a second of CPU a command, and with hundreds of `foreach` items it is most of a run.
# What to do: install `ruamel.yaml.clib` beside DVC; ruamel.yaml takes it where it finds it.
# Output seen:
#   as installed: parser in C: False
#   beside ruamel.yaml.clib 0.2.15: parser in C: True
#   a dvc.lock of 300 stages: 4.2 times slower without it
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1 ruamel.yaml==0.19.1
cd "$place"
cat > read.py <<'PYTHON'
import sys
import time

import ruamel.yaml
from dvc.utils.serialize import load_yaml

entry = "    cmd: make item {0}\n    deps:\n{1}    outs:\n{1}"
file = "    - path: data/item{0}\n      hash: md5\n      md5: 0123456789abcdef0123456789abcdef\n      size: 1\n"
stages = "".join(f"  item@{i}:\n" + entry.format(i, file.format(i) * 2) for i in range(300))
with open("dvc.lock", "w") as out:
    out.write("schema: '2.0'\nstages:\n" + stages)
times = []
for _ in range(3):
    start = time.process_time()
    assert len(load_yaml("dvc.lock")["stages"]) == 300
    times.append(time.process_time() - start)
print(f"{sys.argv[1]}: parser in C: {ruamel.yaml.__with_libyaml__}", file=sys.stderr)
print(min(times))
PYTHON
slow=$("$place/venv/bin/python" read.py "as installed")
"$place/venv/bin/pip" install --quiet --disable-pip-version-check ruamel.yaml.clib==0.2.15
fast=$("$place/venv/bin/python" read.py "beside ruamel.yaml.clib 0.2.15")
"$place/venv/bin/python" - "$slow" "$fast" <<'PYTHON'
import sys

ratio = float(sys.argv[1]) / float(sys.argv[2])
print(f"a dvc.lock of 300 stages: {ratio:.1f} times slower without it")
assert ratio > 1.5, "the C parser is there, or makes no difference any more"
PYTHON
