"""Migrations of models among faults: a worker that is killed, and backends that are killed within a cut-over."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from app import service
from app.db.engine import create_engine, transaction
from app.domain.background import working
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.models import migrating, model_migrations
from app.domain.models.model_migrations import Wanted
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.settings import Settings
from tests.faults.sabotage import Sabotage
from tests.http import ROOT_KEY, Api, document
from tests.openai_server import OpenAIServer

SMALL, LARGE = "openai_text_3_small", "openai_text_3_large"
MODEL = "text-embedding-3-large"
DOCUMENTS, BATCH = 200, 5


@contextmanager
def worker_process(url: str, openai: OpenAIServer) -> Iterator[subprocess.Popen[bytes]]:
    """`pgretrieve worker`, as it is deployed."""
    environment = os.environ | {
        "DATABASE_URL": url,
        "OPENAI_API_KEY": openai.key,
        "OPENAI_BASE_URL": openai.base_url,
        "PGRETRIEVE_WORK_BATCH": str(BATCH),
        "PGRETRIEVE_DRIFT_PROBE_HOURS": "0",
    }
    command = [sys.executable, "-m", "app.cli", "worker"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def await_that(holds: Callable[[], Any], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)  # another process, which tells no one


async def test_a_killed_worker_is_followed_by_another_that_goes_on(
    fresh_database: Callable[[], str], settings: Settings, openai: OpenAIServer
) -> None:
    url = fresh_database()

    def one(query: str) -> Any:
        with psycopg.connect(url) as conn:
            row = conn.execute(query).fetchone()
        return row[0] if row else None

    def embedded() -> list[str]:
        return [text for request in openai.requests if request.get("model") == MODEL for text in request["input"]]

    engine = create_engine(url, settings)
    runtime = Runtime(settings, engine, Inference.from_settings(settings))
    try:
        vector = NewVector("text", 1536, inference_service=SMALL, source_field="title")
        async with transaction(engine, settings) as conn:
            catalog = await namespaces.create(conn, settings, mode="managed", namespace_id="n", vectors=[vector])
            new = [Document(f"d{n}", {}, b'{"title": "title %d"}' % n) for n in range(DOCUMENTS)]
            await documents.upsert(conn, catalog, new, settings)
        await working.do_all(runtime, "n")
        services = {info.name: info for info in runtime.inference.infos()}
        async with transaction(engine, settings) as conn:
            migration = await model_migrations.start(conn, "n", Wanted("text", LARGE), services, "test")

        openai.requests.clear()
        state = "SELECT state FROM pgretrieve.model_migrations"
        done = "SELECT done FROM pgretrieve.tasks"
        with worker_process(url, openai) as process:
            await_that(lambda: len(embedded()) >= 4 * BATCH)
            openai.came.clear()
            openai.hold = threading.Event()
            assert openai.came.wait(30)
            process.kill()  # SIGKILL, while it waits for vectors
            process.wait()
        openai.hold.set()
        openai.hold = None
        before = one(done)
        assert 0 < before < DOCUMENTS
        assert one(state) == "backfilling"
        with psycopg.connect(url) as db:  # time passes: heartbeats and leases are missed
            db.execute("UPDATE pgretrieve_queue.procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
            db.execute("UPDATE pgretrieve.work SET leased_until = now() WHERE lease IS NOT NULL")
        with worker_process(url, openai):
            await_that(lambda: one(state) == "comparing")
            await_that(
                lambda: one("SELECT index_state FROM pgretrieve.vector_configs WHERE shadow_of = 'text'") == "ready"
            )
            async with transaction(engine, settings) as conn:
                await migrating.sweep(conn)  # else within a minute
            await_that(lambda: one(state) == "ready")
        found = await _metrics(runtime, migration.migration_id)
        assert (found["documents"], found["with_new"], found["coverage"]) == (DOCUMENTS, DOCUMENTS, 1.0)
        assert one(done) == DOCUMENTS
        assert set(embedded()) == {f"title {n}" for n in range(DOCUMENTS)}
        # Two jobs had a batch each when the worker was killed; nothing else was made twice.
        assert len(embedded()) <= DOCUMENTS + 2 * BATCH
    finally:
        await runtime.inference.close()
        await engine.dispose()


async def _metrics(runtime: Runtime, migration_id: str) -> Any:
    async with transaction(runtime.engine, runtime.settings) as conn:
        return (await model_migrations.find(conn, "n", migration_id)).metrics


@pytest.fixture(scope="module")
def sabotage(conninfo: str) -> Sabotage:
    return Sabotage(conninfo)


@pytest.fixture(scope="module")
def sabotaged(sabotage: Sabotage, conninfo: str, settings: Settings) -> Iterator[httpx.Client]:
    """A client of a service whose statements are counted; keys are looked up once."""
    trusting = settings.model_copy(update={"key_cache_s": 3600.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.create_engine", sabotage.create_engine)
        with (
            service.in_background(trusting, conninfo, ROOT_KEY) as url,
            httpx.Client(base_url=f"{url}/v1", timeout=30) as client,
        ):
            yield client


@pytest.mark.parametrize("action", ["cut-over", "roll-back", "finish", "cancel"])
async def test_a_killed_backend_leaves_all_or_nothing_at_every_statement(
    sabotaged: httpx.Client, sabotage: Sabotage, conninfo: str, runtime: Runtime, action: str
) -> None:
    def whole(api: Api) -> Any:
        query = """SELECT m.state, n.version, count(c), jsonb_agg(jsonb_build_array(
                c.name = m.index_name, i.inference_service, c.column_name LIKE '%%mig%%', c.dimension) ORDER BY c.name),
            (SELECT count(*) FROM pgretrieve.vector_changes v WHERE v.namespace_id = n.namespace_id)
            FROM pgretrieve.namespaces n JOIN pgretrieve.model_migrations m USING (namespace_id)
            JOIN pgretrieve.vector_configs c USING (namespace_id)
            JOIN pgretrieve.vector_inference_map i ON i.namespace_id = c.namespace_id AND i.name = c.name
            WHERE n.namespace_id = %s GROUP BY m.state, n.version, n.namespace_id"""
        with psycopg.connect(conninfo) as conn:
            return conn.execute(query, [api.namespace]).fetchone()

    async def prepared() -> tuple[Api, str]:
        sabotage.steps = None
        api = Api(sabotaged, f"test_{uuid4().hex[:12]}")
        api.standalone(("text", 1536))
        mapping = {"existing_index": "text", "inference_service": SMALL, "source_field": "title"}
        api.promote({"vector_mappings": [mapping]})
        api.upsert([document("d", title="a title")])
        started = api("POST", f"/namespaces/{api.namespace}/migrations", {"index": "text", "to_service": LARGE})
        path = f"/namespaces/{api.namespace}/migrations/{started['migration_id']}"
        if action != "cancel":
            await migrating.advance(runtime, started["migration_id"])
            if action != "cut-over":
                api("POST", f"{path}/cut-over", {"force": True})
        return api, f"{path}/{action}"

    def ask(api: Api, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ROOT_KEY}"}
        return sabotaged.post(path, json={"force": True} if action == "cut-over" else None, headers=headers)

    api, path = await prepared()
    before = whole(api)
    steps = sabotage.arm()
    assert ask(api, path).status_code == 200
    after = whole(api)
    assert before[0] != after[0]
    assert "COMMIT" in steps[-2]
    for at in (*range(0, len(steps) - 2, 3), len(steps) - 2, len(steps) - 1):  # of most statements before or after
        api, path = await prepared()
        assert whole(api) == before
        sabotage.arm(at)
        answer = ask(api, path)
        assert whole(api) == (after if answer.status_code == 200 else before), f"killed {steps[at]}"
        if answer.status_code != 200:
            assert answer.json()["error"]["code"] == "database_unavailable", answer.text
            assert ask(api, path).status_code == 200
            assert whole(api) == after
