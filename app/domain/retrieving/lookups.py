"""Stored look-ups: queries that an administrator registered, run for all documents of a stage in one statement.

They run as the analysts' own login (`PGRETRIEVE_ANALYST_DATABASE_URL`), in a read-only transaction with a time limit;
authors of retrievers choose one by its name and give values, which are bound.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import connection, raw
from app.db.statements import as_json, statement
from app.domain.retrieving.function_text import template
from app.domain.runtime import Runtime
from app.domain.security import access, audit
from app.errors import InvalidRequest, NotFound, Problem, Problems, Unavailable

NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
TYPES = ("text", "integer", "bigint", "numeric", "double precision", "boolean", "date", "timestamptz", "uuid", "jsonb")
MOST_PARAMETERS, MOST_QUERY, MOST_TIMEOUT_MS, MOST_ROWS = 20, 20_000, 300_000, 10_000
ROW = "lookup_row"


@dataclass(frozen=True, slots=True)
class Lookup:
    """A query, the SQL types of its parameters by their names, and its limits."""

    name: str
    query: str
    parameters: Mapping[str, str]
    timeout_ms: int
    row_limit: int
    description: str = ""
    created_by: str | None = None
    created_at: datetime | None = None


def check(wanted: Lookup) -> None:
    """Refuse what cannot be a look-up; `InvalidRequest` has every problem."""
    problems, body = Problems(), "body"
    if not NAME.fullmatch(wanted.name):
        problems.add(("path", "name"), "bad_name", "A look-up is named by small letters, digits and `_`, 63 at most.")
    if not wanted.query.strip() or len(wanted.query) > MOST_QUERY or "\0" in wanted.query + wanted.description:
        problems.add((body, "query"), "bad_lookup", f"The query is a SELECT of at most {MOST_QUERY:,} characters.")
    if not 1 <= len(wanted.parameters) <= MOST_PARAMETERS:
        message = f"A look-up has 1 to {MOST_PARAMETERS} parameters, which its query reads as given.<name>."
        problems.add((body, "parameters"), "out_of_range", message)
    for name, type_ in wanted.parameters.items():
        if not NAME.fullmatch(name) or name == ROW:
            problems.add((body, "parameters", name), "bad_name", "A parameter has small letters, digits and `_`.")
        if type_ not in TYPES:
            message = f"No type {type_!r}; the types are {', '.join(TYPES)}."
            problems.add((body, "parameters", name), "bad_type", message)
    for name, most in (("timeout_ms", MOST_TIMEOUT_MS), ("row_limit", MOST_ROWS)):
        if not 1 <= getattr(wanted, name) <= most:
            problems.add((body, name), "out_of_range", f"{name} is from 1 to {most:,}.")
    problems.refuse()


async def try_out(runtime: Runtime, wanted: Lookup) -> None:
    """Run it for no document, as the login that will: `InvalidRequest` says what PostgreSQL says. Call it with no
    transaction open."""
    try:
        async with _reading(runtime, wanted.timeout_ms) as driver:
            await driver.execute(_text(wanted, driver).encode(), {name: [] for name in wanted.parameters})
    except psycopg.Error as error:
        message = f"PostgreSQL refuses the query: {_said(error)}"
        raise InvalidRequest([Problem(("body", "query"), "bad_lookup", message)]) from None


async def put(conn: AsyncConnection, wanted: Lookup) -> Lookup:
    binds = {name: getattr(wanted, name) for name in ("name", "query", "timeout_ms", "row_limit", "description")}
    binds |= {"parameters": as_json(wanted.parameters), "created_by": access.actor()}
    stored = _from_row((await conn.execute(statement("put_lookup"), binds)).mappings().one())
    await audit.record(conn, "lookup", "stored", wanted.name, parameters=wanted.parameters)
    return stored


async def find_all(conn: AsyncConnection) -> list[Lookup]:
    rows = (await conn.execute(statement("find_lookups"), {"name": None})).mappings()
    return [_from_row(row) for row in rows]


async def find(conn: AsyncConnection, name: str) -> Lookup:
    row = (await conn.execute(statement("find_lookups"), {"name": name})).mappings().one_or_none()
    if row is None:
        raise NotFound("look-up", name, "An administrator registers look-ups: PUT /v1/lookups/{name}.")
    return _from_row(row)


async def delete(conn: AsyncConnection, name: str) -> None:
    await find(conn, name)
    await conn.execute(statement("delete_lookup"), {"name": name})
    await audit.record(conn, "lookup", "deleted", name)


async def run(
    runtime: Runtime, found: Lookup, values: Sequence[Mapping[str, Any]], limit_s: float
) -> tuple[list[list[dict[str, Any]]], bool]:
    """The rows for each of these values, and whether there were more than the look-up answers."""
    lacking = sorted({name for name in found.parameters for given in values if name not in given})
    unknown = sorted({name for given in values for name in given.keys() - found.parameters.keys()})
    if lacking or unknown:
        message = f"The look-up {found.name!r} takes {', '.join(found.parameters)}"
        message += f"; not given: {', '.join(lacking)}" * bool(lacking) + f"; unknown: {', '.join(unknown)}" * bool(
            unknown
        )
        raise InvalidRequest([Problem(("body", "stages"), "bad_lookup_parameters", f"{message}.")])
    arrays = {name: [_written(given[name]) for given in values] for name in found.parameters}
    try:
        async with _reading(runtime, min(found.timeout_ms, max(1, int(limit_s * 1000)))) as driver:
            rows = await (await driver.execute(_text(found, driver).encode(), arrays)).fetchall()
    except psycopg.errors.QueryCanceled:
        message = f"The look-up {found.name!r} took longer than it may."
        raise Unavailable(message, code="lookup_timeout", retryable=False) from None
    except psycopg.errors.DataError as error:
        message = f"A value does not fit the look-up {found.name!r}: {_said(error)}"
        raise InvalidRequest([Problem(("body", "stages"), "bad_lookup_value", message)]) from None
    except psycopg.Error as error:
        message = f"The look-up {found.name!r} failed: {_said(error)}"
        raise Unavailable(message, code="lookup_failed", retryable=False) from None
    answered: list[list[dict[str, Any]]] = [[] for _ in values]
    for number, row in rows[: found.row_limit]:
        answered[number - 1].append(msgspec.json.decode(row))
    return answered, len(rows) > found.row_limit


@asynccontextmanager
async def _reading(runtime: Runtime, timeout_ms: int) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A read-only transaction of the analysts' login, rolled back at the end."""
    if runtime.analysts is None:
        message = "This server runs no look-ups: PGRETRIEVE_ANALYST_DATABASE_URL is not set."
        raise Unavailable(message, code="lookups_off", retryable=False)
    async with connection(runtime.analysts) as conn, conn.begin() as begun:
        await conn.execute(statement("lookup_limits"), {"timeout": f"{timeout_ms}ms"})
        yield await raw(conn)
        await begun.rollback()


def _text(found: Lookup, driver: psycopg.AsyncConnection[Any]) -> str:
    """The statement, its values as parameters: arrays of texts that are cast to the declared types."""
    arrays = ", ".join(template("lookup_array", name=name, type=type_) for name, type_ in found.parameters.items())
    names = ", ".join(sql.Identifier(name).as_string(driver) for name in found.parameters)
    query = found.query.strip().rstrip(";").replace("%", "%%")
    return template("lookup_rows", arrays=arrays, names=names, query=query, most=str(found.row_limit + 1))


def _written(value: Any) -> str | None:
    """A value as text that its type reads: JSON, but for texts and null."""
    return value if value is None or isinstance(value, str) else as_json(value)


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__


def _from_row(row: Mapping[Any, Any]) -> Lookup:
    return Lookup(**{**row, "parameters": msgspec.json.decode(row["parameters"])})
