"""Collections made over buckets or other collections, changed, and deleted with what they made."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.catalog.namespaces import lock_catalog
from app.domain.content import buckets, collection_indexes, processing
from app.domain.content.collection_configs import FeatureExtractor, Fields, Filled, Recipe, choose_indexes, read_recipe
from app.domain.content.collections import Collection, find
from app.domain.documents.documents import DIRECT_UPSERT, holds_nul
from app.domain.indexing.vector_indexes import require_managed
from app.domain.inference.services import held
from app.domain.retrieving import functions
from app.domain.security import access, audit
from app.errors import Conflict, NotFound, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog
from app.retrieval.stages.base import Limits
from app.settings import Settings

# Paths of other operations begin with these; the last is the collection of direct upserts.
RESERVED_NAMES = frozenset({"list", "features", "import", ".", "..", DIRECT_UPSERT})
SOURCE = ("body", "source")


@dataclass(frozen=True, slots=True)
class WantedSource:
    """Buckets or collections, by ids or names."""

    type: str
    buckets: Sequence[str] = ()
    parents: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A collection as it was asked for."""

    name: str
    source: WantedSource
    feature_extractor: FeatureExtractor
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    enabled: bool = True
    auto: bool = True


@dataclass(frozen=True, slots=True)
class _Sources:
    """What was found of the sources: ids, and the fields that they have together."""

    bucket_ids: tuple[str, ...]
    parent_ids: tuple[str, ...]
    fields: Fields

    def stored(self, kind: str) -> dict[str, Any]:
        ids = {"bucket_ids": list(self.bucket_ids)} if kind == "bucket" else {"collection_ids": list(self.parent_ids)}
        return {"type": kind, **ids}


async def create(
    conn: AsyncConnection,
    identifier: str,
    wanted: Wanted,
    services: Mapping[str, ServiceInfo],
    settings: Settings,
) -> Collection:
    """Make a collection with its index within the caller's transaction; what its sources have is gathered after it.

    Raises `Conflict` (not managed, a taken name), or `InvalidRequest` with every problem.
    """
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    require_managed(catalog)
    problems = Problems()
    check_name(wanted.name, problems)
    _check_texts(wanted.description, wanted.metadata, problems)
    sources = await _sources(conn, catalog.namespace_id, wanted.source, problems)
    recipe = read_recipe(wanted.feature_extractor, sources.fields, problems)
    filled: list[Filled] = []
    if recipe is not None:
        used = await collection_indexes.uses(conn, catalog.namespace_id)
        filled = choose_indexes(recipe.extractor, catalog, services, used, problems)
        collection_indexes.check(catalog, filled, settings, problems)
    problems.refuse()
    assert recipe is not None
    await _refuse_upserted(conn, catalog, wanted.name)
    await held(conn, services, [each.service for each in filled if each.service])
    collection_id = f"col_{secrets.token_hex(12)}"
    await _insert(conn, catalog, collection_id, wanted, sources, recipe, filled)
    if sources.parent_ids:
        await watch_parents(conn, catalog)
    request = {"collection": wanted.name, "feature_extractor": wanted.feature_extractor.stored()}
    made = await find(conn, catalog.namespace_id, collection_id)
    await conn.execute(statement("bump_namespace"), {"namespace_id": catalog.namespace_id})
    await functions.follow(conn, catalog.namespace_id)
    if made.is_active:
        await processing.ask_for(conn, catalog.namespace_id, made.collection_id)
    made_for, actor = wanted.feature_extractor.name, access.actor() or "worker"
    await collection_indexes.prepare(conn, catalog, filled, made_for, request, actor)
    about = {"collection_name": wanted.name, "feature_extractor": made_for}
    await audit.record(conn, "collection", "created", collection_id, catalog.namespace_id, **about)
    return await find(conn, catalog.namespace_id, collection_id)


async def _refuse_upserted(conn: AsyncConnection, catalog: Catalog, name: str) -> None:
    """A name leads to one collection: not where documents were upserted under it."""
    documents = catalog.relation
    some = sa.select(sa.literal(1)).where(documents.c.collection_id == name).limit(1)
    if (await conn.execute(some)).scalar_one_or_none() is not None:
        message = f"Documents were upserted directly into a collection {name!r}; choose another name."
        raise Conflict(message, code="already_exists")


def check_name(name: str, problems: Problems) -> None:
    lost = name != name.strip() or "/" in name or not name.isprintable()
    if not 3 <= len(name) <= 100 or lost or name in RESERVED_NAMES:
        message = (
            "A collection_name has 3 to 100 printable characters without a slash, and no space at its ends; "
            f"{', '.join(sorted(RESERVED_NAMES))} are taken."
        )
        problems.add(("body", "collection_name"), "bad_name", message)


def _check_texts(description: Any, metadata: Any, problems: Problems) -> None:
    for name, value in (("description", description), ("metadata", metadata)):
        if holds_nul(value):
            problems.add(("body", name), "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")


async def _sources(conn: AsyncConnection, namespace_id: str, wanted: WantedSource, problems: Problems) -> _Sources:
    """The sources, kept from changing until the transaction ends: who writes objects waits, and then sees the new
    collection."""
    properties: dict[str, Mapping[str, Any]] = {}
    open_, bucket_ids, parent_ids = False, list[str](), list[str]()
    for n, identifier in enumerate(wanted.buckets):
        try:
            found = await buckets.hold(conn, namespace_id, identifier, alone=True)
        except NotFound as error:
            problems.add((*SOURCE, "bucket_ids", n), "unknown_bucket", error.message)
            continue
        bucket_ids.append(found.bucket_id)
        properties = {**found.schema.properties, **properties}
    for n, identifier in enumerate(wanted.parents):
        try:
            parent = await find(conn, namespace_id, identifier)
        except NotFound as error:
            problems.add((*SOURCE, "collection_ids", n), "unknown_collection", error.message)
            continue
        parent_ids.append(parent.collection_id)
        properties = {**parent.made_from().properties, **properties}
        open_ = open_ or parent.made_from().open
    return _Sources(
        tuple(dict.fromkeys(bucket_ids)), tuple(dict.fromkeys(parent_ids)), Fields(properties, open_ or not properties)
    )


async def _insert(
    conn: AsyncConnection,
    catalog: Catalog,
    collection_id: str,
    wanted: Wanted,
    sources: _Sources,
    recipe: Recipe,
    filled: Sequence[Filled],
) -> None:
    fields = recipe.fields(sources.fields)
    binds = {
        "collection_id": collection_id,
        "namespace_id": catalog.namespace_id,
        "collection_name": wanted.name,
        "description": wanted.description,
        "source": as_json(sources.stored(wanted.source.type)),
        "feature_extractor": as_json(wanted.feature_extractor.stored()),
        "paths": as_json(recipe.paths),
        "fields": as_json({"properties": fields.properties, "open": fields.open}),
        "fingerprint": recipe.fingerprint({each.output: each.index for each in filled}),
        "enabled": wanted.enabled,
        "auto": wanted.auto,
        "metadata": as_json(wanted.metadata or {}),
    }
    try:
        await conn.execute(statement("insert_collection"), binds)
    except IntegrityError as error:
        raise _taken(error, wanted.name) from error
    rows = [{"bucket_id": each} for each in sources.bucket_ids] + [{"parent_id": each} for each in sources.parent_ids]
    await conn.execute(
        statement("insert_collection_sources"), {"collection_id": collection_id, "sources": as_json(rows)}
    )
    indexes = [{"output": each.output, "index_name": each.index} for each in filled]
    await conn.execute(
        statement("insert_collection_indexes"), {"collection_id": collection_id, "indexes": as_json(indexes)}
    )


def _taken(error: IntegrityError, name: str) -> Exception:
    if "collections_name" in str(error.orig):
        return Conflict(f"A collection {name!r} exists already in this namespace.", code="already_exists")
    return error


async def watch_parents(conn: AsyncConnection, catalog: Catalog) -> None:
    """From now on the documents' triggers queue input of collections over collections, or no longer."""
    binds = {"schema": catalog.schema, "namespace_id": catalog.namespace_id}
    await conn.execute(statement("watch_parents"), binds)


async def change(conn: AsyncConnection, catalog: Catalog, identifier: str, changes: Mapping[str, Any]) -> Collection:
    """Change name, description, metadata, `enabled` and `auto`. One that is enabled, or made automatic, begins with
    what it has missed. The caller holds the namespace for itself."""
    found = await find(conn, catalog.namespace_id, identifier)
    problems = Problems()
    if "collection_name" in changes:
        check_name(changes["collection_name"], problems)
    _check_texts(changes.get("description"), changes.get("metadata"), problems)
    problems.refuse()
    binds = {"collection_id": found.collection_id, "changes": as_json(changes)}
    if "collection_name" in changes:
        await _refuse_upserted(conn, catalog, changes["collection_name"])
    try:
        await conn.execute(statement("change_collection"), binds)
    except IntegrityError as error:
        raise _taken(error, str(changes.get("collection_name"))) from error
    await conn.execute(statement("bump_namespace"), {"namespace_id": catalog.namespace_id})
    await functions.follow(conn, catalog.namespace_id)
    changed = await find(conn, catalog.namespace_id, found.collection_id)
    if changed.is_active and not found.is_active:
        await processing.ask_for(conn, catalog.namespace_id, changed.collection_id)
    if not changed.enabled:
        await conn.execute(statement("forget_extractions_of"), binds | {"namespace_id": catalog.namespace_id})
    about = {"changed": sorted(changes), "enabled": changed.enabled, "auto": changed.auto}
    await audit.record(conn, "collection", "updated", found.collection_id, catalog.namespace_id, **about)
    return await find(conn, catalog.namespace_id, found.collection_id)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted with a collection."""

    collection: Collection
    documents: int
    indexes: Sequence[str]


async def delete(conn: AsyncConnection, identifier: str, collection: str, limits: Limits, *, force: bool) -> Deleted:
    """Delete a collection with its documents; with `force` also the index that it alone fills, if it made it.

    `Conflict` while other collections are made from it.
    """
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    found = await find(conn, catalog.namespace_id, collection)
    over = await conn.execute(statement("collections_over"), {"bucket_id": None, "parents": [found.collection_id]})
    children = [row.collection_name for row in over]
    if children:
        message = f"Collections are made from {found.collection_name!r}: {', '.join(children)}. Delete them first."
        raise Conflict(message, code="in_use", collections=children)
    documents = catalog.relation
    gone = await conn.execute(sa.delete(documents).where(documents.c.collection_id == found.collection_id))
    binds = {"collection_id": found.collection_id, "namespace_id": catalog.namespace_id}
    own = [each["index_name"] for each in msgspec.json.decode(found.indexes) if each["own"]]
    await conn.execute(statement("delete_collection"), binds)
    await conn.execute(statement("bump_namespace"), binds)
    await functions.follow(conn, catalog.namespace_id)
    if msgspec.json.decode(found.source)["type"] == "collection":
        await watch_parents(conn, catalog)
    request = {"delete_collection": found.collection_name, "force": force}
    dropped: list[str] = []
    if force:
        actor = access.actor() or "worker"
        dropped = await collection_indexes.drop_unused(conn, catalog, own, limits, request, actor)
    about = {"collection_name": found.collection_name, "documents": gone.rowcount, "dropped_indexes": dropped}
    await audit.record(conn, "collection", "deleted", found.collection_id, catalog.namespace_id, **about)
    return Deleted(found, gone.rowcount, dropped)
