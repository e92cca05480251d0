"""The service behind PgBouncer in transaction mode: its walk, at once by many, which leaves nothing on connections."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import service
from app.db.engine import create_engine
from app.db.migrate import check_current, upgrade
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document, feature_search, search, stage
from tests.pooler import pooler
from tests.state import until

pytestmark = pytest.mark.pgbouncer
# Shared by many clients, so that what one leaves behind meets another.
SERVERS = 3
# What a pooler keeps apart for its clients; psycopg's own wish comes with its start-up packet.
KEPT_APART = {"application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"}


@pytest.fixture
def places(empty_database: Callable[[], str]) -> Iterator[tuple[str, str]]:
    """A migrated database: its direct address, and the pooler's."""
    direct = empty_database()
    upgrade(direct)
    with pooler(direct, size=SERVERS) as through:
        yield direct, through


@pytest.fixture
def base(places: tuple[str, str], settings: Settings) -> Iterator[str]:
    direct, through = places
    changed = {
        "direct_database_url": SecretStr(direct),
        "prepare_statements": False,
        "worker": True,
        "pool_size": 12,
        "adaptive_index_uses": 5,
        "adaptive_index_documents": 0,
    }
    check_current(through)
    with service.in_background(settings.model_copy(update=changed), through, ROOT_KEY) as url:
        yield url


@contextmanager
def client(base: str, namespace: str) -> Iterator[Api]:
    with httpx.Client(base_url=f"{base}/v1", timeout=60) as http:
        yield Api(http, namespace)


def walk(base: str, namespace: str) -> None:
    """From vectors of one's own over promotion to text, with stages in SQL and on the host, and away again."""
    with client(base, namespace) as api:
        api.standalone(("v", 3))
        api.upsert([document(f"d{n}", {"v": [1, n, 0]}, title=f"the document {n}", group=n % 2) for n in range(20)])
        odd = {"must": [{"key": "group", "match": {"value": 1}}]}
        by_title = stage("sort_attribute", sort_field="title")
        api.retriever("near", feature_search(search("v", "{{INPUT.v}}", filters=odd)), by_title)
        for _ in range(6):  # more often than statements are run before psycopg prepares them
            assert len(api.ids("near", inputs={"v": [1, 0, 0]})) == 10
        index = {"name": "t", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
        api.promote({"add_vectors": [index]})
        api.upsert([document("new", {"v": [0, 0, 1]}, title="a wireless headphone")])
        words = feature_search(search("t", "{{INPUT.q}}", mode="text"))
        api.retriever("text", words, stage("rerank", query="{{INPUT.q}}"))
        asyncio.run(until(lambda: api.ids("text", inputs={"q": "wireless headphones"})[:1] == ["new"], 60))
        api("POST", f"/namespaces/{namespace}/ensure-indexes", None)
        api("DELETE", f"/namespaces/{namespace}")


def left_on_connections(direct: str, through: str) -> tuple[set[str], int, int]:
    """Of the pooler's connections: settings of a session, prepared statements, locks that outlived a transaction."""
    found: set[str] = set()
    prepared = 0
    with ThreadPoolExecutor(SERVERS) as pool:

        def look(_n: int) -> tuple[set[str], int]:
            with psycopg.connect(through, prepare_threshold=None) as conn:
                conn.execute("SELECT pg_sleep(0.1)")  # so that each has a connection of the server to itself
                names = {str(n) for (n,) in conn.execute("SELECT name FROM pg_settings WHERE source = 'session'")}
                row = conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
            assert row is not None
            return names, row[0]

        for names, count in pool.map(look, range(SERVERS)):
            found |= names
            prepared += count
    with psycopg.connect(direct) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND a.state LIKE 'idle%'"
        ).fetchone()
    assert row is not None
    return found - KEPT_APART, prepared, row[0]


def test_the_walk_through_a_pooler_leaves_nothing_behind(base: str, places: tuple[str, str]) -> None:
    walk(base, "alone")
    assert left_on_connections(*places) == (set(), 0, 0)


def test_many_walk_at_once(base: str, places: tuple[str, str]) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: walk(base, f"walker_{n}"), range(6)))
    assert left_on_connections(*places) == (set(), 0, 0)
    assert httpx.get(f"{base}/health/ready").status_code == 200


def test_an_id_of_a_request_stays_with_its_transaction(base: str, places: tuple[str, str]) -> None:
    with client(base, "named") as api:
        api.standalone(("v", 3))
        for n in range(10):
            api("GET", "/namespaces/named", headers={"X-Request-Id": f"request-{n}"})
    names = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(places[0]) as conn:
        assert not [name for (name,) in conn.execute(names) if "request-" in name]


async def test_the_setting_is_needed(places: tuple[str, str], settings: Settings) -> None:
    async def by_two(prepare: bool) -> None:
        changed: dict[str, Any] = {"prepare_statements": prepare, "pool_size": 2 * SERVERS}
        engine = create_engine(places[1], settings.model_copy(update=changed))
        try:
            for _client in range(2 * SERVERS):
                async with engine.connect() as conn:
                    for _ in range(6):
                        await conn.execute(text("SELECT 1"))
                        await conn.commit()
                    await conn.invalidate()
        finally:
            await engine.dispose()

    await by_two(False)
    with pytest.raises(DBAPIError, match="prepared statement"):
        await by_two(True)
