#!/usr/bin/env bash
# Whether DVC can read a params.yaml, and how fast, depends on a package that it does not ask for.
#
# Version: dvc 3.67.1 with ruamel.yaml 0.19.1, without and with ruamel.yaml.clib 0.2.15.
# Behaviour: ruamel.yaml takes a parser in C where it finds one. Up to 0.18 it brought that along (ruamel.yaml.clib); 0.19
#   names it as an extra only, and DVC asks for no extra. The two parsers do not read the same: in a flow mapping or list
#   the one in C refuses a plain value with a colon, such as `{url: http://host/v1}` or `{model: org/name:7b}`, which YAML
#   1.2, the parser in Python and PyYAML read. The one in Python takes several times as long.
# The usual guess: one version of DVC reads one file in one way, and a parser in C is the same parser, faster.
# Why it matters: a params.yaml works on one machine and is "not valid YAML" on the other, with equal versions of DVC and
#   ruamel.yaml; addresses and names of models are just such values. Who installs the parser in C to make `dvc repro` of
#   many stages faster (it reads dvc.lock at each) breaks the files of others.
# What to do: quote values with a colon, or write them in block style; pin the parser, or leave it out everywhere.
# Output seen:
#   as installed: parser in C: False, {url: http://127.0.0.1:8000/v1} read, {model: org/name:7b} read
#   beside ruamel.yaml.clib 0.2.15: parser in C: True, {url: http://127.0.0.1:8000/v1} refused, {model: org/name:7b} refused
#   a dvc.lock of 300 stages: 4.8 times slower without it
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1 ruamel.yaml==0.19.1
cd "$place"
cat > read.py <<'PYTHON'
import json
import sys
import time

import ruamel.yaml
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml

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
said = []
for text in ("{url: http://127.0.0.1:8000/v1}", "{model: org/name:7b}"):
    with open("params.yaml", "w") as out:
        out.write(f"teacher: {text}\n")
    try:
        load_yaml("params.yaml")
        said.append("read")
    except YAMLFileCorruptedError:
        said.append("refused")
    said[-1] = f"{text} {said[-1]}"
print(f"{sys.argv[1]}: parser in C: {ruamel.yaml.__with_libyaml__}, {', '.join(said)}", file=sys.stderr)
print(json.dumps([min(times), [word.split()[-1] for word in said]]))
PYTHON
without=$("$place/venv/bin/python" read.py "as installed")
"$place/venv/bin/pip" install --quiet --disable-pip-version-check ruamel.yaml.clib==0.2.15
beside=$("$place/venv/bin/python" read.py "beside ruamel.yaml.clib 0.2.15")
"$place/venv/bin/python" - "$without" "$beside" <<'PYTHON'
import json
import sys

(slow, read), (fast, refused) = map(json.loads, sys.argv[1:])
print(f"a dvc.lock of 300 stages: {slow / fast:.1f} times slower without it")
assert read == ["read"] * 2 and refused == ["refused"] * 2 and slow > 1.5 * fast, "it has changed"
PYTHON
