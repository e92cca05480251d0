"""A user's own table, as tests adopt it: films with vectors, of several types, and the same as documents."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
from psycopg import sql

from tests.http import Api

NEAR = [1, 0.5, 0, 0, -1, 0, 0, 0.25]
GENRES = ("drama", "comedy", "war")
COLUMNS = "title, year, genre, rating, seen, tags, info, released"


@contextmanager
def films(
    conninfo: str,
    rows: int = 60,
    *,
    key: str = "bigint",
    index: str = "hnsw (embedding vector_cosine_ops)",
    dimension: int = 8,
) -> Iterator[str]:
    """A table in a schema of its own; its name. Dropped with all that depends on it."""
    schema = f"user_{uuid4().hex[:12]}"
    table = sql.Identifier(schema, "films")
    draw = np.random.default_rng(1)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        create = sql.SQL(
            "CREATE TABLE {} (id {} PRIMARY KEY, title text, year integer, genre varchar(20) NOT NULL, rating numeric, "
            "seen boolean, tags text[], info jsonb, released timestamptz, embedding vector({}), poster bytea)"
        )
        conn.execute(create.format(table, sql.SQL(key), sql.Literal(dimension)))
        with conn.cursor() as cursor:
            cursor.executemany(
                sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)").format(table),
                [film(n, draw, key, dimension) for n in range(rows)],
            )
        conn.execute(sql.SQL("CREATE INDEX films_near ON {} USING ").format(table) + sql.SQL(index))
        conn.execute(sql.SQL("ANALYZE {}").format(table))
        try:
            yield f"{schema}.films"
        finally:
            conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def film(n: int, draw: np.random.Generator, key: str, dimension: int) -> tuple[Any, ...]:
    id_ = f"00000000-0000-0000-0000-{n:012}" if key == "uuid" else f"film {n}" if key == "text" else n
    vector = None if n % 17 == 16 else str(draw.standard_normal(dimension).round(3).tolist())
    title, year, rating = f"Film {n}" if n % 5 else None, 1990 + n % 30, n % 10 + 0.5 if n % 4 else None
    tags, info = [f"tag {n % 3}", "all"], json.dumps({"length": 80 + n, "cast": [{"name": f"actor {n % 7}"}]})
    released = f"{1990 + n % 30}-03-04 05:06:07+02"
    return id_, title, year, GENRES[n % 3], rating, n % 2 == 0, tags, info, released, vector


def copied(conninfo: str, table: str) -> list[dict[str, Any]]:
    """The rows of the table as documents, made in Python of what the driver reads."""
    with psycopg.connect(conninfo) as conn:
        conn.execute("SET TIME ZONE 'UTC'")
        text = sql.SQL("SELECT id::text, embedding::text, " + COLUMNS + " FROM {}")
        found = conn.execute(text.format(sql.Identifier(*table.split(".")))).fetchall()
    documents = []
    for id_, vector, *values in found:
        payload = dict(zip(COLUMNS.split(", "), values, strict=True))
        payload["rating"] = None if payload["rating"] is None else float(payload["rating"])
        payload["released"] = payload["released"].isoformat()
        vectors = {} if vector is None else {"embedding": json.loads(vector)}
        documents.append({"document_id": id_, "vectors": vectors, "payload": payload})
    return documents


def adopt(api: Api, table: str, *, status: int = 200, **more: Any) -> Any:
    return api("POST", "/namespaces/adopt", {"table": table, "namespace_id": api.namespace, **more}, status=status)


def run(conninfo: str, query: str, *names: str) -> list[Any]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        parts = [sql.Identifier(*name.split(".")) for name in names]
        cursor = conn.execute(sql.SQL(query).format(*parts))
        return cursor.fetchall() if cursor.description else []
