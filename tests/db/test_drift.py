"""Drift: a provider that changes its model behind its name is noticed, and told wherever its service is shown."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest

from app.db.engine import create_engine, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.models import drift
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from tests.fakes import settings_of
from tests.openai_server import OpenAIServer

SERVICE = "openai_text_3_small"


@dataclass
class Place:
    """A database of this test's own with an index that is mapped to a remote service."""

    url: str
    runtime: Runtime
    server: OpenAIServer

    async def warnings(self) -> list[str]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            return await drift.warnings(conn, [SERVICE])

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as conn:
            return conn.execute(text.encode()).fetchall()


@pytest.fixture
async def place(fresh_database: Callable[[], str]) -> AsyncIterator[Place]:
    with OpenAIServer() as server:
        settings = settings_of(
            openai_api_key=server.key, openai_base_url=server.base_url, inference_retries=0, drift_probe_hours=24
        )
        url = fresh_database()
        runtime = Runtime(settings, create_engine(url, settings), Inference.from_settings(settings))
        vectors = [NewVector("text", 1536, inference_service=SERVICE), NewVector("own", 3)]
        async with transaction(runtime.engine, settings) as conn:
            await namespaces.create(conn, settings, mode="managed", namespace_id="n", vectors=vectors)
        yield Place(url, runtime, server)
        await runtime.inference.close()
        await runtime.engine.dispose()


def later(place: Place, hours: int) -> None:
    with psycopg.connect(place.url) as conn:
        conn.execute("UPDATE pgretrieve.service_probes SET probed_at = probed_at - make_interval(hours => %s)", [hours])


async def test_mapped_services_are_probed_once_a_day_past_every_cache(place: Place) -> None:
    assert [(p.service, p.verdict) for p in await drift.probe_due(place.runtime)] == [(SERVICE, "first")]
    assert await drift.probe_due(place.runtime) == []
    later(place, 25)
    (again,) = await drift.probe_due(place.runtime)
    assert (again.verdict, again.warning) == ("same", None)
    assert again.min_cosine == pytest.approx(1.0)
    assert [request["input"] for request in place.server.requests] == [list(drift.CANARIES)] * 2
    found = place.query("SELECT service, model, verdict FROM pgretrieve.service_probes ORDER BY probe_id")
    assert found == [(SERVICE, "text-embedding-3-small", verdict) for verdict in ("first", "same")]


async def test_a_model_that_is_changed_silently_is_told_until_it_is_accepted(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await drift.probe(place.runtime, SERVICE)
    assert await place.warnings() == []
    place.server.model_number = 2
    changed = await drift.probe(place.runtime, SERVICE)
    assert changed.verdict == "changed"
    assert changed.min_cosine is not None
    assert changed.min_cosine < 0.9
    assert "changed the model" in caplog.text
    assert await place.warnings() == [changed.warning]
    assert (await drift.probe(place.runtime, SERVICE)).verdict == "changed"
    await drift.probe(place.runtime, SERVICE, anew=True)
    assert (await drift.probe(place.runtime, SERVICE)).verdict == "same"
    assert await place.warnings() == []


async def test_a_service_that_does_not_answer_hides_no_drift_and_is_asked_again_in_an_hour(place: Place) -> None:
    await drift.probe(place.runtime, SERVICE)
    place.server.model_number = 2
    await drift.probe(place.runtime, SERVICE)
    place.server.statuses = [500]
    failed = await drift.probe(place.runtime, SERVICE)
    assert (failed.verdict, failed.min_cosine) == ("failed", None)
    assert failed.error
    assert len(await place.warnings()) == 1
    assert await drift.probe_due(place.runtime) == []
    later(place, 2)
    assert [p.verdict for p in await drift.probe_due(place.runtime)] == ["failed"]


@pytest.mark.parametrize(("noise", "verdict"), [(1e-4, True), (5e-4, True), (4e-3, False)])
def test_noise_of_a_remote_service_is_no_drift(noise: float, verdict: bool) -> None:
    random = np.random.default_rng(0)
    before = random.standard_normal((8, 1536)).astype(np.float32)
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    now = before + noise * random.standard_normal(before.shape).astype(np.float32)
    assert (drift.min_cosine(before, now) >= 1 - drift.EPSILON) is verdict


async def test_local_models_do_not_drift_at_all(runtime: Runtime) -> None:
    first = await runtime.inference.embed("minilm_l6_v2", drift.CANARIES, "document")
    alone = np.vstack([await runtime.inference.embed("minilm_l6_v2", [text], "document") for text in drift.CANARIES])
    assert np.array_equal(first, alone)
