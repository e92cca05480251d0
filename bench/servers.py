"""The servers that are measured, each in a process of its own, run by uvicorn as `pgretrieve serve` runs it."""

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from app import service
from app.settings import Settings
from bench import baseline


@contextmanager
def running(settings: Settings, url: str, key: str, statement: baseline.Statement | None = None) -> Iterator[str]:
    """The service, or with a statement the baseline that runs it; yields its base URL."""
    context = multiprocessing.get_context("spawn")
    with socket.create_server((settings.host, 0)) as listening:
        process = context.Process(target=_serve, args=(listening, settings, url, key, statement), daemon=True)
        process.start()
        host, port = listening.getsockname()[:2]
    try:
        # The socket listens already: the answer, whatever it is, comes as soon as the server has started.
        starting = HTTPConnection(host, port, timeout=60)
        starting.request("GET", "/")
        starting.getresponse().read()
        starting.close()
        yield f"http://{host}:{port}"
    finally:
        process.terminate()
        process.join(30)


def _serve(listening: Any, settings: Settings, url: str, key: str, statement: baseline.Statement | None) -> None:
    server = service.server(settings, url, key)
    if statement is not None:
        server.config.app = baseline.create_app(settings, url, statement)
    server.run([listening])
