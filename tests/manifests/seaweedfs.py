"""A real S3 server, SeaweedFS, on this machine for the time of a test module."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "fourmill", "fourmill-secret"
PROGRAM = Path(sys.executable).with_name("weed")
_GRPC = 10_000  # its second port is this much above the first
_START_SECONDS = 120


@contextmanager
def seaweedfs(folder: Path) -> Iterator[int]:
    """The port of a server that keeps its files in the folder and knows one pair of keys."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = (_free_port() for _ in range(4))
    command = [
        PROGRAM, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
        "-master.volumeSizeLimitMB=64", "-volume.max=30", "-master.telemetry=false",
        "-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}", "-s3.iam=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed ports otherwise: two servers collide
        "-s3.autoCreateBucket=false",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(server, s3, folder / "log")
        yield s3
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port + _GRPC >= 1 << 16:
                port -= 2 * _GRPC
            try:
                other.bind(("127.0.0.1", port + _GRPC))
            except OSError:
                continue
            return port


def _wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    for _ in range(10 * _START_SECONDS):
        if server.poll() is not None:
            raise RuntimeError(f"SeaweedFS ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except urllib.error.HTTPError as error:  # it asks for credentials: it is there
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS does not answer: {log.read_text()[-2000:]}")
