"""A table that its user has already, adopted in place: it is read like any namespace, and stays as it is."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.adopting import adopt, copied, films
from tests.http import Api, feature_search, search

# Where each row lies and who wrote it; the table's file; its columns with all their settings; its indexes and triggers.
PHYSICAL = (
    "SELECT ctid::text, xmin::text, id::text FROM {0} ORDER BY 1",
    "SELECT relfilenode, relnatts, relhastriggers, relrowsecurity, xmin::text FROM pg_class WHERE oid = {1}::regclass",
    "SELECT a::text, a.xmin::text FROM pg_attribute a WHERE attrelid = {1}::regclass ORDER BY attnum",
    "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = {1}::regclass ORDER BY 1",
    "SELECT count(*) FROM pg_trigger WHERE tgrelid = {1}::regclass",
)


def physical(conninfo: str, table: str) -> list[Any]:
    with psycopg.connect(conninfo) as conn:
        places = sql.Identifier(*table.split(".")), sql.Literal(table)
        return [conn.execute(sql.SQL(query).format(*places)).fetchall() for query in PHYSICAL]


def run(conninfo: str, query: str, *names: str) -> list[Any]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        parts = [sql.Identifier(*name.split(".")) for name in names]
        cursor = conn.execute(sql.SQL(query).format(*parts))
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def table(conninfo: str) -> Iterator[str]:
    with films(conninfo) as name:
        yield name


def test_adopting_searching_promoting_and_deleting_leave_the_table_as_it_is(
    api: Api, conninfo: str, table: str
) -> None:
    before = physical(conninfo, table)
    made = adopt(api, table)
    assert (made["adopted_from"], made["namespace"]["mode"]) == (table, "standalone")
    assert made["namespace"]["vector_configs"] == [{"name": "embedding", "dimension": 8, "metric": "cosine"}]
    assert made["namespace"]["document_count"] == 60
    assert made["warnings"] == ["The column 'poster' is bytea, which is left out of the payload."]
    api.retriever("near", feature_search(search("embedding", [1, 0, 0, 0, 0, 0, 0, 0], top_k=5)))
    assert len(api.ids("near")) == 5
    api("DELETE", f"/namespaces/{api.namespace}")
    assert physical(conninfo, table) == before
    api("GET", f"/namespaces/{api.namespace}", status=404)


NEAR = [1, 0.5, 0, 0, -1, 0, 0, 0.25]
FILTERS: list[Any] = [
    None,
    {"field": "genre", "operator": "eq", "value": "drama"},
    {"field": "genre", "operator": "in", "value": ["war", "comedy", 3]},
    {"field": "genre", "operator": "ne", "value": "drama"},
    {"field": "genre", "operator": "eq", "value": "DRAMA", "case_insensitive": True},
    {"field": "genre", "operator": "eq", "value": "{{INPUT.genre}}"},
    {"field": "genre", "operator": "gte", "value": "drama"},
    {"field": "title", "operator": "starts_with", "value": "Film 1"},
    {"field": "title", "operator": "exists", "value": False},
    {"field": "title", "operator": "is_null", "value": True},
    {"field": "title", "operator": "in", "value": ["Film 7", "Film 8"]},
    {"field": "year", "operator": "eq", "value": 1999},
    {"field": "year", "operator": "eq", "value": 1999.0},
    {"field": "year", "operator": "eq", "value": "1999"},
    {"field": "year", "operator": "in", "value": [1999, 1999.5, True, 2001, 1e300]},
    {"field": "year", "operator": "gt", "value": 1999.5},
    {"field": "year", "operator": "lte", "value": 1999.5},
    {"field": "year", "operator": "lt", "value": 2000},
    {"field": "year", "operator": "gte", "value": "{{INPUT.from}}"},
    {"field": "year", "operator": "gte", "value": 1e300},
    {"field": "year", "operator": "gt", "value": -1e300},
    {"field": "seen", "operator": "eq", "value": True},
    {"field": "seen", "operator": "eq", "value": 1},
    {"field": "rating", "operator": "gte", "value": 4.5},
    {"field": "tags", "operator": "eq", "value": "tag 1"},
    {"field": "info.length", "operator": "lt", "value": 100},
    {"field": "info.cast.name", "operator": "eq", "value": "actor 3"},
    {"field": "released", "operator": "lt", "value": "2000-01-01T00:00:00+00:00"},
    {"field": "document_id", "operator": "in", "value": ["3", "007", "x", "33"]},
    {"NOT": {"field": "year", "operator": "eq", "value": 1999}},
    {"NOT": {"field": "document_id", "operator": "eq", "value": "x"}},
    {"OR": [{"field": "year", "operator": "lt", "value": 1993}, {"field": "genre", "operator": "eq", "value": "war"}]},
    {"must": [{"key": "genre", "match": {"value": "drama"}}, {"key": "year", "range": {"gte": 1995, "lt": 2005.5}}]},
    {"must_not": [{"key": "seen", "match": {"value": True}}]},
    {"must": [{"key": "year", "match": {"any": [1999, 2000]}}]},
    {"must": [{"key": "released", "range": {"gte": "2010-01-01T00:00:00Z"}}]},
    {"must": [{"nested": {"key": "info.cast", "filter": {"must": [{"key": "name", "match": {"value": "actor 1"}}]}}}]},
]


def shown(answer: Any) -> Any:
    """What a search answers, but for times: a document is as old as its upsert, and a row as its adoption."""
    for found in answer["documents"]:
        found["_internal"].pop("created_at")
        found["_internal"].pop("updated_at")
    return [(found.pop("score"), found) for found in answer["documents"]]


@pytest.mark.parametrize("index", ["hnsw (embedding vector_cosine_ops)", "btree (year)"])
@pytest.mark.parametrize("key", ["bigint", "uuid", "text", "integer"])
def test_answers_are_those_of_a_namespace_with_the_same_documents(
    api: Api, other: Api, conninfo: str, key: str, index: str
) -> None:
    with films(conninfo, 120, key=key, index=index) as table:
        run(conninfo, "CREATE INDEX ON {} (genre)", table)
        run(conninfo, "CREATE INDEX ON {} (year)", table)
        run(conninfo, "CREATE INDEX ON {} (seen)", table)
        run(conninfo, "CREATE INDEX ON {} (title)", table)
        adopt(api, table)
        other.standalone(("embedding", 8))
        other.upsert(copied(conninfo, table))
        inputs = {"genre": "war", "from": 2001}
        for n, filters in enumerate(FILTERS):
            for each in (api, other):
                where = {} if filters is None else {"filters": filters}
                each.retriever(f"near {n}", feature_search(search("embedding", NEAR, top_k=20, **where)))
            found, wanted = (
                shown(each.execute(f"near {n}", inputs=inputs, return_vectors=True)) for each in (api, other)
            )
            assert found == wanted, filters
            if "{{" not in str(filters):
                body = {"filters": filters, "limit": 100}
                listed = [each("POST", "/documents/list", body)["results"] for each in (api, other)]
                assert [d["document_id"] for d in listed[0]] == [d["document_id"] for d in listed[1]], filters


@pytest.fixture
def other(api: Api) -> Api:
    """A client of another namespace of the same service."""
    return Api(api.http, f"{api.namespace}_copy")
