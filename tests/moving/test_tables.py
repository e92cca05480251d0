"""Plain pgvector tables come in to the bit, whatever their keys and columns, and go on after the last key."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from app.moving.rows import Layout
from app.moving.sources import At
from app.moving.sources.postgresql import Table
from tests.http import Api
from tests.moving.running import documented, run

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
COLUMNS = """
CREATE SCHEMA "Old shop";
CREATE TABLE "Old shop"."Items %" (
    sku text PRIMARY KEY, "emb%edding" vector(3), half halfvec(2), words sparsevec(50), parts vector(2)[],
    price numeric, sold timestamptz, day date, "every" interval, tags text[], about jsonb, raw json, ok boolean,
    picture bytea, found tsvector, odd float8);
CREATE INDEX ON "Old shop"."Items %" USING hnsw ("emb%edding" vector_l2_ops);
CREATE INDEX ON "Old shop"."Items %" USING hnsw (half halfvec_ip_ops);
CREATE INDEX ON "Old shop"."Items %" USING hnsw (words sparsevec_cosine_ops);
INSERT INTO "Old shop"."Items %" VALUES (
    'a"1', '[1e-45,-3.4e38,0.1]', '[0.333,65504]', '{1:0.1,50:-1e-45}/50', '{"[0.1,2]","[3,1e-45]"}',
    12345678901234567890.1230, '2024-02-29 12:00:00.123456+02', '2024-02-29', '1 day 2 hours', '{x,NULL}',
    '{"b": [1.50]}', '{"n": 1e400}', true, '\\x00', 'cat', 'NaN');
INSERT INTO "Old shop"."Items %" VALUES ('b');
"""


@pytest.fixture
def source(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


def columns_of(conninfo: str, table: sql.Composable, *columns: str) -> list[Any]:
    """What these columns hold, in PostgreSQL's binary form."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with psycopg.connect(conninfo) as conn:
        return conn.execute(sql.SQL("SELECT {} FROM {} ORDER BY 1").format(names, table), binary=True).fetchall()


def test_a_table_of_another_database_is_a_namespace(api: Api, conninfo: str, source: str) -> None:
    with psycopg.connect(source) as conn:
        conn.execute(COLUMNS)
    arguments = ["--namespace", api.namespace, "--from", source, "--table", '"Old shop"."Items %"', "--create"]
    asked = run(conninfo, "import", *arguments)
    assert asked.exit_code == 1
    assert "--metric parts=cosine" in asked.output
    arguments += ["--metric", "parts=euclidean", "--vector", "text=emb%edding", "--no-wait"]
    done = run(conninfo, "import", *arguments)
    assert done.exit_code == 0, done.output
    assert "'picture' (bytea) is left out" in done.stderr
    assert "2 documents stored." in done.stdout
    shown = api("GET", f"/namespaces/{api.namespace}")["vector_configs"]
    assert [(c["name"], c["dimension"], c["metric"]) for c in shown] == [
        ("text", 3, "euclidean"),
        ("half", 2, "dot"),
        ("words", 50, "cosine"),
        ("parts", 2, "euclidean"),
    ]
    theirs = columns_of(source, sql.Identifier("Old shop", "Items %"), "sku", "emb%edding", "words")
    ours = columns_of(conninfo, sql.Identifier(api.namespace, "documents"), "document_id", "text", "words")
    assert ours == theirs
    parts = columns_of(conninfo, sql.Identifier(api.namespace, "documents_parts"), "document_id", "position", "vector")
    assert [(i, n, v.to_list()) for i, n, v in map(decoded, parts)] == [
        ('a"1', 0, [0.10000000149011612, 2.0]),
        ('a"1', 1, [3.0, 1.401298464324817e-45]),
    ]
    with psycopg.connect(conninfo) as conn:
        query = sql.SQL("SELECT payload::text, half::halfvec::text FROM {} ORDER BY document_id")
        (payload, half), (empty, _) = conn.execute(query.format(sql.Identifier(api.namespace, "documents"))).fetchall()
    with psycopg.connect(source) as conn:
        texts = conn.execute('SELECT half::text FROM "Old shop"."Items %" ORDER BY sku').fetchone()
        assert texts == (half,)
    assert '"price": 12345678901234567890.1230' in payload
    assert '"about": {"b": [1.50]}' in payload
    found = json.loads(payload)
    assert {name: found[name] for name in ("sold", "day", "every", "tags", "ok", "odd")} == {
        "sold": "2024-02-29T10:00:00.123456+00:00",
        "day": "2024-02-29",
        "every": "P1DT2H",
        "tags": ["x", None],
        "ok": True,
        "odd": "NaN",
    }
    assert not {"picture", "found", "sku", "half", "words"} & set(found)
    assert set(json.loads(empty).values()) == {None}


def decoded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    from pgvector import Vector

    return (*row[:-1], Vector.from_binary(row[-1]))


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("bigint", ["-9", "0", "10", "9"]),
        ("text", ["", "%s", "a'b", "B", "ä", "\U0001f600"]),
        ("numeric", ["-1.50", "10", "9.1"]),
        ("timestamptz", ["2024-01-01 00:00:00.5+00", "infinity"]),
        ("uuid", ["00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
        ("float8", ["0.1", "1e300"]),
        ("char(4)", ["a", "bcde"]),
        ("mood", ["sad", "fine"]),
    ],
)
def test_pages_go_on_after_a_key_of_any_type(
    source: str, kind: str, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row in a page, and each begun anew: what one that was interrupted would do."""
    with psycopg.connect(source) as conn:
        conn.execute("CREATE TYPE mood AS ENUM ('sad', 'fine')")
        table = sql.SQL("CREATE TABLE t (id {} PRIMARY KEY)").format(sql.SQL(kind))
        conn.execute(table)
        for key in keys:
            conn.execute(sql.SQL("INSERT INTO t VALUES ({})").format(sql.Literal(key)))
        conn.execute("SET datestyle TO ISO")
        conn.execute("SET timezone TO UTC")
        every = [row[0] for row in conn.execute("SELECT id::text FROM t ORDER BY t.id").fetchall()]
    monkeypatch.setattr("app.moving.sources.postgresql.FIRST_PAGE", 1)
    opened, found, at = Table(source, "t", Layout()), list[str](), At()
    while chunk := next(opened.read({}, at), None):
        found += chunk.ids
        at = At(chunk.last, chunk.place)
    opened.close()
    assert (found, at.row) == (every, len(keys))


def test_vectors_are_the_same_to_the_bit(api: Api, conninfo: str) -> None:
    """Of a table of the same database, as long as its type says no dimension."""
    api.standalone(("v", 3, "dot"))
    table = sql.Identifier(f"{api.namespace}_plain")

    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.none() | st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=6))
    def every(given: list[Any]) -> None:
        with psycopg.connect(conninfo) as conn:
            conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
            conn.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, v vector)").format(table))
            conn.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(api.namespace, "documents")))
            for n, vector in enumerate(given):
                conn.execute(sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(table), [n, vector and str(vector)])
        if all(vector is None for vector in given):
            return
        done = run(conninfo, "import", "--table", f'"{api.namespace}_plain"', "--namespace", api.namespace, "--no-wait")
        assert done.exit_code == 0, done.output
        ours = columns_of(conninfo, sql.Identifier(api.namespace, "documents"), "document_id", "v")
        assert [vector for _, vector in ours] == [vector for _, vector in columns_of(conninfo, table, "id", "v")]

    every()
    with psycopg.connect(conninfo) as conn:
        conn.execute(sql.SQL("DROP TABLE {}").format(table))


def test_what_cannot_be_imported_is_told(api: Api, conninfo: str, source: str) -> None:
    with psycopg.connect(source) as conn:
        conn.execute("CREATE TABLE pairs (a int, b int, c int UNIQUE NOT NULL, v vector(2), PRIMARY KEY (a, b))")
        conn.execute("CREATE TABLE taxi (id int PRIMARY KEY, v vector(2)); CREATE VIEW seen AS TABLE taxi")
        conn.execute("CREATE INDEX ON taxi USING hnsw (v vector_l1_ops)")
        conn.execute("INSERT INTO taxi VALUES (1, '[1,0]'), (2, '[0,0]')")
    api.standalone(("v", 3))

    def told(*arguments: str, url: str = source, namespace: str = api.namespace) -> str:
        done = run(conninfo, "import", "--from", url, "--namespace", namespace, *arguments)
        assert done.exit_code in (1, 2), done.output
        assert "Traceback" not in done.output
        assert isinstance(done.exception, SystemExit)
        return done.output

    assert "no primary key of one column" in told("--table", "pairs")
    assert "'c'" in told("--table", "pairs")
    assert "'a' is no key" in told("--table", "pairs", "--id", "a")
    assert "dense of 2 dimensions" in told("--table", "pairs", "--id", "c")
    assert "no table 'nothing'" in told("--table", "nothing")
    assert "no table 'seen'" in told("--table", "seen")
    assert "no table" in told("--table", "'; DROP TABLE taxi")
    assert "cannot be read" in told("--table", "a.b.c.d.e")
    assert "vector_l1_ops" in told("--table", "taxi", "--create", namespace=f"{api.namespace}_new")
    assert "no vector index 'w'" in told("--table", "taxi", "--vector", "w=v")
    assert "postgresql, " in told("--table", "taxi", url="mysql://there") or "postgresql" in told(
        "--table", "t", url="x:"
    )
    lost = told("--table", "taxi", url="postgresql://someone:s3cret@localhost:1/none")
    assert "s3cret" not in lost
    zero = told("--table", "taxi", "--create", "--metric", "v=cosine", namespace=f"{api.namespace}_zero")
    assert "Row 2 ('2')" in zero
    assert "letters, digits" in told("--table", "taxi", "--create", "--metric", "v=dot", namespace="no/slash")
    assert "Give a FILE" in told()
    assert "Give a FILE" in told("--table", "taxi", "--format", "jsonl")
    assert run(conninfo, "import", __file__, "--table", "t", "--namespace", "n").exit_code == 2


def test_an_empty_table_is_imported(api: Api, conninfo: str, source: str) -> None:
    """By an address as SQLAlchemy has it."""
    api.standalone(("v", 3))
    with psycopg.connect(source) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY, v vector)")
    place = source.replace("postgresql:", "postgresql+psycopg:")
    done = run(conninfo, "import", "--from", place, "--table", "t", "--namespace", api.namespace)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("0 documents stored.")


def test_the_documented_command_runs(api: Api, conninfo: str, source: str) -> None:
    with psycopg.connect(source) as conn:
        conn.execute("CREATE TABLE items (sku text PRIMARY KEY, embedding vector(2), title text)")
        conn.execute("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops)")
        conn.execute("INSERT INTO items VALUES ('a', '[1,0]', 'red'), ('b', '[0,1]', 'blue')")
    done = run(conninfo, *documented("postgresql", source, api.namespace))
    assert done.exit_code == 0, done.output
    assert api("GET", f"/namespaces/{api.namespace}/documents/b")["title"] == "blue"


KILLED = """
import sys, os, signal
from app.domain.documents import importing
from app.moving.sources import postgresql
store, count = importing._store, 0
async def one(*arguments):
    global count
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    await store(*arguments)
importing._store = one
postgresql.FIRST_PAGE = postgresql.CHUNK_ROWS = 10
from app.cli import main
main(sys.argv[1:])
"""


def test_an_import_that_was_killed_goes_on_after_its_last_key(api: Api, conninfo: str, source: str) -> None:
    api.standalone(("v", 2, "dot"))
    with psycopg.connect(source) as conn:
        conn.execute("CREATE TABLE items (id int PRIMARY KEY, v vector(2))")
        conn.execute("INSERT INTO items SELECT n * 3, array[n, 1]::vector FROM generate_series(1, 55) n")
    arguments = ["import", "--from", source, "--table", "items", "--namespace", api.namespace, "--no-wait"]
    environment = {**os.environ, "DATABASE_URL": conninfo}
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    with psycopg.connect(conninfo) as conn:
        at = "SELECT last_row, place, source FROM pgretrieve.imports WHERE namespace_id = %s"
        (row, place, name) = conn.execute(at, [api.namespace]).fetchone() or (0, "", "")
        assert (row, place) == (20, "60")
        assert name.endswith(" public.items")
        conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(api.namespace, "documents")))
    with psycopg.connect(source) as conn:  # rows that go and come before the key change nothing
        conn.execute("DELETE FROM items WHERE id < 30")
    done = run(conninfo, *arguments)
    assert done.exit_code == 0, done.output
    left = columns_of(conninfo, sql.Identifier(api.namespace, "documents"), "document_id")
    assert sorted(int(row[0]) for row in left) == [n * 3 for n in range(21, 56)]
    assert "55 documents stored" in done.output


def test_a_connection_that_breaks_is_made_again(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.moving.sources.postgresql.FIRST_PAGE", 2)
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("CREATE TABLE t AS SELECT n::int AS id FROM generate_series(1, 9) n")
        conn.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
        opened = Table(source, "t", Layout())
        chunks = opened.read({}, At())
        found = [next(chunks).ids]
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgretrieve-import'"
        assert (True,) in conn.execute(ended + " AND datname = current_database()").fetchall()
        found += [chunk.ids for chunk in chunks]
        opened.close()
    assert [int(each) for ids in found for each in ids] == list(range(1, 10))


def test_a_page_is_cut_where_it_is_large(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.moving.sources.postgresql.CHUNK_BYTES", 10_000)
    with psycopg.connect(source) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
        conn.execute(
            "INSERT INTO t SELECT n, repeat('x', CASE WHEN n = 3 THEN 50000 ELSE 900 END) FROM generate_series(1, 50) n"
        )
    opened = Table(source, "t", Layout())
    sizes = [len(chunk.ids) for chunk in opened.read({}, At())]
    opened.close()
    assert (sizes[0], sum(sizes)) == (3, 50)
    assert max(sizes) <= 12
