"""OpenLineage: what ran, as events that catalogues of data understand; sent where they are asked for, or written.

Two events an instance, START and COMPLETE, out of the plan and the record of its run, so that sending them again says
the same once more. Source: the OpenLineage specification 2-0-2 and its facets.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pipeline.contracts import TABLES
from pipeline.errors import Refused, TryAgain
from pipeline.viewing.lineage import Node

SPEC = "https://openlineage.io/spec"
# Receivers want an address; the package is published nowhere, and this one leads nowhere (RFC 2606).
PRODUCER = "https://stillhouse.invalid"
NAMESPACE = "stillhouse"
# Where servers of OpenLineage listen, if an address has no path.
PATH = "/api/v1/lineage"
WAIT_S = 20
KEY = "OPENLINEAGE_API_KEY"

Event = dict[str, Any]


def events(nodes: Iterable[Node]) -> Iterator[Event]:
    """A START and a COMPLETE for every instance whose run is recorded here, upstream first."""
    by_folder = {node.folder: node for node in nodes}
    for node in reversed(by_folder.values()):
        if "finished" not in node.record:
            continue
        finished = datetime.strptime(node.record["finished"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        started = finished - timedelta(seconds=node.record["wall_s"])
        run = str(uuid5(NAMESPACE_URL, f"{node.label} {node.record['output']} {node.record['finished']}"))
        for kind, at in (("START", started), ("COMPLETE", finished)):
            yield {
                "eventType": kind,
                "eventTime": at.isoformat().replace("+00:00", "Z"),
                "producer": PRODUCER,
                "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
                "run": {"runId": run, "facets": {"stillhouse": _run(node)}},
                "job": {"namespace": NAMESPACE, "name": node.label, "facets": _job(node)},
                "inputs": [_dataset(by_folder[folder]) for folder in node.inputs if folder in by_folder],
                "outputs": [_output(node)] if kind == "COMPLETE" else [],
            }


def _facet(url: str, **content: Any) -> Event:
    return {"_producer": PRODUCER, "_schemaURL": f"{SPEC}/{url}", **content}


def _run(node: Node) -> Event:
    """What no standard facet holds: code, parameters with licences and terms, commit, and whether it is repeatable."""
    told = {name: node.record.get(name) for name in ("commit", "exactness", "packages")}
    return _facet("2-0-2/OpenLineage.json#/$defs/RunFacet", code=node.code, parameters=dict(node.params), **told)


def _job(node: Node) -> Event:
    kind = {"processingType": "BATCH", "integration": "STILLHOUSE", "jobType": node.label.partition("@")[0].upper()}
    described = f"{node.label}{' with ' if node.methods else ''}{', '.join(node.methods)}"
    return {
        "jobType": _facet("facets/2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet", **kind),
        "documentation": _facet(
            "facets/1-1-0/DocumentationJobFacet.json#/$defs/DocumentationJobFacet", description=described
        ),
    }


def _dataset(node: Node) -> Event:
    facets = {}
    if "output" in node.record:
        url = "facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
        facets["version"] = _facet(url, datasetVersion=node.record["output"])
    table = TABLES.get(node.folder.partition("/")[0])
    if table is not None:
        columns = [{"name": n, "type": str(c.type), "description": c.about} for n, c in table.columns.items()]
        url = "facets/1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet"
        facets["schema"] = _facet(url, fields=columns)
    return {"namespace": NAMESPACE, "name": f"data/{node.folder}", "facets": facets}


def _output(node: Node) -> Event:
    url = "facets/1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet"
    counted = {} if node.rows is None else {"outputStatistics": _facet(url, rowCount=node.rows)}
    return {**_dataset(node), "outputFacets": counted}


def send(made: Iterable[Event], to: str) -> int:
    """Post events to an address, or append them to a file, a line each; returns how many."""
    listed = list(made)
    if not to.startswith(("http://", "https://")):
        with Path(to).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(event) + "\n" for event in listed)
        return len(listed)
    scheme, _, rest = to.partition("://")
    url = to if "/" in rest.rstrip("/") else f"{scheme}://{rest.rstrip('/')}{PATH}"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    for event in listed:
        _post(url, event, headers)
    return len(listed)


def _post(url: str, event: Event, headers: Mapping[str, str]) -> None:
    request = urllib.request.Request(url, json.dumps(event).encode(), dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S):
            return
    except urllib.error.HTTPError as error:
        said = error.read(500).decode("utf-8", "replace")
        raise Refused(f"{url} refuses the event of {event['job']['name']} with {error.code}: {said}") from error
    except OSError as error:
        raise TryAgain(
            f"{url} cannot be reached ({error}); nothing is lost: send again, the events are the same"
        ) from error
