"""Collections: found, by ids or names. What makes and changes them is `collection_changes`.

A document's `collection_id` may also be any name that its upserter chose; such a collection has no row here, and
nothing processes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.catalog.listing import Listed
from app.domain.content.collection_configs import Fields
from app.errors import NotFound, Problems

TIME = sa.TIMESTAMP(timezone=True)
LISTED = Listed(
    statement="list_collections",
    columns={
        **dict.fromkeys(("collection_id", "namespace_id", "collection_name", "description", "source"), sa.Text()),
        **dict.fromkeys(("feature_extractor", "paths", "fields", "fingerprint"), sa.Text()),
        **dict.fromkeys(("enabled", "auto"), sa.Boolean()),
        **dict.fromkeys(("metadata", "indexes"), sa.Text()),
        **dict.fromkeys(("created_at", "updated_at"), TIME),
        **dict.fromkeys(("open_extractions", "failed_extractions"), sa.BigInteger()),
    },
    key="collection_id",
    sortable=("collection_id", "collection_name", "created_at", "updated_at"),
    searched=("collection_id", "collection_name", "description"),
    opened=("source", "feature_extractor", "paths", "fields", "metadata", "indexes"),
)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it is stored; JSON parts are kept as text."""

    collection_id: str
    namespace_id: str
    collection_name: str
    description: str | None
    source: str
    feature_extractor: str
    paths: str
    fields: str
    fingerprint: str
    enabled: bool
    auto: bool
    metadata: str
    indexes: str
    created_at: datetime
    updated_at: datetime
    open_extractions: int
    failed_extractions: int

    @property
    def is_active(self) -> bool:
        """Whether what comes or changes is processed by itself."""
        return self.enabled and self.auto

    @property
    def is_over_collections(self) -> bool:
        """Whether its sources are documents of collections, not objects of buckets."""
        return bool(msgspec.json.decode(self.source)["type"] == "collection")

    @property
    def made_of(self) -> list[str]:
        """The ids of its buckets or collections."""
        declared = msgspec.json.decode(self.source)
        return list(declared.get("bucket_ids") or declared.get("collection_ids") or ())

    @property
    def index_names(self) -> dict[str, str]:
        """The vector indexes that it fills, by the outputs of its extractor."""
        return {each["output"]: each["index_name"] for each in msgspec.json.decode(self.indexes)}

    def made_from(self) -> Fields:
        """Its documents' fields, for collections over it."""
        found: dict[str, Any] = msgspec.json.decode(self.fields)
        return Fields(found["properties"], bool(found["open"]))


async def find(conn: AsyncConnection, namespace_id: str, identifier: str) -> Collection:
    """By id or name; `NotFound` when there is none in this namespace."""
    binds = {"namespace_id": namespace_id, "identifier": identifier}
    row = None
    if "\0" not in identifier:
        row = (await conn.execute(statement("find_collection"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("collection", identifier)
    return Collection(**row)


async def resolve(
    conn: AsyncConnection, namespace_id: str, identifiers: Sequence[str], at: tuple[str | int, ...]
) -> list[str]:
    """Ids of collections by ids or names; `InvalidRequest` names each that there is none of."""
    problems, found = Problems(), list[str]()
    for n, identifier in enumerate(identifiers):
        try:
            found.append((await find(conn, namespace_id, identifier)).collection_id)
        except NotFound as error:
            problems.add((*at, n), "unknown_collection", error.message)
    problems.refuse()
    return list(dict.fromkeys(found))
