"""The life of payload indexes: declared, built by jobs beside the data, dropped; and made from what filters use."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_engine, transaction
from app.domain.catalog import namespace_changes, namespaces
from app.domain.catalog.described import describe
from app.domain.catalog.namespace_changes import Changes
from app.domain.indexing import adaptive_indexes, index_repair, payload_builds, payload_indexes
from app.domain.indexing.payload_indexes import PayloadIndex
from app.domain.operation import clone
from app.domain.operation.clone import Clone
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import tasks, worker
from app.retrieval.catalog import Catalog
from app.settings import Settings
from tests.state import until

NAME = "indexed"
KEYWORD, NUMBER = PayloadIndex("word", "keyword"), PayloadIndex("n", "float")
OF_KEYWORD, OF_NUMBER = {"keys"}, {"keys", "numbers", "texts"}


@dataclass
class Place:
    """A database of this test's own, with a namespace."""

    url: str
    runtime: Runtime

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            yield conn

    async def create(self, *indexes: PayloadIndex, **kept: Any) -> None:
        async with self.transaction() as conn:
            settings = self.runtime.settings
            await namespaces.create_standalone(
                conn, settings, namespace_id=NAME, vectors=(), payload_indexes=indexes, kept=kept
            )

    def fill(self, count: int) -> None:
        text = """
            INSERT INTO {} (document_id, collection_id, payload, metadata)
            SELECT 'd' || n, 'c', jsonb_build_object('word', 'w' || n %% 10, 'n', n), '{{}}'
            FROM generate_series(1, %s) AS n
        """
        with psycopg.connect(self.url) as conn:
            conn.execute(sql.SQL(text).format(sql.Identifier(NAME, "documents")), [count])

    async def declare(self, *indexes: PayloadIndex, auto: bool | None = None) -> Catalog:
        async with self.transaction() as conn:
            changes = Changes(payload_indexes=indexes, auto_create_indexes=auto)
            await namespace_changes.change(conn, NAME, changes)
            return await namespaces.load_catalog(conn, NAME)

    async def catalog(self) -> Catalog:
        async with self.transaction() as conn:
            return await namespaces.load_catalog(conn, NAME)

    async def states(self) -> dict[str, str]:
        return {index.field: index.state for index in (await self.catalog()).payload_indexes}

    async def ensure(self, *, rebuild: bool = False) -> index_repair.Ensured:
        async with self.transaction() as conn:
            return await index_repair.ensure(conn, NAME, rebuild=rebuild)

    async def drain(self) -> None:
        await worker.drain(self.url, self.runtime)

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            cursor = conn.execute(text.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def physical(self, schema: str = NAME) -> dict[str, set[str]]:
        """What PostgreSQL keeps, by the numbers of the indexes; all of it is valid."""
        text = """
            SELECT split_part(c.relname, '_', 2), split_part(c.relname, '_', 3), i.indisvalid
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace s ON s.oid = c.relnamespace
            WHERE s.nspname = %s AND c.relname LIKE 'payload\\_%%'
        """
        found: dict[str, set[str]] = {}
        for number, kind, valid in self.query(text, schema):
            assert valid
            found.setdefault(number, set()).add(kind)
        return found

    def kept(self) -> list[set[str]]:
        return sorted(self.physical().values(), key=len)


@pytest.fixture
async def place(fresh_database: Callable[[], str], settings: Settings) -> AsyncIterator[Place]:
    url = fresh_database()
    inference, engine = Inference.from_settings(settings), create_engine(url, settings)
    yield Place(url, Runtime(settings, engine, inference))
    await engine.dispose()
    await inference.close()


async def test_declared_with_the_namespace_they_are_there_at_once(place: Place) -> None:
    await place.create(KEYWORD, NUMBER, PayloadIndex("place", "geo"), PayloadIndex("_internal.created_at", "datetime"))
    ready = dict.fromkeys(("word", "n", "place", "_internal.created_at"), "ready")
    assert (await place.states(), place.kept()) == (ready, [OF_KEYWORD, {"cells"}, OF_NUMBER])


async def test_declared_later_they_are_built_by_jobs_and_dropped_by_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_indexes, "SMALL", 10)
    await place.create()
    place.fill(100)
    before = (await place.catalog()).version
    declared = await place.declare(KEYWORD, NUMBER)
    assert (declared.field_indexes, place.kept()) == ({}, [])
    assert declared.version > before
    found = await place.ensure()
    assert (found.building, found.ensured, found.rebuilt) == (["n", "word"], [], [])

    await place.drain()
    assert (await place.states(), place.kept()) == ({"word": "ready", "n": "ready"}, [OF_KEYWORD, OF_NUMBER])
    assert (await place.catalog()).version > declared.version
    # With statistics of their own, that estimates read.
    ((analyzed,),) = place.query(
        "SELECT count(DISTINCT tablename) FROM pg_stats WHERE schemaname = %s AND tablename LIKE 'payload%%'", NAME
    )
    assert analyzed == 4

    numbers = {index.field: index.number for index in (await place.catalog()).payload_indexes}
    again = await place.declare(KEYWORD, replace(NUMBER, type="integer"))
    assert {index.field: (index.number == numbers[index.field], index.state) for index in again.payload_indexes} == {
        "word": (True, "ready"),
        "n": (False, "building"),
    }
    await place.drain()
    assert (await place.states(), place.kept()) == ({"word": "ready", "n": "ready"}, [OF_KEYWORD, OF_NUMBER])
    assert str(numbers["n"]) not in place.physical()
    await place.declare()
    await place.drain()
    assert (await place.states(), place.kept()) == ({}, [])


async def test_those_that_are_broken_are_built_anew(place: Place) -> None:
    await place.create(KEYWORD, NUMBER)
    place.fill(100)
    assert (await place.ensure()).ensured == ["n", "word"]
    (number,) = (index.number for index in (await place.catalog()).payload_indexes if index.field == "n")
    place.query(f"DROP INDEX {NAME}.payload_{number}_texts")
    found = await place.ensure()
    assert (found.ensured, found.rebuilt) == (["word"], ["n"])
    assert await place.states() == {"word": "ready", "n": "building"}
    # What a build that was killed leaves behind is no hindrance.
    place.query(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{NAME}.payload_{number}_keys'::regclass")
    await place.drain()
    assert (await place.states(), place.kept()) == ({"word": "ready", "n": "ready"}, [OF_KEYWORD, OF_NUMBER])
    assert (await place.ensure(rebuild=True)).rebuilt == ["n", "word"]
    await place.drain()
    assert await place.states() == {"word": "ready", "n": "ready"}


async def test_a_build_that_fails_is_told_and_one_that_nobody_wants_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_indexes, "SMALL", 10)
    await place.create()
    place.fill(20)
    place.query("ALTER FUNCTION pgretrieve.payload_keys RENAME TO away")
    await place.declare(KEYWORD)
    await place.drain()
    assert await place.states() == {"word": "failed"}
    place.query("ALTER FUNCTION pgretrieve.away RENAME TO payload_keys")
    assert (await place.ensure()).building == ["word"]  # the job tries again
    await place.declare()
    place.query("UPDATE pgretrieve_queue.procrastinate_jobs SET scheduled_at = NULL")
    await place.drain()
    assert (await place.states(), place.kept()) == ({}, [])


async def test_a_clone_has_indexes_of_its_own(place: Place) -> None:
    await place.create(KEYWORD, NUMBER)
    place.fill(50)
    async with place.transaction() as conn:
        cloned = await clone.clone(conn, place.runtime.settings, NAME, Clone("copy"))
        copy = await namespaces.load_catalog(conn, cloned.namespace_id)
    assert {index.field: index.state for index in copy.payload_indexes} == {"word": "ready", "n": "ready"}
    numbers = {str(index.number) for index in copy.payload_indexes}
    assert place.physical(copy.schema).keys() == numbers
    assert not numbers & place.physical().keys()


async def test_statistics_are_taken_anew_when_many_documents_came(place: Place) -> None:
    await place.create(KEYWORD)
    place.fill(2_000)
    counted = "SELECT sum(n_mod_since_analyze) >= 2000 FROM pg_stat_user_tables WHERE schemaname = %s"
    await until(lambda: place.query(counted, NAME) == [(True,)])
    async with tasks.connecting(place.url, place.runtime.settings) as conn:
        assert await payload_builds.analyze_grown(conn) == [NAME]
        assert await payload_builds.analyze_grown(conn) == []
    analyzed = "SELECT count(*) FROM pg_stats WHERE schemaname = %s AND tablename LIKE 'payload%%'"
    assert place.query(analyzed, NAME) == [(1,)]


# Adaptive ones


async def used(place: Place, times: int, field: str = "word") -> None:
    for _ in range(times):
        await adaptive_indexes.note_use(place.runtime, await place.catalog(), [(field, "keyword")])


def adaptive(place: Place, **limits: int) -> Place:
    settings = place.runtime.settings.model_copy(
        update={"adaptive_index_uses": 3, "adaptive_index_documents": 50, "adaptive_indexes": 2} | limits
    )
    return Place(place.url, replace(place.runtime, settings=settings))


async def test_a_field_that_filters_use_often_gets_an_index(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_indexes, "SMALL", 10)
    await place.create(NUMBER)
    place.fill(100)
    place.query(f"ANALYZE {NAME}.documents")
    one, other = adaptive(place), adaptive(place)
    await used(one, 2)
    assert await place.states() == {"n": "ready"}
    await used(one, 1)
    await used(other, 3)  # another process comes to the same
    assert await place.states() == {"n": "ready", "word": "building"}
    assert place.query("SELECT count(*) FROM pgretrieve_queue.procrastinate_jobs") == [(1,)]
    await place.drain()
    assert (await place.states(), place.kept()) == ({"n": "ready", "word": "ready"}, [OF_KEYWORD, OF_NUMBER])
    assert {index.field: index.origin for index in (await place.catalog()).payload_indexes} == {
        "n": "declared",
        "word": "adaptive",
    }
    # A list of declarations leaves it, where it would be made again.
    assert list((await place.declare()).field_indexes) == ["word"]
    assert [index.origin for index in (await place.declare(KEYWORD)).payload_indexes] == ["declared"]
    assert list((await place.declare(auto=False)).field_indexes) == []


@pytest.mark.parametrize(
    ("kept", "limits"),
    [
        ({"auto_create_indexes": False}, {}),
        ({}, {"adaptive_index_documents": 1_000}),
        ({}, {"adaptive_indexes": 0}),
    ],
)
async def test_none_is_made_where_it_is_not_wanted(place: Place, kept: dict[str, Any], limits: dict[str, int]) -> None:
    await place.create(**kept)
    place.fill(100)
    place.query(f"ANALYZE {NAME}.documents")
    await used(adaptive(place, **limits), 5)
    assert await place.states() == {}


async def test_a_namespace_has_so_many_adaptive_indexes_and_no_more(place: Place) -> None:
    await place.create()
    place.fill(100)
    place.query(f"ANALYZE {NAME}.documents")
    busy = adaptive(place)
    for field in ("a", "b", "c"):
        await used(busy, 4, field)
    assert list(await place.states()) == ["a", "b"]
    async with busy.transaction() as conn:
        shown = json.loads((await describe(conn, NAME)).payload_indexes)
    assert {(index["field_name"], index["origin"]) for index in shown} == {("a", "adaptive"), ("b", "adaptive")}
