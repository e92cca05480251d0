"""Embedding with memory on a real database: its bounds, how to switch it off, what its failure costs; held services."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from app.db.engine import create_engine, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.inference import embedding, services
from app.domain.inference.embedding import Embedded
from app.domain.promoting import promotion
from app.domain.promoting.promotion import Mapped, Promotion
from app.domain.runtime import Runtime
from app.errors import Conflict, InvalidRequest, NotFound
from app.inference.base import Task
from app.inference.definition import Definition
from app.inference.registry import Inference
from tests.fakes import FakeService, settings_of

COUNT = "SELECT count(*) FROM pgretrieve.embedding_cache WHERE service = %s"
Make = Callable[..., tuple[Runtime, FakeService]]


@pytest.fixture
def name() -> str:
    """The name of this test's service, and of its namespace."""
    return f"fake_{uuid4().hex[:12]}"


@pytest.fixture
async def make(conninfo: str, name: str) -> AsyncIterator[Make]:
    """Makes processes on one database, each with a fake service."""
    made = []

    def make(*, remote: bool = True, **chosen: Any) -> tuple[Runtime, FakeService]:
        settings, fake = settings_of(**chosen), FakeService(name, remote=remote)
        runtime = Runtime(settings, create_engine(conninfo, settings), Inference({name: fake}, settings))
        made.append(runtime)
        return runtime, fake

    yield make
    for runtime in made:
        await runtime.engine.dispose()


async def embed(runtime: Runtime, texts: list[str], task: Task = "query") -> Embedded:
    (name,) = runtime.inference.names()
    return await embedding.embed(runtime, name, texts, task)


async def rows(runtime: Runtime) -> int:
    async with transaction(runtime.engine, runtime.settings) as conn:
        count: int = (await conn.exec_driver_sql(COUNT, (runtime.inference.names()[0],))).scalar_one()
    return count


async def test_another_process_finds_what_one_embedded(make: Make) -> None:
    (one, fake), (two, idle) = make(), make()
    first = await embed(one, ["a", "b", "a"])
    assert fake.calls == [(["a", "b"], "query")]
    again = await embed(two, ["b", "a"])
    assert again.cached
    assert not idle.calls
    assert np.array_equal(again.vectors, first.vectors[[1, 0]])
    assert not (await embed(two, ["a"], "document")).cached


async def test_local_services_use_memory_alone(make: Make) -> None:
    runtime, fake = make(remote=False)
    await embed(runtime, ["a"])
    assert (await embed(runtime, ["a"])).cached
    assert len(fake.calls) == 1
    assert await rows(runtime) == 0


async def test_a_hit_in_memory_needs_no_database(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = make()
    await embed(runtime, ["a"])
    monkeypatch.setattr(embedding, "transaction", None)
    assert (await embed(runtime, ["a"])).cached


async def test_the_table_keeps_the_newest(make: Make) -> None:
    runtime, _ = make(inference_cache_rows=5, inference_cache_mb=0)
    for n in range(12):
        await embed(runtime, [str(n)])
        assert await rows(runtime) <= 5
    assert (await embed(runtime, ["11"])).cached
    assert not (await embed(runtime, ["0"])).cached


async def test_both_memories_can_be_switched_off(make: Make) -> None:
    runtime, fake = make(inference_cache_rows=0, inference_cache_mb=0)
    for _ in range(2):
        assert not (await embed(runtime, ["a"])).cached
    assert len(fake.calls) == 2
    assert await rows(runtime) == 0


async def test_no_connection_is_held_while_a_service_is_called(make: Make) -> None:
    runtime, fake = make(pool_size=1, pool_timeout_s=0.5)
    fake.hold = asyncio.Event()
    call = asyncio.create_task(embed(runtime, ["a"]))
    await fake.called.wait()
    assert await rows(runtime) == 0  # with the one connection that there is
    fake.hold.set()
    await call


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime, _ = make()

    def broken(_added: int, _rows: int) -> bool:
        raise OperationalError("", {}, Exception("full disk"))

    monkeypatch.setattr(runtime.inference.cache, "trim_is_due", broken)
    assert (await embed(runtime, ["a"])).vectors.shape == (1, 8)
    assert "are not kept: OperationalError" in caplog.text
    assert await rows(runtime) == 0


async def test_texts_that_cannot_be_embedded_are_told_by_the_callers_positions(make: Make) -> None:
    runtime, _ = make()
    await embed(runtime, ["a"])
    with pytest.raises(InvalidRequest) as refused:
        await embed(runtime, ["a", "a\ud800"])
    assert [problem.location for problem in refused.value.problems] == [("texts", 1)]


async def test_none_are_none(make: Make) -> None:
    runtime, fake = make()
    nothing = await embed(runtime, [])
    assert nothing.vectors.shape == (0, 8)
    assert not nothing.cached
    assert not fake.calls


@pytest.fixture
async def promotable(make: Make, name: str) -> AsyncIterator[tuple[Runtime, Promotion]]:
    """A stored service and a standalone namespace; the promotion that would map it."""
    runtime, _ = make()
    stored = f"stored_{name}"
    async with transaction(runtime.engine, runtime.settings) as conn:
        definition = Definition(stored, "openai", "m", 8, {"base_url": "http://127.0.0.1:9/v1"})
        await services.create(conn, runtime.inference, definition, runtime.settings, "test")
        await namespaces.create_standalone(conn, runtime.settings, namespace_id=name, vectors=[NewVector("v", 8)])
    await services.refresh(runtime)
    yield runtime, Promotion([Mapped("v", stored)])
    async with transaction(runtime.engine, runtime.settings) as conn:
        await namespaces.delete(conn, name)
        with suppress(NotFound):
            await services.delete(conn, runtime.inference, stored)


async def test_a_deletion_waits_for_a_promotion_that_maps_to_the_service(
    promotable: tuple[Runtime, Promotion], name: str
) -> None:
    runtime, wanted = promotable
    infos = {info.name: info for info in runtime.inference.infos()}

    async def delete() -> None:
        async with transaction(runtime.engine, runtime.settings) as conn:
            await services.delete(conn, runtime.inference, f"stored_{name}")

    async with transaction(runtime.engine, runtime.settings) as conn:
        await promotion.promote(conn, name, wanted, infos, runtime.settings, "test")
        deletion = asyncio.create_task(delete())
        done, _ = await asyncio.wait([deletion], timeout=0.2)
        assert not done
    with pytest.raises(Conflict, match=rf"embeds for the namespaces '{name}'") as refused:
        await deletion
    assert refused.value.details == {"namespaces": [name]}


async def test_a_promotion_does_not_map_to_a_service_that_another_process_deleted(
    promotable: tuple[Runtime, Promotion], make: Make, name: str
) -> None:
    (runtime, wanted), (other, _) = promotable, make()
    async with transaction(other.engine, other.settings) as conn:
        await services.delete(conn, other.inference, f"stored_{name}")
    infos = {info.name: info for info in runtime.inference.infos()}
    with pytest.raises(InvalidRequest, match="No inference service 'stored_"):
        async with transaction(runtime.engine, runtime.settings) as conn:
            await promotion.promote(conn, name, wanted, infos, runtime.settings, "test")
