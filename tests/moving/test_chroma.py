"""Chroma's collections, of its real server: vectors to the bit, order, and records that go while they are read."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from app.moving.rows import Layout
from app.moving.sources import At, chroma
from tests import servers
from tests.http import Api
from tests.moving.running import documented, run

SERVE = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', 'run', *sys.argv[1:]])"
TENANT = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    """Chroma's own server, as a client of its HTTP API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with servers.temporary_directory() as folder:
        arguments = [sys.executable, "-c", SERVE, "--path", str(folder), "--port", str(port)]
        environment = {**os.environ, "ANONYMIZED_TELEMETRY": "FALSE"}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as running:
            assert running.stdout is not None
            assert any(b"listening on address" in line for line in running.stdout)
            draining = threading.Thread(target=running.stdout.read)
            draining.start()
            with httpx.Client(base_url=f"http://localhost:{port}", timeout=30) as http:
                yield http
            running.terminate()
            running.wait(20)
            draining.join()


class Collection:
    """A collection that a test makes."""

    def __init__(self, server: httpx.Client, name: str, space: str) -> None:
        self.server, self.name = server, name
        self.address = f"chroma+{str(server.base_url).rstrip('/')}"
        body = {"name": name, "configuration": {"hnsw": {"space": space}}}
        answer = server.post(TENANT, json=body)
        assert answer.status_code == 200, answer.text
        self.id = answer.json()["id"]

    def __call__(self, operation: str, **body: Any) -> None:
        answer = self.server.post(f"{TENANT}/{self.id}/{operation}", json=body)
        assert answer.status_code in (200, 201), answer.text

    def source(self) -> chroma.Collection:
        return chroma.connect(self.address, self.name, Layout(), None)


def stored(conninfo: str, namespace: str, vector: str) -> list[Any]:
    query = sql.SQL("SELECT document_id, {}::text, payload FROM {} ORDER BY document_id")
    with psycopg.connect(conninfo) as conn:
        return conn.execute(query.format(sql.Identifier(vector), sql.Identifier(namespace, "documents"))).fetchall()


@pytest.mark.parametrize(("space", "metric"), [("l2", "euclidean"), ("ip", "dot"), ("cosine", "cosine")])
def test_a_collection_is_a_namespace(api: Api, conninfo: str, server: httpx.Client, space: str, metric: str) -> None:
    items = Collection(server, f"items-{space}", space)
    tiny = [0.1, 1e-45, -3.4e38] if space != "cosine" else [0, 0, 1]
    metadata = {"n": 1, "ok": True, "s": "ä", "document": "its own"}
    items("add", ids=["a", "b"], embeddings=[tiny, [1, 2, 3]], documents=["words", None], metadatas=[metadata, None])
    arguments = ["--table", items.name, "--namespace", api.namespace, "--create", "--no-wait"]
    done = run(conninfo, "import", "--from", items.address, *arguments)
    assert done.exit_code == 0, done.output
    (config,) = api("GET", f"/namespaces/{api.namespace}")["vector_configs"]
    assert (config["name"], config["dimension"], config["metric"]) == ("embedding", 3, metric)
    payload = {"n": 1, "ok": True, "s": "ä", "metadata_document": "its own", "document": "words"}
    (a, b) = stored(conninfo, api.namespace, "embedding")
    assert a == ("a", "[0,0,1]" if space == "cosine" else "[0.1,1e-45,-3.4e+38]", payload)
    assert (b[0], b[2]) == ("b", {})
    assert len(b[1].split(",")) == 3


def test_the_documented_command_runs(api: Api, conninfo: str, server: httpx.Client) -> None:
    Collection(server, "products", "ip")("add", ids=["a"], embeddings=[[1, 2]], documents=["red"], metadatas=None)
    place = f"chroma+{str(server.base_url).rstrip('/')}"
    done = run(conninfo, *documented("chroma", place, api.namespace))
    assert done.exit_code == 0, done.output
    assert stored(conninfo, api.namespace, "text") == [("a", "[1,2]", {"document": "red"})]


def test_order_stays_and_what_is_deleted_costs_no_other_record(server: httpx.Client) -> None:
    items = Collection(server, "moving", "l2")
    ids = [f"d{n * 7919 % 1000}" for n in range(500)]
    for begin in (0, 250):
        part = ids[begin : begin + 250]
        items("add", ids=part, embeddings=[[1, 2]] * 250, documents=part, metadatas=None)
    source = items.source()
    try:
        whole = list(source.read({}, At()))
        assert [i for chunk in whole for i in chunk.ids] == ids
        first = whole[0]
        at = At(first.last, first.place)

        def rest() -> list[str]:
            return [i for chunk in source.read({}, at) for i in chunk.ids]

        assert rest() == ids[64:]  # what an interrupted import does
        items("upsert", ids=[ids[10], "new"], embeddings=[[5, 5], [6, 6]], documents=None, metadatas=None)
        assert rest() == [*ids[64:], "new"]
        items("delete", ids=ids[3:9])
        assert rest() == [*ids[64:], "new"]
        items("delete", ids=[ids[63]])  # the last one that was read: all come again
        assert rest() == [*ids[:3], *ids[9:63], *ids[64:], "new"]
    finally:
        source.close()


def test_what_cannot_be_imported_is_told(api: Api, conninfo: str, server: httpx.Client) -> None:
    def told(place: str, *arguments: str) -> str:
        done = run(conninfo, "import", "--from", place, "--namespace", api.namespace, "--create", *arguments)
        assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
        return done.output

    place = Collection(server, "empty", "l2").address
    assert "no collection 'no/thing'" in told(place, "--table", "no/thing")
    assert "no collection 'empty'" in told(f"{place}/other/database", "--table", "empty")
    assert "A dimension is from 1" in told(place, "--table", "empty")
    assert "chroma run" in told("chroma:/some/folder", "--table", "empty")
    assert "the collection has" in told(place, "--table", "empty", "--id", "n")
    assert "cannot be read" in told("chroma+http://127.0.0.1:1", "--table", "empty")


class Flaky(BaseHTTPRequestHandler):
    """Passes requests on to Chroma, once `statuses` are given."""

    statuses: list[int]
    keys: set[str | None]
    behind: httpx.Client

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.keys.add(self.headers.get("X-Chroma-Token"))
        if self.path.endswith("/get") and self.statuses:
            self.send_response(self.statuses.pop(0))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {"Content-Type": "application/json"}
        answer = self.behind.request(self.command, self.path, content=body, headers=headers)
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = _pass

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_server_is_asked_again_and_is_told_the_key(api: Api, conninfo: str, server: httpx.Client) -> None:
    items = Collection(server, "flaky", "ip")
    items("add", ids=["a"], embeddings=[[1, 2]], documents=None, metadatas=[{"n": 1}])
    statuses, keys = [503, 429, 500], set[str | None]()
    handler = type("Handler", (Flaky,), {"statuses": statuses, "keys": keys, "behind": server})
    with HTTPServer(("127.0.0.1", 0), handler) as between:
        thread = threading.Thread(target=between.serve_forever)
        thread.start()
        place = f"chroma+http://127.0.0.1:{between.server_port}"
        arguments = ["--table", "flaky", "--namespace", api.namespace, "--create", "--no-wait"]
        done = run(conninfo, "import", "--from", place, *arguments, PGRETRIEVE_SOURCE_API_KEY="chroma-key")
        between.shutdown()
        thread.join()
    assert done.exit_code == 0, done.output
    assert (statuses, keys) == ([], {"chroma-key"})
    assert "chroma-key" not in done.output
    assert stored(conninfo, api.namespace, "embedding") == [("a", "[1,2]", {"n": 1})]
