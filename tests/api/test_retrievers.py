"""Retrievers over HTTP: stored, versioned, changed, executed; each stage does what its documentation says."""

import math
from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage


@pytest.fixture
def shop(api: Api) -> Api:
    """Ten documents in a plane, d0 at angle 0 to d9 at 90 degrees; even ones red, odd ones blue, with prices."""
    api.standalone(("v", 2), ("dot", 2, "dot"), ("far", 2, "euclidean"))
    documents = []
    for n in range(10):
        angle = n * math.pi / 18
        point = [math.cos(angle), math.sin(angle)]
        payload = {"color": "red" if n % 2 == 0 else "blue", "price": 100 - n * 10, "tags": [f"t{n}", "all"]}
        if n == 9:
            del payload["price"]
        documents.append(document(f"d{n}", {"v": point, "dot": [2 * x for x in point], "far": point}, **payload))
    api.upsert(documents)
    return api


def test_scores_are_of_the_metric(shop: Api) -> None:
    angles = [n * math.pi / 18 for n in range(10)]
    for index, expected in {
        "v": [math.cos(angle) for angle in angles],
        "dot": [2 * math.cos(angle) for angle in angles],
        "far": [1 / (1 + 2 * math.sin(angle / 2)) for angle in angles],
    }.items():
        shop.retriever("r", feature_search(search(index, [1, 0]), final_top_k=10))
        found = shop.execute("r")["documents"]
        assert [d["document_id"] for d in found] == [f"d{n}" for n in range(10)]
        assert [d["score"] for d in found] == pytest.approx(expected, abs=1e-6)


def test_top_k_min_score_and_final_top_k(shop: Api) -> None:
    shop.retriever("a", feature_search(search("v", [1, 0], top_k=4)))
    assert shop.ids("a") == ["d0", "d1", "d2", "d3"]
    shop.retriever("b", feature_search(search("v", [1, 0], min_score=0.9)))
    assert shop.ids("b") == ["d0", "d1", "d2"]
    shop.retriever("c", feature_search(search("v", [1, 0]), final_top_k=2))
    assert shop.ids("c") == ["d0", "d1"]
    shop.retriever("d", feature_search(search("v", [1, 0])))
    answer = shop.execute("d", limit=3)
    assert [d["document_id"] for d in answer["documents"]] == ["d0", "d1", "d2"]
    assert answer["pagination"]["total"] == 10
    assert answer["pagination"]["has_next"] is True


@pytest.mark.parametrize(
    "filters",
    [
        {"must": [{"key": "color", "match": {"value": "blue"}}]},
        {"AND": [{"field": "color", "operator": "eq", "value": "blue"}]},
        {"color": "blue"},
        {"must_not": [{"key": "color", "match": {"value": "red"}}]},
        {"NOT": [{"field": "color", "operator": "in", "value": ["red", "green"]}]},
        {"field": "color", "operator": "eq", "value": "{{INPUT.color}}", "case_sensitive": False},
    ],
)
def test_filters_in_both_languages(shop: Api, filters: Any) -> None:
    blue = [f"d{n}" for n in (1, 3, 5, 7, 9)]
    shop.retriever("r", feature_search(search("v", [1, 0], filters=filters)))
    assert shop.ids("r", inputs={"color": "blue"}) == blue
    pre = feature_search(search("v", [1, 0]))
    pre["config"]["pre_filters"] = filters
    shop.retriever("p", pre)
    assert shop.ids("p", inputs={"color": "blue"}) == blue
    shop.retriever("s", feature_search(search("v", [1, 0])), stage("attribute_filter", conditions=filters))
    assert shop.ids("s", inputs={"color": "blue"}) == blue


def test_filters_of_the_request_are_anded(shop: Api) -> None:
    shop.retriever("r", feature_search(search("v", [1, 0], filters={"color": "blue"})))
    assert shop.ids("r", filters={"field": "price", "operator": "lt", "value": 60}) == ["d5", "d7"]
    shop.retriever("f", stage("attribute_filter", field="color", value="red"), stage("sort_attribute", field="price"))
    assert shop.ids("f", filters={"must": [{"key": "price", "range": {"gte": 60}}]}) == ["d0", "d2", "d4"]
    assert shop.refused("POST", "/retrievers/r/execute", {"filters": {"must": 3}})[0]


def test_a_condition_whose_input_is_missing_is_dropped_and_told(shop: Api) -> None:
    shop.retriever("r", feature_search(search("v", [1, 0], filters={"color": "{{INPUT.color}}"}, top_k=3)))
    assert shop.ids("r", inputs={"color": "red"}) == ["d0", "d2", "d4"]
    answer = shop.execute("r")
    assert [d["document_id"] for d in answer["documents"]] == ["d0", "d1", "d2"]
    assert answer["interpretation"]["relaxations"][0]["dropped"]["field"] == "color"


def test_fusions(shop: Api) -> None:
    def scores(fusion: str) -> dict[str, float]:
        first, second = search("v", [1, 0], top_k=3, weight=0.5), search("v", [0, 1], top_k=9)
        shop.retriever("r", feature_search(first, second, fusion=fusion, final_top_k=20))
        return {d["document_id"]: d["score"] for d in shop.execute("r")["documents"]}

    def cosine(n: int) -> float:
        return math.cos(n * math.pi / 18)

    rrf = scores("rrf")
    assert rrf["d0"] == pytest.approx(0.5 / 61)
    assert rrf["d1"] == pytest.approx(0.5 / 62 + 1 / 69)
    assert rrf["d9"] == pytest.approx(1 / 61)
    weighted = scores("weighted")
    assert weighted["d1"] == pytest.approx(0.5 * cosine(1) + cosine(8), abs=1e-6)
    assert scores("max")["d1"] == pytest.approx(cosine(1), abs=1e-6)
    dbsf = scores("dbsf")
    assert dbsf["d0"] == pytest.approx(0.5)
    assert dbsf["d9"] == pytest.approx(1.0)
    assert dbsf["d2"] == pytest.approx((cosine(7) - cosine(8)) / (cosine(0) - cosine(8)), abs=1e-5)


def test_stages_run_in_their_order(shop: Api) -> None:
    near = feature_search(search("v", [1, 0]), final_top_k=6)
    shop.retriever(
        "a", near, stage("sort_attribute", field="price", direction="asc"), stage("limit", limit=2, offset=1)
    )
    answer = shop.execute("a")
    assert [d["document_id"] for d in answer["documents"]] == ["d4", "d3"]
    counts = [(s["input_count"], s["output_count"]) for s in answer["stage_statistics"]["stages"].values()]
    assert counts == [(0, 6), (6, 6), (6, 2)]
    shop.retriever("b", near, stage("limit", limit=2), stage("sort_attribute", field="price", direction="asc"))
    assert shop.ids("b") == ["d1", "d0"]


def test_sorting_puts_missing_values_where_it_is_told(shop: Api) -> None:
    shop.retriever("last", stage("sort_attribute", field="price", direction="asc"))
    assert shop.ids("last") == [f"d{n}" for n in (8, 7, 6, 5, 4, 3, 2, 1, 0, 9)]
    shop.retriever("first", stage("sort_attribute", field="price", direction="desc", nulls_last=False))
    assert shop.ids("first")[:2] == ["d9", "d0"]


def test_case_insensitive_filters(shop: Api) -> None:
    shop.retriever("exact", stage("attribute_filter", field="color", value="RED"))
    assert shop.ids("exact") == []
    shop.retriever("loose", stage("attribute_filter", field="color", value="RED", case_insensitive=True))
    assert shop.ids("loose") == ["d0", "d2", "d4", "d6", "d8"]


def test_a_second_search_stage_waits_for_promotion_and_searches_in_what_it_is_given(shop: Api) -> None:
    stages = [feature_search(search("v", [1, 0]), final_top_k=4), feature_search(search("v", [0, 1]))]
    body = {"retriever_name": "r", "stages": stages}
    assert shop.refused("POST", "/retrievers", body)[0] == "one_search_stage"
    shop.promote()
    shop("POST", "/retrievers", body)
    assert shop.ids("r") == ["d3", "d2", "d1", "d0"]


def test_hits_can_carry_their_vectors(shop: Api) -> None:
    shop.retriever("r", feature_search(search("v", [1, 0])))
    (found,) = shop.execute("r", limit=1, return_vectors=True)["documents"]
    assert found["vectors"] == {"v": [1, 0], "dot": [2, 0], "far": [1, 0]}
    assert "vectors" not in shop.execute("r", limit=1)["documents"][0]


def test_explain_shows_the_statement(shop: Api) -> None:
    shop.retriever("r", feature_search(search("v", "{{INPUT.v}}")), stage("limit", limit=3))
    plan = shop.execute("r", inputs={"v": [1, 0]}, explain=True)["explain_plan"]
    assert plan["statement"].index("s1_feature_search") < plan["statement"].index("s2_limit")


def test_the_life_of_a_retriever(shop: Api) -> None:
    made = shop.retriever("r", feature_search(search("v", [1, 0])), description="first", tags=["a"])
    assert made["retriever_id"].startswith("ret_")
    assert made["version"] == 1
    assert made["fusion"] == "rrf"
    assert made["stages"][0]["parameters"] == made["stages"][0]["config"]["parameters"]
    assert made["stages"][0]["stage_type"] == "filter"
    assert shop("GET", "/retrievers/r") == shop("GET", f"/retrievers/{made['retriever_id']}") == made

    changed = shop("PATCH", "/retrievers/r", {"retriever_name": "s", "stages": [stage("limit", limit=1)]})["retriever"]
    assert (changed["version"], changed["retriever_name"], changed["description"]) == (2, "s", "first")
    assert changed["fusion"] is None
    assert shop.ids("s") == ["d0"]
    shop("GET", "/retrievers/r", status=404)
    shop("POST", "/retrievers/r/execute", status=404)

    shop.retriever("t", stage("limit", limit=1))
    assert shop.refused("PATCH", "/retrievers/t", {"retriever_name": "s"}, status=409)[0] == "already_exists"
    body = {"retriever_name": "t", "stages": [stage("limit")]}
    shop("POST", "/retrievers", body, status=409, headers={"If-None-Match": "*"})
    page = shop("POST", "/retrievers/list", {"page_size": 1})
    assert (len(page["results"]), page["total"]) == (1, 2)
    rest = shop("GET", f"/retrievers?cursor={page['pagination']['next_cursor']}")
    assert {page["results"][0]["retriever_name"], rest["results"][0]["retriever_name"]} == {"s", "t"}

    assert shop("DELETE", "/retrievers/s")["success"] is True
    shop("DELETE", "/retrievers/s", status=404)


def test_a_namespace_that_cannot_be_found_gives_an_empty_list_with_a_warning(api: Api) -> None:
    answer = api("POST", "/retrievers/list")
    assert answer["results"] == []
    assert answer["warnings"][0]["reason"] == "unresolved"


SEARCH = {"feature_uri": "v", "query": {"input_mode": "vector", "value": [1, 0]}}


@pytest.mark.parametrize(
    ("stages", "code"),
    [
        ([], "bad_stages"),
        ([3], "bad_stage"),
        ([{"stage_name": "x"}], "bad_stage"),
        ([stage("nope")], "unknown_stage"),
        ([stage("limit", limit="3")], "bad_parameter"),
        ([stage("limit", limit=0)], "out_of_range"),
        ([stage("limit", limits=3)], "bad_parameter"),
        ([stage("attribute_filter")], "bad_filter"),
        ([stage("attribute_filter", natural_language="cheap ones")], "not_offered"),
        ([stage("sort_attribute", direction="up")], "bad_parameter"),
        ([feature_search()], "out_of_range"),
        ([feature_search(*[SEARCH] * 11)], "out_of_range"),
        ([feature_search({**SEARCH, "feature_uri": "nope"})], "unknown_index"),
        ([feature_search({**SEARCH, "top_k": 5001})], "out_of_range"),
        ([feature_search({**SEARCH, "weight": 2})], "out_of_range"),
        ([feature_search({**SEARCH, "lexical": True})], "bad_query"),
        ([feature_search({**SEARCH, "query": {"input_mode": "content", "value": "http://x"}})], "text_needs_promotion"),
        ([feature_search({**SEARCH, "query": {"input_mode": "psychic", "value": 1}})], "bad_query"),
        ([feature_search({**SEARCH, "query": {"input_mode": "vector"}})], "bad_query"),
        ([feature_search({**SEARCH, "query": {"input_mode": "vector", "value": [1]}})], "bad_vector"),
        ([feature_search({**SEARCH, "query": {"input_mode": "vector", "value": [0, 0]}})], "bad_vector"),
        ([feature_search({**SEARCH, "query": {"input_mode": "text", "value": "x"}})], "text_needs_promotion"),
        ([feature_search({**SEARCH, "query": "{{INPUT.x}"})], "bad_template"),
        ([feature_search({**SEARCH, "query": {"input_mode": "vector", "value": "{{SECRET.x}}"}})], "bad_template"),
        ([feature_search(SEARCH, fusion="learned")], "bad_parameter"),
        ([feature_search(SEARCH, group_by={"field": "x", "order": "asc"})], "bad_parameter"),
    ],
)
def test_bad_pipelines_are_refused_when_they_are_stored(shop: Api, stages: list[Any], code: str) -> None:
    assert shop.refused("POST", "/retrievers", {"retriever_name": "r", "stages": stages})[0] == code
    shop("GET", "/retrievers/r", status=404)


def test_every_problem_of_a_pipeline_is_told_with_its_place(shop: Api) -> None:
    stages = [
        feature_search({**SEARCH, "top_k": 0, "filters": {"must": [{"key": "a", "match": {}}]}}),
        stage("limit", limit=0),
    ]
    _, problems = shop.refused("POST", "/retrievers", {"retriever_name": "r", "stages": stages})
    assert problems[0] == "out_of_range@body.stages.0.config.parameters.searches.0.top_k"
    assert problems[1].split("@")[1].startswith("body.stages.0.config.parameters.searches.0.filters")
    assert problems[-1] == "out_of_range@body.stages.1.config.parameters.limit"


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "missing_input"),
        ({"v": "x"}, "bad_input"),
        ({"v": [1]}, "bad_input"),
        ({"v": [0, 0]}, "bad_input"),
        ({"v": [1, "x"]}, "bad_input"),
        ({"v": [1e39, 0]}, "bad_input"),
        ({"v": {"indices": [1], "values": [1]}}, "bad_input"),
    ],
)
def test_bad_inputs_are_refused(shop: Api, inputs: Any, code: str) -> None:
    schema = {"v": {"type": "array", "required": True}}
    shop.retriever("r", feature_search(search("v", "{{INPUT.v}}")), input_schema=schema)
    assert shop.ids("r", inputs={"v": [1, 0]})[0] == "d0"
    got, problems = shop.refused("POST", "/retrievers/r/execute", {"inputs": inputs})
    assert (got, problems) == (code, [f"{code}@body.inputs.v"])


def test_input_schemas_are_checked(shop: Api) -> None:
    by_v = [feature_search(search("v", "{{INPUT.v}}"))]

    def refused(schema: Any) -> str:
        return shop.refused("POST", "/retrievers", {"retriever_name": "r", "stages": by_v, "input_schema": schema})[0]

    assert refused({"w": {"type": "array"}}) == "unknown_input"
    assert refused({"v": {"type": "arrays"}}) == "bad_input_schema"
    assert refused({"v": {"type": "array", "default": "x"}}) == "bad_input_schema"
    shop.retriever("r", *by_v, input_schema={"v": {"type": "array", "default": [0, 1]}})
    assert shop.ids("r")[0] == "d9"


def test_a_regular_expression_that_is_none_is_a_422(shop: Api) -> None:
    shop.retriever("r", stage("attribute_filter", field="color", operator="regex", value="{{INPUT.r}}"))
    assert shop.ids("r", inputs={"r": "^r"}) == ["d0", "d2", "d4", "d6", "d8"]
    assert shop.refused("POST", "/retrievers/r/execute", {"inputs": {"r": "("}})[0] == "bad_regex"
