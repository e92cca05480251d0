"""What an adopted table answers is what a namespace answers that has its rows as documents."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.adopting import NEAR, adopt, copied, films, run
from tests.http import Api, feature_search, search, stage


@pytest.fixture
def table(conninfo: str) -> Iterator[str]:
    with films(conninfo) as name:
        yield name


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
    return [(found.pop("score", None), found) for found in answer["documents"]]


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


PIPELINES: list[list[dict[str, Any]]] = [
    [stage("attribute_filter", field="year", operator="gt", value=2000), stage("sort_attribute", field="title")],
    [
        feature_search(search("embedding", NEAR, top_k=30), facets=["genre", "tags"]),
        stage("attribute_filter", field="seen", operator="eq", value=True),
        stage("sort_attribute", field="info.length", direction="desc"),
    ],
    [
        feature_search(
            {
                "feature_uri": "embedding",
                "query": {"input_mode": "document", "document_ref": {"document_id": "7"}},
                "top_k": 12,
            }
        ),
        stage("mmr", top_k=4),
    ],
    [
        feature_search(search("embedding", NEAR, top_k=30)),
        stage("deduplicate", fields=["genre"]),
        stage("limit", limit=9),
    ],
]


def test_pipelines_and_aggregates_are_those_of_a_namespace_with_the_same_documents(
    api: Api, other: Api, conninfo: str, table: str
) -> None:
    run(conninfo, "CREATE INDEX ON {} (year)", table)
    adopt(api, table)
    other.standalone(("embedding", 8))
    other.upsert(copied(conninfo, table))
    for n, stages in enumerate(PIPELINES):
        for each in (api, other):
            each.retriever(f"r{n}", *stages)
        found, wanted = (shown(each.execute(f"r{n}")) for each in (api, other))
        assert found == wanted
        assert found
    body = {
        "group_by": [{"field": "genre"}],
        "aggregations": [{"function": "count", "alias": "n"}, {"function": "avg", "field": "year", "alias": "year"}],
        "filters": {"field": "year", "operator": "gte", "value": 1995},
    }
    path = "/collections/_direct_upsert/documents/aggregate"
    assert api("POST", path, body)["results"] == other("POST", path, body)["results"]
    listed = api("POST", "/documents/list", {"filters": {"field": "rating", "operator": "gt", "value": 3}})
    assert listed["results"]


@pytest.fixture
def other(api: Api) -> Api:
    """A client of another namespace of the same service."""
    return Api(api.http, f"{api.namespace}_copy")
