"""Retrievers: stored pipelines, checked when they are stored; each change is a new version."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.catalog.namespaces import lock_catalog
from app.domain.retrieving import functions
from app.domain.retrieving.definitions import DEFINITION, check_definition, within
from app.domain.runtime import MAX_TIME_MS, Prepared
from app.domain.security import access, audit
from app.errors import Conflict, InvalidRequest, NotFound, Problem
from app.retrieval.catalog import Catalog
from app.retrieval.stages.base import Limits

# These would be taken for a route where a path may name a retriever.
RESERVED = frozenset({"execute", "list", "stages"})


@dataclass(frozen=True, slots=True)
class Retriever:
    """A stored retriever at one version; `definition` holds the fields of `DEFINITION` as they were sent."""

    retriever_id: str
    retriever_name: str
    namespace_id: str
    version: int
    definition: dict[str, Any]
    created_at: datetime
    updated_at: datetime


async def put(
    conn: AsyncConnection,
    identifier: str,
    name: str,
    definition: dict[str, Any],
    limits: Limits,
    *,
    only_new: bool = False,
) -> Retriever:
    """Store a retriever, or a new version of the one of that name; with `only_new` a taken name is a `Conflict`."""
    _check_name(name)
    catalog = await lock_catalog(conn, identifier, exclusive=False, adopted_too=True)
    check_definition(definition, catalog, limits)
    binds = {
        "retriever_id": f"ret_{secrets.token_hex(12)}",
        "namespace_id": catalog.namespace_id,
        "retriever_name": name,
        "definition": as_json(definition),
        "only_new": only_new,
        "created_by": access.actor(),
    }
    row = (await conn.execute(statement("put_retriever"), binds)).mappings().one_or_none()
    if row is None:
        raise Conflict(f"A retriever {name!r} exists already in this namespace.", code="already_exists")
    stored = from_row(row)
    await functions.follow(conn, stored.namespace_id, stored.retriever_id)
    await _record(conn, "created" if stored.version == 1 else "updated", stored)
    return stored


async def _record(conn: AsyncConnection, done: str, retriever: Retriever) -> None:
    """Of the definition only what its stages are: texts, headers and bodies for other hosts may stand in it."""
    stages = [stage["config"]["stage_id"] for stage in retriever.definition["stages"]]
    about = {"retriever_name": retriever.retriever_name, "version": retriever.version, "stages": stages}
    await audit.record(conn, "retriever", done, retriever.retriever_id, retriever.namespace_id, **about)


async def change(
    conn: AsyncConnection, namespace: str, identifier: str, changes: Mapping[str, Any], limits: Limits
) -> Retriever:
    """Change the fields that are given; stages are replaced as a whole."""
    catalog = await lock_catalog(conn, namespace, exclusive=False, adopted_too=True)
    present = await find(conn, catalog.namespace_id, identifier)
    definition = {**present.definition, **{k: v for k, v in changes.items() if k in DEFINITION}}
    check_definition(definition, catalog, limits)
    name = changes.get("retriever_name", present.retriever_name)
    _check_name(name)
    binds = {
        "retriever_id": present.retriever_id,
        "retriever_name": name,
        "version": present.version,
        "definition": as_json(definition),
        "created_by": access.actor(),
    }
    try:
        row = (await conn.execute(statement("change_retriever"), binds)).mappings().one_or_none()
    except IntegrityError as error:
        raise Conflict(f"A retriever {name!r} exists already in this namespace.", code="already_exists") from error
    if row is None:
        raise Conflict(f"The retriever {identifier!r} was changed by another request; read it again.", code="changed")
    changed = from_row(row)
    await functions.follow(conn, changed.namespace_id, changed.retriever_id)
    await _record(conn, "updated", changed)
    return changed


async def clone(
    conn: AsyncConnection, namespace: str, identifier: str, name: str, changes: Mapping[str, Any], limits: Limits
) -> tuple[Retriever, str]:
    """A new retriever with the definition of another but for the changes; and the id of that other one."""
    catalog = await lock_catalog(conn, namespace, exclusive=False, adopted_too=True)
    source = await find(conn, catalog.namespace_id, identifier)
    definition = {**source.definition, **{k: v for k, v in changes.items() if k in DEFINITION}}
    made = await put(conn, catalog.namespace_id, name, definition, limits, only_new=True)
    return made, source.retriever_id


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or "\0" in name:
        message = "A retriever_name has 1 to 255 characters."
    elif name in RESERVED:
        message = f"No retriever can be named {name!r}, for that is a path of the API."
    else:
        return
    raise InvalidRequest([Problem(("body", "retriever_name"), "bad_name", message)])


async def find(conn: AsyncConnection, namespace_id: str, identifier: str) -> Retriever:
    """By id or name; `NotFound` when there is none in this namespace."""
    binds = {"namespace_id": namespace_id, "identifier": identifier}
    row = (await conn.execute(statement("find_retriever"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("retriever", identifier)
    return from_row(row)


async def delete(conn: AsyncConnection, namespace_id: str, identifier: str) -> str:
    """With its versions, and its function."""
    found = await find(conn, namespace_id, identifier)
    await functions.unpublish(conn, namespace_id, found.retriever_id)
    await conn.execute(statement("delete_retriever"), {"retriever_id": found.retriever_id})
    about = {"retriever_name": found.retriever_name}
    await audit.record(conn, "retriever", "deleted", found.retriever_id, namespace_id, **about)
    return found.retriever_id


def prepare(retriever: Retriever, catalog: Catalog, limits: Limits) -> Prepared:
    """Check the retriever against the namespace as it is now, ready for compiling."""
    identity = (retriever.retriever_id, retriever.retriever_name, retriever.version)
    return prepare_definition(retriever.definition, catalog, limits, *identity)


def prepare_definition(
    definition: Mapping[str, Any],
    catalog: Catalog,
    limits: Limits,
    retriever_id: str | None = None,
    name: str = "",
    version: int | None = None,
    shape: str = "",
) -> Prepared:
    """The same for a definition; `shape` stands for one that is not stored."""
    pipeline = check_definition(definition, catalog, limits)
    schema = definition.get("input_schema") or {}
    most = (definition.get("budget_limits") or {}).get("max_time_ms") or MAX_TIME_MS
    return Prepared(
        catalog,
        retriever_id,
        name,
        version,
        schema,
        pipeline,
        within(definition, catalog),
        min(int(most), MAX_TIME_MS),
        shape,
    )


def from_row(row: Mapping[Any, Any]) -> Retriever:
    """The retriever of a row, its definition as JSON text."""
    return Retriever(**{**row, "definition": msgspec.json.decode(row["definition"])})
