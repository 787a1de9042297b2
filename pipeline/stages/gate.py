"""Gate: lets a checked table pass, or stops what follows and says why.  Reads the verdict of `quality`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.checking.suites import CheckParams
from pipeline.core.stage import Input, stage
from pipeline.errors import GateFailed


class Params(CheckParams):
    def inputs(self) -> dict[str, Input]:
        return {"verdicts": Input(f"quality/{self.of}")}

    def output(self, instance: str) -> str:
        return f"gates/{self.of}/{instance}"


@stage(writes=None, by="tree")
def gate(params: Params, verdicts: Path, name: str, out: Path) -> None:
    """`gate.json`, which says only that the table passed: what follows re-runs when the table changes, not when a
    figure of the verdict or a rule does."""
    folder = verdicts / name
    verdict = json.loads((folder / "verdict.json").read_text("utf-8"))
    failed = [e for e in verdict["expectations"] if not e["success"]]
    if failed:
        raise GateFailed(_complaint(name, verdict, failed, folder / "docs" / "index.html"))
    passed = {"of": params.of, "suite": params.suite, "passed": True}
    (out / "gate.json").write_text(json.dumps(passed, indent=1, sort_keys=True) + "\n", "utf-8")


def _complaint(name: str, verdict: dict[str, Any], failed: list[dict[str, Any]], page: Path) -> str:
    lines = [f"data/{verdict['of']} does not pass {len(failed)} of {len(verdict['expectations'])} expectations:"]
    for e in failed:
        seen = f"observed {e['observed']}"
        if "unexpected" in e:
            seen += f" ({e['unexpected']} of {e['checked']} rows fail)"
        lines.append(f"  - {e['name']}: {e['about']}. Expected {e['expected']}, {seen}")
        # repr, because a model's text may hold escape codes for the terminal.
        lines.extend("      " + ", ".join(f"{k}={v!r}" for k, v in row.items()) for row in e["offending"])
    lines.append(f"Page: {page}")
    lines.append(
        f"Mend what made data/{verdict['of']}, or, if it is as it should be, set a number in params.yaml under "
        f"quality.{name}.bounds."
    )
    return "\n".join(lines)
