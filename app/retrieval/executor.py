"""Runs a plan: embeds its texts and contents with no transaction open, then one statement in one round trip."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import connection, raw
from app.errors import InvalidRequest, Problem
from app.inference.base import Task
from app.retrieval.plan import After, Bind, Embed, Estimate, Inputs, Plan
from app.retrieval.searches.query import Content, to_embed, with_vectors
from app.retrieval.templates import MissingInput, fill, input_names
from app.retrieval.vectors import Vector
from app.telemetry import Timings, origin

INPUTS = ("body", "inputs")
EXPLAIN = b"EXPLAIN (FORMAT JSON) "
TIME_LIMIT = "statement_timeout"
# What was there when the plan was compiled.
GONE = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName)

Embedder = Callable[[str, str | Content, Task], Awaitable[Vector]]
"""Takes a service's name, a text or content and what it is for."""


class Stale(Exception):
    """The namespace or the retriever has changed since the plan was compiled: load them anew and try again."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What the plan was compiled for, and what the statement must find still in force."""

    namespace: int
    retriever: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """The window of the last stage's rows that is answered: by its place, or after a document (one row more than
    `limit`, which tells whether still more follow)."""

    limit: int | None = None
    offset: int = 0
    after: After | None = None

    def binds(self) -> dict[str, Any]:
        if self.after is None or self.limit is None:
            return {"page_limit": self.limit, "page_offset": self.offset}
        after = {"after_ids": self.after.ids, "after_rank": self.after.rank, "after_score": self.after.score}
        return {"page_limit": self.limit + 1, "page_offset": 0, **after}


@dataclass(frozen=True, slots=True)
class Rows:
    """What a statement answered: its hits (`rank, document_id, score, …` as in `Plan`) and for each its fields as JSON
    where stages changed them; how many rows each stage had; and what stages told beside them, by their prefix."""

    hits: list[tuple[Any, ...]]
    fields: list[str | None]
    counts: list[int]
    told: Mapping[str, dict[str, Any]]


async def fill_binds(plan: Plan, inputs: Inputs, embed: Embedder) -> dict[str, Any]:
    """The value of every bind. What is to be embedded is; `InvalidRequest` names every input that does not fit."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    embeds = {wanted.bind: wanted for wanted in plan.embeds}
    for bind in plan.binds:
        try:
            filled = fill(bind.value, inputs)
            if (wanted := embeds.get(bind.name)) is not None:
                filled = await _embedded(filled, wanted, embed)
            values[bind.name] = bind.convert(filled)
        except MissingInput as error:
            message = f"The input {error.name!r} is needed by this retriever."
            problems.append(Problem((*INPUTS, error.name), "missing_input", message))
        except ValueError as error:
            problems.append(Problem(_place(bind), "bad_input", f"The value of {bind.name} does not fit: {error}."))
        except InvalidRequest as error:  # of what was to be embedded
            problems += [replace(problem, location=_place(bind)) for problem in error.problems]
    for group in plan.needs_one:
        if all(name in values and values[name] is None for name in group):
            message = "Every search of a feature_search stage was skipped, for its query is empty: give one of them."
            problems.append(Problem(INPUTS, "empty_query", message))
    if problems:
        raise InvalidRequest(list(dict.fromkeys(problems)))
    return values


async def _embedded(filled: Any, wanted: Embed, embed: Embedder) -> Any:
    """A query with vectors in the place of its texts and contents; what is empty stays as it is."""
    given = to_embed(filled, wanted.mode, wanted.several)
    vectors = {key: await embed(wanted.service, item, wanted.task) for key, item in given.items()}
    return with_vectors(filled, vectors)


def fill_estimate(estimate: Estimate, inputs: Inputs) -> dict[str, Any] | None:
    """The values of an estimate; None where one does not fit, which `fill_binds` will say with all else."""
    try:
        return {bind.name: bind.convert(fill(bind.value, inputs)) for bind in estimate.binds}
    except ValueError:
        return None


async def estimate_rows(
    driver: psycopg.AsyncConnection[Any],
    wanted: Sequence[tuple[str, Mapping[str, Any]]],
    limits: Mapping[str, str],
) -> list[int]:
    """PostgreSQL's estimates of how many rows these selects answer, in one round trip. Raises `Stale`."""
    cursors = []
    try:
        async with driver.pipeline():
            await driver.execute(*set_local(limits))
            for text, values in wanted:
                # Planned for these values, and never prepared: a kept plan would not know them.
                cursors.append(await driver.execute(EXPLAIN + text.encode(), values, prepare=False))
            await driver.execute("COMMIT")
    except GONE:
        raise Stale from None
    return [int((await cursor.fetchall())[0][0][0]["Plan"]["Plan Rows"]) for cursor in cursors]


def _place(bind: Bind) -> tuple[str | int, ...]:
    names = input_names(bind.value)
    return (*INPUTS, min(names)) if names else INPUTS


async def execute(
    engine: AsyncEngine,
    plan: Plan,
    versions: Versions,
    values: Mapping[str, Any],
    page: Page,
    limits: Mapping[str, str],
    timings: Timings,
) -> Rows:
    """Run the statement with its settings in one transaction and one round trip. Raises `Stale`.

    Where the plan starts from rows of the host, `values` hold them as `rows`, JSON.
    """
    parameters = {**values, **page.binds()}
    settings = {**limits, **plan.settings}
    with timings("db"):
        async with connection(engine) as conn:
            driver = await raw(conn)
            try:
                async with driver.pipeline():
                    await driver.execute(*set_local(settings))
                    cursor = await driver.execute(plan.text, parameters)
                    # Not driver.commit(), which waits for an answer of its own: a second round trip, 0.1 ms.
                    await driver.execute("COMMIT")
                rows = await cursor.fetchall()
            except GONE:
                raise Stale from None
    if (rows[0][0], rows[0][1]) != (versions.namespace, versions.retriever):
        raise Stale
    found = [row for row in rows if row[6] is not None]
    return Rows([row[5:] for row in found], [row[4] for row in found], rows[0][2], _by_stage(plan, rows[0][3]))


def _by_stage(plan: Plan, told: str | None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (prefix, key), value in zip(plan.told, json.loads(told) if told else (), strict=True):
        found.setdefault(prefix, {})[key] = value
    return found


def set_local(settings: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """One statement that sets everything for this transaction alone, so that poolers may share the connection; and
    says whose it is.

    Time limits and origins differ from request to request, and are binds; the rest stands in the text, of which there
    are few: as binds they would take 0.1 ms of the client.
    """
    fixed = tuple((name, value) for name, value in settings.items() if name != TIME_LIMIT)
    varying = [(name, value) for name, value in settings.items() if name == TIME_LIMIT]
    if told := origin.get():
        varying.append(("application_name", told))
    return _setting(fixed, len(varying)), [part for item in varying for part in item]


@lru_cache(256)
def _setting(fixed: tuple[tuple[str, str], ...], varying: int) -> bytes:
    calls: list[sql.Composable] = [
        sql.SQL("set_config({}, {}, true)").format(*map(sql.Literal, item)) for item in fixed
    ]
    calls += [sql.SQL("set_config(%s, %s, true)")] * varying
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_bytes()
