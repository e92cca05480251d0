"""Promotion among faults: killed backends, rivals, locks that are held, traffic. All of it happens, or nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import service
from app.db.engine import create_engine, raw, transaction
from app.domain.namespaces import NewVector, create_standalone, lock_catalog
from app.domain.promotion import Promotion, promote
from app.errors import Conflict
from app.retrieval.catalog import Catalog
from app.settings import Settings
from tests.faults.sabotage import Sabotage
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.state import blocked, kill, rows, state

LOCAL = ("summary", 384)
QUERY = [1.0, 0.5] + [0.0] * 382
PROMOTION = {
    "vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}],
    "add_vectors": [{"name": "image", "dimension": 3}, {"name": "sound", "dimension": 5, "metric": "dot"}],
}


def some_documents(count: int, prefix: str = "d") -> list[dict[str, Any]]:
    return [document(f"{prefix}{n}", {"summary": [1.0, n / 7] + [0.0] * 382}, n=n) for n in range(count)]


def is_gone(answer: httpx.Response) -> bool:
    """Whether this is the answer of a request that lost its database connection."""
    error = answer.json().get("error", {})
    return (
        answer.status_code == 503
        and answer.json()["success"] is False
        and error["code"] == "database_unavailable"
        and error["details"]["retryable"] is True
    )


class Http:
    """The namespace of an `Api`, for requests that run beside each other; statuses are for the test to judge."""

    def __init__(self, client: httpx.AsyncClient, api: Api) -> None:
        self.client, self.namespace = client, api.namespace
        self.headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers)

    async def promote(self, body: Any = PROMOTION) -> httpx.Response:
        return await self.post(f"/namespaces/{self.namespace}/promote", body)

    async def upsert(self, documents: list[dict[str, Any]]) -> httpx.Response:
        return await self.post(f"/namespaces/{self.namespace}/documents/upsert", {"documents": documents})


@pytest.fixture
async def http(base_url: str, api: Api) -> AsyncIterator[Http]:
    async with httpx.AsyncClient(base_url=f"{base_url}/v1", timeout=30) as client:
        yield Http(client, api)


@asynccontextmanager
async def holding(engine: AsyncEngine, settings: Settings) -> AsyncIterator[tuple[AsyncConnection, int]]:
    """A transaction that keeps its locks to the end of the block, and the process id of its backend."""
    async with transaction(engine, settings) as conn:
        yield conn, (await raw(conn)).info.backend_pid


async def lock_documents(conn: AsyncConnection, namespace: str, mode: str) -> None:
    name = sql.Identifier(namespace, "documents").as_string(None)
    await conn.exec_driver_sql(f"LOCK TABLE {name} IN {mode} MODE")


# Backends that are killed


@pytest.fixture(scope="module")
def sabotage(conninfo: str) -> Sabotage:
    return Sabotage(conninfo)


@pytest.fixture(scope="module")
def sabotaged(sabotage: Sabotage, conninfo: str, settings: Settings) -> Iterator[httpx.Client]:
    """A client of a service whose statements are counted; keys are looked up once."""
    trusting = settings.model_copy(update={"key_cache_s": 3600.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.create_engine", sabotage.create_engine)
        with (
            service.in_background(trusting, conninfo, ROOT_KEY) as url,
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


# Rivals


async def test_of_two_promotions_at_once_one_wins(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    async with holding(engine, settings) as (conn, holder):
        await lock_catalog(conn, api.namespace, exclusive=True)
        rivals = [asyncio.create_task(http.promote()) for _ in range(2)]
        await blocked(conninfo, holder, 2)
    won, lost = sorted(await asyncio.gather(*rivals), key=lambda answer: answer.status_code)
    assert (won.status_code, lost.status_code) == (200, 409)
    assert lost.json()["error"]["code"] == "not_standalone"
    assert state(conninfo, api.namespace)[:2] == ("managed", 2)


async def test_of_many_promotions_at_once_one_wins(conninfo: str, settings: Settings) -> None:
    many, name = 20, f"test_{uuid4().hex[:12]}"
    engine = create_engine(conninfo, settings.model_copy(update={"pool_size": many + 1}))

    async def rival(n: int) -> Catalog:
        wanted = Promotion(add_vectors=[NewVector(f"v{n}", 3)])
        async with transaction(engine, settings) as conn:
            return await promote(conn, name, wanted, {}, settings, promoted_by=f"rival {n}")

    try:
        async with transaction(engine, settings) as conn:
            await create_standalone(conn, settings, namespace_id=name, vectors=[NewVector("v", 3)])
        async with holding(engine, settings) as (conn, holder):
            await lock_catalog(conn, name, exclusive=True)
            rivals = [asyncio.create_task(rival(n)) for n in range(many)]
            await blocked(conninfo, holder, many)
        answers = await asyncio.gather(*rivals, return_exceptions=True)
    finally:
        await engine.dispose()
    (won,) = [answer for answer in answers if isinstance(answer, Catalog)]
    lost = [answer for answer in answers if isinstance(answer, Conflict) and answer.error_code == "not_standalone"]
    assert len(lost) == many - 1
    new = won.vector_configs[-1].name
    assert state(conninfo, name)[:6] == ("managed", 2, ["v", new], None, 1, 1)
    assert state(conninfo, name)[-1][-2:] == ["v", new]


# Locks that are held


async def test_a_reader_that_stays_is_given_way_to_and_the_answer_comes_in_time(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    api.upsert(some_documents(3))
    before = state(conninfo, api.namespace)
    waits = settings.lock_attempts * settings.lock_timeout_ms / 1000
    pauses = sum(min(1.0, 0.05 * 2**n + 0.1) for n in range(settings.lock_attempts - 1))
    async with holding(engine, settings) as (conn, _):
        await lock_documents(conn, api.namespace, "ACCESS SHARE")
        started = time.monotonic()
        answer = await http.promote()
        took = time.monotonic() - started
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]) == (409, "locked", {"retryable": True})
    assert waits <= took < waits + pauses + 2
    assert state(conninfo, api.namespace) == before
    assert (await http.promote()).status_code == 200


async def test_promotion_passes_when_the_reader_goes_away(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    async with holding(engine, settings) as (conn, holder):
        await lock_documents(conn, api.namespace, "ACCESS SHARE")
        waiting = asyncio.create_task(http.promote())
        await blocked(conninfo, holder)
    assert (await waiting).status_code == 200


async def test_a_reader_does_not_hinder_a_promotion_that_only_maps(
    http: Http, api: Api, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    async with holding(engine, settings) as (conn, _):
        await lock_documents(conn, api.namespace, "ACCESS SHARE")
        answer = await http.promote({"vector_mappings": PROMOTION["vector_mappings"]})
    assert answer.status_code == 200


async def test_an_upsert_outwaits_promotions_that_give_way(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    async with holding(engine, settings) as (conn, holder):
        await lock_catalog(conn, api.namespace, exclusive=True)
        waiting = asyncio.create_task(http.upsert(some_documents(3)))
        await blocked(conninfo, holder)
        answer = await http.promote()  # its waits together are longer than one lock_timeout
        assert answer.json()["error"]["code"] == "locked"
    assert (await waiting).status_code == 200
    assert len(rows(conninfo, api.namespace)) == 3


async def test_writers_queue_behind_a_promotion_that_waits_rather_than_starve_it(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)

    async def write() -> Catalog:
        async with transaction(engine, settings) as conn:
            return await lock_catalog(conn, api.namespace, exclusive=False)

    async with holding(engine, settings) as (conn, holder):
        await lock_catalog(conn, api.namespace, exclusive=False)
        assert (await write()).mode == "standalone"  # writers do not disturb each other
        promoting = asyncio.create_task(http.promote())
        (promoter,) = await blocked(conninfo, holder)
        writing = asyncio.create_task(write())
        await blocked(conninfo, promoter)
    assert (await promoting).status_code == 200
    assert (await writing).mode == "managed"


# Traffic


async def test_upserts_and_searches_beside_a_promotion_see_no_error(http: Http, api: Api, conninfo: str) -> None:
    api.standalone(LOCAL, ("other", 2))
    api.upsert(some_documents(20))
    api.retriever("r", feature_search(search("summary", "{{INPUT.v}}"), final_top_k=10))
    expected = api.ids("r", inputs={"v": QUERY})
    stop, rounds = asyncio.Event(), asyncio.Condition()
    done = dict.fromkeys(range(8), 0)
    stored: set[str] = {f"d{n}" for n in range(20)}

    async def upsert(worker: int) -> None:
        ids = [f"w{worker}-{done[worker]}-{n}" for n in range(20)]
        answer = await http.upsert([document(name, {"other": [1, 2]}) for name in ids])
        assert answer.status_code == 200, answer.text
        stored.update(ids)

    async def execute(worker: int) -> None:
        answer = await http.post("/retrievers/r/execute", {"inputs": {"v": QUERY}})
        assert answer.status_code == 200, answer.text
        assert [hit["document_id"] for hit in answer.json()["documents"]] == expected

    async def repeat(worker: int) -> None:
        while not stop.is_set():
            await (upsert if worker % 2 else execute)(worker)
            async with rounds:
                done[worker] += 1
                rounds.notify_all()

    async def each_has_done(more: int) -> None:
        goals = {worker: count + more for worker, count in done.items()}
        async with rounds:
            await rounds.wait_for(lambda: all(done[worker] >= goal for worker, goal in goals.items()))

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for worker in done:
            group.create_task(repeat(worker))
        await each_has_done(3)
        answer = await http.promote()
        await each_has_done(3)
        stop.set()
    assert answer.status_code == 200, answer.text
    assert {row[0] for row in rows(conninfo, api.namespace)} == stored
    assert state(conninfo, api.namespace)[0] == "managed"
