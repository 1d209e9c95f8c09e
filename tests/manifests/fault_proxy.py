"""A TCP proxy between us and an S3 server that counts requests and makes some of them fail."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: 89\r\n"
    b"Connection: close\r\n\r\n"
)
_BUSY_BODY = b"<Error><Code>ServiceUnavailable</Code><Message>not now</Message></Error>".ljust(89)

Fault = Callable[[int, str, str], str | None]
"""Of the number, method and path of a request: `busy`, `cut`, `lose`, `delay` or `None`."""


@dataclass
class FaultProxy:
    """Forwards to a port; counts, and breaks what `fault` says.

    `busy` answers 503, `cut` ends the connection before the request gets through, `lose` ends it
    when the answer comes, so that the work is done and nobody is told, `delay` waits 0.3 s.
    """

    target: int
    fault: Fault = lambda number, method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    port: int = 0

    def listings(self) -> list[str]:
        """Paths of the requests that list."""
        return [path for method, path in self.requests if method == "GET" and "list-type" in path]

    def accept_all(self, listener: socket.socket) -> None:
        """Serve until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as up:
            losing = threading.Event()
            back = threading.Thread(target=self._answer, args=(up, client, losing), daemon=True)
            back.start()
            while data := client.recv(1 << 16):
                if (found := _REQUEST.match(data)) and not self._passes(found, client, losing):
                    break
                up.sendall(data)
            with suppress(OSError):
                up.shutdown(socket.SHUT_RDWR)
            back.join()

    def _passes(
        self, found: "re.Match[bytes]", client: socket.socket, losing: threading.Event
    ) -> bool:
        method, path = found[1].decode(), found[2].decode()
        self.requests.append((method, path))
        fault = self.fault(len(self.requests), method, path)
        if fault is not None:
            self.broken.append(fault)
        if fault == "delay":
            time.sleep(0.3)
        if fault == "lose":
            losing.set()
        if fault == "busy":
            client.sendall(_BUSY + _BUSY_BODY)
        return fault not in ("busy", "cut")

    def _answer(self, up: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := up.recv(1 << 16):
                if losing.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def fault_proxy(target: int) -> Iterator[FaultProxy]:
    """A proxy in front of a port of this machine."""
    proxy = FaultProxy(target)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.port = listener.getsockname()[1]
        thread = threading.Thread(target=proxy.accept_all, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
