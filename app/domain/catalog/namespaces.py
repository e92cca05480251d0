"""Namespaces: creating, loading, locking, deleting. What answers show of them is `described`'s."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl, namespace_migrations
from app.db.identifiers import RESERVED_COLUMNS, RESERVED_SCHEMAS, free_name, names
from app.db.statements import as_json, statement
from app.domain.documents import sources
from app.domain.indexing.payload_indexes import PayloadIndex, check_declared, put_declared
from app.domain.security import access, audit
from app.errors import Conflict, NotFound, Problems
from app.retrieval.adopted import Adopted
from app.retrieval.catalog import SIDE, Catalog, FieldIndex, IndexState, Kind, LexicalField, Mode, Source, VectorConfig
from app.retrieval.vectors import MAX_SPARSE_DIMENSION, METRIC_SPELLINGS, index_method
from app.settings import Settings

# Retrievers name vectors where templates may stand.
TEMPLATED = re.compile(r"\{[{%]")
# Paths of other operations begin with these.
RESERVED_IDENTIFIERS = frozenset({"adopt", "list", "standalone", "stats", ".", ".."})


@dataclass(frozen=True, slots=True)
class Backfill:
    """That an index is to be filled from the documents that are there: from which payload field (None: the one that is
    mapped), and how many documents a minute (None: as fast as the service does it)."""

    source_field: str | None = None
    rate_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class NewVector:
    """A vector config as it was asked for, not yet checked."""

    name: str
    dimension: int
    metric: str = "cosine"
    inference_service: str | None = None
    source_field: str | None = None
    kind: str = "dense"
    backfill: Backfill | None = None


def check_vectors(
    vectors: Sequence[NewVector],
    location: tuple[str | int, ...],
    taken: Sequence[str],
    settings: Settings,
    problems: Problems,
) -> None:
    """Find everything that is wrong with new vector configs: metric, dimension, names; `taken` names exist already."""
    seen: set[str] = set()
    for n, vector in enumerate(vectors):
        here = (*location, n)
        if not vector.name or len(vector.name) > 128 or "\0" in vector.name or TEMPLATED.search(vector.name):
            message = (
                "The name of a vector index has 1 to 128 characters, and none of {{ and {%, which begin templates."
            )
            problems.add((*here, "name"), "bad_name", message)
        elif vector.name in taken:
            message = f"The vector index {vector.name!r} exists already; choose another name."
            problems.add((*here, "name"), "name_conflict", message)
        elif vector.name in seen:
            problems.add((*here, "name"), "duplicate_name", f"The name {vector.name!r} is given more than once.")
        seen.add(vector.name)
        if vector.metric not in METRIC_SPELLINGS:
            message = f"Unknown metric {vector.metric!r}; the metrics are cosine, dot and euclidean."
            problems.add((*here, "metric"), "unknown_metric", message)
        if vector.kind not in get_args(Kind):
            message = f"Unknown kind {vector.kind!r}; the kinds are {', '.join(get_args(Kind))}."
            problems.add((*here, "kind"), "unknown_kind", message)
        elif vector.kind != "dense" and vector.inference_service is not None:
            message = f"The index {vector.name!r} is {vector.kind}; services make dense vectors."
            problems.add((*here, "inference_service"), "not_dense", message)
        if vector.backfill is None:  # else it is its source that is told
            sources.check_field(vector.source_field, (*here, "source_field"), problems)
        most = MAX_SPARSE_DIMENSION if vector.kind == "sparse" else settings.max_dimension
        if not 1 <= vector.dimension <= most:
            message = f"A dimension is from 1 to {most}, not {vector.dimension}."
            problems.add((*here, "dimension"), "bad_dimension", message)
    if len(vectors) + len(taken) > settings.max_vector_configs:
        message = f"A namespace has at most {settings.max_vector_configs} vector indexes."
        problems.add(location, "too_many_vectors", message)


def as_configs(
    vectors: Iterable[NewVector], state: IndexState, present: Sequence[VectorConfig] = ()
) -> tuple[VectorConfig, ...]:
    """The physical side of new vector configs, beside those that the namespace has already."""
    configs = list(present)
    for vector in vectors:
        configs.append(as_config(vector, state, configs))
    return tuple(configs[len(present) :])


def as_config(vector: NewVector, state: IndexState, present: Sequence[VectorConfig] = ()) -> VectorConfig:
    """The physical side of a vector config: its column, and its index by dimension and metric."""
    metric = METRIC_SPELLINGS[vector.metric]
    kind = cast(Kind, vector.kind)
    method = index_method(vector.dimension, metric, kind)
    room = len(SIDE) if kind == "multi" else 0
    relations = _relations(present)
    taken = {config.column for config in present}
    if kind == "multi":
        taken |= {relation.removeprefix(SIDE) for relation in relations}
    column = free_name(vector.name, RESERVED_COLUMNS, taken, suffix_room=room)
    return VectorConfig(
        name=vector.name,
        column=column,
        dimension=vector.dimension,
        metric=metric,
        index_name=free_name(f"documents_{column}_hnsw", frozenset(), relations),
        index_method=method,
        index_state="ready" if method == "exact" else state,
        kind=kind,
    )


def _relations(configs: Sequence[VectorConfig]) -> set[str]:
    """The tables and indexes that a namespace's schema holds: they share one space of names."""
    found = {"documents", "documents_pkey", "documents_collection", *(config.index_name for config in configs)}
    for config in configs:
        if config.kind == "multi":
            found |= {config.side_table, f"{config.side_table[:58]}_pkey"}  # cut as PostgreSQL cuts it
    return found


def check_name(
    name: str, location: tuple[str | int, ...], problems: Problems, shortest: int = 1, longest: int = 128
) -> None:
    """A name stands in paths and headers, so it holds nothing that is lost there."""
    lost = name != name.strip() or "/" in name or not name.isprintable()
    if not shortest <= len(name) <= longest or lost or name in RESERVED_IDENTIFIERS:
        message = (
            f"A namespace_name has {shortest} to {longest} printable characters without a slash, and no space at its "
            f"ends; {', '.join(sorted(RESERVED_IDENTIFIERS))} are taken."
        )
        problems.add(location, "bad_name", message)


async def create_standalone(conn: AsyncConnection, settings: Settings, **wanted: Any) -> Catalog:
    """`create`, in that mode."""
    return await create(conn, settings, mode="standalone", **wanted)


async def create(
    conn: AsyncConnection,
    settings: Settings,
    *,
    mode: Mode,
    namespace_id: str,
    namespace_name: str | None = None,
    vectors: Sequence[NewVector] | None = None,
    description: str | None = None,
    kept: dict[str, Any] | None = None,
    payload_indexes: Sequence[PayloadIndex] = (),
    problems: Problems | None = None,
) -> Catalog:
    """Create schema, table, indexes, catalog rows and mappings. 409 where id or name is any namespace's.

    Without `vectors` they are made by what is written. `problems` are those that were found before, with services.
    """
    access.require_creatable(namespace_id)
    problems = problems or Problems()
    check_declared(payload_indexes, problems)
    check_vectors(vectors or (), ("body", "vector_configs"), (), settings, problems)
    if namespace_name is not None:
        check_name(namespace_name, ("body", "namespace_name"), problems)
    problems.refuse()
    configs = as_configs(vectors or (), "ready")
    schema = await insert(
        conn,
        namespace_id=namespace_id,
        namespace_name=namespace_name or namespace_id,
        mode=mode,
        dynamic=vectors is None,
        description=description,
        settings=as_json(kept or {}),
    )
    await insert_configs(conn, namespace_id, configs)
    mapped = [vector for vector in vectors or () if vector.inference_service]
    await insert_mappings(conn, namespace_id, [(v.name, v.inference_service, v.source_field) for v in mapped])
    await ddl.create_namespace(conn, schema, configs, settings)
    created = await load_catalog(conn, namespace_id)
    if created.sources:
        await watch_sources(conn, created)
    await put_declared(conn, created, payload_indexes)
    about = {"namespace_name": created.namespace_name, "vector_indexes": list(created.by_name)}
    await audit.record(conn, "namespace", "created", namespace_id, namespace_id, mode=mode, **about)
    return await load_catalog(conn, namespace_id)


async def insert(conn: AsyncConnection, *, namespace_id: str, namespace_name: str, **row: Any) -> str:
    """The namespace's row and identifiers; the name of its schema, which is not there yet."""
    schema = await _free_schema(conn, namespace_id)
    binds = {"namespace_id": namespace_id, "namespace_name": namespace_name, "schema": schema, **row}
    binds["schema_revision"] = namespace_migrations.newest()
    try:
        await conn.execute(statement("insert_namespace"), binds)
        await insert_identifiers(conn, namespace_id, [namespace_id, namespace_name])
    except IntegrityError as error:
        raise taken(namespace_id, namespace_name) from error
    return schema


async def insert_identifiers(conn: AsyncConnection, namespace_id: str, identifiers: Sequence[str]) -> None:
    binds = {"namespace_id": namespace_id, "identifiers": identifiers}
    await conn.execute(statement("insert_namespace_identifiers"), binds)


def taken(*identifiers: str) -> Conflict:
    shown = " or ".join(map(repr, dict.fromkeys(identifiers)))
    return Conflict(f"A namespace {shown} exists already.", code="already_exists")


async def insert_mappings(
    conn: AsyncConnection, namespace_id: str, mappings: Iterable[tuple[str, str | None, str | None]]
) -> None:
    """Map vector configs to services: name, service, source field."""
    rows = [dict(zip(("name", "inference_service", "source_field"), mapping, strict=True)) for mapping in mappings]
    if rows:
        await conn.execute(statement("insert_mappings"), {"namespace_id": namespace_id, "mappings": as_json(rows)})


async def watch_sources(conn: AsyncConnection, catalog: Catalog) -> None:
    """From now on the documents' triggers queue what is to be embedded, or no longer."""
    binds = {"schema": catalog.schema, "watched": bool(catalog.sources)}
    await conn.execute(statement("watch_sources"), binds)


async def _free_schema(conn: AsyncConnection, namespace_id: str) -> str:
    """The schema's name; one that exists, be it the user's own, is never touched."""
    for schema in names(namespace_id, RESERVED_SCHEMAS):
        if not (await conn.execute(statement("schema_exists"), {"schema": schema})).scalar_one():
            return schema
    raise AssertionError("there is no end of names")


async def insert_configs(conn: AsyncConnection, namespace_id: str, configs: Sequence[VectorConfig]) -> None:
    """After those that are there."""
    rows = {"namespace_id": namespace_id, "configs": as_json([asdict(config) for config in configs])}
    await conn.execute(statement("insert_vector_configs"), rows)


async def load_catalog(conn: AsyncConnection, identifier: str) -> Catalog:
    """The namespace with that id or name; `NotFound` when there is none that the caller may see."""
    if "\0" in identifier:
        raise NotFound("namespace", identifier)
    binds = {"identifier": identifier, "visible": access.visible()}
    found_row = (await conn.execute(statement("load_catalog"), binds)).mappings().one_or_none()
    if found_row is None:
        raise NotFound("namespace", identifier)
    row = dict(found_row)
    table, read_as = row.pop("adopted_from"), row.pop("adopted_as")
    every = [(config.pop("shadow_of"), VectorConfig(**config)) for config in row["vector_configs"]]
    configs = tuple(config for shadow_of, config in every if shadow_of is None)
    shadows = tuple(config for shadow_of, config in every if shadow_of is not None)
    # jsonb orders keys by length; the map is shown in the order of the configs.
    services = {c.name: row["inference_map"][c.name] for c in configs if c.name in row["inference_map"]}
    lexical = msgspec.json.decode(row["lexical_fields"], type=tuple[LexicalField, ...])
    indexes = tuple(FieldIndex(**index) for index in row["payload_indexes"])
    found: dict[str, Any] = {
        "vector_configs": configs,
        "shadows": shadows,
        "inference_map": services,
        "lexical_fields": lexical,
    }
    sources = tuple(Source(**source) for source in row["sources"])
    found |= {"payload_indexes": indexes, "sources": sources, "compared": tuple(row["compared"])}
    if read_as is not None:
        found["adopted"] = msgspec.convert({"table": table, **read_as}, Adopted)
    return Catalog(**{**row, **found}, readers=access.restriction())


def state_of(catalog: Catalog) -> dict[str, Any]:
    """What audit rows hold of a namespace, before and after a change."""
    return {
        "mode": catalog.mode,
        "version": catalog.version,
        "vector_configs": [asdict(config) for config in catalog.vector_configs],
        "vector_inference_map": dict(catalog.inference_map),
        "shadows": [asdict(config) for config in catalog.shadows],
        "sources": [asdict(source) for source in catalog.sources],
    }


async def lock_catalog(
    conn: AsyncConnection, identifier: str, *, exclusive: bool, adopted_too: bool = False
) -> Catalog:
    """The same, kept from changing until the transaction ends. `Conflict` of an adopted table, unless expected."""
    name = "lock_namespace" if exclusive else "share_namespace"
    binds = {"identifier": identifier, "visible": access.visible()}
    found = (await conn.execute(statement(name), binds)).scalar_one_or_none() if "\0" not in identifier else None
    if found is None:
        raise NotFound("namespace", identifier)
    catalog = await load_catalog(conn, found)
    if not adopted_too:
        refuse_adopted(catalog)
    return catalog


def refuse_adopted(catalog: Catalog) -> None:
    """Raises `Conflict` for what would write to, change or copy a table that is its user's."""
    if catalog.adopted is not None:
        message = (
            f"The namespace {catalog.namespace_id!r} is an adopted table: it stays its owner's, who writes to it and "
            "changes it in SQL. The service reads it, and offers this for namespaces of its own only."
        )
        raise Conflict(message, code="adopted_table")


async def delete(conn: AsyncConnection, identifier: str) -> str:
    """Delete the namespace with everything in it; its promotions' audit rows stay, and so does an adopted table."""
    catalog = await lock_catalog(conn, identifier, exclusive=True, adopted_too=True)
    await ddl.drop_namespace(conn, catalog.schema)
    await conn.execute(statement("delete_namespace"), {"namespace_id": catalog.namespace_id})
    about = {"namespace_name": catalog.namespace_name, "mode": catalog.mode}
    await audit.record(conn, "namespace", "deleted", catalog.namespace_id, catalog.namespace_id, **about)
    return catalog.namespace_id
