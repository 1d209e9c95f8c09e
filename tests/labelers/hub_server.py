"""A model hub on this machine, as far as its client asks: one repository, over HTTP."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """Where the server is, and which files were fetched from it."""

    url: str = ""
    fetched: list[str] = field(default_factory=list)


@contextmanager
def serving(repository: str, files: Mapping[str, bytes]) -> Iterator[Hub]:
    """A server for the repository's files; those of weights are large ones, named by their hash."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def _answer(self, with_body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            if path.startswith(f"/api/models/{repository}/tree/"):
                body, headers = json.dumps([_entry(*each) for each in files.items()]).encode(), {}
            elif path.startswith(f"/api/models/{repository}"):
                body, headers = json.dumps(_info(repository, files)).encode(), {}
            else:
                name = path.partition(f"/{repository}/resolve/")[2].partition("/")[2]
                if name not in files:
                    self.send_error(404)
                    return
                body, headers = files[name], {"ETag": f'"{_etag(name, files[name])}"'}
                if with_body:
                    hub.fetched.append(name)
            self.send_response(200)
            for key, value in {**headers, "X-Repo-Commit": COMMIT}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _etag(name: str, data: bytes) -> str:
    if _is_large(name):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # as git names it


def _info(repository: str, files: Mapping[str, bytes]) -> dict[str, object]:
    siblings = [
        {
            "rfilename": name,
            "size": len(data),
            "blobId": hashlib.sha1(data).hexdigest(),
            **({"lfs": _large(data)} if _is_large(name) else {}),
        }
        for name, data in files.items()
    ]
    return {"id": repository, "sha": COMMIT, "siblings": siblings}


def _entry(name: str, data: bytes) -> dict[str, object]:
    found = {"type": "file", "path": name, "size": len(data), "oid": _etag(name, data)}
    return found | ({"lfs": _large(data) | {"oid": _etag(name, data)}} if _is_large(name) else {})


def _large(data: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
