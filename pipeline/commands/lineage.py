"""Lineage: what `viewing/lineage.py` finds, on a screen."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.commands.screen import show, show_json
from pipeline.core.workspace import DATA
from pipeline.viewing.lineage import Node, find

ABOUT = "from a model back to its prompts, or from a row to what it taught"
MORE = "The first 6 characters of an id are enough, if no other id begins with them."


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
    commits = {str(node.record["commit"])[:12] for node in nodes if node.record.get("commit")}
    seconds = sum(node.record.get("wall_s", 0) for node in nodes)
    return [
        *lines,
        "",
        f"time      {seconds:.1f} s for all of it",
        f"commits   {', '.join(sorted(commits)) or 'none recorded here'}",
        f"packages  {', '.join(sorted(packages)) or 'none recorded here'}",
    ]


def _node_line(node: Node) -> str:
    told = [node.folder, f"[{': '.join(filter(None, (node.label, ', '.join(node.methods))))}]"]
    if node.kept is not None:
        told.append(f"{node.kept} of {node.rows} rows kept")
    elif node.rows is not None:
        told.append(f"{node.rows} rows")
    aside = node.record.get("notes", {}).get("set_aside")
    if aside:
        told.append(f"{aside['n']} of {aside['of']} given rows set aside")
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
    return lines


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
    command.add_argument("id", help=text)
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def run(id: str, as_json: bool) -> None:
    """Print a model's tree back to its prompts, or one row's story forward to the models that it taught."""
    found = find(DATA, id)
    if as_json:
        show_json(found if isinstance(found, dict) else [asdict(node) for node in found])
    else:
        show(story(found) if isinstance(found, dict) else tree(found))
