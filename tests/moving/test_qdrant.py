"""Qdrant's collections, by its client's own engine and over the wire: vectors to the bit, scrolls that go on."""

import gc
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from qdrant_client import QdrantClient
from qdrant_client import models as q

from app.moving.rows import Layout
from app.moving.sources import At, qdrant
from tests.http import Api
from tests.moving.qdrant_server import QdrantServer
from tests.moving.running import documented, run

KEY = "qdrant-key-0123456789"
UUID = "0f0e0d0c-0000-4000-8000-000000000001"
TINY = [0.1, 1e-45, -3.4e38]


def points(client: QdrantClient, count: int = 150) -> QdrantClient:
    """A collection of every kind of vector, and one of a single vector without a name."""
    many = q.MultiVectorConfig(comparator=q.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "items",
        vectors_config={
            "text": q.VectorParams(size=3, distance=q.Distance.DOT),
            "image": q.VectorParams(size=2, distance=q.Distance.COSINE),
            "parts": q.VectorParams(size=2, distance=q.Distance.EUCLID, multivector_config=many),
        },
        sparse_vectors_config={"words": q.SparseVectorParams()},
    )
    each: dict[str, Any] = {"image": [1, 0], "parts": [[0.1, 2], [3, 4]]}
    made = [
        q.PointStruct(
            id=n,
            vector={**each, "text": [n, *TINY[1:]], "words": q.SparseVector(indices=[9, 2], values=[0.1, n + 1])},
            payload={"n": n, "nested": {"a": [None, "ä"]}},
        )
        for n in range(count - 1)
    ]
    made.append(q.PointStruct(id=UUID, vector={"text": TINY}))
    client.upsert("items", made)
    client.create_collection("plain", vectors_config=q.VectorParams(size=2, distance=q.Distance.EUCLID))
    client.upsert("plain", [q.PointStruct(id=7, vector=[1, 2], payload={"title": "red"})])
    client.create_collection("taxi", vectors_config=q.VectorParams(size=2, distance=q.Distance.MANHATTAN))
    client.upsert("taxi", [q.PointStruct(id=7, vector=[1, 2])])
    return client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    points(QdrantClient(path=str(tmp_path / "qdrant"))).close()
    return tmp_path / "qdrant"


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    client = points(QdrantClient(":memory:"))
    with QdrantServer(client, KEY) as running:
        yield running
    client.close()


def stored(conninfo: str, namespace: str, *columns: str) -> list[Any]:
    names = sql.SQL(", ").join(sql.Identifier(column) for column in columns)
    query = sql.SQL('SELECT document_id, {} FROM {} ORDER BY document_id COLLATE "C"')
    with psycopg.connect(conninfo) as conn:
        return conn.execute(query.format(names, sql.Identifier(namespace, "documents"))).fetchall()


def check(api: Api, conninfo: str) -> None:
    shown = api("GET", f"/namespaces/{api.namespace}")["vector_configs"]
    assert [(c["name"], c["dimension"], c["metric"]) for c in shown] == [
        ("text", 3, "dot"),
        ("image", 2, "cosine"),
        ("parts", 2, "euclidean"),
        ("words", 1_000_000_000, "dot"),
    ]
    rows = stored(conninfo, api.namespace, "text", "image", "words", "payload")
    assert len(rows) == 150
    assert rows[0] == (
        "0",
        "[0,1e-45,-3.4e+38]",
        "[1,0]",
        "{3:1,10:0.1}/1000000000",
        {"n": 0, "nested": {"a": [None, "ä"]}},
    )
    assert next(row for row in rows if row[0] == UUID) == (UUID, "[0.1,1e-45,-3.4e+38]", None, None, {})
    with psycopg.connect(conninfo) as conn:
        query = sql.SQL("SELECT vector::text FROM {} WHERE document_id = '148' ORDER BY position")
        parts = conn.execute(query.format(sql.Identifier(api.namespace, "documents_parts"))).fetchall()
    assert parts == [("[0.1,2]",), ("[3,4]",)]


def test_a_folder_is_a_namespace(api: Api, conninfo: str, folder: Path) -> None:
    arguments = ["--table", "items", "--namespace", api.namespace, "--create", "--no-wait"]
    done = run(conninfo, "import", "--from", f"qdrant:{folder}", *arguments)
    assert done.exit_code == 0, done.output
    check(api, conninfo)


def test_a_server_is_asked_again_and_the_key_is_told_to_nobody_else(
    api: Api, conninfo: str, server: QdrantServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.statuses = [503, 429, 500]
    arguments = [
        "import",
        "--from",
        f"qdrant+{server.url}",
        "--table",
        "items",
        "--namespace",
        api.namespace,
        "--create",
    ]
    refused = run(conninfo, *arguments)
    assert refused.exit_code == 1
    assert "403" in refused.output
    done = run(conninfo, *arguments, "--no-wait", PGRETRIEVE_SOURCE_API_KEY=KEY)
    assert done.exit_code == 0, done.output
    check(api, conninfo)
    assert server.statuses == []
    assert {scroll["limit"] for scroll in server.scrolls[:4]} == {64}
    assert "without TLS" in done.stderr
    with psycopg.connect(conninfo) as conn:
        noted = str(
            conn.execute("SELECT i FROM pgretrieve.imports i WHERE namespace_id = %s", [api.namespace]).fetchall()
        )
    assert server.url in noted
    assert KEY not in done.output + caplog.text + noted


def test_the_documented_command_runs(api: Api, conninfo: str, server: QdrantServer) -> None:
    client = server.client
    client.create_collection("products", vectors_config=q.VectorParams(size=2, distance=q.Distance.COSINE))
    client.upsert("products", [q.PointStruct(id=UUID, vector=[3, 4], payload={"title": "red"})])
    command = documented("qdrant", f"qdrant+{server.url}", api.namespace)
    done = run(conninfo, *command, PGRETRIEVE_SOURCE_API_KEY=KEY)
    assert done.exit_code == 0, done.output
    assert stored(conninfo, api.namespace, "text", "payload") == [(UUID, "[0.6,0.8]", {"title": "red"})]


def test_what_cannot_be_imported_is_told(api: Api, conninfo: str, folder: Path, server: QdrantServer) -> None:
    def told(place: str, *arguments: str) -> str:
        namespace = f"{api.namespace}_new"
        options = ("--from", place, "--namespace", namespace, "--create", *arguments)
        done = run(conninfo, "import", *options, PGRETRIEVE_SOURCE_API_KEY=KEY)
        assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
        return done.output

    local, remote = f"qdrant:{folder}", f"qdrant+{server.url}"
    for place in (local, remote):
        assert "no collection 'nothing'" in told(place, "--table", "nothing")
        assert "distance is Manhattan" in told(place, "--table", "taxi")
        assert "the collection has" in told(place, "--table", "plain", "--id", "title")
    assert "qdrant:FOLDER" in told("qdrant:/no/such/folder", "--table", "items")
    assert "cannot be read" in told("qdrant+http://127.0.0.1:1", "--table", "items")
    other = QdrantClient(path=str(folder))
    with warnings.catch_warnings():  # the client leaves the file of its lock to the garbage
        warnings.simplefilter("ignore", ResourceWarning)
        assert "already accessed" in told(local, "--table", "items")
        gc.collect()
    other.close()


def test_a_scroll_goes_on_from_each_place(folder: Path) -> None:
    """What an interrupted import does after any of its chunks; and after the last one, nothing."""
    source = qdrant.connect(f"qdrant:{folder}", "items", Layout(), None)
    try:
        whole = list(source.read({}, At()))
        assert [len(chunk.ids) for chunk in whole] == [64, 86]
        for n, chunk in enumerate(whole, start=1):
            at = At(chunk.last, chunk.place)
            rest = [identifier for later in source.read({}, at) for identifier in later.ids]
            assert rest == [identifier for later in whole[n:] for identifier in later.ids]
        assert json.loads(str(whole[0].place)) == 64
        assert whole[-1].place == "null"
    finally:
        source.close()


def test_a_vector_without_a_name_is_called_vector(api: Api, conninfo: str, folder: Path) -> None:
    api.standalone(("v", 2, "euclidean"))
    arguments = ["--namespace", api.namespace, "--vector", "v=vector", "--no-wait"]
    done = run(conninfo, "import", "--from", f"qdrant:{folder}", "--table", "plain", *arguments)
    assert done.exit_code == 0, done.output
    assert stored(conninfo, api.namespace, "v", "payload") == [("7", "[1,2]", {"title": "red"})]
