"""Parts on a Ray cluster of two nodes: the bytes of one process, whatever is lost on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.memo.memo import Memo
from pipeline.tables.parquet import folder_digest
from tests.executors.two_nodes import PARTS, Cluster, Place, two_nodes

pytestmark = pytest.mark.servers
SCORES = Path("data", "scores", "responses", "train")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Sockets have short names.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder, two_nodes(Path(folder)) as both:
        yield both


@pytest.fixture(scope="module")
def place(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace with answers and lengths that one process made; their digests are in `alone`."""
    made = Place(tmp_path_factory.mktemp("place"), cluster)
    made.make()
    made.executor("inline")
    made.run("generate", "teacher")
    made.hear()
    made.run("score", "held")
    made.forget()
    return made


@pytest.fixture(scope="module")
def alone(place: Place) -> dict[str, str]:
    return {name: folder_digest(place.root / folder) for name, folder in FOLDERS.items()}


FOLDERS = {"answers": Path("data", "responses", "train", "teacher"), "held": SCORES / "held"}


@pytest.fixture
def held(place: Place, alone: dict[str, str]) -> Iterator[Place]:
    """The workspace on the cluster, where the parts of `score held` wait to be let go."""
    place.executor({})
    place.forget()
    yield place
    place.hear()


def record(place: Place, stage: str, name: str) -> dict:
    return json.loads((place.root / "data" / ".runs" / stage / f"{name}.json").read_text("utf-8"))


def test_two_nodes_give_the_bytes_of_one_process(held: Place, alone: dict[str, str]) -> None:
    answers = Memo(held.root / "data" / ".memo").stats().answers
    shutil.rmtree(held.root / "data" / ".memo")
    said = held.run("generate", "teacher")
    held.hear()
    held.run("score", "held")
    assert {name: folder_digest(held.root / folder) for name, folder in FOLDERS.items()} == alone
    assert Memo(held.root / "data" / ".memo").stats().answers == answers
    assert said.count("from memo") == PARTS and all(line.startswith("generate@teacher: ") for line in said.splitlines())
    parts = record(held, "score", "held")["parts"]
    assert {part["where"] for part in parts} == set(held.cluster.ips.values())
    assert [part["part"] for part in parts] == [*range(PARTS)] and all(part["cpu_s"] > 0 for part in parts)
    assert not [*(held.root / "data" / ".parts").iterdir()]


def test_a_lost_worker_costs_nothing_but_its_part(held: Place, alone: dict[str, str]) -> None:
    process = held.start("score", "held")
    first, other = held.told(2)
    os.kill(first, signal.SIGKILL)
    held.gone([first])
    assert held.told(2).keys() > {other}
    held.hear()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert folder_digest(held.root / FOLDERS["held"]) == alone["held"]


def test_a_worker_that_is_lost_again_and_again_ends_the_run(held: Place) -> None:
    held.executor({"retries": 1})
    said = held.run("score", "dies", code=75)
    assert re.search(r"part \d was lost 2 times: a worker on the node .* was ended", said) and "run this again" in said
    assert "Traceback" not in said


def test_a_gate_s_exit_code_stays(held: Place) -> None:
    assert "it did not pass" in held.run("score", "stops", code=65)


def test_a_lost_node_costs_nothing_but_its_parts(held: Place, alone: dict[str, str]) -> None:
    process = held.start("score", "held")
    held.told(2)
    held.cluster.kill("b")
    held.hear()
    said, _ = process.communicate(timeout=240)
    held.cluster.start("b")
    assert process.returncode == 0, said
    assert folder_digest(held.root / FOLDERS["held"]) == alone["held"]


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_lost_driver_leaves_its_parts_and_no_worker(
    held: Place, alone: dict[str, str], sign: signal.Signals, code: int
) -> None:
    process = held.start("score", "held")
    for told in held.told(2).values():
        told.with_name(f"{told.name}-go").touch()
    workers = held.told(2)
    process.send_signal(sign)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    held.gone(workers)
    held.hear()
    assert f"2 of {PARTS} parts are there from a run that did not finish" in held.run("score", "held")
    assert folder_digest(held.root / FOLDERS["held"]) == alone["held"]


def test_heavy_imports_are_paid_once_a_node(held: Place) -> None:
    """The workers of two stages are forks of the same parents."""
    parents = []
    for _ in range(2):
        held.forget()
        process = held.start("score", "held")
        held.told(2)
        parents.append({path.name.split("-")[1] for path in (held.root / "told").iterdir()})
        held.hear()
        assert process.communicate(timeout=120) and process.returncode == 0
    assert parents[0] == parents[1]


def test_who_has_no_token_is_told_so(held: Place) -> None:
    said = held.run("score", "stops", code=75, RAY_AUTH_TOKEN="0" * 32)
    assert "does not take this run in" in said and "RAY_AUTH_TOKEN" in said and "Traceback" not in said
    (log,) = [held.cluster.temporary / "a"]
    found = [
        path
        for path in log.rglob("*.log")
        if path.is_file() and held.cluster.token in path.read_text("utf-8", "replace")
    ]
    assert found == []


def test_a_cluster_that_is_gone_is_worth_a_retry(held: Place) -> None:
    held.executor({"address": f"{held.cluster.ips['a']}:9"})
    said = held.run("score", "stops", code=75)
    assert "no Ray cluster answers at" in said and "Traceback" not in said


def test_what_no_node_has_is_refused(held: Place) -> None:
    held.executor({"cpus": 64})
    assert "asks for 64 CPUs and 0 GPUs a part, and no node has them" in held.run("score", "stops", code=1)
