"""A web server on this machine that serves one picture in all the ways that the internet does."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

ENDLESS_BYTES = 1 << 30


class PictureServer(ThreadingHTTPServer):
    """Counts requests by path; `/file/NAME` gives `pictures[NAME]`."""

    daemon_threads = True

    def __init__(self, pictures: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pictures = pictures
        self.requests: Counter[str] = Counter()
        self.at_once: Counter[str] = Counter()
        self.most_at_once = 0
        self.agents: set[str] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests[self.path] += 1
            self.server.agents.add(self.headers["User-Agent"])
            times = self.server.requests[self.path]
        _, kind, *rest = self.path.split("/", 2)
        with suppress(ConnectionError):
            getattr(self, f"_{kind.replace('-', '_')}")("/".join(rest), times)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: tests read what is counted."""

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "image/jpeg"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str, times: int) -> None:
        self._send(self.server.pictures[name])

    def _redirect(self, target: str, times: int) -> None:
        self._send(b"", 302, Location=unquote(target))

    def _gone(self, name: str, times: int) -> None:
        self._send(b"<html>gone</html>", 404)

    def _html(self, name: str, times: int) -> None:
        self._send(b"<html>sold out</html>", Content_Type="text/html")

    def _empty(self, name: str, times: int) -> None:
        self._send(b"")

    def _slow(self, name: str, times: int) -> None:
        time.sleep(2)
        self._send(self.server.pictures["a"])

    def _drip(self, name: str, times: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(20):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def _cut(self, name: str, times: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(self.server.pictures["a"][:1000])
        self.close_connection = True

    def _cut_once(self, name: str, times: int) -> None:
        (self._cut if times == 1 else self._file)("a", times)

    def _huge(self, name: str, times: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(ENDLESS_BYTES))
        self.end_headers()
        self.close_connection = True

    def _endless(self, name: str, times: int) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(ENDLESS_BYTES >> 16):
            self.wfile.write(bytes(1 << 16))

    def _busy_once(self, name: str, times: int) -> None:
        if times == 1:
            self._send(b"", 429, Retry_After="0")
        else:
            self._file("a", times)

    def _busy(self, name: str, times: int) -> None:
        self._send(b"", 429, Retry_After="3600")

    def _broken_once(self, name: str, times: int) -> None:
        if times == 1:
            self._send(b"", 500)
        else:
            self._file("a", times)

    def _robots(self, value: str, times: int) -> None:
        self._send(self.server.pictures["a"], X_Robots_Tag=value.replace("+", " "))

    def _reserved(self, name: str, times: int) -> None:
        self._send(self.server.pictures["a"], TDM_Reservation="1")

    def _zipped(self, name: str, times: int) -> None:
        self._send(self.server.pictures["a"], Content_Encoding="gzip")

    def _counted(self, name: str, times: int) -> None:
        with self.server.lock:
            self.server.at_once["counted"] += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once["counted"])
        time.sleep(0.02)
        with self.server.lock:
            self.server.at_once["counted"] -= 1
        self._file("a", times)


@contextmanager
def picture_server(pictures: dict[str, bytes]) -> Iterator[PictureServer]:
    """The server, for the time of a test."""
    server = PictureServer(pictures)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
