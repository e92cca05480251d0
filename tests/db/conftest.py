"""Fixtures of the tests of the database."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.retrieving import retrievers
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from tests.fakes import FakeService, settings_of
from tests.migrating import DIMENSION, RETRIEVER, TITLES, Place


@pytest.fixture
async def place(conninfo: str, engine: AsyncEngine) -> AsyncIterator[Place]:
    old, new = FakeService("old", DIMENSION, space="old "), FakeService("new", DIMENSION, space="new ")
    settings = settings_of(work_attempts=3, work_batch=8, estimate_seconds=0)
    runtime = Runtime(settings, engine, Inference({"old": old, "new": new}, settings))
    name = f"migrate_{uuid4().hex[:12]}"
    vector = NewVector("text", DIMENSION, inference_service="old", source_field="title")
    async with transaction(engine, settings) as conn:
        await namespaces.create(conn, settings, mode="managed", namespace_id=name, vectors=[vector])
        await retrievers.put(conn, name, "r", RETRIEVER, runtime.limits)
    made = Place(conninfo, runtime, old, new, name)
    for n, title in enumerate(TITLES):
        await made.upsert(f"d{n}", title)
    await made.work()
    yield made
    await runtime.inference.close()
