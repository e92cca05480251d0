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
from app.domain import access
from app.domain.namespaces import lock_catalog
from app.domain.runtime import MAX_TIME_MS, Prepared
from app.errors import Conflict, InvalidRequest, NotFound, Problem, Problems
from app.retrieval.catalog import Catalog
from app.retrieval.filters import Condition, Filter
from app.retrieval.inputs import check_schema
from app.retrieval.pipeline import Pipeline, check_pipeline, parse_pipeline
from app.retrieval.stages.base import Limits

# What of a definition a PATCH may change, and what it may hold at all.
DEFINITION = (
    "description",
    "stages",
    "input_schema",
    "collection_identifiers",
    "tags",
    "metadata",
    "display_config",
    "budget_limits",
)

# `max_time_ms` bounds the statement; nothing costs credits here.
BUDGET = ("max_credits", "max_time_ms")
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


def check_definition(definition: Mapping[str, Any], catalog: Catalog, limits: Limits) -> Pipeline:
    """Parse and check a definition in its namespace; `InvalidRequest` holds every problem."""
    problems = Problems()
    pipeline = parse_pipeline(definition.get("stages"), limits, problems)
    schema = definition.get("input_schema") or {}
    check_schema(schema, pipeline.input_names, problems, ("body", "input_schema"))
    _check_rest(definition, problems)
    if not problems:  # positions of stages that did not parse would be wrong
        check_pipeline(pipeline, catalog, limits, problems)
    problems.refuse()
    return pipeline


def _check_rest(definition: Mapping[str, Any], problems: Problems) -> None:
    for name in definition.get("collection_identifiers") or ():
        if not isinstance(name, str) or "\0" in name:
            problems.add(("body", "collection_identifiers"), "bad_name", "A collection is named by a text.")
    for name, value in (definition.get("budget_limits") or {}).items():
        here, least = ("body", "budget_limits", name), int(name == "max_time_ms")
        if name not in BUDGET:
            problems.add(here, "extra_forbidden", f"budget_limits has no {name!r}; it has {' and '.join(BUDGET)}.")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < least):
            problems.add(here, "out_of_range", f"{name} is a number, {least} or more.")


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
    catalog = await lock_catalog(conn, identifier, exclusive=False)
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
    return from_row(row)


async def change(
    conn: AsyncConnection, namespace: str, identifier: str, changes: Mapping[str, Any], limits: Limits
) -> Retriever:
    """Change the fields that are given; stages are replaced as a whole."""
    catalog = await lock_catalog(conn, namespace, exclusive=False)
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
    return from_row(row)


async def clone(
    conn: AsyncConnection, namespace: str, identifier: str, name: str, changes: Mapping[str, Any], limits: Limits
) -> tuple[Retriever, str]:
    """A new retriever with the definition of another but for the changes; and the id of that other one."""
    catalog = await lock_catalog(conn, namespace, exclusive=False)
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
    found = await find(conn, namespace_id, identifier)
    await conn.execute(statement("delete_retriever"), {"retriever_id": found.retriever_id})
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


def within(definition: Mapping[str, Any], catalog: Catalog) -> Filter | None:
    """The filter that keeps a retriever to its collections; None where it names none."""
    collections = definition.get("collection_identifiers")
    return Condition("collection_id", "in", list(map(catalog.collection_id, collections))) if collections else None


def from_row(row: Mapping[Any, Any]) -> Retriever:
    """The retriever of a row, its definition as JSON text."""
    return Retriever(**{**row, "definition": msgspec.json.decode(row["definition"])})
