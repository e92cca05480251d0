"""docs/functions.md, run: functions joined with tables, called for each row, and under row-level security."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import create_engine, transaction
from app.domain.background import requested
from app.domain.catalog import lexical, namespaces
from app.domain.catalog.namespaces import NewVector, load_catalog
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.promoting import promotion
from app.domain.promoting.promotion import Mapped, Promotion
from app.domain.retrieving import functions, retrievers
from app.domain.retrieving.execution import Execution, run
from app.domain.retrieving.functions import Deployed
from app.domain.retrieving.planning import Wishes
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.retrieval.function_plan import STRATEGIES
from app.telemetry import Timings
from tests.db.test_requested_embeddings import role
from tests.fakes import FakeService, fake_vector, settings_of
from tests.functions import call_of
from tests.http import feature_search, search, stage

DOCS = Path(__file__).parents[2] / "docs" / "functions.md"
COUNT = 60
GRANTS = (
    "GRANT USAGE ON SCHEMA shop TO {}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}",
)
PRICE = {"field": "price", "operator": "lte", "value": "{{INPUT.max_price}}"}
SCHEMA = {"v": {"type": "array", "required": True}, "max_price": {"type": "number"}}
RETRIEVERS: dict[str, dict[str, Any]] = {
    "near": {
        "stages": [feature_search(search("v", "{{INPUT.v}}", filters=PRICE), final_top_k=10)],
        "input_schema": SCHEMA,
    },
    "plain": {"stages": [feature_search(search("v", "{{INPUT.v}}"), final_top_k=10)]},
    "tokens": {"stages": [feature_search(search("t", "{{INPUT.t}}"), final_top_k=10)]},
    "found": {"stages": [feature_search(search("x", "{{INPUT.q}}", mode="text", lexical=True), final_top_k=10)]},
    "fused": {
        "stages": [
            feature_search(
                search("v", "{{INPUT.v}}", top_k=20),
                search("x", "{{INPUT.q}}", mode="text", lexical=True, top_k=20),
                final_top_k=10,
            ),
            stage("sort_attribute", field="price"),
        ]
    },
    "words": {"stages": [feature_search(search("text", "{{INPUT.q}}", mode="text"), final_top_k=3)]},
}
INPUTS: dict[str, dict[str, Any]] = {
    "near": {"v": [0.2, 0.5, 0.1], "max_price": 200},
    "plain": {"v": [0.2, 0.5, 0.1]},
    "tokens": {"t": [[0.2, 0.5, 0.1], [0.9, 0.1, 0.0]]},
    "found": {"q": "thing three*"},
    "fused": {"v": [0.2, 0.5, 0.1], "q": "thing three"},
}


@dataclass(frozen=True)
class Shop:
    url: str
    runtime: Runtime
    admin: psycopg.Connection[Any]

    def call(self, name: str, inputs: dict[str, Any], **more: Any) -> sql.Composed:
        row = self.admin.execute(
            "SELECT parameters FROM pgretrieve.retriever_functions WHERE function_name = %s", [name]
        ).fetchone()
        assert row is not None
        return call_of("shop", name, row[0], inputs, **more)


def shop_documents() -> list[Document]:
    draw = np.random.default_rng(7)
    found = []
    for n in range(COUNT):
        words = ("three", "seven", "nine")[n % 3]
        payload = f'{{"title": "Thing {words} {n}", "price": {5 * n}, "sku": "{"abc"[n % 3]}{n % 3 + 1}"}}'
        vectors: dict[str, Any] = {"v": draw.standard_normal(3).tolist()}
        vectors["t"] = draw.standard_normal((2, 3)).tolist()
        vectors["text"] = fake_vector(f"text {n}", 8).tolist()
        found.append(Document(f"d{n:02}", vectors, payload.encode()))
    return found


@pytest.fixture(scope="module")
async def shop(server_url: str, template_db: str) -> AsyncIterator[Shop]:
    from tests.conftest import database

    with database(server_url, template_db) as url:
        settings_ = settings_of(estimate_seconds=0)
        engine: AsyncEngine = create_engine(url, settings_)
        runtime = Runtime(settings_, engine, Inference({"minilm_l6_v2": FakeService("minilm_l6_v2", 8)}, settings_))
        vectors = [NewVector("v", 3), NewVector("t", 3, kind="multi"), NewVector("text", 8)]
        async with transaction(engine, settings_) as conn:
            catalog = await namespaces.create_standalone(conn, settings_, namespace_id="shop", vectors=vectors)
            await documents.upsert(conn, catalog, shop_documents(), settings_)
            await lexical.declare(conn, "shop", lexical.fields_of({"title": None}))
            services = {info.name: info for info in runtime.inference.infos()}
            mapping = Promotion([Mapped("text", "minilm_l6_v2")])
            await promotion.promote(conn, "shop", mapping, services, settings_, "test")
            deployed = Deployed(runtime.limits, settings_.hnsw_ef_search)
            for name, definition in RETRIEVERS.items():
                stored = await retrievers.put(conn, "shop", name, definition, runtime.limits)
                await functions.publish(conn, await load_catalog(conn, "shop"), stored.retriever_id, None, deployed)
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("ANALYZE shop.documents")
            yield Shop(url, runtime, admin)
        await runtime.inference.close()
        await engine.dispose()


async def test_the_documents_examples_run_as_they_stand(shop: Shop) -> None:
    examples = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 8
    selected = 0
    async with await psycopg.AsyncConnection.connect(shop.url, autocommit=True) as conn:
        for example in examples:
            text = example.replace("wait => '30 s'", "wait => '0'")
            cursor = await conn.execute(text.encode())
            if text.startswith("CALL"):
                async with transaction(shop.runtime.engine, shop.runtime.settings) as own:
                    rows = (await own.exec_driver_sql("SELECT * FROM pgretrieve.embedding_requests")).all()
                for row in rows:
                    await requested.answer(shop.runtime, row.service, row.task, bytes(row.input_hash), last=True)
            elif text.startswith("SELECT"):
                assert await cursor.fetchall(), text
                selected += 1
        calls = await (
            await conn.execute(
                "SELECT count(*) FROM customers c, shop.near(v => c.taste, max_price => c.budget, row_limit => 2)"
            )
        ).fetchone()
    shop.admin.execute("DROP POLICY own_documents ON shop.documents")
    assert (selected, calls) == (4, (4,))


async def test_a_call_for_each_row_is_the_call_of_each_row(shop: Shop) -> None:
    rows = shop.admin.execute(
        "SELECT q.document_id, f.document_id, f.score FROM shop.documents q CROSS JOIN LATERAL "
        "shop.plain(v => q.v, strategy => 'exact', row_limit => 3) f ORDER BY 1, f.rank"
    ).fetchall()
    assert len(rows) == 3 * COUNT
    for n, document in enumerate(shop_documents()):
        wanted = Execution({"v": document.vectors["v"]}, wishes=Wishes(exact=True))
        outcome = await run(shop.runtime, "shop", "plain", wanted, Timings())
        expected = [(document.document_id, d["document_id"], d["score"]) for d in outcome.documents[:3]]
        assert rows[3 * n : 3 * n + 3] == expected


OWNERS = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT).filter(any)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(owned=OWNERS, name=st.sampled_from(sorted(INPUTS)), strategy=st.sampled_from(STRATEGIES))
async def test_a_row_that_is_revoked_is_absent_from_the_very_next_query(
    policed: tuple[Shop, psycopg.Connection[Any]], owned: list[bool], name: str, strategy: str
) -> None:
    """Whatever the caller may see, the answer is what the API answers with a filter that keeps just those documents."""
    shop, analyst = policed
    seen = [f"d{n:02}" for n, mine in enumerate(owned) if mine]
    shop.admin.execute("DELETE FROM may_see")
    shop.admin.execute("INSERT INTO may_see SELECT unnest(%s::text[])", [seen])
    call = shop.call(name, INPUTS[name], strategy=strategy)
    for _ in range(3):
        rows = [(row[1], row[2]) for row in analyst.execute(call).fetchall()]
        mine = {"field": "document_id", "operator": "in", "value": seen}
        wanted = Execution(INPUTS[name], mine, wishes=Wishes(exact=True))
        outcome = await run(shop.runtime, "shop", name, wanted, Timings())
        assert rows == [(d["document_id"], d["score"]) for d in outcome.documents]
        if not rows:
            return
        shop.admin.execute("DELETE FROM may_see WHERE document_id = %s", [rows[0][0]])
        seen.remove(rows[0][0])


@pytest.fixture
def policed(shop: Shop) -> Any:
    admin = shop.admin
    admin.execute("CREATE TABLE may_see (document_id text PRIMARY KEY)")
    seen = "document_id IN (SELECT m.document_id FROM public.may_see m)"
    admin.execute(f"CREATE POLICY may_see ON shop.documents AS RESTRICTIVE FOR SELECT USING ({seen})".encode())
    with role(shop.url, *GRANTS) as own, psycopg.connect(own, autocommit=True) as analyst:
        yield shop, analyst
    admin.execute("DROP POLICY may_see ON shop.documents")
    admin.execute("DROP TABLE may_see")


LARGE = 3_000


async def test_strategies_use_the_index_and_answer_as_the_api_does_in_a_larger_namespace(shop: Shop) -> None:
    runtime, admin, draw = shop.runtime, shop.admin, np.random.default_rng(3)
    vectors = draw.standard_normal((LARGE, 8))
    every = [Document(f"d{n}", {"v": v.tolist()}, f'{{"n": {n % 10}}}'.encode()) for n, v in enumerate(vectors)]
    tenth = {"field": "n", "operator": "eq", "value": "{{INPUT.n}}"}
    definition = {"stages": [feature_search(search("v", "{{INPUT.v}}", filters=tenth, top_k=10))]}
    async with transaction(runtime.engine, runtime.settings) as conn:
        vector = [NewVector("v", 8)]
        catalog = await namespaces.create_standalone(conn, runtime.settings, namespace_id="large", vectors=vector)
        await documents.upsert(conn, catalog, every, runtime.settings)
        stored = await retrievers.put(conn, "large", "near", definition, runtime.limits)
        deployed = Deployed(runtime.limits, runtime.settings.hnsw_ef_search)
        made = await functions.publish(conn, await load_catalog(conn, "large"), stored.retriever_id, None, deployed)
    admin.execute("ANALYZE large.documents")

    def scans() -> int:
        admin.execute("SELECT pg_stat_force_next_flush()")
        row = admin.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = 'large' AND indexrelname = 'documents_v_hnsw'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    for query in vectors[:10].tolist():
        for inputs in ({"v": query}, {"v": query, "n": 4}):
            answers = {}
            for wishes in (Wishes(), Wishes(exact=True)):
                outcome = await run(runtime, "large", "near", Execution(inputs, wishes=wishes), Timings())
                answers[wishes.exact] = [(d["document_id"], d["score"]) for d in outcome.documents]
            for strategy in STRATEGIES:
                before = scans()
                call = call_of("large", made.function_name, made.parameters, inputs, strategy=strategy)
                rows = [(row[1], row[2]) for row in admin.execute(call).fetchall()]
                assert (scans() > before) is (strategy != "exact")
                if strategy == "exact":
                    assert rows == answers[True]
                else:
                    assert len(rows) == 10
                    assert len(set(rows) & set(answers[True])) >= 8
                    assert len(set(rows) & set(answers[False])) >= 8
