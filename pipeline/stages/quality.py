"""Quality: expectations on a table, told for people and in figures.  Reads any table with a suite.

It succeeds whatever it finds, so that its report is kept; `gate` is what stops. The report is `docs/index.html`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.checking import pages, validation
from pipeline.checking.suites import CheckParams
from pipeline.contracts import TABLES
from pipeline.core.run import How
from pipeline.core.stage import Input, stage
from pipeline.tables.parquet import Scan


class Params(CheckParams):
    def inputs(self) -> dict[str, Input]:
        return {"checked": Input(self.of, TABLES[self.suite])}

    def output(self, instance: str) -> str:
        return f"quality/{self.of}/{instance}"


@stage(writes=None, by="tree", imports=("great_expectations",))
def quality(params: Params, checked: Scan, out: Path, data: Path, name: str, how: How) -> None:
    """Data Docs pages for people, and `verdict.json` for the gate."""
    found = validation.validate(params, checked, data, out, how.settings.query)
    text = json.dumps(found.verdict, indent=1, sort_keys=True) + "\n"
    (out / "verdict.json").write_text(text, "utf-8")
    docs = out / "docs"
    docs.mkdir()
    for page, html in pages.pages(name, found.verdict, found.document).items():
        (docs / page).write_text(html, "utf-8")
    failed = [e["name"] for e in found.verdict["expectations"] if not e["success"]]
    how.say(f"failed: {', '.join(failed)}" if failed else "every expectation is met")
