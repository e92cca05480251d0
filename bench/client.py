"""An HTTP client that costs almost nothing, so that what is measured is the server: one keep-alive socket."""

import json
import socket
import time
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(slots=True)
class Target:
    """A POST that is measured: where it goes, what it sends for each of its requests."""

    name: str
    url: str
    path: str
    headers: dict[str, str]
    bodies: list[bytes]

    def request(self, n: int) -> bytes:
        body = self.bodies[n % len(self.bodies)]
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {urlsplit(self.url).netloc}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


class Connection:
    """One connection to a target; requests are made ready before the clock runs."""

    def __init__(self, target: Target) -> None:
        self._requests = [target.request(n) for n in range(len(target.bodies))]
        host = urlsplit(target.url)
        self._socket = socket.create_connection((host.hostname or "", host.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def timed(self, n: int) -> float:
        """Milliseconds from the first byte sent to the last byte received."""
        request = self._requests[n % len(self._requests)]
        started = time.perf_counter()
        self._exchange(request)
        return (time.perf_counter() - started) * 1000

    def answer(self, n: int) -> Any:
        return json.loads(self._exchange(self._requests[n % len(self._requests)]))

    def _exchange(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        received = self._socket.recv(262_144)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head = received[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        while len(received) < end + 4 + length:
            received += self._more()
        body = received[end + 4 :]
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(body.decode(errors="replace"))
        return body

    def _more(self) -> bytes:
        more = self._socket.recv(262_144)
        if not more:
            raise ConnectionError("the server closed the connection")
        return more
