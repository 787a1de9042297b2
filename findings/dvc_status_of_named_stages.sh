#!/usr/bin/env bash
# To ask DVC for the status of some stages by name costs many times as much as to ask for that of all.
#
# Version: dvc 3.67.1.
# Behaviour: `dvc status` without a name reads dvc.yaml, params.yaml and dvc.lock once. With names it reads all three anew
#   for each, so that its cost is the number of names times the size of the files; with all names, the square of the graph.
#   `dvc.repo.Repo.status(targets=[...])` does the same.
# The usual guess: naming what one wants to know narrows the work; at worst it costs what asking for all does.
# Why it matters: an orchestrator that asks which of its tasks are stale names them, at every task: with a graph of a few
#   hundred stages a run in which nothing changed takes minutes of CPU, where `dvc repro` takes seconds.
# What to do: ask once without names, and look the names up in the answer.
# Output seen:
#   60 stages: status of all 0.6 s of CPU, of all by name 7.1 s, with the same answer
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1
export DVC_NO_ANALYTICS=1 PATH="$place/venv/bin:$PATH"
mkdir "$place/graph" && cd "$place/graph"
cat > graph.py <<'PYTHON'
import resource
import subprocess

STAGES = 60
NAMES = [f"stage{i}" for i in range(STAGES)]


def cpu(*command):
    """What a command says, and its seconds of CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout.strip(), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


with open("dvc.yaml", "w") as out:
    out.write("stages:\n")
    for i, name in enumerate(NAMES):
        needs = "graph.py" if i == 0 else f"out{i - 1}"
        out.write(f"  {name}:\n    cmd: echo {i} > out{i}\n    deps: [{needs}]\n    outs: [out{i}]\n")
subprocess.run(["git", "init", "--quiet"], check=True)
subprocess.run(["dvc", "init", "--quiet"], check=True)
subprocess.run(["dvc", "repro", "--quiet"], check=True)
(said, every), (said_by_name, by_name) = cpu("dvc", "status"), cpu("dvc", "status", *NAMES)
print(f"{STAGES} stages: status of all {every:.1f} s of CPU, of all by name {by_name:.1f} s", end="")
assert said == said_by_name == "Data and pipelines are up to date."
print(", with the same answer")
assert by_name > 4 * every, "it is otherwise now"
PYTHON
python graph.py
