"""Index builds as jobs: each method is built beside the data, is used by searches, and survives what may befall it."""

import asyncio

import psycopg
import pytest
from psycopg import sql

from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.jobs import queue, worker
from app.jobs.tasks import connecting
from tests.indexing import NAME, Place, exact_scores, random_vectors
from tests.indexing import place as place
from tests.state import blocked, kill, until

METHODS = [
    ("hnsw_vector", 3, "cosine"),
    ("hnsw_vector", 64, "dot"),
    ("hnsw_vector", 2000, "euclidean"),
    ("hnsw_halfvec", 2001, "cosine"),
    ("hnsw_halfvec", 3072, "euclidean"),
    ("hnsw_halfvec", 4000, "dot"),
    ("hnsw_binary", 4001, "cosine"),
    ("exact", 4001, "euclidean"),
    ("exact", 16_000, "dot"),
]


@pytest.mark.parametrize(("method", "dimension", "metric"), METHODS)
async def test_a_job_builds_the_index_and_searches_use_it(
    place: Place, method: str, dimension: int, metric: str
) -> None:
    before = await place.promoted(NewVector("v", dimension, metric))
    config = before.by_name["v"]
    assert config.index_method == method
    indexed = method != "exact"
    assert config.index_state == ("building" if indexed else "ready")
    assert place.jobs() == ([("build_index", "todo", 0)] if indexed else [])
    assert config.index_name not in place.indexes()

    vectors = random_vectors(60, dimension)
    query = vectors[7] + 0.1 * random_vectors(1, dimension)[0]
    await place.upsert("v", vectors)
    await place.retriever("v")
    expected = exact_scores(metric, vectors, query)
    best = sorted(expected, key=lambda name: -expected[name])[:5]

    async def check(by_index: bool) -> None:
        found, plan = await place.search(query)
        assert next(iter(found)) == best[0]
        assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-5, abs=1e-6)
        assert len(found) == 5
        assert (config.index_name in plan) is by_index
        if not by_index:
            assert list(found) == best

    await check(by_index=False)
    await place.drain()
    after = await place.catalog()
    assert after.by_name["v"].index_state == "ready"
    assert after.version == before.version + (1 if indexed else 0)
    assert place.indexes().get(config.index_name) is (True if indexed else None)
    assert place.jobs() == ([("build_index", "succeeded", 1)] if indexed else [])
    await check(by_index=indexed)


async def test_what_a_failed_build_left_is_dropped_and_the_build_is_tried_again(place: Place) -> None:
    catalog = await place.promoted(NewVector("v", 3))
    name = catalog.by_name["v"].index_name
    await place.upsert("v", random_vectors(10, 3))
    with psycopg.connect(place.url) as writer:
        writer.execute(sql.SQL("DELETE FROM {} WHERE document_id = 'd1'").format(sql.Identifier(NAME, "documents")))
        building = asyncio.create_task(place.drain())
        kill(place.url, *await blocked(place.url, writer.info.backend_pid))  # it waits for writers before it may scan
        await blocked(place.url, writer.info.backend_pid)  # and to drop what is left, for writers again
        assert place.indexes()[name] is False
    await building
    assert name not in place.indexes()
    assert await place.states() == {"v": "building"}
    assert place.jobs() == [("build_index", "todo", 1)]
    assert (await place.task()).status == "IN_PROGRESS"

    await place.again()
    assert place.indexes()[name] is True
    assert await place.states() == {"v": "ready"}
    assert place.jobs() == [("build_index", "succeeded", 2)]
    assert (await place.task()).status == "COMPLETED"
    assert place.loose() == []


async def test_two_workers_build_two_indexes_of_one_table_one_after_the_other(place: Place) -> None:
    """At the same time they would end in a deadlock."""
    await place.promoted(NewVector("v", 3), NewVector("w", 3))
    with psycopg.connect(place.url) as writer:
        writer.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(NAME, "documents")))
        building = asyncio.create_task(place.drain())
        await blocked(place.url, writer.info.backend_pid)
        idle = asyncio.create_task(place.drain())
        await until(idle.done)  # there is nothing that it may do
        assert [job[1] for job in place.jobs()] == ["doing", "todo"]
    await asyncio.gather(building, idle)
    assert place.jobs() == [("build_index", "succeeded", 1)] * 2
    assert await place.states() == {"v": "ready", "w": "ready"}


async def test_a_build_has_the_memory_and_the_helpers_that_the_settings_give_it(place: Place) -> None:
    settings = place.runtime.settings.model_copy(update={"index_build_memory_mb": 77, "index_build_workers": 5})
    async with connecting(place.url, settings) as conn:
        for name, value in {"maintenance_work_mem": "77MB", "max_parallel_maintenance_workers": "5"}.items():
            assert (await conn.exec_driver_sql(f"SHOW {name}")).scalar_one() == value


async def test_a_namespace_that_was_deleted_ends_its_job_quietly(place: Place) -> None:
    await place.promoted(NewVector("v", 3))
    async with place.transaction() as conn:
        await namespaces.delete(conn, NAME)
    await place.drain()
    assert place.jobs() == [("build_index", "succeeded", 1)]
    assert place.indexes() == {}


async def test_a_job_exists_if_and_only_if_its_transaction_commits(place: Place) -> None:
    arguments = {"namespace_id": "none", "name": "v"}
    with pytest.raises(ZeroDivisionError):
        async with place.transaction() as conn:
            await queue.defer(conn, "build_index", arguments)
            raise ZeroDivisionError
    assert place.jobs() == []
    async with place.transaction() as conn:
        path = (await conn.exec_driver_sql("SHOW search_path")).scalar_one()
        await queue.defer(conn, "build_index", arguments)
        assert (await conn.exec_driver_sql("SHOW search_path")).scalar_one() == path
        assert place.jobs() == []
    assert place.jobs() == [("build_index", "todo", 0)]


async def test_a_worker_that_runs_takes_jobs_as_they_come(place: Place) -> None:
    async with worker.running(place.url, place.runtime):
        await place.promoted(NewVector("v", 3))
        await until(lambda: not place.jobs())  # those that succeed are deleted
    assert await place.states() == {"v": "ready"}


async def test_a_job_whose_worker_died_is_run_again(place: Place) -> None:
    await place.promoted(NewVector("v", 3))
    with psycopg.connect(place.url) as conn:  # as a worker leaves it that is killed, once its row is gone too
        conn.execute("SET search_path = pgretrieve_queue")
        conn.execute("UPDATE procrastinate_jobs SET status = 'doing', attempts = 1")
    assert await place.states() == {"v": "building"}
    async with worker.running(place.url, place.runtime):
        await until(lambda: not place.jobs())
    assert await place.states() == {"v": "ready"}
