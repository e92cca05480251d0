"""Migrations on data: down to the first stair and up again, what the first one knew of is as it was."""

from collections.abc import Callable
from typing import Any

import httpx
import psycopg
from alembic import command

from app import service
from app.db.migrate import alembic_config, upgrade
from app.settings import Settings
from tests.db.test_migrations import REVISIONS, revision_of
from tests.http import ROOT_KEY, Api, document, feature_search, search, stage

DOCUMENTS = [document(f"d{n}", {"v": [1, n / 7, -n]}, title=f"the {n}. document", n=n) for n in range(40)]
STORED = "SELECT document_id, payload::text, v::text, created_at FROM {0}.documents ORDER BY 1"


def seed(api: Api, name: str) -> None:
    api.namespace = name
    api.standalone(("v", 3))
    api.upsert(DOCUMENTS)
    filters = {"must": [{"key": "n", "range": {"gte": 10}}]}
    by_n = stage("sort_attribute", sort_field="n")
    api.retriever("near", feature_search(search("v", "{{INPUT.v}}", filters=filters), final_top_k=7), by_n)


def answers(settings: Settings, url: str, act: Callable[[Api], Any] = lambda api: None) -> list[Any]:
    """What both namespaces' retrievers answer, after something is done."""
    with (
        service.in_background(settings, url, ROOT_KEY) as base,
        httpx.Client(base_url=f"{base}/v1", timeout=30) as http,
    ):
        api = Api(http, "")
        act(api)
        found = []
        for name in ("plain", "promoted"):
            api.namespace = name
            found.append(api.execute("near", inputs={"v": [1, 1, 1]})["documents"])
            found.append(api("GET", f"/namespaces/{name}")["mode"])
        return found


def everything_at_first(api: Api) -> None:
    """All kinds of rows that later migrations made tables for, beside what the first one has."""
    for name in ("plain", "promoted"):
        seed(api, name)
    index = {"name": "t", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
    api.promote({"add_vectors": [index]})
    api("PATCH", "/namespaces/promoted", {"payload_indexes": [{"field_name": "n", "type": "integer"}]})
    api("POST", "/buckets", {"bucket_name": "b", "bucket_schema": {"properties": {"t": {"type": "text"}}}})
    api("POST", "/keys", {"name": "k", "scopes": ["read"]})


def stored(url: str) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(url) as conn:
        return {name: conn.execute(STORED.format(name).encode()).fetchall() for name in ("plain", "promoted")}


def test_data_survive_every_stair(fresh_database: Callable[[], str], settings: Settings) -> None:
    url = fresh_database()
    before = answers(settings, url, everything_at_first)
    kept = stored(url)
    assert len(before[0]) == 7
    for revision in reversed(REVISIONS[:-1]):
        command.downgrade(alembic_config(url), revision)
        assert stored(url) == kept, f"the way down to {revision} changes documents"
        assert revision_of(url) == [revision]
    for revision in REVISIONS[1:]:
        upgrade(url, revision)
        assert stored(url) == kept, f"{revision} changes documents"
    assert answers(settings, url) == before
    with psycopg.connect(url) as conn:
        conn.execute("SELECT provenance FROM plain.documents")
