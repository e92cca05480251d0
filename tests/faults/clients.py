"""What tests of faults share: a promotion, documents, requests beside each other, locks that are held."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import raw, transaction
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document

LOCAL = ("summary", 384)
QUERY = [1.0, 0.5] + [0.0] * 382
PROMOTION = {
    "vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}],
    "add_vectors": [{"name": "image", "dimension": 3}, {"name": "sound", "dimension": 5, "metric": "dot"}],
    "verify": "off",  # what fails in a proof fails no promotion: see tests/db/test_proof.py
}


def some_documents(count: int, prefix: str = "d") -> list[dict[str, Any]]:
    return [document(f"{prefix}{n}", {"summary": [1.0, n / 7] + [0.0] * 382}, n=n) for n in range(count)]


def is_gone(answer: httpx.Response) -> bool:
    """Whether this is the answer of a request that lost its database connection."""
    error = answer.json().get("error", {})
    return (
        answer.status_code == 503
        and answer.json()["success"] is False
        and error["code"] == "database_unavailable"
        and error["details"]["retryable"] is True
    )


def steady(settings: Settings) -> Settings:
    """Keys are looked up once, and nobody looks who blocks whom: so the steps of a request are always the same."""
    return settings.model_copy(update={"key_cache_s": 3600.0, "lock_timeout_ms": 60_000})


class Http:
    """The namespace of an `Api`, for requests that run beside each other; statuses are for the test to judge."""

    def __init__(self, client: httpx.AsyncClient, api: Api) -> None:
        self.client, self.namespace = client, api.namespace
        self.headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers)

    async def promote(self, body: Any = PROMOTION) -> httpx.Response:
        return await self.post(f"/namespaces/{self.namespace}/promote", body)

    async def upsert(self, documents: list[dict[str, Any]]) -> httpx.Response:
        return await self.post(f"/namespaces/{self.namespace}/documents/upsert", {"documents": documents})


@asynccontextmanager
async def holding(engine: AsyncEngine, settings: Settings) -> AsyncIterator[tuple[AsyncConnection, int]]:
    """A transaction that keeps its locks to the end of the block, and the process id of its backend."""
    async with transaction(engine, settings) as conn:
        yield conn, (await raw(conn)).info.backend_pid


async def lock_documents(conn: AsyncConnection, namespace: str, mode: str) -> None:
    name = sql.Identifier(namespace, "documents").as_string(None)
    await conn.exec_driver_sql(f"LOCK TABLE {name} IN {mode} MODE")
