"""Texts of analysts: embedded by a worker when they ask for it, read by a role that may write nothing."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from app.db.engine import create_engine, transaction
from app.domain.background import requested
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import worker
from tests.fakes import FakeService, fake_vector, settings_of

Conn = psycopg.AsyncConnection[Any]


@contextmanager
def role(url: str, *grants: str) -> Iterator[str]:
    """A login that may use the catalogue's schema and what is granted beside; the URL to be it."""
    name = f"analyst_{uuid4().hex[:12]}"
    identifier = sql.Identifier(name)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
        for grant in ("GRANT USAGE ON SCHEMA pgretrieve TO {}", *grants):
            conn.execute(sql.SQL(grant).format(identifier))
        try:
            yield re.sub(r"//[^@/]*@", f"//{name}@", url) if "@" in url else url.replace("//", f"//{name}@", 1)
        finally:
            conn.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
            conn.execute(sql.SQL("DROP ROLE {}").format(identifier))


@dataclass(frozen=True)
class Place:
    url: str
    runtime: Runtime
    service: FakeService
    analyst: Conn


@pytest.fixture
async def place(fresh_database: Callable[[], str]) -> AsyncIterator[Place]:
    url, service, settings = fresh_database(), FakeService("fake", 8), settings_of()
    engine = create_engine(url, settings)
    runtime = Runtime(settings, engine, Inference({"fake": service}, settings))
    with role(url) as own:
        async with await psycopg.AsyncConnection.connect(own, autocommit=True) as conn:
            yield Place(url, runtime, service, conn)
    await runtime.inference.close()
    await engine.dispose()


async def embed(conn: Conn, text: str) -> str:
    row = await (await conn.execute("SELECT pgretrieve.embed('fake', %s)::text", [text])).fetchone()
    assert row is not None
    return str(row[0])


def close(found: str, text: str) -> bool:
    wanted = fake_vector(text, 8).tolist()
    return all(abs(float(a) - b) < 1e-6 for a, b in zip(found.strip("[]").split(","), wanted, strict=True))


async def test_a_worker_embeds_what_is_asked_for_and_the_caller_waits_for_it(place: Place) -> None:
    async with worker.running(place.url, place.runtime):
        await place.analyst.execute("CALL pgretrieve.request_embedding('fake', 'a query', wait => '30 s')")
        assert close(await embed(place.analyst, "a query"), "a query")
    assert place.service.calls == [(["a query"], "query")]
    # It is there: nobody is asked again.
    await place.analyst.execute("CALL pgretrieve.request_embedding('fake', 'a query')")
    await worker.drain(place.url, place.runtime)
    assert len(place.service.calls) == 1


async def test_what_is_not_there_yet_is_an_error_whose_hint_asks_for_it(place: Place) -> None:
    text = 'it\'s $1; \\ "q" %s\n é'
    with pytest.raises(psycopg.Error) as caught:
        await embed(place.analyst, text)
    assert caught.value.sqlstate == "PR001"
    hint = str(caught.value.diag.message_hint)
    with pytest.raises(psycopg.Error) as again:
        await place.analyst.execute(hint.replace("30 s", "0.2 s").encode())  # no worker runs
    assert again.value.sqlstate == "PR001"
    await worker.drain(place.url, place.runtime)
    assert close(await embed(place.analyst, text), text)


async def test_a_text_that_cannot_be_embedded_says_why_and_can_be_asked_for_again(place: Place) -> None:
    place.service.refused = "bad"
    await place.analyst.execute("CALL pgretrieve.request_embedding('fake', 'bad')")
    await place.analyst.execute("CALL pgretrieve.request_embedding('none', 'x')")
    await worker.drain(place.url, place.runtime)
    with pytest.raises(psycopg.Error) as caught:
        await embed(place.analyst, "bad")
    assert caught.value.sqlstate == "PR002"
    with pytest.raises(psycopg.Error, match="'none'"):
        await place.analyst.execute("SELECT pgretrieve.embed('none', 'x')")
    place.service.refused = None
    await place.analyst.execute(str(caught.value.diag.message_hint).encode())
    await worker.drain(place.url, place.runtime)
    assert close(await embed(place.analyst, "bad"), "bad")


async def test_a_role_has_so_many_open_requests_and_texts_are_so_long(place: Place) -> None:
    for text, task in (("x" * 10_001, "query"), (" ", "query"), ("x", "other")):
        with pytest.raises((psycopg.errors.ProgramLimitExceeded, psycopg.errors.InvalidParameterValue)):
            await place.analyst.execute("CALL pgretrieve.request_embedding('fake', %s, %s)", [text, task])
    ask = "SELECT pgretrieve.queue_embedding('fake', 'text ' || n, 'query') FROM generate_series(1, 100) n"
    await place.analyst.execute(ask)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="100 requests"):
        await place.analyst.execute("CALL pgretrieve.request_embedding('fake', 'one more')")
    with role(place.url) as other:
        async with await psycopg.AsyncConnection.connect(other, autocommit=True) as conn:
            await conn.execute("CALL pgretrieve.request_embedding('fake', 'one more')")
    await worker.drain(place.url, place.runtime)
    await place.analyst.execute("CALL pgretrieve.request_embedding('fake', 'and more')")


async def test_the_role_sees_neither_the_cache_nor_the_requests(place: Place) -> None:
    for table in ("embedding_cache", "embedding_requests", "service_models"):
        for statement in ("SELECT FROM pgretrieve.{}", "DELETE FROM pgretrieve.{}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await place.analyst.execute(sql.SQL(statement).format(sql.Identifier(table)))
    # Nor does a schema of its own that comes first make the functions do anything else.
    with role(place.url, "GRANT CREATE ON SCHEMA public TO {}") as own:
        async with await psycopg.AsyncConnection.connect(own, autocommit=True) as conn:
            await conn.execute(
                "CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$"
            )
            await conn.execute("SET search_path = public, pg_catalog")
            await conn.execute("CALL pgretrieve.request_embedding('fake', 'plain')")
    await worker.drain(place.url, place.runtime)
    assert close(await embed(place.analyst, "plain"), "plain")


async def test_vectors_of_another_model_are_not_the_services_answer(place: Place) -> None:
    await place.analyst.execute("CALL pgretrieve.request_embedding('fake', 'x')")
    await worker.drain(place.url, place.runtime)
    assert await embed(place.analyst, "x")
    async with transaction(place.runtime.engine, place.runtime.settings) as conn:
        await conn.exec_driver_sql("UPDATE pgretrieve.service_models SET model = 'what it was' WHERE service = 'fake'")
    with pytest.raises(psycopg.Error, match="has not embedded this text yet"):
        await embed(place.analyst, "x")
    await requested.sweep(place.runtime)  # a worker does it every minute
    assert await embed(place.analyst, "x")


async def test_a_request_that_several_make_at_once_is_one(place: Place) -> None:
    asks = [psycopg.AsyncConnection.connect(place.analyst.info.dsn, autocommit=True) for _ in range(3)]
    conns = await asyncio.gather(*asks)
    call = "CALL pgretrieve.request_embedding('fake', 'twice')"
    await asyncio.gather(*(conn.execute(call) for conn in conns))
    await asyncio.gather(*(conn.close() for conn in conns))
    await worker.drain(place.url, place.runtime)
    assert len(place.service.calls) == 1
