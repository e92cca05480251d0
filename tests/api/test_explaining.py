"""Explaining with `analyze`: what ran, as PostgreSQL tells it, and findings about it in words."""

import math
from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage

EXPLAIN = "/retrievers/r/execute/explain"
V = {"v": [1, 0]}


@pytest.fixture
def plane(api: Api) -> Api:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", {"v": [1, n]}, n=n, text="x" * 400) for n in range(30)])
    return api


def analysis(api: Api, **body: Any) -> Any:
    return api("POST", EXPLAIN, {"analyze": True, **body})["analysis"]


def test_the_very_statement_is_told_with_its_values_and_its_plan(plane: Api) -> None:
    found = feature_search(search("v", "{{INPUT.v}}"), final_top_k=9)
    plane.retriever(
        "r", found, stage("attribute_filter", field="text", value="{{INPUT.text}}"), stage("limit", limit=4)
    )
    told = plane("POST", EXPLAIN, {"inputs": {**V, "text": "x" * 400}, "analyze": True})
    assert told["total_estimated_stages"] == 3
    (segment,) = told["analysis"]["segments"]
    assert (segment["stages"], segment["runs_on"]) == (["feature_search", "attribute_filter", "limit"], "database")
    assert ":s1_query_1" in segment["statement"]
    assert "%(" not in segment["statement"]
    assert len(segment["statement"].splitlines()) > 20
    assert segment["binds"]["s1_query_1"] == "[1, 0] of 2 numbers"
    texts = [value for value in segment["binds"].values() if isinstance(value, str) and value.startswith('{"v')]
    assert all("of 4" in text and len(text) < 340 for text in texts)
    assert segment["plan"]["Actual Rows"] == 4
    assert "Shared Hit Blocks" in segment["plan"]
    assert segment["execution_ms"] > 0
    assert told["analysis"]["returned"] == 4
    (finding,) = told["analysis"]["findings"]
    assert (finding["code"], finding["severity"], finding["stage"]) == ("index_not_used", "info", "feature_search")
    assert "as was chosen for it; 30 documents were read" in finding["message"]
    counts = [stage["output_count"] for stage in told["analysis"]["stage_statistics"]["stages"].values()]
    assert counts == [9, 9, 4]
    assert "analysis" not in plane("POST", EXPLAIN)


def test_analysis_takes_what_executing_takes(plane: Api) -> None:
    plane.retriever("r", feature_search(search("v", "{{INPUT.v}}")))
    assert analysis(plane, inputs=V, limit=3)["returned"] == 3
    assert analysis(plane, inputs=V, filters={"n": 7})["returned"] == 1
    assert plane.refused("POST", EXPLAIN, {"analyze": True})[0] == "missing_input"
    assert plane.refused("POST", EXPLAIN, {"analyze": True, "inputs": V, "limit": 0})[1] == ["bad_type@body.limit"]
    assert plane.refused("POST", EXPLAIN, {"filters": {"must": 3}})[0] == "bad_filter"
    plane.retriever("r", stage("limit", limit=2))
    assert analysis(plane, version=1, inputs=V)["returned"] == 25
    assert analysis(plane)["returned"] == 2


def test_a_filter_that_reads_everything_is_found(api: Api) -> None:
    api.standalone(("v", 2))
    for numbers in (range(1000), range(1000, 1010)):
        angles = {n: n * math.pi / 4000 for n in numbers}
        api.upsert([document(f"d{n}", {"v": [math.cos(a), math.sin(a)]}, rare=n % 300 == 0) for n, a in angles.items()])
    api.retriever("r", stage("attribute_filter", field="rare", value=True))
    (finding,) = [found for found in analysis(api)["findings"] if found["code"] == "unindexed_filter"]
    assert (finding["severity"], finding["stage"]) == ("warning", "attribute_filter")
    assert "read 1,010 documents to keep 4" in finding["message"]


def test_stages_of_the_host_are_explained_beside_the_statements(plane: Api) -> None:
    host = stage("json_transform", template='{"n": {{ DOC.n }}}')
    after = stage("sort_attribute", field="n", direction="desc")
    plane.retriever("r", feature_search(search("v", "{{INPUT.v}}"), final_top_k=5), host, after)
    told = plane("POST", EXPLAIN, {"analyze": True, "inputs": V})
    assert [s["stage_name"] for s in told["execution_plan"]] == ["feature_search", "json_transform", "sort_attribute"]
    assert "runs on the host" in told["execution_plan"][1]["optimization_notes"][0]
    runs = [(segment["runs_on"], segment["stages"]) for segment in told["analysis"]["segments"]]
    assert runs == [("database", ["feature_search"]), ("host", ["json_transform"]), ("database", ["sort_attribute"])]
    assert told["analysis"]["segments"][2]["binds"]["rows"].startswith('[{"document_id":"d0"')
    assert told["analysis"]["returned"] == 5
