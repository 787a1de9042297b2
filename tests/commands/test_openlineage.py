"""OpenLineage events: received over HTTP, and held against the schema by whoever receives them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import jsonschema
import pytest

from pipeline.__main__ import main
from pipeline.commands import openlineage
from pipeline.errors import Refused, TryAgain
from pipeline.viewing.lineage import Node

# What the specification 2-0-2 demands of a run event, in the words of JSON Schema.
FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {name: {"type": "string", "format": "uri"} for name in ("_producer", "_schemaURL")},
    },
}
NAMED = {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS}


def named(**more: Any) -> dict[str, Any]:
    return {"type": "object", "required": ["namespace", "name"], "properties": {**NAMED, **more}}


SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "format": "uri"},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
        },
        "job": named(),
        "inputs": {"type": "array", "items": named(inputFacets=FACETS)},
        "outputs": {"type": "array", "items": named(outputFacets=FACETS)},
    },
}
CHECKER = jsonschema.FormatChecker()


@CHECKER.checks("uri")
def is_uri(text: str) -> bool:
    return bool(urlparse(text).scheme and urlparse(text).netloc)


@CHECKER.checks("date-time", raises=ValueError)
def is_time(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


@CHECKER.checks("uuid", raises=ValueError)
def is_uuid(text: str) -> bool:
    return str(uuid.UUID(text)) == text


VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=CHECKER)


class Receiver:
    """A server on loopback that takes events that are valid, and says of others what is wrong."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                faults = [error.message for error in VALIDATOR.iter_errors(event)]
                faults += [] if self.path == openlineage.PATH else [f"nobody listens at {self.path}"]
                receiver.headers.append(dict(self.headers))
                receiver.events += [] if faults else [event]
                self.send_response(400 if faults else 201)
                self.end_headers()
                self.wfile.write("; ".join(faults).encode())

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def node(folder: str, label: str, *inputs: str, rows: int | None = None, **record: Any) -> Node:
    ran = {"output": f"digest of {folder}", "finished": "2026-01-01T00:00:10Z", "wall_s": 2.5, "commit": "c0ffee"}
    return Node(folder, label, ("a.method",), {"licence": "MIT"}, "c" * 32, rows, None, {**ran, **record}, inputs)


NODES = [
    node("models/kd", "train@kd", "examples/all", "models/base"),
    node("examples/all", "pack@all", "models/base", rows=7),
    Node("models/base", "acquire@base", (), {}, "", None, None, {"exactness": "exact"}, ()),
]


def test_a_receiver_that_checks_the_schema_takes_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openlineage.KEY, "secret")
    with receiving() as receiver:
        assert openlineage.send(openlineage.events(NODES), receiver.url) == 4
    assert [(e["job"]["name"], e["eventType"]) for e in receiver.events] == [
        ("pack@all", "START"), ("pack@all", "COMPLETE"), ("train@kd", "START"), ("train@kd", "COMPLETE"),
    ]  # fmt: skip
    assert {headers["Authorization"] for headers in receiver.headers} == {"Bearer secret"}
    start, complete = receiver.events[:2]
    assert (start["eventTime"], complete["eventTime"]) == ("2026-01-01T00:00:07.500000Z", "2026-01-01T00:00:10Z")
    assert start["run"]["runId"] == complete["run"]["runId"] != receiver.events[2]["run"]["runId"]
    assert complete["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 7
    trained = receiver.events[3]
    assert [one["name"] for one in trained["inputs"]] == ["data/examples/all", "data/models/base"]
    assert trained["inputs"][0]["facets"]["version"]["datasetVersion"] == "digest of examples/all"
    assert trained["run"]["facets"]["stillhouse"]["parameters"] == {"licence": "MIT"}


def test_sent_again_they_are_the_same(tmp_path: Path) -> None:
    for _ in range(2):
        openlineage.send(openlineage.events(NODES), str(tmp_path / "events.ndjson"))
    lines = (tmp_path / "events.ndjson").read_text("utf-8").splitlines()
    assert len(lines) == 8 and lines[:4] == lines[4:]


def test_the_packages_own_classes_know_every_field() -> None:
    """The classes of openlineage-python are made of the published schemas; they are no part of this environment."""
    pytest.importorskip("openlineage.client", reason="openlineage-python is no part of this environment")
    import attr
    from openlineage.client import event_v2, facet_v2

    facets = {
        "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
        "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
        "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
        "jobType": facet_v2.job_type_job.JobTypeJobFacet,
        "documentation": facet_v2.documentation_job.DocumentationJobFacet,
    }

    def known(given: dict[str, Any], kind: Any) -> None:
        assert given["_schemaURL"] == kind._get_schema()
        content = {name: value for name, value in given.items() if not name.startswith("_")}
        assert content.keys() <= {field.name for field in attr.fields(kind)}
        kind(**content)

    for event in openlineage.events(NODES):
        sets = [*event["inputs"], *event["outputs"], event["job"]]
        for name, given in (
            pair for one in sets for key in ("facets", "outputFacets") for pair in one.get(key, {}).items()
        ):
            known(given, facets[name])
        plain = {name: event[name] for name in ("eventType", "eventTime", "producer")}
        assert event["schemaURL"] == event_v2.RunEvent._get_schema()
        event_v2.RunEvent(
            **{**plain, "eventType": event_v2.RunState[event["eventType"]]},
            run=event_v2.Run(event["run"]["runId"]),
            job=event_v2.Job(event["job"]["namespace"], event["job"]["name"]),
        )


def test_an_event_that_is_not_valid_is_refused_with_what_the_receiver_said() -> None:
    broken = [{**event, "run": {"runId": "no uuid"}} for event in openlineage.events(NODES)]
    with (
        receiving() as receiver,
        pytest.raises(Refused, match=r"refuses the event of pack@all with 400: 'no uuid' is not"),
    ):
        openlineage.send(broken, receiver.url)
    assert receiver.events == []


def test_nobody_there_is_worth_a_retry() -> None:
    with receiving() as receiver:
        url = receiver.url
    with pytest.raises(TryAgain, match="cannot be reached"):
        openlineage.send(openlineage.events(NODES), url)


def test_the_command_sends_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan of two instances, of which one has a record."""
    plan = {"stage": "acquire", "instance": "base", "output": "models/base", "inputs": {}, "params": {}, "code": "c"}
    other = {**plan, "instance": "other", "output": "models/other"}
    for one in (plan, other):
        (tmp_path / "data/plan/acquire").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/plan/acquire/{one['instance']}.json").write_text(json.dumps(one), "utf-8")
    record = {"plan": plan, "exactness": "exact", "rows": None, "output": "d", "commit": None, "wall_s": 1.0}
    record |= {"finished": "2026-01-01T00:00:00Z", "packages": {}}
    (tmp_path / "data/.runs/acquire").mkdir(parents=True)
    (tmp_path / "data/.runs/acquire/base.json").write_text(json.dumps(record), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["lineage", "--openlineage", "events"]) == 0
    assert capsys.readouterr().out == "2 events to events\n"
    assert {json.loads(line)["job"]["name"] for line in Path("events").read_text("utf-8").splitlines()} == {
        "acquire@base"
    }
