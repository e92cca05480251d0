"""Stages that sort, score, draw, group and take apart, over HTTP, in pipelines with others."""

from typing import Any

from tests.http import Api, document, feature_search, search, stage

VECTOR = {"v": {"type": "array"}}


def shop(api: Api) -> None:
    api.standalone(("v", 2))
    a = document("a", {"v": [1, 0]}, kind="lamp", text="a small red lamp", tags=["old", "red"])
    b = document("b", {"v": [10, 1]}, kind="lamp", text="a small red lamp!", tags=["new"])
    c = document("c", {"v": [2, 1]}, kind="desk", text="an oak desk", tags=["old", "oak", "big"])
    d = document("d", {"v": [0, 1]}, kind="desk")
    api.upsert([{**a, "metadata": {"lang": ["de", "fr"], "year": 1990}}, b, c, d])


def near() -> dict[str, Any]:
    return feature_search(search("v", "{{INPUT.v}}"))


def told(answer: Any, name: str) -> Any:
    return answer["stage_statistics"]["stages"][name]["metadata"]


def test_a_threshold_that_each_request_sets(api: Api) -> None:
    shop(api)
    made = stage("score_threshold", min_score="{{INPUT.least}}")
    api.retriever("sure", near(), made, input_schema={**VECTOR, "least": {"type": "number"}})
    for least, found, below in ((0.9, ["a", "b"], False), (0, ["a", "b", "c", "d"], False), (1.1, [], True)):
        answer = api.execute("sure", inputs={"v": [1, 0], "least": least})
        assert [each["document_id"] for each in answer["documents"]] == found
        assert told(answer, "score_threshold") == {"all_below_threshold": below}
    body = {"inputs": {"v": [1, 0], "least": "much"}}
    api.refused("POST", "/retrievers/sure/execute", body)


def test_normalized_scores_stand_where_they_are_asked_for(api: Api) -> None:
    shop(api)
    scaled = stage("score_normalize", output_field="scores.scaled")
    rising = stage("sort_relevance", score_field="scores.scaled", direction="asc")
    api.retriever("scaled", near(), scaled, rising, stage("limit", limit=2), input_schema=VECTOR)
    documents = api.execute("scaled", inputs={"v": [1, 2]})["documents"]
    assert [each["document_id"] for each in documents] == ["a", "b"]
    assert documents[0]["scores"]["scaled"] == 0
    assert 0 < documents[1]["scores"]["scaled"] < documents[1]["score"]
    assert "scores" not in documents[0]["payload"]


def test_groups_with_their_documents(api: Api) -> None:
    shop(api)
    grouped = stage("group_by", field="kind", max_per_group=1)
    api.retriever("kinds", near(), grouped, input_schema=VECTOR)
    answer = api.execute("kinds", inputs={"v": [0, 1]})
    first = answer["documents"][0]
    assert (first["document_id"], first["group_key"], first["group_count"]) == ("d", "desk", 2)
    collection = first["collection_id"]
    assert first["group_documents"] == [
        {"kind": "desk", "document_id": "d", "collection_id": collection, "score": first["score"]}
    ]
    assert [each["group_key"] for each in answer["documents"]] == ["desk", "lamp"]
    assert told(answer, "group_by") == {"total_groups": 2, "total_documents": 4}


def test_pages_of_rows_that_share_a_document(api: Api) -> None:
    shop(api)
    api.retriever("tags", near(), stage("unwind", field="tags", include_array_index="at"), input_schema=VECTOR)
    found, cursor = [], None
    for _ in range(3):
        answer = api.execute(
            "tags", inputs={"v": [1, 0]}, pagination={"method": "cursor", "limit": 2, "cursor": cursor}
        )
        found += [(each["document_id"], each["tags"], each["at"]) for each in answer["documents"]]
        cursor = answer["pagination"]["cursor"]
    assert found == [
        ("a", "old", 0),
        ("a", "red", 1),
        ("b", "new", 0),
        ("c", "old", 0),
        ("c", "oak", 1),
        ("c", "big", 2),
    ]
    assert answer["pagination"]["has_next"] is False
    counted = stage("aggregate", aggregations=[{"function": "count", "alias": "n"}], group_by=[{"field": "tags"}])
    api.retriever("counted", stage("unwind", field="tags"), counted)
    assert told(api.execute("counted"), "aggregate")["aggregations"][0] == {
        "group": {"tags": "old"},
        "metrics": {"n": 2},
    }


def test_what_a_stage_writes_to_metadata_hides_none_of_it(api: Api) -> None:
    shop(api)
    apart = stage("unwind", field="metadata.lang", preserve_null_and_empty=True)
    old = stage("attribute_filter", field="metadata.year", operator="eq", value=1990)
    api.retriever("languages", apart, old)
    documents = api.execute("languages")["documents"]
    assert [each["metadata"] for each in documents] == [{"lang": "de", "year": 1990}, {"lang": "fr", "year": 1990}]
    assert documents[0]["_internal"]["metadata"] == {"lang": ["de", "fr"], "year": 1990}


def test_repetitions_go_and_a_sample_is_drawn(api: Api) -> None:
    shop(api)
    alike = stage("deduplicate", strategy="content", content_field="text", similarity_threshold=0.9)
    api.retriever("once", near(), alike, input_schema=VECTOR)
    answer = api.execute("once", inputs={"v": [1, 0]})
    assert [each["document_id"] for each in answer["documents"]] == ["a", "c", "d"]
    assert told(answer, "deduplicate") == {"not_compared": 0}
    api.retriever("kinds", near(), stage("deduplicate", fields=["kind"], keep="last"), input_schema=VECTOR)
    assert api.ids("kinds", inputs={"v": [1, 0]}) == ["b", "d"]
    drawn = stage("sample", size=2, method="stratified", stratify_by="kind", seed="{{INPUT.seed}}")
    api.retriever("some", near(), drawn, input_schema={**VECTOR, "seed": {"type": "integer"}})
    found = {tuple(api.ids("some", inputs={"v": [1, 0], "seed": seed})) for seed in range(20)}
    assert found == {("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}
    assert len({tuple(api.ids("some", inputs={"v": [1, 0], "seed": 5})) for _ in range(3)}) == 1
    api.refused("POST", "/retrievers/some/execute", {"inputs": {"v": [1, 0], "seed": 0.5}})


def test_unknown_names_and_both_names_at_once_are_refused(api: Api) -> None:
    api.standalone(("v", 2))
    for made, problem in (
        (stage("sample", size=2, count=3), "bad_parameter@body.stages.0.config.parameters.size"),
        (stage("group_by", field="a", group_by_field="b"), "bad_parameter@body.stages.0.config.parameters.field"),
        (stage("unwind", path="a"), "bad_parameter@body.stages.0.config.parameters"),
        (stage("score_threshold"), "bad_parameter@body.stages.0.config.parameters"),
        (stage("sort_relevance", direction="up"), "bad_parameter@body.stages.0.config.parameters"),
        (stage("deduplicate", strategy="semantic"), "bad_parameter@body.stages.0.config.parameters"),
    ):
        _, problems = api.refused("POST", "/retrievers", {"retriever_name": "r", "stages": [made]})
        assert problems == [problem]
