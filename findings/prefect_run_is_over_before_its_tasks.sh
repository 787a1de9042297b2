#!/usr/bin/env bash
# A flow run of Prefect is Completed while its API still knows of some of its task runs only, and of others as running.
#
# Version: prefect 3.9.1, its own server, SQLite.
# Behaviour: the state of a flow run is set by a request that the server answers; the states of its task runs are derived
#   from events, which the server works off behind it. Whoever asks for the task runs of a run that has ended gets those
#   whose events have come so far, without an error or a word that there will be more.
# The usual guess: a run that is Completed or Failed has the task runs that it had, each in its last state.
# Why it matters: what reads a run at its end (a hook, a notification, a check in CI, a table of what was done) counts too
#   few, misses the task that failed, or takes one that has ended for one that hangs; the shorter the tasks, the more.
# What to do: take the states from the futures inside the flow, or ask again until as many as were submitted have ended.
# Output seen:
#   at once: the run is Completed, 30 tasks were submitted and waited for, the API tells of 8 as completed
#   later: the API tells of 30 as completed
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check prefect==3.9.1
cd "$place"
export PREFECT_HOME="$place/home" DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300 PREFECT_LOGGING_LEVEL=ERROR
cat > tasks.py <<'PYTHON'
import time

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

TASKS = 30


@task
def one(number):
    return number


@flow
def many():
    assert sum(future.result() for future in [one.submit(i) for i in range(TASKS)]) == sum(range(TASKS))


def completed(run):
    """The state of a run, and how many of its tasks the API tells of as completed."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=of_run, limit=200)
        return client.read_flow_run(run).state_name, sum(each.state_name == "Completed" for each in tasks)


if __name__ == "__main__":
    run = many(return_state=True).state_details.flow_run_id
    state, first = completed(run)
    print(f"at once: the run is {state}, {TASKS} tasks were submitted and waited for, the API tells of {first} as completed")
    for _ in range(600):
        state, last = completed(run)
        if last == TASKS:
            break
        time.sleep(0.1)
    print(f"later: the API tells of {last} as completed")
    assert state == "Completed" and first < TASKS == last, "it is otherwise now"
PYTHON
"$place/venv/bin/python" tasks.py
