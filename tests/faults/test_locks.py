"""Locks that others hold: who changes a namespace gives way in time, and says who holds them."""

import asyncio
import time
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.db.embedded import EmbeddedServer
from app.db.engine import transaction
from app.db.migrate import upgrade
from app.domain.catalog.namespaces import lock_catalog
from app.retrieval.catalog import Catalog
from app.settings import Settings
from tests import servers
from tests.faults.clients import LOCAL, PROMOTION, QUERY, Http, holding, lock_documents, some_documents
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.state import blocked, rows, state, until

FILL = sql.SQL("""
    INSERT INTO {} (document_id, collection_id, payload, metadata)
    SELECT 'd' || n, '', to_jsonb(repeat('x', 500)), '{{}}' FROM generate_series(1, 50000) n""")
SLOWLY = sql.SQL("""
    ALTER TABLE {} SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)""")
VACUUMING = """
    SELECT 1 FROM pg_stat_activity a JOIN pg_locks l USING (pid)
    WHERE backend_type = 'autovacuum worker' AND l.relation = 'n.documents'::regclass"""


async def test_a_reader_that_stays_is_given_way_to_and_the_answer_comes_in_time(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    api.upsert(some_documents(3))
    before = state(conninfo, api.namespace)
    waits = settings.lock_attempts * settings.lock_timeout_ms / 1000
    pauses = sum(min(1.0, 0.05 * 2**n + 0.1) for n in range(settings.lock_attempts - 1))
    began = time.monotonic()
    async with holding(engine, settings) as (conn, holder):
        await conn.exec_driver_sql("SET LOCAL application_name = 'a report'")
        await lock_documents(conn, api.namespace, "ACCESS SHARE")
        started = time.monotonic()
        answer = await http.promote()
        ended = time.monotonic()
        took = ended - started
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["retryable"]) == (409, "locked", True)
    (blocker,) = error["details"]["blocked_by"]
    assert settings.lock_timeout_ms / 1000 < blocker.pop("transaction_seconds") <= ended - began
    assert blocker == {
        "pid": holder,
        "application_name": "a report",
        "state": "idle in transaction",
        "waiting": False,
    }
    assert f"process {holder} ('a report', idle in transaction for " in error["message"]
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


async def test_a_search_behind_a_promotion_that_waits_is_answered_before_that_ends(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    """It queues behind the promotion's lock, for one `lock_timeout` at most, though the reader stays."""
    api.standalone(LOCAL)
    api.upsert(some_documents(3))
    api.retriever("r", feature_search(search("summary", QUERY)))
    async with holding(engine, settings) as (conn, holder):
        await lock_documents(conn, api.namespace, "ACCESS SHARE")
        promoting = asyncio.create_task(http.promote())
        (promoter,) = await blocked(conninfo, holder)
        searching = asyncio.create_task(http.post("/retrievers/r/execute"))
        await blocked(conninfo, promoter)
        found = await searching
        assert not promoting.done()
        assert (found.status_code, len(found.json()["documents"])) == (200, 3)
    assert (await promoting).status_code == 200


@pytest.mark.parametrize("way", ["delete", "rename", "schema on write", "ensure indexes"])
async def test_every_change_of_a_namespace_tells_who_blocks_it(
    http: Http, api: Api, engine: AsyncEngine, settings: Settings, way: str
) -> None:
    api("POST", "/namespaces", {"namespace_name": api.namespace})
    path = f"/namespaces/{api.namespace}"
    ways: dict[str, tuple[str, str, Any]] = {
        "delete": ("DELETE", path, None),
        "rename": ("PATCH", path, {"description": "new"}),
        "schema on write": ("POST", f"{path}/documents/upsert", {"documents": [document("d", {"new": [1, 2]})]}),
        "ensure indexes": ("POST", f"{path}/ensure-indexes", None),
    }
    method, where, body = ways[way]
    async with holding(engine, settings) as (conn, holder):
        await lock_catalog(conn, api.namespace, exclusive=False)
        answer = await http.client.request(method, where, json=body, headers=http.headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "locked"), answer.text
    assert [one["pid"] for one in error["details"]["blocked_by"]] == [holder]


async def test_who_blocks_in_turn_is_told_first(
    http: Http, api: Api, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    """The promotion waits for a writer that itself waits for a table: the one who holds that is to blame."""
    api.standalone(LOCAL)
    async with holding(engine, settings) as (conn, holder), holding(engine, settings) as (writing, writer):
        await lock_documents(conn, api.namespace, "SHARE")
        await lock_catalog(writing, api.namespace, exclusive=False)
        waiting = asyncio.create_task(lock_documents(writing, api.namespace, "ROW EXCLUSIVE"))
        await blocked(conninfo, holder)
        answer = await http.promote()
        await conn.rollback()
        await waiting
    blockers = answer.json()["error"]["details"]["blocked_by"]
    assert [(one["pid"], one["waiting"]) for one in blockers] == [(holder, False), (writer, True)]


# Autovacuum


async def test_a_promotion_gets_past_autovacuum(settings: Settings) -> None:
    """Autovacuum lets go of who has waited for `deadlock_timeout`; here it would take a minute otherwise."""
    watchful = {"autovacuum_naptime": "1s", "deadlock_timeout": "100ms"}
    with (
        servers.temporary_directory() as path,
        EmbeddedServer(path, settings={**servers.HASTY, **watchful}) as server,
        psycopg.connect(server.url, autocommit=True) as conn,
    ):
        upgrade(server.url)
        with service.in_background(settings, server.url, ROOT_KEY) as url, httpx.Client(base_url=f"{url}/v1") as client:
            api = Api(client, "n")
            api.standalone(LOCAL)
            documents = sql.Identifier("n", "documents")
            conn.execute(FILL.format(documents))
            conn.execute(SLOWLY.format(documents))
            conn.execute(sql.SQL("UPDATE {} SET payload = '[1]'").format(documents))
            await until(lambda: conn.execute(VACUUMING).fetchone() is not None)
            assert api.promote({"add_vectors": [{"name": "new", "dimension": 3}]})["mode"] == "managed"


def test_by_default_ddl_waits_longer_than_autovacuum_needs_to_let_go(conninfo: str) -> None:
    with psycopg.connect(conninfo) as conn:
        row = conn.execute("SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout'").fetchone()
    (needed,) = row or (0,)
    assert 0 < needed < Settings().lock_timeout_ms
