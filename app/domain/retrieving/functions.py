"""Retrievers as SQL functions: published, made anew in the transaction that changes what they do, and dropped."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.engine import raw
from app.db.identifiers import free_name
from app.db.statements import as_json, statement
from app.domain.catalog.namespaces import load_catalog
from app.domain.retrieving.definitions import check_definition, within
from app.domain.retrieving.function_text import RESERVED, Writer
from app.domain.security import access, audit
from app.errors import Conflict, InvalidRequest, NotFound
from app.retrieval.catalog import Catalog
from app.retrieval.function_plan import FunctionPlan, Source, compile_function, inputs_of, refuse_host
from app.retrieval.parameters import NotAFunction
from app.retrieval.stages.base import Limits

HINT = "Change the retriever, or its namespace, so that they fit each other again."


@dataclass(frozen=True, slots=True)
class Deployed:
    """What of the deployment's settings a function is compiled with, then and later."""

    limits: Limits
    ef_search: int


@dataclass(frozen=True, slots=True)
class Function:
    """A retriever that is a function; `parameters` are `{name, type, input, required, default, description}`.

    `broken` says why it raises an error instead of answering.
    """

    retriever_id: str
    retriever_name: str
    namespace_id: str
    function_name: str
    asked_name: str | None
    signature: str
    parameters: list[dict[str, Any]]
    broken: str | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    definition: dict[str, Any]
    version: int
    deployed: Deployed


async def publish(
    conn: AsyncConnection, catalog: Catalog, retriever_id: str, name: str | None, deployed: Deployed
) -> Function:
    """Make a retriever of this namespace a function, named as it is or as `name` says; or make it anew.

    Raises `Conflict` with the reason where it cannot be one.
    """
    binds = {"retriever_id": retriever_id, "namespace_id": catalog.namespace_id, "asked_name": name}
    binds |= {"limits": as_json(asdict(deployed)), "created_by": access.actor()}
    await conn.execute(statement("put_function"), binds)
    await follow(conn, catalog.namespace_id, retriever_id)
    made = await find(conn, retriever_id, retriever_id)
    about = {"retriever_id": retriever_id}
    await audit.record(conn, "sql_function", "published", made.function_name, catalog.namespace_id, **about)
    return made


async def find(conn: AsyncConnection, retriever_id: str, identifier: str) -> Function:
    """`NotFound` where the retriever is no function; it was asked for by this id or name."""
    row = (await conn.execute(statement("function_of_retriever"), {"retriever_id": retriever_id})).mappings()
    found = row.one_or_none()
    if found is None:
        hint = f"PUT /v1/retrievers/{retriever_id}/function publishes it."
        raise NotFound("function of the retriever", identifier, hint)
    limits = msgspec.json.decode(found["limits"], type=Deployed)
    parts = {name: msgspec.json.decode(found[name]) for name in ("parameters", "definition")}
    return Function(**{name: found[name] for name in found if name != "limits"} | parts, deployed=limits)


async def unpublish(conn: AsyncConnection, namespace_id: str, retriever_id: str) -> bool:
    """Drop the function of a retriever, where it is one. Raises `Conflict` where a view or the like depends on it."""
    binds = {"namespace_id": namespace_id, "retriever_id": retriever_id}
    if not (await conn.execute(statement("lock_functions"), binds)).scalars().all():
        return False
    function = await find(conn, retriever_id, retriever_id)
    writer = await _writer(conn, await load_catalog(conn, namespace_id))
    await _run(conn, writer.drop(function.function_name), function)
    await conn.execute(statement("delete_function"), {"retriever_id": retriever_id})
    return True


async def follow(conn: AsyncConnection, namespace_id: str, retriever_id: str | None = None) -> None:
    """Make the functions of a namespace anew, in the transaction that changes it; or that of one retriever.

    One that its namespace no longer fits says so when it is called. But who changes a retriever is told: `Conflict`.
    """
    binds = {"namespace_id": namespace_id, "retriever_id": retriever_id}
    # A savepoint; on a connection in autocommit a transaction, for the locks.
    async with (await raw(conn)).transaction():
        held = (await conn.execute(statement("lock_functions"), binds)).scalars().all()
        if not held:
            return
        # Read after the lock: what another one has changed meanwhile is there.
        catalog = await load_catalog(conn, namespace_id)
        writer = await _writer(conn, catalog)
        for one in held:
            await _make(conn, catalog, writer, await find(conn, one, one), strict=retriever_id is not None)


async def _make(conn: AsyncConnection, catalog: Catalog, writer: Writer, present: Function, *, strict: bool) -> None:
    name = await _name(conn, catalog, present)
    signature, parameters, broken = present.signature, present.parameters, None
    try:
        plan, rows = await asyncio.to_thread(_compiled, catalog, present)
        signature = writer.signature(plan.parameters)
        parameters = [_shown(parameter) for parameter in plan.parameters]
        text = await asyncio.to_thread(writer.create, name, signature, plan, rows)
    except (NotAFunction, InvalidRequest) as error:
        if strict:
            message = f"The retriever {present.retriever_name!r} cannot be a SQL function: {error}"
            hint = f" DELETE /v1/retrievers/{present.retriever_id}/function ends its being one." * bool(
                present.signature
            )
            raise Conflict(message + hint, code="not_a_function") from None
        broken = str(error)
        message = f"The retriever {present.retriever_name!r} no longer fits its namespace: {broken}"
        text = writer.broken(name, signature, message, HINT)
    if present.signature and (name, signature) != (present.function_name, present.signature):
        await _run(conn, writer.drop(present.function_name), present)
    await _run(conn, text, present)
    await _run(conn, writer.comment(name, _comment(present, parameters)), present)
    await ddl.hand_over(conn, catalog.schema)
    made: dict[str, Any] = {
        "retriever_id": present.retriever_id,
        "function_name": name,
        "signature": signature,
        "broken": broken,
    }
    made |= {"parameters": as_json(parameters), "retriever_version": present.version}
    await conn.execute(statement("note_function"), made)


def _compiled(catalog: Catalog, present: Function) -> tuple[FunctionPlan, int | None]:
    """The plan, and how many rows it answers at most, where it says so."""
    definition, deployed = present.definition, present.deployed
    pipeline = check_definition(definition, catalog, deployed.limits)
    refuse_host(pipeline)
    schema = definition.get("input_schema") or {}
    names, kept = dict[str, str](), within(definition, catalog)
    for name in inputs_of(pipeline, schema):
        names[name] = free_name(name, RESERVED, names.values())
    source = Source(pipeline, schema, catalog, deployed.limits, kept, deployed.ef_search, names)
    return compile_function(source), pipeline.named_rows


async def _name(conn: AsyncConnection, catalog: Catalog, present: Function) -> str:
    """The best name that no other function of the schema has."""
    binds = {"schema": catalog.schema, "but": present.function_name}
    taken = set((await conn.execute(statement("function_names"), binds)).scalars())
    return free_name(present.asked_name or present.retriever_name, frozenset(), taken)


async def _writer(conn: AsyncConnection, catalog: Catalog) -> Writer:
    vectors = (await conn.execute(statement("vector_schema"))).scalar_one()
    return Writer(psycopg.AsyncClientCursor(await raw(conn)), catalog.schema, vectors)


async def _run(conn: AsyncConnection, text: str, present: Function) -> None:
    """Through the driver, which leaves a text without parameters as it is."""
    driver = await raw(conn)
    try:
        await driver.execute(text.encode(), prepare=False)
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = (error.diag.message_detail or "").replace("\n", "; ")
        message = (
            f"Something depends on the function of {present.retriever_name!r}, which has to be made anew: {detail}."
        )
        raise Conflict(message, code="function_in_use") from None


def _shown(parameter: Any) -> dict[str, Any]:
    shown = ("name", "type", "input", "required", "default", "description")
    return {name: getattr(parameter, name) for name in shown}


def _comment(present: Function, parameters: list[dict[str, Any]]) -> str:
    """What the function is, and what its parameters mean."""
    lines = [
        f"The retriever {present.retriever_name!r}, version {present.version}: the rows that executing it answers."
    ]
    if description := present.definition.get("description"):
        lines.append(str(description))
    lines += [f"{p['name']}: {_meaning(p)}" for p in parameters]
    lines.append(
        "strategy: auto (exact where there are few documents, else by the indexes, and exactly where those find"
    )
    lines[-1] += " too few), exact, hnsw, or hnsw_iterative."
    lines.append("row_limit: how many rows at most; null: all that the retriever answers.")
    return "\n".join(lines).replace("\0", " ")


def _meaning(parameter: Mapping[str, Any]) -> str:
    default = parameter["default"]
    needed = (
        "required"
        if parameter["required"]
        else f"{as_json(default)} unless given"
        if default is not None
        else "optional"
    )
    about = f"; {parameter['description']}" if parameter["description"] else ""
    return f"the input {parameter['input']!r}, {needed}{about}."
