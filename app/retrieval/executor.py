"""Runs a plan: embeds its texts with no transaction open, then one statement in one round trip."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import connection, raw
from app.errors import InvalidRequest, Problem
from app.inference.registry import Inference
from app.retrieval.plan import Bind, Inputs, Plan
from app.retrieval.templates import MissingInput, fill, input_names
from app.telemetry import Timings

INPUTS = ("body", "inputs")


class Stale(Exception):
    """The namespace or the retriever has changed since the plan was compiled: load them anew and try again."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What the plan was compiled for, and what the statement must find still in force."""

    namespace: int
    retriever: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """The window of the last stage's rows that is answered."""

    limit: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """What a statement answered: its hits (columns as in `Plan`), and how many rows each stage had."""

    hits: list[tuple[Any, ...]]
    counts: list[int]


async def fill_binds(plan: Plan, inputs: Inputs, inference: Inference) -> dict[str, Any]:
    """The value of every bind. Texts are embedded here; `InvalidRequest` names every input that does not fit."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    embeds = {embed.bind: embed for embed in plan.embeds}
    for bind in plan.binds:
        try:
            filled = fill(bind.value, inputs)
            if (embed := embeds.get(bind.name)) is not None:
                filled = await _embed(filled, embed.service, embed.task, inference)
            values[bind.name] = bind.convert(filled)
        except MissingInput as error:
            message = f"The input {error.name!r} is needed by this retriever."
            problems.append(Problem((*INPUTS, error.name), "missing_input", message))
        except ValueError as error:
            problems.append(Problem(_place(bind), "bad_input", f"The value of {bind.name} does not fit: {error}."))
    if problems:
        raise InvalidRequest(list(dict.fromkeys(problems)))
    return values


async def _embed(text: Any, service: str, task: Any, inference: Inference) -> Any:
    if not isinstance(text, str):
        raise ValueError("a text query is a string")
    return (await inference.embed(service, [text], task))[0]


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
    """Run the statement with its settings in one transaction and one round trip. Raises `Stale`."""
    parameters = {**values, "page_limit": page.limit, "page_offset": page.offset}
    settings = {**limits, **plan.settings}
    with timings("db"):
        async with connection(engine) as conn:
            driver = await raw(conn)
            try:
                async with driver.pipeline():
                    await driver.execute(*_set_local(settings))
                    cursor = await driver.execute(plan.text, parameters)
                    # Not driver.commit(), which waits for an answer of its own: a second round trip, 0.1 ms.
                    await driver.execute("COMMIT")
                rows = await cursor.fetchall()
            except (
                psycopg.errors.UndefinedTable,
                psycopg.errors.UndefinedColumn,
                psycopg.errors.InvalidSchemaName,
            ):
                raise Stale from None
    if (rows[0][0], rows[0][1]) != (versions.namespace, versions.retriever):
        raise Stale
    return Rows([row[3:] for row in rows if row[4] is not None], rows[0][2])


def _set_local(settings: Mapping[str, str]) -> tuple[Any, list[str]]:
    """One statement that sets everything for this transaction alone, so that poolers may share the connection."""
    calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
    return f"SELECT {calls}", [part for item in settings.items() for part in item]
