"""A service with its worker, on a database of its own: the worker would do other tests' jobs, too."""

import http.server
import mimetypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app import service
from app.inference import emoji
from app.settings import Settings
from tests.conftest import database
from tests.content.managed import Website
from tests.http import ROOT_KEY


@pytest.fixture(scope="session")
def content_database(server_url: str, template_db: str) -> Iterator[str]:
    with database(server_url, template_db) as url:
        yield url


@pytest.fixture(scope="session")
def base_url(content_database: str, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("content")
    more = {"model_dir": emoji.CLIP.parent, "data_dir": folder, "worker": True, "worker_stop_s": 1.0}
    chosen = settings.model_copy(update=more)
    with service.in_background(chosen, content_database, ROOT_KEY) as url:
        yield url


@pytest.fixture(scope="session")
def website() -> Iterator[Website]:
    pages: dict[str, tuple[int, bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = pages.get(self.path, (404, b"none"))
            self.send_response(status)
            self.send_header("Content-Type", mimetypes.guess_type(self.path)[0] or "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", pages
        server.shutdown()
        thread.join()
