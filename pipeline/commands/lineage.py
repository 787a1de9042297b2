"""Lineage: what `viewing/lineage.py` finds, on a screen."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.commands.screen import show, show_json
from pipeline.core.workspace import DATA, ROOT
from pipeline.errors import Refused
from pipeline.report import arms
from pipeline.viewing.lineage import SOURCES, Node, find, upstream

ABOUT = "from a model back to its prompts, or from a row to what it taught"
MORE = "The first 6 characters of an id are enough, if no other id begins with them."

UNSAID = "not said"


def _nodes(data: Path, wanted: str | None) -> list[Node]:
    """An instance and all that it was made from; all instances, downstream first, if none is named."""
    if wanted is None:
        lineage, found = arms.read(data), dict[str, Node]()
        for folder in lineage.plans:
            for node in upstream(lineage, data, folder):
                # What is upstream of others comes behind them.
                found.pop(node.folder, None)
                found[node.folder] = node
        return list(found.values())
    nodes = find(data, wanted)
    if isinstance(nodes, dict):
        raise Refused(f"{wanted} is the id of a row; events are about instances")
    return nodes


def tree(nodes: Sequence[Node]) -> list[str]:
    """What `upstream` found as a tree; what was told above is only named again."""
    by_folder = {node.folder: node for node in nodes}
    lines: list[str] = []
    told: set[str] = set()

    def tell(folder: str, first: str, rest: str) -> None:
        told.add(folder)
        lines.append(first + _node_line(by_folder[folder]))
        above = [f for f in by_folder[folder].inputs if f in told]
        below = [f for f in by_folder[folder].inputs if f not in told]
        for i, one in enumerate(below):
            last = i == len(below) - 1 and not above
            if one in told:
                above.append(one)
            else:
                tell(one, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
        if above:
            lines.append(f"{rest}└─ as above: {', '.join(above)}")

    tell(nodes[0].folder, "", "")
    packages = {f"{name} {found}" for node in nodes for name, found in node.record.get("packages", {}).items()}
    seconds = sum(node.record.get("wall_s", 0) for node in nodes)
    return [
        *lines,
        *made_with(nodes),
        "",
        f"time      {seconds:.1f} s for all of it",
        f"packages  {', '.join(sorted(packages)) or 'none recorded here'}",
    ]


def made_with(nodes: Sequence[Node]) -> list[str]:
    """The code, commit and parameters of every instance, and the licence and terms of what came from the world."""
    lines = ["", "made with (fingerprint of the code, commit that ran it, parameters)"]
    for node in nodes:
        commit = str(node.record.get("commit") or "no record")[:12]
        lines.append(f"  {node.label}  {node.code[:8] or 'none'}  {commit}  {_told(node.params)}")
    sources = [node for node in nodes if node.label.startswith(SOURCES)]
    said = [f"licence {n.params.get('licence') or UNSAID}, terms {n.params.get('terms') or UNSAID}" for n in sources]
    return [*lines, "", "sources", *(f"  {node.label}  {text}" for node, text in zip(sources, said, strict=True))]


def _told(params: Mapping[str, Any]) -> str:
    """Parameters on a line, without those that are nothing."""
    return json.dumps({key: value for key, value in params.items() if value not in (None, [], {}, "")}, default=str)


def _node_line(node: Node) -> str:
    told = [node.folder, f"[{': '.join(filter(None, (node.label, ', '.join(node.methods))))}]"]
    if node.kept is not None:
        told.append(f"{node.kept} of {node.rows} rows kept")
    elif node.rows is not None:
        told.append(f"{node.rows} rows")
    aside = node.record.get("notes", {}).get("set_aside")
    if aside:
        told.append(f"{aside['n']} of {aside['of']} given rows set aside")
    if builds := node.record.get("notes", {}).get("builds"):
        told.append(f"answered by {len(builds)} builds of the server")
    told.append(node.record["exactness"])
    if "output" in node.record:
        told += [f"{node.record['wall_s']:.1f} s", f"digest {node.record['output'][:12]}"]
    else:
        told.append("no record of its run here")
    return "  ".join(told)


def story(found: Mapping[str, Any]) -> list[str]:
    """A row's story as lines."""
    lines = []
    for prompt in found["prompts"]:
        lines.append(f"prompt {prompt['prompt_id']}  prompts/{prompt['of']}/{prompt['instance']}")
        known = {k: prompt[k] for k in ("domain", "level", "source", "verifier", "reference") if prompt[k] is not None}
        lines.append("  " + "  ".join(f"{key}: {_flat(value)}" for key, value in known.items()))
        if prompt["operator"] is not None:
            lines.append(f"  made by {prompt['operator']} of {', '.join(prompt['parent_ids'])}")
        for message in prompt["messages"]:
            lines += _quoted(message["content"], f"  {message['role']}")
    lines += [f"  dropped from {d['instance']}: {d['rule']} ({_flat(d['evidence'])})" for d in found["drops"]]
    for answer in found["responses"]:
        where = f"responses/{answer['of']}/{answer['instance']}"
        lines += [
            "",
            f"response {answer['response_id']}  {where}  sample {answer['sample']}, {answer['finish_reason']}",
        ]
        lines += _quoted(answer["error"] or answer["content"] or "", "  error" if answer["error"] else "  text")
        lines.append(f"  answer: {_flat(answer['answer'])}")
        own = [s for s in found["scores"] if s["response_id"] == answer["response_id"]]
        scored = [f"{s['instance']} {'null' if s['score'] is None else format(s['score'], '.4g')}" for s in own]
        lines.append(f"  scores: {', '.join(scored) or 'none'}")
        for s in (s for s in found["selections"] if s["response_id"] == answer["response_id"]):
            kept = f"kept, weight {s['weight']:.4g}" if s["kept"] else "not kept"
            lines.append(f"  {s['instance']}: {kept} ({_flat(s['reason'])})")
        lines += [
            f"  example {e['example_id']}  examples/{e['instance']}"
            for e in found["examples"]
            if answer["response_id"] in e["response_ids"]
        ]
    for examples, models in found["trained"].items():
        lines += ["", f"trained on examples/{examples}: {', '.join(models) or 'no model'}"]
        lines += [
            f"  {e['model']} on {e['task']}: {100 * e['accuracy']:.1f} % of {e['n']}"
            for e in found["judged"]
            if e["model"] in models and e["n"]
        ]
    if found["evals"]:
        lines += ["", "an item of a benchmark, answered by"]
        said = {1.0: "right", 0.0: "wrong", None: "not judged"}
        lines += [
            f"  {e['model']}: {_flat(e['prediction'])}, {said.get(e['metric'], e['metric'])}" for e in found["evals"]
        ]
    return [*lines, *made_with(found["made"])]


def _flat(value: object) -> str:
    """A value on one line: a text cannot pretend to be the next line."""
    return "none" if value is None else str(value).replace("\n", "\\n")


def _quoted(text: str, name: str) -> list[str]:
    """A text, each of its lines marked as quoted."""
    first, *rest = re.split(r"\r\n|\r|\n", text)
    return [f"{name}: | {first}", *(" " * (len(name) + 2) + "| " + line for line in rest)]


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `lineage`."""
    text = "an instance (`kd`, `train@kd`, `examples/coverage`), or a row's prompt_id, response_id or example_id"
    command.add_argument("id", nargs="?", help=text)
    text = "withdraw a prompt, or all of a source such as data/own/prompts.jsonl, and what was made of it"
    command.add_argument("--withdraw", metavar="ID_OR_SOURCE", help=text)
    text = "send what ran, of all or of an instance, as OpenLineage events to an address (http://...), or to a file"
    command.add_argument("--openlineage", metavar="TO", help=text)
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def run(id: str | None, withdraw: str | None, openlineage: str | None, as_json: bool) -> None:
    """Print a model's tree back to its prompts, or one row's story forward to the models that it taught."""
    if withdraw is not None:
        # It asks DVC, which takes a second to import.
        from pipeline.commands.tidy import undisturbed
        from pipeline.commands.withdraw import withdraw as withdrawing

        with undisturbed(ROOT):
            show(withdrawing(withdraw))
        return
    if openlineage is not None:
        from pipeline.commands.openlineage import events, send

        show([f"{send(events(_nodes(DATA, id)), openlineage)} events to {openlineage}"])
        return
    if id is None:
        raise Refused("lineage needs an instance or the id of a row, or --withdraw and what is to go")
    found = find(DATA, id)
    if as_json:
        nodes = [asdict(node) for node in (found["made"] if isinstance(found, dict) else found)]
        show_json({**found, "made": nodes} if isinstance(found, dict) else nodes)
    else:
        show(story(found) if isinstance(found, dict) else tree(found))
