"""Vector indexes rebuilt while they are searched: with every method, killed at every phase, cancelled, cut off."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from app.db.engine import transaction
from app.domain.background import tasks
from app.domain.catalog.namespaces import NewVector
from app.domain.indexing import index_changes, index_repair
from app.jobs import queue
from tests.indexing import NAME, Place, Vectors, exact_scores
from tests.indexing import place as place
from tests.state import blocked, kill, until

DIMENSION, LATENT, ROWS, K = 256, 12, 600, 5
DOCUMENTS = sql.Identifier(NAME, "documents")


def structured(count: int, seed: int) -> Vectors:
    """Vectors of fewer dimensions turned into more, as models' vectors are: their signs say much of their direction."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(DIMENSION, LATENT)))
    vectors: Vectors = (np.random.default_rng(seed).normal(size=(count, LATENT)) @ turn.T).astype(np.float32)
    return vectors.astype(np.float64)


STORED, QUERIES = structured(ROWS, 1), structured(20, 2)


@pytest.fixture
async def filled(place: Place) -> Place:
    """An index of the default method, in force."""
    await place.promoted(NewVector("v", DIMENSION))
    await place.upsert("v", STORED)
    await place.drain()
    await place.retriever("v")
    return place


async def change(place: Place, **changes: Any) -> str:
    async with place.transaction() as conn:
        return (await index_changes.change(conn, NAME, "v", changes, place.runtime.settings)).task_id


async def recall(place: Place) -> float:
    """The mean share of the nearest that searches find; each score is exact, and there are never fewer."""
    shares = []
    for query in QUERIES:
        exact = exact_scores("cosine", STORED, query)
        found, _ = await place.search(query)
        assert len(found) == K
        assert found == pytest.approx({name: exact[name] for name in found}, rel=1e-5, abs=1e-6)
        best = sorted(exact, key=lambda name: -exact[name])[:K]
        shares.append(len(found.keys() & set(best)) / K)
    return float(np.mean(shares))


async def in_force(place: Place) -> tuple[str, str]:
    """Name and method of the index that the catalog names, which searches use."""
    config = (await place.catalog()).by_name["v"]
    _, plan = await place.search(QUERIES[0])
    assert (config.index_name in plan) is (config.index_method != "exact")
    return config.index_name, config.index_method


def built(place: Place) -> dict[str, bool]:
    """The indexes of these vectors that PostgreSQL has, and whether they are valid."""
    return {name: valid for name, valid in place.indexes().items() if name != "documents_first_hnsw"}


def parameters(place: Place, index_name: str) -> Mapping[str, str]:
    ((options,),) = place.query("SELECT reloptions FROM pg_class WHERE relname = %s", index_name)
    return dict(option.split("=") for option in options)


@asynccontextmanager
async def searched(place: Place) -> AsyncIterator[list[float]]:
    """Searches all the while; their recalls."""
    stop, recalls = asyncio.Event(), list[float]()

    async def forever() -> None:
        while not stop.is_set():
            recalls.append(await recall(place))

    async with asyncio.TaskGroup() as group:
        group.create_task(forever())
        yield recalls
        stop.set()


async def test_searches_go_on_through_every_method_and_never_find_less(filled: Place) -> None:
    before = (await filled.catalog()).version
    steps: list[dict[str, Any]] = [
        {"m": 8, "ef_construction": 200},
        {"index_method": "hnsw_halfvec", "m": 24, "ef_construction": 100},
        {"index_method": "hnsw_binary"},
        {"index_method": "exact"},
        {"index_method": "hnsw_vector", "m": None, "ef_construction": None},
        {"index_method": "hnsw_binary", "m": 32, "ef_construction": 128},
    ]
    expected = {"index_method": "hnsw_vector", "m": None, "ef_construction": None}
    async with searched(filled) as recalls:
        for step in steps:
            (old, _), expected = await in_force(filled), expected | step
            task_id = await change(filled, **step)
            await filled.drain()
            assert (await filled.task()).task_id == task_id
            assert (await filled.task()).status == "COMPLETED"
            new, method = await in_force(filled)
            assert method == expected["index_method"]
            if method == "exact":
                assert built(filled) == {}
            else:
                assert built(filled) == {new: True}
                wanted = {"m": expected["m"] or 16, "ef_construction": expected["ef_construction"] or 64}
                assert parameters(filled, new) == {name: str(value) for name, value in wanted.items()}
                assert new != old or expected["m"] is None  # beside the old one; after `exact` its name is free
            assert filled.loose() == []
            assert await recall(filled) >= 0.95
    assert len(recalls) > len(steps)
    assert min(recalls) >= 0.95
    assert (await filled.catalog()).version == before + len(steps)
    audited = filled.query(
        "SELECT operation, request ->> 'index_method', before #>> '{vector_configs,1,index_method}', "
        "after #>> '{vector_configs,1,index_method}' FROM pgretrieve.vector_changes ORDER BY change_id"
    )
    methods = ["hnsw_vector", "hnsw_vector", "hnsw_halfvec", "hnsw_binary", "exact", "hnsw_vector", "hnsw_binary"]
    assert audited == [("rebuild", new, old, new) for old, new in pairwise(methods)]


# Killed and cancelled


@asynccontextmanager
async def stopped_at(place: Place, phase: str) -> AsyncIterator[int]:
    """The build's backend when it has come to that phase; whatever holds it there goes at the end of the block."""
    with psycopg.connect(place.url) as holder:
        if phase == "waiting for writers before build":
            holder.execute(sql.SQL("UPDATE {} SET payload = payload WHERE document_id = 'd1'").format(DOCUMENTS))
        elif phase == "waiting for old snapshots":
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT 1 FROM pgretrieve.namespaces")
        yield await at_phase(place, phase)


async def at_phase(place: Place, phase: str) -> int:
    deadline = time.monotonic() + 20
    async with await psycopg.AsyncConnection.connect(place.url, autocommit=True) as conn:
        while time.monotonic() < deadline:
            rows = await conn.execute("SELECT pid, phase FROM pg_stat_progress_create_index")
            for pid, now in await rows.fetchall():
                if now.startswith(phase):
                    return int(pid)
            await asyncio.sleep(0.001)  # PostgreSQL tells no one
    raise AssertionError(f"no build came to {phase!r}")


PHASES = ["waiting for writers before build", "building index", "waiting for old snapshots"]


@pytest.mark.parametrize("phase", PHASES)
async def test_a_build_that_is_killed_leaves_the_old_index_and_nothing_else(filled: Place, phase: str) -> None:
    before, version = await in_force(filled), (await filled.catalog()).version
    await change(filled, index_method="hnsw_halfvec", m=40, ef_construction=200)
    async with searched(filled) as recalls:
        building = asyncio.create_task(filled.drain())
        async with stopped_at(filled, phase) as pid:
            kill(filled.url, pid)
        await building
        assert await in_force(filled) == before
        assert built(filled) == {before[0]: True}
        assert filled.loose() == []
        assert (await filled.catalog()).version == version
        assert (await filled.task()).status == "IN_PROGRESS"

        await filled.again()
        assert (await filled.task()).status == "COMPLETED"
        name, method = await in_force(filled)
        assert (method, built(filled)) == ("hnsw_halfvec", {name: True})
    assert min(recalls) >= 0.95


@pytest.mark.parametrize("phase", PHASES)
async def test_cancelling_the_task_ends_the_build(filled: Place, phase: str) -> None:
    before = await in_force(filled)
    task_id = await change(filled, m=40, ef_construction=200)
    building = asyncio.create_task(filled.drain())
    async with stopped_at(filled, phase) as pid:
        async with filled.transaction() as conn:
            await tasks.cancel(conn, task_id)
        still = "SELECT 1 FROM pg_stat_progress_create_index WHERE pid = %s"
        await until(lambda: filled.query(still, pid) == [])
    await building
    assert await in_force(filled) == before
    assert (built(filled), filled.loose()) == ({before[0]: True}, [])
    assert (await filled.task()).status == "CANCELED"
    assert filled.jobs()[-1][1] == "succeeded"


async def test_a_cancelled_first_build_says_so_and_can_be_asked_for_again(place: Place) -> None:
    catalog = await place.promoted(NewVector("v", DIMENSION))
    await place.upsert("v", STORED)
    first = await place.task()
    async with place.transaction() as conn:
        await tasks.cancel(conn, first.task_id)
    await place.drain()
    assert (await place.states(), built(place)) == ({"v": "failed"}, {})
    async with place.transaction() as conn:
        found = await index_repair.ensure(conn, NAME, rebuild=False)
    assert found.rebuilt == ["v"]
    await place.drain()
    assert (await place.states(), built(place)) == ({"v": "ready"}, {catalog.by_name["v"].index_name: True})


async def test_an_index_that_was_replaced_and_not_dropped_is_swept(filled: Place) -> None:
    """The cut falls between the switch and the drop, and the job is lost with its worker."""
    old, _ = await in_force(filled)
    await change(filled, m=8)
    with psycopg.connect(filled.url) as reader:
        reader.execute(sql.SQL("SELECT count(*) FROM {}").format(DOCUMENTS))
        building = asyncio.create_task(filled.drain())
        dropping = await blocked(filled.url, reader.info.backend_pid)
        new, _ = await in_force(filled)
        assert new != old
        assert (await filled.task()).status == "COMPLETED"
        kill(filled.url, *dropping)
        await building
    assert built(filled) == {new: True, old: False}
    assert filled.loose() == [old]
    with psycopg.connect(filled.url, options=f"-c search_path={queue.SCHEMA}") as conn:
        conn.execute("DELETE FROM procrastinate_jobs WHERE task_name = 'build_index'")

    async with transaction(filled.runtime.engine, filled.runtime.settings) as db:
        assert await index_repair.defer_sweeps(db) == [NAME]
        assert await index_repair.defer_sweeps(db) == []  # one is enough
    await filled.drain()
    assert (built(filled), filled.loose()) == ({new: True}, [])


async def test_an_index_that_was_built_and_not_put_in_force_is_not_built_again(filled: Place) -> None:
    """The cut falls between the build and the switch."""
    old, _ = await in_force(filled)
    await change(filled, m=8)
    with psycopg.connect(filled.url) as holder:
        holder.execute("SELECT 1 FROM pgretrieve.namespaces FOR NO KEY UPDATE")
        building = asyncio.create_task(filled.drain())
        kill(filled.url, *await blocked(filled.url, holder.info.backend_pid))
        await building
    assert (await in_force(filled))[0] == old
    (new,) = filled.loose()
    assert built(filled) == {old: True, new: True}
    made = filled.query("SELECT oid FROM pg_class WHERE relname = %s", new)
    await filled.again()
    assert (await in_force(filled))[0] == new
    assert (built(filled), filled.loose()) == ({new: True}, [])
    assert filled.query("SELECT oid FROM pg_class WHERE relname = %s", new) == made


async def test_a_sweep_drops_neither_what_is_in_force_nor_what_somebody_made(filled: Place) -> None:
    name, _ = await in_force(filled)
    with psycopg.connect(filled.url) as conn:
        conn.execute(sql.SQL("CREATE INDEX by_hand ON {} USING hnsw (v vector_cosine_ops)").format(DOCUMENTS))
        conn.execute("INSERT INTO pgretrieve.loose_indexes VALUES (%s, %s)", (NAME, name))
    async with filled.transaction() as db:
        await index_repair.defer_sweeps(db)
    await filled.drain()
    assert built(filled) == {name: True, "by_hand": True}


async def test_a_build_that_cannot_succeed_says_why_and_the_old_index_serves(filled: Place) -> None:
    await filled.upsert("v", STORED[:1] * 1e6)  # beyond what half precision holds
    before = await in_force(filled)
    await change(filled, index_method="hnsw_halfvec")
    await filled.drain()
    for _ in range(3):
        await filled.again()
    task = await filled.task()
    assert task.status == "FAILED"
    assert task.error is not None
    assert (task.error["code"], "out of range" in task.error["message"]) == ("build_failed", True)
    assert await in_force(filled) == before
    assert (built(filled), filled.loose()) == ({before[0]: True}, [])
    await change(filled, m=8)  # and another change may be asked for


# What is told


async def test_a_build_tells_how_far_it_is(filled: Place) -> None:
    await change(filled, m=20, ef_construction=100)
    assert ((await filled.task()).status, (await filled.task()).percentage) == ("PENDING", 0.0)
    building = asyncio.create_task(filled.drain())
    async with stopped_at(filled, "waiting for writers before build"):
        waiting = await filled.task()
    async with stopped_at(filled, "waiting for old snapshots"):
        nearly = await filled.task()
    await building
    assert waiting.build is not None
    assert (waiting.status, waiting.build["phase"], waiting.percentage) == ("IN_PROGRESS", PHASES[0], 0.0)
    assert nearly.build is not None
    assert (nearly.build["phase"], nearly.percentage) == (PHASES[-1], 99.0)
    assert ((await filled.task()).percentage, (await filled.task()).build) == (100.0, None)
