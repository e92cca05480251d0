"""Promotion while backends are killed at each of its statements: all of it happens, or nothing."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.settings import Settings
from tests.faults.clients import LOCAL, PROMOTION, QUERY, Http, holding, is_gone, lock_documents, some_documents, steady
from tests.faults.sabotage import Sabotage
from tests.http import ROOT_KEY, Api, feature_search, search
from tests.state import blocked, kill, rows, state


@pytest.fixture(scope="module")
def sabotage(conninfo: str) -> Sabotage:
    return Sabotage(conninfo)


@pytest.fixture(scope="module")
def sabotaged(sabotage: Sabotage, conninfo: str, settings: Settings) -> Iterator[httpx.Client]:
    """A client of a service whose statements are counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.create_engine", sabotage.create_engine)
        with (
            service.in_background(steady(settings), conninfo, ROOT_KEY) as url,
            httpx.Client(base_url=f"{url}/v1", timeout=30) as client,
        ):
            yield client


def promoted(client: httpx.Client, namespace: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    return client.post(f"/namespaces/{namespace}/promote", json=PROMOTION, headers=headers)


def test_a_killed_backend_leaves_all_or_nothing_at_every_statement(
    sabotaged: httpx.Client, sabotage: Sabotage, conninfo: str
) -> None:
    def prepared() -> Api:
        api = Api(sabotaged, f"test_{uuid4().hex[:12]}")
        sabotage.steps = None
        api.standalone(LOCAL)
        api.upsert(some_documents(3))
        return api

    undisturbed = prepared()
    before = state(conninfo, undisturbed.namespace)
    steps = sabotage.arm()
    assert promoted(sabotaged, undisturbed.namespace).status_code == 200
    after = state(conninfo, undisturbed.namespace)
    assert before != after
    for what in ("set_config('lock_timeout'", "FOR UPDATE", "ALTER TABLE", "procrastinate_defer_jobs", "COMMIT"):
        assert any(what in step for step in steps), f"no step is {what}"

    for at, what in enumerate(steps):
        api = prepared()
        documents = rows(conninfo, api.namespace)
        done = sabotage.arm(at)
        answer = promoted(sabotaged, api.namespace)
        assert done[at].replace(api.namespace, undisturbed.namespace) == what
        committed = at == len(steps) - 1
        if committed:
            assert answer.status_code == 200
        else:
            assert is_gone(answer), f"killed {what}: {answer.status_code} {answer.text}"
        assert state(conninfo, api.namespace) == (after if committed else before), f"killed {what}"

        # The very next request works: the pool has noticed.
        assert promoted(sabotaged, api.namespace).status_code == (409 if committed else 200), f"killed {what}"
        assert state(conninfo, api.namespace) == after
        assert rows(conninfo, api.namespace) == documents


@pytest.mark.parametrize("request_", ["promote", "upsert", "execute", "list"])
async def test_a_request_whose_backend_is_killed_while_it_waits_is_told_to_try_again(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings, request_: str
) -> None:
    api.standalone(LOCAL)
    api.upsert(some_documents(3))
    api.retriever("r", feature_search(search("summary", QUERY)))
    ways: dict[str, Callable[[], Any]] = {
        "promote": http.promote,
        "upsert": lambda: http.upsert(some_documents(5)),
        "execute": lambda: http.post("/retrievers/r/execute"),
        "list": lambda: http.post("/documents/list"),
    }
    before, documents = state(conninfo, api.namespace), rows(conninfo, api.namespace)
    async with holding(engine, settings) as (conn, holder):
        await lock_documents(conn, api.namespace, "ACCESS EXCLUSIVE")
        waiting = asyncio.create_task(ways[request_]())
        kill(conninfo, *await blocked(conninfo, holder))
        answer = await waiting
    assert is_gone(answer), answer.text
    assert (state(conninfo, api.namespace), rows(conninfo, api.namespace)) == (before, documents)
    assert (await ways[request_]()).status_code == 200


def test_a_pool_whose_idle_connections_have_all_ended_recovers_at_once(
    fresh_database: Callable[[], str], settings: Settings
) -> None:
    url = fresh_database()
    all_of_them = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with service.in_background(settings, url, ROOT_KEY) as base, httpx.Client(base_url=f"{base}/v1") as client:
        api = Api(client, "n")
        api.standalone(LOCAL)
        api.upsert(some_documents(3))
        api.retriever("r", feature_search(search("summary", QUERY)))
        requests: list[Callable[[], Any]] = [
            lambda: api.execute("r"),
            lambda: api.upsert(some_documents(4)),
            lambda: api.promote(PROMOTION),
            lambda: api("POST", "/documents/list", {}),
        ]
        for request in requests:
            with psycopg.connect(url) as conn:
                pids = [pid for (pid,) in conn.execute(all_of_them).fetchall()]
            assert pids
            kill(url, *pids)
            request()
