"""The walkthrough of docs/selecting.md: every query and every entry of the page, in the order in which it has them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from pipeline.core.methods import KINDS, available
from tests.e2e.brought import metrics, stillhouse
from tests.e2e.conftest import ROOT, Workspace, small

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs" / "selecting.md").read_text("utf-8")
QUERIES = re.findall(r"^```sql\n(.*?)^```\n\n```\n(.*?)\n", PAGE, re.M | re.S)
ENTRIES = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
TROUBLES = PAGE.partition("## Other troubles")[2]
METHODS = sorted({*re.findall(r"use: (\w+\.\w+)", PAGE), *re.findall(r"`(\w+\.(?!score)\w+)`", TROUBLES)})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_page_is_there(name: str) -> None:
    assert any(name in available(kind) for kind in KINDS)


def asked(workspace: Workspace, query: str, header: str) -> list[dict[str, Any]]:
    """The rows of a query, which have the columns that the page shows."""
    rows = json.loads(stillhouse(workspace, "query", query, "--json"))
    assert list(rows[0]) == header.split()
    return rows


def test_from_noisy_answers_to_a_student(done: Workspace) -> None:
    where, cost, found = QUERIES
    by_domain = asked(done, *where)
    assert len(by_domain) == 8 and by_domain[0]["domain"] == "shift"
    rights = [row["right"] for row in asked(done, *cost)]
    assert rights == sorted(rights) and rights[-1] > rights[0] + 0.1
    selection, training = ENTRIES

    def change(params: dict[str, Any]) -> None:
        for section, entries in (selection | training).items():
            params[section] |= entries
        small(params)

    done.edit(change)
    done.repro("select@agreed")
    right = {row["selection"]: row["right"] for row in asked(done, *found)}
    assert right["agreed"] > right["random"] + 0.05
    done.repro()
    assert "agreed_sft" in metrics(done)
    assert "agreed_sft against random_sft" in stillhouse(done, "results")
