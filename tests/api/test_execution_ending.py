"""How requests end that nobody waits for any more: their statements are cancelled; and a server that stops first
answers what it has begun."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from app import service
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document, feature_search, search

NEAR = {"inputs": {"v": [1, 0]}}
Look = Callable[[], int]


@pytest.fixture
def locked(api: Api, conninfo: str) -> Iterator[Callable[[], Any]]:
    """A namespace, and a function that locks its documents until the block is left."""
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", {"v": [1, n]}) for n in range(3)])
    api.retriever("near", feature_search(search("v", "{{INPUT.v}}")))

    @contextmanager
    def lock() -> Iterator[Look]:
        with psycopg.connect(conninfo) as holder, psycopg.connect(conninfo, autocommit=True) as looking:
            row = holder.execute(
                "SELECT schema_name FROM pgretrieve.namespaces WHERE namespace_id = %s", [api.namespace]
            ).fetchone()
            assert row is not None
            table = sql.Identifier(row[0], "documents")
            holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))

            def waiting() -> int:
                query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
                found = looking.execute(query, [holder.info.backend_pid]).fetchone()
                assert found is not None
                return int(found[0])

            yield waiting
            holder.rollback()

    yield lock


def until(condition: Callable[[], bool], seconds: float = 5) -> float:
    """Wait for it; answers how long that took."""
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < seconds
        time.sleep(0.005)
    return time.perf_counter() - began


def send(api: Api, url: str, method: str, path: str, body: Any, seconds: float) -> httpx.Response:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}
    return httpx.request(method, f"{url}/v1{path}", json=body, headers=headers, timeout=seconds)


REQUESTS = [
    ("POST", "/retrievers/near/execute", NEAR),
    ("POST", "/retrievers/near/execute/batch", {"queries": [NEAR] * 4}),
    ("POST", "/retrievers/execute", {"stages": [feature_search(search("v", [1, 0]))]}),
    ("GET", "/documents/d0", None),
    ("DELETE", "/documents/d0", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS, ids=[path for _, path, _ in REQUESTS])
def test_a_client_that_goes_away_cancels_its_statement(
    api: Api, locked: Any, base_url: str, method: str, path: str, body: Any
) -> None:
    with locked() as waiting, ThreadPoolExecutor() as threads:
        sent = threads.submit(send, api, base_url, method, path, body, 0.8)
        until(lambda: waiting() > 0)
        with pytest.raises(httpx.ReadTimeout):
            sent.result()
        assert until(lambda: waiting() == 0) < 1
    assert api.ids("near", **NEAR) == ["d0", "d1", "d2"]


@pytest.fixture
def hasty(settings: Settings, conninfo: str) -> Iterator[str]:
    """A server that gives requests half a second, with two connections."""
    chosen = settings.model_copy(update={"request_timeout_s": 0.5, "pool_size": 2})
    with service.in_background(chosen, conninfo, ROOT_KEY) as url:
        yield url


def test_a_request_ends_when_its_time_is_up(api: Api, locked: Any, hasty: str) -> None:
    with locked() as waiting:
        for method, path, body in REQUESTS:
            began = time.perf_counter()
            answer = send(api, hasty, method, path, body, 10)
            assert 0.4 < time.perf_counter() - began < 3
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "request_timeout")
            assert error["type"] == "ServiceUnavailableError"
            assert error["details"]["retryable"] is False
            assert until(lambda: waiting() == 0) < 1
    answer = send(api, hasty, "POST", "/retrievers/near/execute", NEAR, 10)
    assert len(answer.json()["documents"]) == 3


def test_a_connection_serves_on_after_a_request_that_took_its_time(api: Api, locked: Any, base_url: str) -> None:
    """The watcher of one request does not eat the next one on the same connection."""
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}
    with httpx.Client(base_url=f"{base_url}/v1", headers=headers, timeout=10) as http, ThreadPoolExecutor() as threads:
        with locked() as waiting:
            slow: Future[httpx.Response] = threads.submit(http.post, "/retrievers/near/execute", json=NEAR)
            until(lambda: waiting() > 0)
            time.sleep(0.1)
        assert slow.result().status_code == 200
        with locked() as waiting:
            slow = threads.submit(http.get, "/documents/d0")
            until(lambda: waiting() > 0)
            time.sleep(0.1)
        assert slow.result().status_code == 200
        for _ in range(3):
            assert http.post("/retrievers/near/execute", json=NEAR).status_code == 200


def test_a_server_that_stops_answers_what_it_has_begun(
    api: Api, locked: Any, settings: Settings, conninfo: str
) -> None:
    with ThreadPoolExecutor() as threads:
        server = service.in_background(settings, conninfo, ROOT_KEY)
        url = server.__enter__()
        with locked() as waiting:
            begun = threads.submit(send, api, url, "POST", "/retrievers/near/execute", NEAR, 20)
            until(lambda: waiting() > 0)
            stopping = threads.submit(server.__exit__, None, None, None)
            time.sleep(0.3)
            assert not begun.done()
        assert len(begun.result().json()["documents"]) == 3
        stopping.result()
    with pytest.raises(httpx.ConnectError):
        send(api, url, "GET", f"/documents/{uuid4().hex}", None, 1)
