"""What tests of filters share: a table of payloads, the numbers of those that pass, and random JSON."""

import json
import random
from collections.abc import Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import Filter, FilterLimits
from app.retrieval.plan import Binds, render
from app.retrieval.predicates import predicate
from app.retrieval.templates import fill

DOCUMENTS = sa.table("pages", sa.column("n", sa.Integer), sa.column("payload", JSONB)).alias("d")
LIMITS = FilterLimits(depth=20, conditions=200)


def parsed(raw: Any) -> Filter:
    problems = Problems()
    filter_ = parse_filter(raw, (), problems, LIMITS)
    assert not problems and filter_ is not None, (raw, problems.found)
    return filter_


def in_payload(field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
    if field == "document_id":
        return sa.func.to_jsonb(sa.cast(DOCUMENTS.c.n, sa.Text)), ()
    return DOCUMENTS.c.payload, tuple(field.split("."))


def store(conn: psycopg.Connection[Any], payloads: Sequence[Any]) -> None:
    """Put them into the session's table, numbered from 0; None is an SQL NULL."""
    conn.execute("CREATE TEMPORARY TABLE IF NOT EXISTS pages (n integer, payload jsonb)")
    conn.execute("TRUNCATE pages")
    with conn.cursor().copy("COPY pages FROM STDIN") as copy:
        for n, payload in enumerate(payloads):
            copy.write_row((n, None if payload is None else json.dumps(payload)))


def values_of(binds: Binds, inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {name: bind.convert(fill(bind.value, inputs or {})) for name, bind in binds.found.items()}


def passing(conn: psycopg.Connection[Any], filter_: Filter, inputs: dict[str, Any] | None = None) -> list[int]:
    """The numbers of the payloads that the predicate passes; the predicate must be NULL for none."""
    binds = Binds()
    holds = predicate(filter_, in_payload, binds, "filter")
    rows = sa.select(DOCUMENTS.c.n, holds.label("holds")).select_from(DOCUMENTS).subquery()
    numbers = sa.func.array_agg(rows.c.n).filter(rows.c.holds), sa.func.count().filter(rows.c.holds.is_(None))
    found, nulls = conn.execute(render(sa.select(*numbers)), values_of(binds, inputs)).fetchall()[0]
    assert nulls == 0
    return sorted(found or ())


# Random JSON. What is drawn is small and repeats itself, so that filters meet what they ask for.

TEXTS = ["", "1", "x", "red", "Red car", "the red cars", "car-red_car", "CAFÉ", "true", "2024-01-01"]
TIMES = [
    *("2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01 00:00", "2024-02-30", "2024-06-01T12:00:00.5"),
    *("2024-01-01T00:00:00.123456789Z", "20240101", "2023-12-31", "1999-12-31 23:59:59"),
]
NUMBERS = [0, 1, 2, -1, 1.0, 2.0, 0.5, -1.5, 10**12, 1e-3]


def point(draw: random.Random) -> dict[str, float]:
    return {"lon": draw.choice([0.0, 2.0, 2.5, 5.0, 179.5, -179.5, round(draw.uniform(-180, 180), 2)])} | {
        "lat": draw.choice([0.0, 1.0, -2.0, 2.5, 5.0, 90.0, round(draw.uniform(-90, 90), 2)])
    }


def scalar(draw: random.Random) -> Any:
    return draw.choice([None, True, False, *TEXTS, *draw.sample(TIMES, 3), *NUMBERS])


def value(draw: random.Random, depth: int = 3) -> Any:
    kind = draw.random()
    if depth == 0 or kind < 0.45:
        return scalar(draw)
    if kind < 0.7:
        return [value(draw, depth - 1) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
    if kind < 0.74:
        return point(draw)
    if kind < 0.76:
        return draw.choice(
            [{"lat": "1", "lon": 2}, {"lat": 1}, {"lat": None, "lon": 1}, {"lon": [2], "lat": 1}, [2, 1]]
        )
    return {name: value(draw, depth - 1) for name in draw.sample(["a", "b", "c", "a.b", "0"], draw.choice([0, 1, 2]))}


def payload(draw: random.Random) -> dict[str, Any]:
    """One place in four is not there, or is none; half of the others are two."""
    places = [point(draw) for _ in range(draw.choice([1, 2]))]
    place = draw.choice([places, places[0], places, value(draw)])
    return {"place": place} | {
        name: value(draw) for name in draw.sample(["a", "b", "c", "a.b"], draw.choice([0, 2, 3, 4]))
    }
