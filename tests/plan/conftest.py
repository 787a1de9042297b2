"""The default parameters, in the repository that they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parameters; files that they name are looked for beside params.yaml."""
    monkeypatch.chdir(ROOT)
    return yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
