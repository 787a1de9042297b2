"""A workspace outside a clone runs on the package as a wheel installs it, and goes from one version to the next."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import shipped
from tests.e2e.conftest import BIN, ROOT, Workspace, small

SOURCE = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "pipeline", "flows")


def installed(source: Path, place: Path, version: str) -> None:
    """Build a wheel of a source tree and install it, and nothing else, into a folder."""
    project = source / "pyproject.toml"
    project.write_text(project.read_text("utf-8").replace('version = "0.1.0"', f'version = "{version}"'), "utf-8")
    offline = ["--no-deps", "--quiet", "--disable-pip-version-check"]
    for command in (
        ["wheel", *offline, "--no-build-isolation", "--wheel-dir", str(place.parent / version), str(source)],
        ["install", *offline, "--no-index", "--upgrade", "--target", str(place), "--find-links",
         str(place.parent / version), "stillhouse"],
    ):  # fmt: skip
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    shutil.rmtree(source / "build")


@pytest.mark.long
def test_new_check_run_and_upgrade(tmp_path: Path) -> None:
    source, place = tmp_path / "source", tmp_path / "site"
    ignore = shutil.ignore_patterns("__pycache__", "mine.py")
    for name in [*SOURCE, *map(str, shipped.files(ROOT))]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copy if (ROOT / name).is_file() else lambda a, b: shutil.copytree(a, b, ignore=ignore)
        copy(ROOT / name, source / name)
    installed(source, place, "0.1.0")
    path = os.pathsep.join([str(place / "bin"), str(BIN), os.environ["PATH"]])
    work = Workspace(tmp_path / "work", {**os.environ, "PATH": path, "PYTHONPATH": str(place)})
    said = subprocess.run(["stillhouse", "new", "work"], cwd=tmp_path, env=work.env, capture_output=True, check=True)
    assert b"a workspace of stillhouse 0.1.0" in said.stdout
    work.edit(small)
    assert "is valid" in work.run("stillhouse", "check").stdout
    assert work.run("python", "-c", "import pipeline; print(pipeline.__file__)").stdout.startswith(str(place))
    ran = work.repro("score@agreement")
    assert {"plan", "generate@teacher", "score@agreement"} <= {*ran}
    assert work.repro("score@agreement") == []

    scorer = source / "pipeline" / "scorers" / "consistency.py"
    scorer.write_text(scorer.read_text("utf-8") + "\n\nEDITED = True\n", "utf-8")
    installed(source, place, "0.2.0")
    assert work.repro("score@agreement") == []
    told = work.run("stillhouse", "status").stdout
    assert "pins this workspace to stillhouse 0.1.0, and 0.2.0 is installed" in told
    assert "score@agreement" in told and "must run: code" in told
    work.edit(lambda params: params.update(seed=18))
    refused = work.dvc("repro", "plan", check=False)
    assert refused.returncode and "`stillhouse upgrade` pins what is installed" in refused.stderr + refused.stdout
    work.edit(lambda params: params.update(seed=17))
    told = work.run("stillhouse", "upgrade").stdout
    assert "pins stillhouse 0.2.0" in told and "must run: code" in told
    ran = work.repro("score@agreement")
    assert ran == ["plan", "score@agreement"]
    (record,) = (work.data / ".runs" / "score").glob("agreement.json")
    assert '"stillhouse": "0.2.0"' in record.read_text("utf-8")
