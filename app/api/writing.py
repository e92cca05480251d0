"""Writes of documents: shared with other writers, but alone where they make vector configs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.locks import giving_way
from app.db.engine import transaction
from app.domain.catalog import schema_on_write
from app.domain.catalog.namespaces import lock_catalog
from app.domain.documents.documents import Document
from app.domain.runtime import Runtime
from app.errors import Problem
from app.retrieval.catalog import Catalog

T = TypeVar("T")


async def writing(
    runtime: Runtime,
    identifier: str,
    documents: Sequence[Document],
    refused: Sequence[Problem],
    store: Callable[[AsyncConnection, Catalog], Awaitable[T]],
) -> T:
    """Do `store` in one transaction that holds the namespace; `refused` are problems found when decoding.

    It may be done again in another one, when a lock is not to be had.
    """
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, identifier, exclusive=False)
        if not schema_on_write.needed(catalog, documents):
            return await store(conn, catalog)

    async def work(conn: AsyncConnection) -> T:
        grown = await schema_on_write.add_vectors_on_write(conn, identifier, documents, runtime.settings, refused)
        return await store(conn, grown)

    return await giving_way(runtime, identifier, work)
