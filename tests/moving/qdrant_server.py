"""Qdrant's HTTP API as far as imports use it, on 127.0.0.1, over the collections of a client in local mode."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from qdrant_client import QdrantClient


class QdrantServer:
    """A context manager. `statuses` are those of the next requests to scroll, before all is well."""

    def __init__(self, client: QdrantClient, key: str | None = None) -> None:
        self.client, self.key = client, key
        self.statuses: list[int] = []
        self.scrolls: list[dict[str, Any]] = []
        self._lock = threading.Lock()  # the local mode is no thread's friend
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                with server._lock:
                    status, result = server.answer(self.path, body, self.headers.get("api-key"))
                told = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever)

    def answer(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, Any]:
        if key != self.key:
            return 403, None
        collection, _, rest = path.removeprefix("/collections/").partition("/")
        if not self.client.collection_exists(collection):
            return 404, None
        if not rest:
            return 200, self.client.get_collection(collection).model_dump(mode="json")
        assert rest == "points/scroll", path
        self.scrolls.append(body)
        if self.statuses:
            return self.statuses.pop(0), None
        vectors, payload = body.pop("with_vector"), body.pop("with_payload")
        records, offset = self.client.scroll(collection, with_vectors=vectors, with_payload=payload, **body)
        return 200, {"points": [r.model_dump(mode="json") for r in records], "next_page_offset": offset}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
