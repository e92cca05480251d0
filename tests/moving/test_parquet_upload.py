"""Parquet files over HTTP: stored as JSON lines are, from the disk, and what is wrong with one is told."""

import asyncio
import io
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from app import service
from app.api import watch
from app.settings import Settings
from tests.http import ROOT_KEY, Api

TYPE = "application/vnd.apache.parquet"


def sent(api: Api, content: Any, **params: str) -> httpx.Response:
    headers = {"Authorization": api.authorization, "Content-Type": TYPE}
    path = f"/namespaces/{api.namespace}/documents/import"
    return api.http.post(path, content=content, headers=headers, params=params)


def a_file(count: int, **columns: Any) -> bytes:
    """A file as others make them, of row groups of 300."""
    rows: dict[str, Any] = {
        "document_id": [f"d{n:04}" for n in range(count)],
        "v": pa.array([[0.1, n + 1] for n in range(count)], pa.list_(pa.float32(), 2)),
        "n": list(range(count)),
        **columns,
    }
    file = io.BytesIO()
    pq.write_table(pa.table(rows), file, row_group_size=300)
    return file.getvalue()


def ids(api: Api) -> list[str]:
    answer = api.http.get(f"/namespaces/{api.namespace}/documents/export", headers={"Authorization": api.authorization})
    return [line.split('"')[3] for line in answer.text.splitlines()]


def test_a_file_is_stored_as_lines_are(api: Api) -> None:
    api.standalone(("v", 2))
    payloads = ['{"title": "red"}'] * 1_200
    payloads[700] = "{broken"
    vectors: list[Any] = [[0.1, n + 1] for n in range(1_200)]
    vectors[3] = [0, 0]
    columns = {"payload": payloads, "v": pa.array(vectors, pa.list_(pa.float32(), 2))}
    body = a_file(1_200, **columns)
    pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    answer = sent(api, pieces, collection_id="of its own")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["lines"], told["stored"], told["problem_count"]) == (1_200, 1_198, 2)
    assert [(p["line"], p["document_id"], p["type"]) for p in told["problems"]] == [
        (4, "d0003", "bad_vector"),
        (701, "d0700", "bad_json"),
    ]
    found = api("GET", "/collections/of its own/documents/d1199")
    assert (found["n"], found["title"]) == (1_199, "red")


def test_a_file_that_is_none_stores_nothing(api: Api) -> None:
    api.standalone(("v", 2))
    whole = a_file(10)
    for body in (b"", b"PAR1", b"no file at all", whole[:-20], whole[100:]):
        answer = sent(api, body)
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["details"]) == ("unreadable_file", {"stored": 0, "lines": 0})
    without_ids = io.BytesIO()
    pq.write_table(pa.table({"n": [1]}), without_ids)
    assert sent(api, without_ids.getvalue()).json()["error"]["code"] == "unknown_column"
    assert ids(api) == []


def test_of_a_file_that_is_broken_within_the_answer_tells_what_is_stored(api: Api) -> None:
    api.standalone(("v", 2))
    body = bytearray(a_file(1_200))
    data = pq.ParquetFile(io.BytesIO(body)).metadata.row_group(2).column(0)
    at = data.dictionary_page_offset or data.data_page_offset
    body[at : at + 400] = b"\xff" * 400
    answer = sent(api, bytes(body))
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("unreadable_file", {"stored": 500, "lines": 500})
    assert ids(api) == [f"d{n:04}" for n in range(500)]


def test_a_file_has_a_largest_size(api: Api, conninfo: str, settings: Settings) -> None:
    api.standalone(("v", 2))
    whole = a_file(1_000)
    smaller = settings.model_copy(update={"max_import_bytes": len(whole) - 1})
    with service.in_background(smaller, conninfo, ROOT_KEY) as url, httpx.Client(base_url=f"{url}/v1") as http:
        answer = sent(Api(http, api.namespace), whole)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert ids(api) == []


async def test_each_chunk_has_the_whole_time_of_a_request() -> None:
    ends: list[float | None] = []
    watched = asyncio.Event()

    async def works(_scope: Any, _receive: Any, _send: Any) -> None:
        await watched.wait()
        limit = watch._current.get()._limit
        assert limit is not None
        ends.append(limit.when())
        watch.renew()
        ends.append(limit.when())

    async def receive() -> Any:
        watched.set()
        await asyncio.Event().wait()

    async def send(_message: Any) -> None:
        """Nobody reads it."""

    scope: Any = {"type": "http", "path": "/v1/", "headers": []}
    await watch.Watch(works, 600)(scope, receive, send)
    first, renewed = ends
    assert first is not None
    assert renewed is not None
    assert renewed > first
