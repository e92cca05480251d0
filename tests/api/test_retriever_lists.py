"""Retrievers over HTTP: listed, cloned, changed, with a budget; and searches that need none."""

from typing import Any

import pytest

from tests.http import Api, document, stage

LIMIT = stage("limit", limit=3)


@pytest.fixture
def stored(api: Api) -> Api:
    api.standalone(("v", 2))
    for n, name in enumerate(["beta", "alpha", "delta_1", "delta%2", "Gamma"]):
        more: dict[str, Any] = {"tags": ["even" if n % 2 == 0 else "odd"], "metadata": {"n": n}}
        if n < 2:
            more["collection_identifiers"] = [f"c{n}"]
        api.retriever(name, LIMIT, description=f"The {n}th Retriever", **more)
    return api


def names(api: Api, **body: Any) -> list[str]:
    return [found["retriever_name"] for found in api("POST", "/retrievers/list", body)["results"]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"search": "delta"}, ["delta%2", "delta_1"]),
        ({"search": "DELTA"}, ["delta%2", "delta_1"]),
        ({"search": "GAMMA", "case_sensitive": True}, []),
        ({"search": "a%2"}, ["delta%2"]),
        ({"search": "a_1"}, ["delta_1"]),
        ({"search": "3th"}, ["delta%2"]),
        ({"search": "odd"}, ["alpha", "delta%2"]),
        ({"filters": {"retriever_name": "alpha"}}, ["alpha"]),
        ({"filters": {"collection_ids": {"$in": ["c0", "c1"]}}}, ["alpha", "beta"]),
        ({"filters": {"metadata.n": {"$gte": 2, "$lt": 4}}}, ["delta%2", "delta_1"]),
        ({"filters": {"AND": [{"tags": "even"}, {"field": "metadata.n", "operator": "gt", "value": 0}]}}, None),
        ({"filters": {"version": 1}, "search": "alpha"}, ["alpha"]),
        ({"filters": {"NOT": [{"tags": {"$eq": "even"}}]}}, ["alpha", "delta%2"]),
    ],
)
def test_retrievers_are_searched_and_filtered(stored: Api, body: Any, expected: list[str] | None) -> None:
    sort = {"field": "retriever_name", "direction": "asc"}
    found = names(stored, sort=sort, **body)
    assert found == (["Gamma", "delta_1"] if expected is None else expected)
    assert stored("POST", "/retrievers/list", {**body, "page_size": 1})["total"] == len(found)


def test_retrievers_are_sorted_and_walked(stored: Api) -> None:
    order = ["Gamma", "alpha", "beta", "delta%2", "delta_1"]
    assert names(stored, sort={"field": "retriever_name"}) == order
    by_tag = [{"field": "tags", "direction": "desc"}, {"field": "metadata.n", "direction": "desc"}]
    assert names(stored, sorts=by_tag) == ["delta%2", "alpha", "Gamma", "delta_1", "beta"]
    found, cursor = [], None
    while True:
        body = {"page_size": 2, "cursor": cursor, "sort": {"field": "retriever_name"}}
        page = stored("POST", "/retrievers/list", body)
        found += [each["retriever_name"] for each in page["results"]]
        if (cursor := page["pagination"]["next_cursor"]) is None:
            break
        if len(found) == 2:
            stored("DELETE", "/retrievers/alpha")
    assert found == order
    assert stored("GET", "/retrievers")["total"] == 4


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"filters": {"must": 3}}, "bad_filter"),
        ({"filters": {"a": "{{INPUT.x}}"}}, "bad_filter"),
        ({"filters": {"a": {"$near": 3}}}, "bad_filter"),
        ({"sort": {"field": ""}}, "bad_type"),
        ({"sort": {"field": "a", "direction": "up"}}, "bad_type"),
        ({"sort": {"field": "a"}, "sorts": [{"field": "b"}]}, "bad_value"),
        ({"sort": {"field": "a\0"}}, "nul_character"),
        ({"search": "\0"}, "nul_character"),
        ({"cursor": "AAAA"}, "bad_cursor"),
        ({"cursor": "MQ"}, "bad_cursor"),
    ],
)
def test_bad_lists_are_refused(stored: Api, body: Any, code: str) -> None:
    assert stored.refused("POST", "/retrievers/list", body)[0] == code


def test_a_retriever_is_cloned_with_changes(stored: Api) -> None:
    source = stored("GET", "/retrievers/alpha")
    cloned = stored("POST", "/retrievers/alpha/clone", {"retriever_name": "copy", "description": "changed"})
    made = cloned["retriever"]
    assert cloned["source_retriever_id"] == source["retriever_id"] != made["retriever_id"]
    assert (made["version"], made["description"], made["tags"]) == (1, "changed", source["tags"])
    assert (made["stages"], made["collection_ids"]) == (source["stages"], source["collection_ids"])
    body = {"retriever_name": "other", "stages": [stage("limit", limit=1)], "collection_ids": ["c9"]}
    other = stored("POST", f"/retrievers/{source['retriever_id']}/clone", body)["retriever"]
    assert (other["stages"][0]["parameters"], other["collection_ids"]) == ({"limit": 1}, ["c9"])
    assert stored("GET", "/retrievers/alpha") == source
    assert stored.refused("POST", "/retrievers/alpha/clone", {"retriever_name": "beta"}, status=409)[0] == (
        "already_exists"
    )
    assert stored.refused("POST", "/retrievers/alpha/clone", {"retriever_name": ""})[0] == "bad_name"
    assert stored.refused("POST", "/retrievers/alpha/clone", {})[0] == "bad_type"
    bad = {"retriever_name": "bad", "stages": [stage("nope")]}
    assert stored.refused("POST", "/retrievers/alpha/clone", bad)[0] == "unknown_stage"
    stored("POST", "/retrievers/nowhere/clone", {"retriever_name": "x"}, status=404)


def test_a_patch_may_empty_fields_but_not_be_empty(stored: Api) -> None:
    body = {"description": None, "tags": None, "metadata": None, "collection_ids": ["c5"], "budget_limits": None}
    changed = stored("PATCH", "/retrievers/alpha", body)["retriever"]
    assert (changed["description"], changed["tags"], changed["metadata"]) == (None, None, None)
    assert changed["collection_identifiers"] == ["c5"]
    assert stored("PATCH", "/retrievers/alpha", {"collection_identifiers": None})["retriever"]["collection_ids"] == []
    assert stored.refused("PATCH", "/retrievers/alpha", {}) == ("nothing_to_change", ["nothing_to_change@body"])


def test_a_budget_bounds_the_statements_time(api: Api) -> None:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", {}, text="a" * 300_000) for n in range(20)])
    slow = stage("attribute_filter", field="text", operator="regex", value="(a|aa|aaa|b)+$.*c")
    api.retriever("r", slow, budget_limits={"max_time_ms": 1, "max_credits": 0})
    assert api.refused("POST", "/retrievers/r/execute", status=503)[0] == "statement_timeout"
    for limits, code in (({"max_time_ms": 0}, "out_of_range"), ({"max_hours": 1}, "extra_forbidden")):
        body = {"retriever_name": "r", "stages": [slow], "budget_limits": limits}
        assert api.refused("POST", "/retrievers", body)[0] == code


# Searches without a retriever


@pytest.fixture
def words(api: Api) -> Api:
    """Two texts, embedded by the local model, and two vectors of their own."""
    api.standalone(("own", 2), ("text", 384))
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": "minilm_l6_v2"}]})
    texts = ["a bird of prey", "a fast red car"]
    body = {"inference_name": "minilm_l6_v2", "inputs": {"texts": texts}}
    vectors = api("POST", "/inference", body)["data"]["embeddings"]
    documents = [
        document(f"d{n}", {"text": vector, "own": [1, n]}, text=text)
        for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    api.upsert(documents)
    return api


def ids(answer: Any) -> list[str]:
    return [found["document_id"] for found in answer["documents"]]


def test_features_are_searched(words: Api) -> None:
    def found(query: Any, **more: Any) -> list[str]:
        return ids(words("POST", "/features/search", {"query": query, **more}))

    assert found({"input_mode": "text", "text": "eagle"}) == ["d0", "d1"]
    assert found({"text": "automobile"}, top_k=1) == ["d1"]
    assert found({"text": "{{INPUT.x}} eagle"}, feature_uri="text") == ["d0", "d1"]
    assert found({"text": "eagle"}, filters={"text": "a fast red car"}) == ["d1"]
    assert found({"text": "eagle"}, collection_identifiers=["elsewhere"]) == []
    assert found({"input_mode": "vector", "vector": [0, 1]}, feature_uri="own") == ["d1", "d0"]
    answer = words("POST", "/features/search", {"query": {"text": "eagle"}, "return_vectors": True})
    assert answer["results"][0]["vectors"]["own"] == [1, 0]


def test_documents_are_searched(words: Api) -> None:
    def found(**body: Any) -> list[str]:
        return ids(words("POST", "/documents/search", body))

    assert found(query="eagle", page_size=10) == ["d0", "d1"]
    assert found(query="automobile", page_size=1, collection_ids=["_direct_upsert"]) == ["d1"]
    assert found(query={"input_mode": "vector", "vector": [0, 1]}, feature_uri="own") == ["d1", "d0"]
    assert found(filters={"text": "a bird of prey"}) == ["d0"]
    assert found() == ids(words("POST", "/documents/search")) == ["d0", "d1"]
    first = words("POST", "/documents/search", {"query": "eagle", "page_size": 1})
    assert found(query="eagle", page_size=1, cursor=first["pagination"]["cursor"]) == ["d1"]


def test_the_short_form_of_stages_is_understood(words: Api) -> None:
    text = {"type": "feature_search", "feature_extractor": {"type": "text"}, "query": "eagle", "limit": 5}

    def execute(*stages: Any, **body: Any) -> list[str]:
        return ids(words("POST", "/retrievers/execute", {"stages": list(stages), **body}))

    assert execute(text, inputs={"query": "eagle"}) == ["d0", "d1"]
    assert execute({**text, "limit": 1, "collection_ids": []}) == ["d0"]
    assert execute({**text, "query": "{{ eagle }}"}, inputs={"query": "{{ eagle }}"}) == ["d0", "d1"]
    assert execute({**text, "query": "{{INPUT.q}}"}, inputs={"q": "car"}) == ["d1", "d0"]
    assert execute({"type": "attribute_filter", "conditions": {"text": "a fast red car"}}, text) == ["d1"]

    def refused(*stages: Any) -> list[str]:
        return words.refused("POST", "/retrievers/execute", {"stages": list(stages)})[1]

    assert refused({**text, "limit": 0}, {"type": "rerank"}) == [
        "out_of_range@body.stages.0.limit",
        "bad_stage@body.stages.1.type",
    ]
    assert refused({**text, "feature_extractor": {"type": "image"}}) == ["not_offered@body.stages.0.feature_extractor"]
    assert refused({**text, "extra": 1}) == ["extra_forbidden@body.stages.0.extra"]
    assert refused(text, text) == ["bad_stages@body.stages"]
    assert refused({"type": "attribute_filter", "conditions": 3}, text) == ["bad_filter@body.stages.0.conditions"]


def test_what_such_a_search_lacks_is_told(stored: Api) -> None:
    def refused(path: str, body: Any) -> list[str]:
        return stored.refused("POST", path, body)[1]

    assert refused("/features/search", {"query": {"text": "x"}}) == ["text_needs_promotion@body.query"]
    assert refused("/documents/search", {"query": "x"}) == ["text_needs_promotion@body.query"]
    vector = {"input_mode": "vector", "vector": [1]}
    assert refused("/features/search", {"query": vector}) == ["bad_input@body.query"]
    assert refused("/features/search", {"query": vector, "feature_uri": "w"}) == ["unknown_index@body.feature_uri"]
    assert refused("/features/search", {"query": {"input_mode": "url", "url": "http://x"}}) == [
        "text_needs_promotion@body.query"
    ]
    assert refused("/features/search", {"query": {"input_mode": "vector"}}) == ["bad_query@body.query"]
    assert refused("/features/search", {"query": vector, "top_k": 0})[0].startswith("bad_type@body.top_k")
    assert refused("/documents/search", {"query": vector, "sort": {"field": "x"}}) == ["not_offered@body.sort"]
    assert ids(stored("POST", "/features/search", {"query": {"input_mode": "vector", "vector": [1, 0]}})) == []
