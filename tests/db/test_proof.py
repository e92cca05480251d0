"""Proofs on a real database: how rows are drawn, and that nothing that fails is more than `unknown`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import create_engine, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.promoting import proof_rows
from app.domain.promoting.proof import Proof, prove
from app.domain.runtime import Runtime
from app.errors import InferenceUnavailable
from app.inference.base import Service
from app.inference.registry import Inference
from app.retrieval.catalog import Catalog
from tests.fakes import FakeService, fake_vector, settings_of

Make = Callable[..., tuple[Runtime, FakeService]]
TEXTS = [f"a text of its own, and {'quite ' * n}long" for n in range(40)]


@pytest.fixture
async def make(conninfo: str) -> AsyncIterator[Make]:
    """Makes processes on one database, each with a fake service of 8 dimensions."""
    made = []

    def make(*others: Service, **chosen: Any) -> tuple[Runtime, FakeService]:
        settings, fake = settings_of(**chosen), FakeService("fake")
        services: dict[str, Service] = {each.info.name: each for each in (fake, *others)}
        runtime = Runtime(settings, create_engine(conninfo, settings), Inference(services, settings))
        made.append(runtime)
        return runtime, fake

    yield make
    for runtime in made:
        await runtime.engine.dispose()


async def namespace(runtime: Runtime, rows: Sequence[tuple[list[float], dict[str, Any]]], **more: Any) -> Catalog:
    """A standalone namespace with an index `v` of 8 dimensions that holds these vectors and payloads."""
    name = f"test_{uuid4().hex[:12]}"
    given = [Document(f"d{n}", {"v": v}, msgspec.json.encode(payload)) for n, (v, payload) in enumerate(rows)]
    async with transaction(runtime.engine, runtime.settings) as conn:
        vectors = [NewVector("v", 8, **more)]
        catalog = await namespaces.create_standalone(conn, runtime.settings, namespace_id=name, vectors=vectors)
        if given:
            await documents.upsert(conn, catalog, given, runtime.settings)
    return catalog


def as_made(texts: Sequence[str]) -> list[tuple[list[float], dict[str, Any]]]:
    return [(fake_vector(text, 8).tolist(), {"body": {"text": text}, "label": "same"}) for text in texts]


async def test_the_field_is_found_and_shown(make: Make) -> None:
    runtime, fake = make()
    catalog = await namespace(runtime, as_made(TEXTS))
    proof = await prove(runtime, catalog, "v", "fake")
    assert (proof.verdict, proof.usable, proof.variants) == ("match", True, ())
    assert proof.source is not None
    assert (proof.source.text, proof.source.how) == ("body.text", "found")
    assert proof.numbers is not None
    assert (proof.numbers.rows, proof.numbers.self_recall) == (40, 1)
    assert {task for _, task in fake.calls} == {"document"}
    assert sum(len(texts) for texts, _ in fake.calls) == 40  # no text twice


async def test_another_model_is_a_mismatch_where_the_field_is_given(make: Make) -> None:
    runtime, _ = make(FakeService("other", 8))
    rows = [(fake_vector(f"unlike {text}", 8).tolist(), {"body": {"text": text}}) for text in TEXTS]
    catalog = await namespace(runtime, rows)
    given = await prove(runtime, catalog, "v", "other", "body.text")
    assert (given.verdict, given.usable) == ("mismatch", False)
    assert given.source is not None
    assert given.source.how == "given"
    assert (await prove(runtime, catalog, "v", "other")).verdict == "unknown"  # perhaps of no field that is there


async def test_lengths_matter_where_the_metric_sees_them(make: Make) -> None:
    runtime, _ = make()
    rows = [((np.array(vector) * (2 + n)).tolist(), payload) for n, (vector, payload) in enumerate(as_made(TEXTS))]
    for metric, usable in (("cosine", True), ("dot", False), ("euclidean", False)):
        proof = await prove(runtime, await namespace(runtime, rows, metric=metric), "v", "fake")
        assert (proof.verdict, proof.variants, proof.usable) == ("variant", ("not normalized",), usable)


async def test_repeated_texts_count_once_and_few_rows_tell_nothing(make: Make) -> None:
    runtime, _ = make()
    proof = await prove(runtime, await namespace(runtime, as_made(TEXTS[:4] * 9)), "v", "fake", "body.text")
    assert proof.verdict == "unknown"
    assert proof.reasons[0].startswith("4 rows of different texts")
    for rows in ([], [(vector, {"n": 1}) for vector, _ in as_made(TEXTS)]):
        for field in (None, "body.text"):
            proof = await prove(runtime, await namespace(runtime, rows), "v", "fake", field)
            assert (proof.verdict, proof.numbers) == ("unknown", None)


async def fails(proof: Proof, said: str) -> None:
    assert (proof.verdict, proof.usable) == ("unknown", False)
    assert said in " ".join(proof.reasons)


async def test_no_failure_of_a_service_is_more_than_unknown(make: Make) -> None:
    runtime, fake = make()
    catalog = await namespace(runtime, as_made(TEXTS))
    fake.error = InferenceUnavailable("The service is down.")
    await fails(await prove(runtime, catalog, "v", "fake"), "The service is down.")
    fake.error = ZeroDivisionError()
    await fails(await prove(runtime, catalog, "v", "fake"), "ZeroDivisionError")
    fake.error, fake.answer = None, "nan"
    await fails(await prove(runtime, catalog, "v", "fake"), "NaN")
    fake.answer, fake.reason = "right", "Not installed."
    await fails(await prove(runtime, catalog, "v", "fake"), "Not installed.")
    await fails(await prove(runtime, catalog, "v", "nowhere"), "no inference service")


async def test_a_service_that_hangs_is_unknown_in_time_and_holds_no_connection(make: Make) -> None:
    runtime, fake = make(proof_timeout_s=0.5, pool_size=1, pool_timeout_s=0.1)
    catalog = await namespace(runtime, as_made(TEXTS))
    fake.hold = asyncio.Event()
    proving = asyncio.create_task(prove(runtime, catalog, "v", "fake"))
    await fake.called.wait()
    async with transaction(runtime.engine, runtime.settings) as conn:  # the only connection is free
        await namespaces.load_catalog(conn, catalog.namespace_id)
    await fails(await proving, "PGRETRIEVE_PROOF_TIMEOUT_S")


async def test_what_was_embedded_in_time_is_judged(make: Make) -> None:
    runtime, fake = make(proof_timeout_s=1.0)
    catalog = await namespace(runtime, as_made(TEXTS))
    hold, embed_texts = asyncio.Event(), fake.embed_texts

    async def slower(texts: Sequence[str], task: Any) -> Any:
        if len(fake.calls) >= 2:
            await hold.wait()
        return await embed_texts(texts, task)

    fake.embed_texts = slower  # type: ignore[method-assign]
    proof = await prove(runtime, catalog, "v", "fake", "body.text")
    assert proof.verdict == "match"
    assert proof.numbers is not None
    assert 12 <= proof.numbers.rows < 40
    assert "PGRETRIEVE_PROOF_TIMEOUT_S" in proof.reasons[0]


async def test_a_namespace_that_is_gone_is_unknown(make: Make) -> None:
    runtime, _ = make()
    catalog = await namespace(runtime, as_made(TEXTS))
    async with transaction(runtime.engine, runtime.settings) as conn:
        await namespaces.delete(conn, catalog.namespace_id)
    await fails(await prove(runtime, catalog, "v", "fake"), "could not be read")


async def test_rows_are_drawn_from_a_few_blocks_of_a_large_table(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = make(proof_rows=20)
    catalog = await namespace(runtime, as_made([f"{text} {n}" for n in range(50) for text in TEXTS]))
    config = catalog.by_name["v"]
    monkeypatch.setattr(proof_rows, "PAGES", (4, 8))
    asked: list[set[str]] = []
    for _ in range(8):
        async with transaction(runtime.engine, runtime.settings) as conn:
            asked.append(set(await proof_rows._draw_ids(conn, catalog, config, "body.text", runtime.settings)))
    drawn = set().union(*asked)
    assert max(map(len, asked)) == 20
    assert len(drawn) > 40  # other rows each time
    monkeypatch.setattr(proof_rows, "PAGES", (10**6,))
    async with transaction(runtime.engine, runtime.settings) as conn:
        found = await proof_rows.draw(conn, catalog, config, None, runtime.settings)
    assert (found.vectors.shape, list(found.texts)) == ((20, 8), ["body.text"])
    for vector, text in zip(found.vectors, found.texts["body.text"], strict=True):
        assert text is not None
        np.testing.assert_array_equal(vector, fake_vector(text, 8))


@pytest.mark.parametrize("field", ["body.text.more", "", ".", "a..b", "nope", "body", "metadata.x", "it's", "a\0b"])
async def test_no_name_of_a_field_is_an_error(make: Make, field: str) -> None:
    runtime, _ = make()
    proof = await prove(runtime, await namespace(runtime, as_made(TEXTS[:6])), "v", "fake", field)
    await fails(proof, "could not be read" if "\0" in field else "No document has this vector and a text")


async def test_a_database_that_fails_while_drawing_is_unknown(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = make(statement_timeout_ms=100)
    catalog = await namespace(runtime, as_made(TEXTS))

    async def slow(conn: Any, *_: Any) -> Any:
        await conn.exec_driver_sql("SELECT pg_sleep(5)")
        raise SQLAlchemyError("not reached")

    monkeypatch.setattr("app.domain.promoting.proof.draw", slow)
    await fails(await prove(runtime, catalog, "v", "fake"), "could not be read")
