"""Executing over HTTP: pages of every kind, batches, pipelines that are not stored, what is told beside documents."""

from itertools import pairwise
from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage

SEARCH = feature_search(search("v", "{{INPUT.v}}"), final_top_k=25)
INPUTS = {"v": [1, 0]}
EVERY = [f"d{n:02}" for n in range(12)]


@pytest.fixture
def plane(api: Api) -> Api:
    """Twelve documents, d00 nearest to the first axis; a retriever `near` of them all."""
    api.standalone(("v", 2))
    api.upsert([document(f"d{n:02}", {"v": [12 - n, n]}, n=n, even=n % 2 == 0) for n in range(12)])
    api.retriever("near", SEARCH)
    return api


def ids(answer: Any) -> list[str]:
    return [document["document_id"] for document in answer["documents"]]


def flat(pages: list[list[str]]) -> list[str]:
    return [document for page in pages for document in page]


# Pages


def walk(api: Api, first: dict[str, Any], name: str = "near", **body: Any) -> list[list[str]]:
    """Every page, each asked for as the one before it says."""
    pages, pagination = [], first
    while True:
        answer = api.execute(name, inputs=INPUTS, pagination=pagination, **body)
        told = answer["pagination"]
        assert told["returned"] == len(answer["documents"])
        assert told["method"] == first["method"]
        pages.append(ids(answer))
        if not told["has_next"]:
            assert (told["cursor"], told.get("scroll_id"), told.get("after")) == (None, None, None)
            return pages
        match first["method"]:
            case "cursor":
                pagination = {**first, "cursor": told["cursor"]}
            case "scroll":
                pagination = {**first, "scroll_id": told["scroll_id"], "scroll_ttl": 60}
            case "keyset":
                pagination = {**first, "after": told["after"]}
            case "offset":
                pagination = {**first, "page_number": told["page_number"] + 1}


@pytest.mark.parametrize("method", ["cursor", "offset", "keyset", "scroll"])
@pytest.mark.parametrize("size", [1, 5, 6, 12, 50])
def test_pages_are_complete_and_in_order(plane: Api, method: str, size: int) -> None:
    pages = walk(plane, {"method": method, "page_size" if method == "offset" else "limit": size})
    assert flat(pages) == EVERY
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)


@pytest.mark.parametrize("method", ["cursor", "keyset", "scroll"])
def test_pages_of_other_pipelines(plane: Api, method: str) -> None:
    """Ranks with gaps, an order of another stage, request filters, vectors."""
    plane.retriever("gaps", SEARCH, stage("attribute_filter", field="even", value=True))
    plane.retriever("sorted", SEARCH, stage("sort_attribute", field="n", direction="desc"))
    even = [d for d in EVERY if int(d[1:]) % 2 == 0]
    first = {"method": method, "limit": 4}
    assert flat(walk(plane, first, "gaps")) == even
    assert flat(walk(plane, first, "sorted")) == EVERY[::-1]
    assert flat(walk(plane, first, filters={"even": True})) == even
    assert flat(walk(plane, first, return_vectors=True)) == EVERY


def test_a_cursor_goes_on_after_its_document_whatever_was_written_meanwhile(plane: Api) -> None:
    def after(size: int) -> dict[str, Any]:
        told = plane.execute("near", inputs=INPUTS, limit=size)["pagination"]
        return {"method": "cursor", "limit": 3, "cursor": told["cursor"]}

    going_on = after(4)
    plane.upsert([document("first", {"v": [1, 0]})])
    assert ids(plane.execute("near", inputs=INPUTS, pagination=going_on)) == ["d04", "d05", "d06"]
    going_on = after(5)  # first, d00 … d03
    plane("DELETE", "/documents/d03")
    assert ids(plane.execute("near", inputs=INPUTS, pagination=going_on)) == ["d04", "d05", "d06"]


def test_a_keyset_may_be_a_score_and_an_id(plane: Api) -> None:
    third = plane.execute("near", inputs=INPUTS)["documents"][2]
    marker = {"id": third["document_id"], "score": third["score"]}
    page = {"method": "keyset", "limit": 2, "after": marker}
    assert ids(plane.execute("near", inputs=INPUTS, pagination=page)) == ["d03", "d04"]
    plane("DELETE", f"/documents/{third['document_id']}")
    assert ids(plane.execute("near", inputs=INPUTS, pagination=page)) == ["d03", "d04"]


def test_a_cursor_of_another_query_is_refused(plane: Api) -> None:
    cursor = plane.execute("near", inputs=INPUTS, limit=2)["pagination"]["cursor"]
    page = {"pagination": {"method": "cursor", "limit": 2, "cursor": cursor}}
    execute = "/retrievers/near/execute"
    other = ("other_query", ["other_query@body.pagination.cursor"])
    assert ids(plane.execute("near", inputs=INPUTS, **page)) == ["d02", "d03"]
    assert plane.refused("POST", execute, {"inputs": {"v": [0, 1]}, **page}) == other
    assert plane.refused("POST", execute, {"inputs": INPUTS, "filters": {"even": True}, **page}) == other
    plane("PATCH", "/retrievers/near", {"description": "changed"})
    assert plane.refused("POST", execute, {"inputs": INPUTS, **page}) == other


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"limit": 0}, ["out_of_range@body.limit"]),
        ({"limit": 3, "page_size": 4}, ["bad_value@body.page_size"]),
        ({"pagination": {"method": "cursor", "limit": -1}}, ["out_of_range@body.pagination.limit"]),
        ({"pagination": {"method": "cursor", "page_number": 2}}, ["extra_forbidden@body.pagination.page_number"]),
        ({"pagination": {"method": "offset", "page_number": 0}}, ["out_of_range@body.pagination.page_number"]),
        ({"pagination": {"method": "scroll", "scroll_ttl": 5}}, ["out_of_range@body.pagination.scroll_ttl"]),
        ({"pagination": {"method": "magic"}}, ["bad_type@body.pagination.method"]),
        ({"pagination": {"method": "cursor", "cursor": "%%%"}}, ["bad_cursor@body.pagination.cursor"]),
        ({"pagination": {"method": "cursor", "cursor": "AAAA"}}, ["bad_cursor@body.pagination.cursor"]),
        ({"pagination": {"method": "scroll", "scroll_id": "é"}}, ["bad_cursor@body.pagination.scroll_id"]),
        ({"pagination": {"method": "keyset", "after": {"id": 3}}}, ["bad_cursor@body.pagination.after"]),
        ({"pagination": {"method": "keyset", "after": {"id": "d"}}}, ["bad_cursor@body.pagination.after"]),
        ({"pagination": {"method": "keyset", "after": {"id": "d", "rank": 2**70}}}, None),
        ({"pagination": {"method": "keyset", "after": {"id": "d\0", "rank": 2}}}, None),
    ],
)
def test_bad_pages_are_refused(plane: Api, body: Any, problems: list[str] | None) -> None:
    found = plane.refused("POST", "/retrievers/near/execute", {"inputs": INPUTS, **body})
    assert problems is None or found[1] == problems


def test_the_default_page_is_what_the_pipeline_names(plane: Api) -> None:
    plane.retriever("three", feature_search(search("v", [1, 0]), final_top_k=3))
    assert plane.execute("three")["pagination"]["limit"] == 3
    plane.retriever("unnamed", stage("sort_attribute", field="n", direction="asc"))
    answer = plane.execute("unnamed")
    assert (len(answer["documents"]), answer["pagination"]["total"], answer["pagination"]["has_next"]) == (10, 12, True)
    plane.retriever("limited", stage("sort_attribute", field="n"), stage("limit", limit=11))
    assert len(plane.execute("limited")["documents"]) == 11


def test_what_is_cut_is_told(plane: Api) -> None:
    answer = plane.execute("near", inputs=INPUTS, limit=9_999)
    cut = {"name": "limit", "requested": 9_999, "applied": 500, "ceiling": 500, "stage": None}
    assert answer["limits"] == [cut]
    assert ids(answer) == EVERY
    plane.retriever("wide", feature_search(search("v", [1, 0]), final_top_k=5_000))
    assert plane.execute("wide")["limits"] == [{**cut, "requested": 5_000}]
    assert "limits" not in plane.execute("near", inputs=INPUTS, limit=500)
    scroll = {"method": "scroll", "limit": 1_000}
    assert "limits" not in plane.execute("near", inputs=INPUTS, pagination=scroll)


def test_pagination_wins_over_limit_with_a_warning(plane: Api) -> None:
    answer = plane.execute("near", inputs=INPUTS, limit=5, pagination={"method": "cursor", "limit": 2})
    assert len(answer["documents"]) == 2
    assert "pagination wins" in answer["warnings"][0]


# What is told


def test_results_are_the_documents_unless_they_are_not_wanted(plane: Api) -> None:
    answer = plane.execute("near", inputs=INPUTS)
    assert answer["results"] == answer["documents"]
    lean = plane("POST", "/retrievers/near/execute?include_legacy_results=false", {"inputs": INPUTS})
    assert "results" not in lean


def test_how_inputs_were_understood(plane: Api) -> None:
    filters = {"AND": [{"field": "n", "operator": "gte", "value": "{{INPUT.least}}"}]}
    schema = {"v": {"type": "array", "required": True}, "least": {"type": "integer", "default": 8}}
    plane.retriever("r", feature_search(search("v", "{{INPUT.v}}", filters=filters)), input_schema=schema)
    answer = plane.execute("r", inputs={**INPUTS, "extra": 1})
    assert ids(answer) == EVERY[8:]
    assert answer["interpretation"] == {
        "provided_input_keys": ["v", "extra"],
        "inferred_inputs": {"least": 8},
        "ignored_input_keys": ["extra"],
    }


def test_filters_among_the_inputs_are_filters_where_the_retriever_has_no_such_input(plane: Api) -> None:
    assert ids(plane.execute("near", inputs={**INPUTS, "filters": {"even": True}})) == EVERY[::2]
    both = plane.execute("near", inputs={**INPUTS, "filters": {"even": True}}, filters={"n": 4})
    assert ids(both) == ["d04"]
    assert plane.refused("POST", "/retrievers/near/execute", {"inputs": {**INPUTS, "filters": 3}})[1] == [
        "bad_filter@body.inputs.filters"
    ]


def test_a_retriever_keeps_to_its_collections(plane: Api) -> None:
    plane.upsert([document("other", {"v": [1, 0]})], collection_id="elsewhere")
    plane.retriever("here", SEARCH, collection_identifiers=["_direct_upsert"])
    plane.retriever("there", SEARCH, collection_ids=["elsewhere", "nowhere"])
    assert ids(plane.execute("here", inputs=INPUTS)) == EVERY
    assert ids(plane.execute("there", inputs=INPUTS)) == ["other"]
    assert ids(plane.execute("near", inputs=INPUTS, limit=1)) in (["d00"], ["other"])


# Not stored


def adhoc(api: Api, *stages: Any, **body: Any) -> Any:
    return api("POST", "/retrievers/execute", {"stages": list(stages), **body})


def test_a_pipeline_is_executed_without_being_stored(plane: Api) -> None:
    before = plane("GET", "/retrievers")["total"]
    answer = adhoc(plane, SEARCH, inputs=INPUTS, limit=2, pre_filters={"even": True})
    assert (ids(answer), answer["retriever_id"]) == (["d00", "d02"], None)
    schema = {"v": {"type": "array", "required": True}}
    rest = {"method": "cursor", "limit": 3, "cursor": answer["pagination"]["cursor"]}
    assert ids(adhoc(plane, SEARCH, inputs=INPUTS, filters={"even": True}, pagination=rest)) == ["d04", "d06", "d08"]
    assert ids(adhoc(plane, SEARCH, inputs=INPUTS, input_schema=schema)) == EVERY
    assert plane("GET", "/retrievers")["total"] == before
    sent = {"Authorization": "Bearer pgr_test_root_key_0123456789", "X-Namespace": plane.namespace}
    raw = plane.http.post("/retrievers/execute", json={"stages": [SEARCH], "inputs": INPUTS}, headers=sent)
    assert raw.headers["x-execution-mode"] == "adhoc"


def test_queries_within_the_stages_find_what_inputs_find(plane: Api) -> None:
    for query in ([1, 0], [0, 1], [5, 5]):
        stored = plane.execute("near", inputs={"v": query})
        for form in ({"input_mode": "vector", "value": query}, {"input_mode": "vector", "vector": query}, query):
            inline = adhoc(plane, feature_search({"feature_uri": "v", "query": form}))
            assert inline["documents"] == stored["documents"]
            assert inline["interpretation"] == {"provided_input_keys": []}
    schema = {"w": {"type": "string", "default": "x"}}
    found = adhoc(plane, feature_search(search("v", [1, 0])), input_schema=schema)
    assert ids(found) == EVERY


def test_bad_pipelines_are_refused_where_they_were_sent(plane: Api) -> None:
    def refused(*stages: Any, **body: Any) -> tuple[str, list[str]]:
        return plane.refused("POST", "/retrievers/execute", {"stages": list(stages), **body})

    here = "body.stages.0.config.parameters.searches.0"
    assert refused()[0] == "bad_stages"
    assert refused(feature_search(search("v", [1])))[1] == [f"bad_vector@{here}.query.value"]
    assert refused(feature_search(search("w", [1, 0])))[1] == [f"unknown_index@{here}.feature_uri"]
    assert refused(feature_search(search("v", "x", mode="text")))[1] == [
        f"text_needs_promotion@{here}.query.input_mode"
    ]
    assert refused(SEARCH, inputs={"v": [1]})[1] == ["bad_input@body.inputs.v"]
    assert refused(SEARCH)[1] == ["missing_input@body.inputs.v"]
    assert refused(SEARCH, inputs=INPUTS, filters={}, pre_filters={})[1] == ["bad_value@body.pre_filters"]
    two = [feature_search(search("v", [1, 0]))] * 2
    assert refused(*two)[0] == "one_search_stage"
    message = plane("POST", "/retrievers/execute", {"stages": two}, status=422)["error"]["message"]
    assert "promotion to a managed namespace allows more" in message


# Batches


def test_a_batch_answers_each_query_in_its_place(plane: Api) -> None:
    queries: list[Any] = [{"inputs": {"v": [1, n]}} for n in range(5)]
    queries[1] = {"inputs": {"v": [1]}}
    queries[2] = {"inputs": INPUTS, "filters": {"even": True}}
    answer = plane("POST", "/retrievers/near/execute/batch", {"queries": queries, "settings": {"limit": 3}})
    assert (answer["total_queries"], answer["completed"], answer["failed"]) == (5, 4, 1)
    results = answer["results"]
    assert [result["query_index"] for result in results] == [0, 1, 2, 3, 4]
    assert [result["status"] == "failed" for result in results] == [False, True, False, False, False]
    assert ids(results[2]) == ["d00", "d02", "d04"]
    for n in (0, 3, 4):
        alone = plane.execute("near", inputs={"v": [1, n]}, limit=3)
        assert results[n]["documents"] == alone["documents"]
        assert results[n]["error"] is None
    error = results[1]["error"]
    assert (error["code"], error["status"], error["type"]) == ("bad_input", 422, "ValidationError")
    assert error["details"]["validation_errors"][0]["location"] == ["body", "queries", 1, "inputs", "v"]


def test_batches_are_bounded(plane: Api) -> None:
    path = "/retrievers/near/execute/batch"
    too_many = {"queries": [{"inputs": INPUTS}] * 17}
    assert plane.refused("POST", path, too_many) == ("too_many_queries", ["too_many_queries@body.queries"])
    assert plane("POST", path, too_many, status=422)["error"]["details"]["limits"] == {"max_queries": 16}
    answer = plane("POST", path, {"queries": [{"inputs": INPUTS}] * 16, "concurrency": 20})
    assert (answer["completed"], answer["limits"][0]["applied"]) == (16, 5)
    assert plane.refused("POST", path, {"queries": []})[0] == "bad_type"
    assert plane.refused("POST", path, {"queries": [{"inputs": INPUTS}], "concurrency": 0})[0] == "bad_type"
    assert plane.refused("POST", path, {"queries": [{"inputs": INPUTS}], "stream": True})[0] == "not_offered"
    plane("POST", "/retrievers/nowhere/execute/batch", {"queries": [{"inputs": INPUTS}]}, status=404)


# Explained


def test_explaining_estimates_and_runs_nothing(plane: Api) -> None:
    plane.retriever("r", SEARCH, stage("attribute_filter", field="n", value="{{INPUT.n}}"), stage("limit", limit=3))
    told = plane("POST", "/retrievers/r/execute/explain")
    assert [(s["stage_index"], s["stage_name"], s["stage_type"]) for s in told["execution_plan"]] == [
        (0, "feature_search", "filter"),
        (1, "attribute_filter", "filter"),
        (2, "limit", "reduce"),
    ]
    assert told["total_estimated_stages"] == 3
    assert told["estimated_cost"]["total_duration_ms"] >= 0
    assert all(a["estimated_output"] == b["estimated_input"] for a, b in pairwise(told["execution_plan"]))
    assert told["execution_plan"][2]["estimated_output"] <= 3
    assert "s2_attribute_filter" in told["statement"]
    assert "jsonb_path_exists" in told["statement"]
    without = plane("POST", "/retrievers/r/execute/explain", {"inputs": INPUTS})
    assert "jsonb_path_exists" not in without["statement"]  # the condition whose input is not given
    plane("POST", "/retrievers/nowhere/execute/explain", status=404)


def test_explaining_again_and_again(plane: Api) -> None:
    """Drivers prepare what is asked often; a plan for open parameters cannot be prepared."""
    plane.retriever("r", SEARCH)
    for _ in range(40):  # four on each connection of the pool
        plane("POST", "/retrievers/r/execute/explain")


def test_the_stages_are_listed_with_their_parameters(plane: Api) -> None:
    listed = {told["stage_id"]: told for told in plane("GET", "/retrievers/stages")}
    assert {"feature_search", "attribute_filter", "sort_attribute", "limit"} <= listed.keys()
    for told in listed.values():
        assert told["description"]
        assert told["category"] in ("filter", "sort", "reduce", "apply", "enrich")
        assert told["icon"]
        assert told["parameter_schema"]["type"] == "object"
    search_parameters = listed["feature_search"]["parameter_schema"]["properties"]
    assert search_parameters["final_top_k"] == {"type": "integer", "default": 25}
    assert listed["sort_attribute"]["parameter_schema"]["properties"]["direction"]["enum"] == ["asc", "desc"]
    for told in plane("GET", "/discovery/stages"):
        assert told["cost_tier"] in ("cheap", "moderate", "expensive")
        assert told["common_use_cases"]
        example = told["example_config"]
        # They search by text, so in a promoted namespace, or in multi-vectors.
        if told["stage_id"] not in ("feature_search", "query_expand", "maxsim_rerank"):
            plane.retriever("example", stage("limit"), example)
    assert plane.refused("POST", "/retrievers", {"retriever_name": "stages", "stages": [SEARCH]})[0] == "bad_name"
