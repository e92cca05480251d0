"""Migrations of models: filled, compared, cut over, rolled back; and no query of one model is answered by the other."""

import asyncio

import psycopg
import pytest
from psycopg import sql

from app.domain.models import cutting_over, migrating
from app.domain.models.model_migrations import Gate, Judged
from app.domain.runtime import Runtime
from app.errors import Conflict, InferenceUnavailable
from tests.migrating import DIMENSION, TITLES, Place, is_made_of, near


async def test_an_index_goes_to_another_model_and_back_and_stays(place: Place) -> None:
    (column,) = [config.column for config in (await place.catalog()).vector_configs]
    migration_id = await place.ready()
    assert near(await place.search("title 3"), place.expected("title 3", "old "))
    found = await place.cut_over(migration_id)
    assert (found.state, (await place.catalog()).inference_map) == ("cut_over", {"text": "new"})
    assert near(await place.search("title 3"), place.expected("title 3", "new "))
    await place.roll_back(migration_id)
    assert near(await place.search("title 3"), place.expected("title 3", "old "))
    assert (await place.catalog()).vector_configs[0].column == column
    await place.cut_over(migration_id)  # once more: it was ready
    async with place.transaction() as conn:
        await cutting_over.finish(conn, place.name, migration_id, "test")
    assert near(await place.search("title 3"), place.expected("title 3", "new "))
    catalog = await place.catalog()
    assert (catalog.shadows, [source.service for source in catalog.sources]) == ((), ["new"])
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped"
    with psycopg.connect(place.url) as conn:
        there = conn.execute(sql.SQL(columns).format(sql.Identifier(place.name, "documents"))).fetchall()
    assert (column,) not in there
    assert (catalog.vector_configs[0].column,) in there
    operations = "SELECT operation FROM pgretrieve.vector_changes WHERE namespace_id = %s ORDER BY change_id"
    assert [row[0] for row in place.query(operations)] == [
        "start_migration",
        "cut_over",
        "roll_back",
        "cut_over",
        "finish_migration",
    ]


async def test_queries_during_cut_overs_are_answered_by_one_model_each(place: Place) -> None:
    """The first document of each query is the one of that very text, with the score 1, in either model's space only."""
    migration_id = await place.ready()
    other = Runtime(place.runtime.settings, place.runtime.engine, place.runtime.inference)
    stop, answered, seen = asyncio.Event(), asyncio.Condition(), {"old ": 0, "new ": 0}

    async def ask(worker: int) -> None:
        n = worker
        while not stop.is_set():
            n = (n + 1) % len(TITLES)
            try:
                found = await place.search(TITLES[n], other if worker % 2 else place.runtime)
            except Conflict as error:  # three changes under one request
                assert error.error_code == "changing"
                continue
            of = [space for space in seen if near(found, place.expected(TITLES[n], space))]
            assert len(of) == 1, f"{TITLES[n]}: {found}"
            async with answered:
                seen[of[0]] += 1
                answered.notify_all()

    async def switch() -> None:
        for _ in range(6):
            for space, change in (("new ", place.cut_over), ("old ", place.roll_back)):
                await change(migration_id)
                async with answered:
                    enough = seen[space] + 3
                    while seen[space] < enough:
                        await answered.wait()
        stop.set()

    async with asyncio.timeout(60):
        await asyncio.gather(switch(), *(ask(worker) for worker in range(6)))
    assert min(seen.values()) >= 18


async def test_what_is_written_meanwhile_gets_both_vectors_before_and_after_the_cut_over(place: Place) -> None:
    migration_id = await place.ready()
    await place.upsert("e", "before")
    await place.upsert("d1", "changed")
    await place.work()
    await place.cut_over(migration_id)
    await place.upsert("f", "after")
    await place.upsert("d2", "changed, too")
    await place.work()
    for document_id, title in (
        ("e", "before"),
        ("d1", "changed"),
        ("f", "after"),
        ("d2", "changed, too"),
        ("d3", TITLES[3]),
    ):
        found = await place.vectors(document_id)
        assert is_made_of(found["old"], f"old {title}"), document_id
        assert is_made_of(found["new"], f"new {title}"), document_id


async def test_work_that_is_under_way_at_a_cut_over_is_not_lost(place: Place) -> None:
    migration_id = await place.ready()
    services = (place.old, place.new)
    for service in services:
        service.hold, service.called = asyncio.Event(), asyncio.Event()
    await place.upsert("e", "in between")
    workers = [asyncio.create_task(place.work()) for _ in services]
    await asyncio.gather(*(service.called.wait() for service in services))
    await place.cut_over(migration_id)
    for service in services:
        assert service.hold is not None
        service.hold.set()
    await asyncio.gather(*workers)
    found = await place.vectors("e")
    assert is_made_of(found["old"], "old in between")
    assert is_made_of(found["new"], "new in between")


async def test_a_callers_vector_goes_to_the_column_that_answers(place: Place) -> None:
    migration_id = await place.ready()
    mine = [1.0] + [0.0] * (DIMENSION - 1)
    await place.upsert("e", "with a vector", mine)
    await place.work()
    found = await place.vectors("e")
    assert found["old"] == mine
    assert is_made_of(found["new"], "new with a vector")
    await place.cut_over(migration_id)
    await place.upsert("e", "with a vector", mine)
    await place.work()
    found = await place.vectors("e")
    assert found["new"] == mine
    assert is_made_of(found["old"], "old with a vector")


async def test_documents_without_a_source_count_against_the_gate(place: Place) -> None:
    mine = [1.0] + [0.0] * (DIMENSION - 1)
    for n in range(4):
        await place.upsert(f"bare{n}", None, mine)
    migration_id = await place.start(gate=Gate(min_coverage=0.9))
    await migrating.advance(place.runtime, migration_id)
    await migrating.advance(place.runtime, migration_id)
    found = await place.find(migration_id)
    assert found.state == "comparing"
    wanted = {
        "documents": 16,
        "with_old": 16,
        "with_new": 12,
        "without_source": 4,
        "old_by_callers": 4,
        "coverage": 0.75,
    }
    assert wanted.items() <= found.metrics.items()
    with pytest.raises(Conflict, match=r"min_coverage 0.9 \(found 0.75\)") as refused:
        await place.cut_over(migration_id)
    assert refused.value.error_code == "gate_not_met"
    assert (await place.cut_over(migration_id, force=True)).state == "cut_over"


async def test_the_gate_compares_sampled_and_judged_queries(place: Place) -> None:
    judged = [Judged("title 1", ["d1"]), Judged("title 2", ["d3"])]
    migration_id = await place.start(gate=Gate(min_overlap=0.0, min_ndcg=0.5, min_queries=4), judgements=judged)
    await place.search("title 4")  # before it compares: not sampled
    await migrating.advance(place.runtime, migration_id)
    assert (await place.find(migration_id)).metrics["queries"] == 2
    for text in ("title 5", "title 6", "title 5"):
        await place.search(text)
    place.query("UPDATE pgretrieve.vector_configs SET index_state = 'ready' WHERE namespace_id = %s RETURNING 1")
    await migrating.advance(place.runtime, migration_id)
    found = await place.find(migration_id)
    assert (found.state, found.metrics["queries"], found.metrics["judged"]) == ("ready", 4, 2)
    assert found.metrics["ndcg_before"] >= 0.5
    assert found.metrics["ndcg_after"] >= 0.5  # the first is found first by either model
    assert 0 < found.metrics["overlap"] <= 1
    sampled = """SELECT query FROM pgretrieve.model_migration_queries WHERE migration_id = (
        SELECT migration_id FROM pgretrieve.model_migrations WHERE namespace_id = %s) AND relevant_ids IS NULL
        ORDER BY 1"""
    assert place.query(sampled) == [("title 5",), ("title 6",)]
    async with place.transaction() as conn:
        await cutting_over.cancel(conn, place.name, migration_id, "test")
    assert place.query(sampled) == []


async def test_a_back_fill_goes_on_where_it_was_and_makes_nothing_twice(place: Place) -> None:
    place.new.error = KeyboardInterrupt()  # the worker ends within its first batch
    migration_id = await place.start()
    with pytest.raises(KeyboardInterrupt):
        await migrating.advance(place.runtime, migration_id)
    assert (await place.find(migration_id)).done == 0
    place.new.error, place.new.calls = None, []
    place.query("UPDATE pgretrieve.work SET leased_until = now() WHERE namespace_id = %s RETURNING 1")
    await migrating.advance(place.runtime, migration_id)
    found = await place.find(migration_id)
    assert (found.state, found.total, found.done, found.failed) == ("comparing", 12, 12, 0)
    assert sorted(text for texts, task in place.new.calls for text in texts) == sorted(TITLES)


async def test_a_back_fill_of_which_nothing_succeeds_fails_and_can_be_canceled(place: Place) -> None:
    place.new.error = InferenceUnavailable("down", code="inference_unavailable")
    migration_id = await place.start()
    while (await place.find(migration_id)).state == "backfilling":
        await migrating.advance(place.runtime, migration_id)
        place.query("UPDATE pgretrieve.work SET due_at = now() WHERE namespace_id = %s RETURNING 1")
    found = await place.find(migration_id)
    assert (found.state, found.error and found.error["code"]) == ("failed", "backfill_failed")
    with pytest.raises(Conflict) as refused:
        await place.cut_over(migration_id, force=True)
    assert refused.value.error_code == "migration_state"
    async with place.transaction() as conn:
        assert (await cutting_over.cancel(conn, place.name, migration_id, "test")).state == "canceled"
    assert (await place.catalog()).shadows == ()
    assert place.query("SELECT count(*) FROM pgretrieve.work WHERE namespace_id = %s") == [(0,)]


async def test_an_index_has_one_migration_at_a_time(place: Place) -> None:
    migration_id = await place.start()
    with pytest.raises(Conflict, match=migration_id) as refused:
        await place.start()
    assert refused.value.error_code == "migration_open"


async def test_an_index_of_callers_vectors_is_migrated_by_the_field_that_is_named(place: Place) -> None:
    place.query("UPDATE pgretrieve.vector_inference_map SET source_field = NULL WHERE namespace_id = %s RETURNING 1")
    place.query("DELETE FROM pgretrieve.vector_inference_map WHERE namespace_id = %s RETURNING 1")
    migration_id = await place.ready(source_field="title")
    await place.cut_over(migration_id)
    assert near(await place.search("title 3"), place.expected("title 3", "new "))
    await place.upsert("d1", "changed")  # the old vector is of the document of before
    await place.work()
    shadow = (await place.catalog()).shadows[0]
    with psycopg.connect(place.url) as conn:
        query = sql.SQL("SELECT {} IS NULL FROM {} WHERE document_id = 'd1'")
        table = sql.Identifier(place.name, "documents")
        assert conn.execute(query.format(sql.Identifier(shadow.column), table)).fetchone() == (True,)
    await place.roll_back(migration_id)
    assert (await place.catalog()).inference_map == {}
