"""Promotion among rivals and traffic: one wins, the others are told, and nobody else sees an error."""

import asyncio
from uuid import uuid4

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import create_engine, transaction
from app.domain.catalog.namespaces import NewVector, create_standalone, lock_catalog
from app.domain.promoting.promotion import Promotion, promote
from app.errors import Conflict
from app.retrieval.catalog import Catalog
from app.settings import Settings
from tests.faults.clients import LOCAL, PROMOTION, QUERY, Http, holding, some_documents
from tests.http import Api, document, feature_search, search
from tests.state import blocked, rows, state

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


async def test_a_hundred_promotions_and_a_hundred_writes_at_once(base_url: str, api: Api, conninfo: str) -> None:
    api.standalone(LOCAL)
    many, before = 100, state(conninfo, api.namespace)
    async with httpx.AsyncClient(base_url=f"{base_url}/v1", timeout=60, limits=httpx.Limits()) as client:
        http = Http(client, api)
        promotions = [http.promote({"add_vectors": [{"name": f"v{n}", "dimension": 3}]}) for n in range(many)]
        writes = [http.upsert(some_documents(3, f"w{n}-")) for n in range(many)]
        mixed = [request for pair in zip(promotions, writes, strict=True) for request in pair]
        answers = await asyncio.gather(*mixed)
    promoted, written = answers[::2], answers[1::2]
    (won,) = [n for n, answer in enumerate(promoted) if answer.status_code == 200]
    for told in (answer.json()["error"] for answer in answers if answer.status_code != 200):
        # Some of two hundred may find no free connection in time, of ten: they are told to try again.
        assert told["code"] == "not_standalone" or told["details"]["retryable"], told
    stored = {f"w{n}-{k}" for n, answer in enumerate(written) if answer.status_code == 200 for k in range(3)}
    assert stored
    assert {row[0] for row in rows(conninfo, api.namespace)} == stored
    after = ("managed", before[1] + 1, ["summary", f"v{won}"], None, 1, 1, [*before[-1], f"v{won}"])
    assert state(conninfo, api.namespace) == after


# Traffic


async def test_upserts_and_searches_beside_promotions_see_no_error(http: Http, api: Api, conninfo: str) -> None:
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
        for _ in range(5):  # each takes the locks of a real one
            await each_has_done(1)
            rehearsal = await http.promote({"dry_run": "rehearse", **PROMOTION})
            assert rehearsal.json()["verdict"] == "promoted", rehearsal.text
        await each_has_done(1)
        answer = await http.promote()
        await each_has_done(3)
        stop.set()
    assert answer.status_code == 200, answer.text
    assert {row[0] for row in rows(conninfo, api.namespace)} == stored
    assert state(conninfo, api.namespace)[0] == "managed"
