"""Two machines in one folder are found out; what ended, however it ended, is in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import machine
from pipeline.core.machine import FOLDER, alone_in
from pipeline.errors import TryAgain
from pipeline.memo.memo import Memo


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What another machine says of itself while it is at work in a folder."""
    with monkeypatch.context() as there:
        there.setattr(machine, "_kernel", lambda: "k2")
        there.setattr(machine, "_machine", lambda: "m2")
        there.setattr("socket.gethostname", lambda: "second")
        alone_in(tmp_path)
    machine._here.clear()
    [said] = (tmp_path / FOLDER).iterdir()
    return said


def test_another_machine_is_refused_with_its_name_and_the_way_out(tmp_path: Path, other: Path) -> None:
    with pytest.raises(TryAgain, match=rf"in use by second \(process {os.getpid()}\).*delete {other}") as refused:
        alone_in(tmp_path)
    assert refused.value.exit_code == 75
    assert [*other.parent.iterdir()] == [other]
    other.unlink()
    alone_in(tmp_path)


def test_the_memo_is_refused_before_it_is_opened(tmp_path: Path, other: Path) -> None:
    with pytest.raises(TryAgain, match="in use by second"):
        Memo(tmp_path).put({"k": {"v": 1}})
    assert not (tmp_path / "requests.sqlite").exists()


def test_what_ran_before_a_start_of_this_machine_is_gone(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_machine", lambda: "m2")
    alone_in(tmp_path)
    assert not other.exists()


def test_a_system_without_linuxs_names_is_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BOOT", tmp_path / "none")
    alone_in(tmp_path)
    [own] = (tmp_path / FOLDER).iterdir()
    gone = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    gone.touch()
    machine._here.clear()
    alone_in(tmp_path)
    assert own.exists() and not gone.exists()


def test_processes_of_one_machine_are_at_work_together(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from pipeline.core.machine import alone_in; import os\n"
    program += "alone_in(Path(sys.argv[1])); os._exit(9) if sys.argv[2:] else None"
    for killed in ([], ["killed"], []):
        alone_in(tmp_path)
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path), *killed], check=False)
        assert done.returncode == (9 if killed else 0)
    [ours] = (tmp_path / FOLDER).iterdir()
    assert ours.name.split("-")[2] == str(os.getpid())
