"""The stages aggregate, mmr and document_enrich over HTTP, in pipelines with others."""

from typing import Any

from tests.http import Api, document, feature_search, search, stage

PEOPLE = [document("anna", name="Anna", city="Rome"), document("bert", name="Bert")]


def shop(api: Api) -> None:
    api.standalone(("v", 2))
    api.upsert(
        [
            document("a", {"v": [1, 0]}, kind="lamp", price=10, maker="anna"),
            document("b", {"v": [10, 1]}, kind="lamp", price=30, maker="bert"),
            document("c", {"v": [2, 1]}, kind="desk", price=20, maker="nobody"),
            document("d", {"v": [0, 1]}, kind="desk", price=None),
        ]
    )
    api.upsert(PEOPLE, collection_id="people")


def told(answer: Any, name: str) -> Any:
    return answer["stage_statistics"]["stages"][name]["metadata"]


def near() -> dict[str, Any]:
    return feature_search(search("v", "{{INPUT.v}}"))


def test_aggregations_stand_in_the_stages_metadata(api: Api) -> None:
    shop(api)
    asked = {
        "aggregations": [{"function": "count", "alias": "n"}, {"function": "sum", "field": "price", "alias": "price"}],
        "group_by": [{"field": "kind"}],
    }
    api.retriever("stats", near(), stage("aggregate", **asked), input_schema={"v": {"type": "array"}})
    answer = api.execute("stats", inputs={"v": [1, 0]})
    assert answer["documents"] == []
    assert told(answer, "aggregate") == {
        "aggregations": [
            {"group": {"kind": "lamp"}, "metrics": {"n": 2, "price": 40}},
            {"group": {"kind": "desk"}, "metrics": {"n": 2, "price": 20}},
        ],
        "group_count": 2,
    }
    # With the documents, before a page is cut.
    api.retriever("both", near(), stage("aggregate", **asked, include_documents=True))
    answer = api.execute("both", inputs={"v": [1, 0]}, pagination={"method": "offset", "page_size": 1})
    assert [found["document_id"] for found in answer["documents"]] == ["a"]
    assert told(answer, "aggregate")["aggregations"][0]["metrics"]["n"] == 2


def test_mmr_by_the_only_index_that_there_is(api: Api) -> None:
    shop(api)
    near_ones = stage("attribute_filter", field="price", operator="gte", value=1)
    api.retriever(
        "varied", near(), near_ones, stage("mmr", lambda_=0.3, top_n=2), input_schema={"v": {"type": "array"}}
    )
    found = api.execute("varied", inputs={"v": [1, 0]})["documents"]
    assert [each["document_id"] for each in found] == ["a", "c"]
    assert found[0]["scores"]["mmr"] == 0.3
    assert found[0]["score"] == 1.0
    assert "scores" not in found[0]["payload"]


def test_documents_of_another_collection_are_joined(api: Api) -> None:
    shop(api)
    join = stage(
        "document_enrich", collection_id="people", source_field="maker", lookup_field="document_id", result_field="by"
    )
    api.retriever("joined", near(), join, stage("limit", limit=3), input_schema={"v": {"type": "array"}})
    answer = api.execute("joined", inputs={"v": [1, 0]})
    anna = {"name": "Anna", "city": "Rome", "document_id": "anna", "collection_id": "people"}
    assert [found.get("by") for found in answer["documents"]] == [
        anna,
        {"name": "Bert", "document_id": "bert", "collection_id": "people"},
        None,
    ]
    assert told(answer, "document_enrich") == {"matched_count": 2}
    # A later stage reads what was joined.
    api.retriever("romans", near(), join, stage("attribute_filter", field="by.city", operator="eq", value="Rome"))
    assert api.ids("romans", inputs={"v": [1, 0]}) == ["a"]


def test_names_of_both_kinds_at_once_and_unknown_ones_are_refused(api: Api) -> None:
    api.standalone(("v", 2))
    both = stage("mmr", top_n=2, top_k=3)
    unknown = stage("aggregate", aggregations=[{"function": "count", "alias": "n"}], having={})
    through = stage("document_enrich", target_collection_id="people", retriever_config={"stages": []})
    for made, problem in (
        (both, "bad_parameter@body.stages.0.config.parameters.top_n"),
        (unknown, "bad_parameter@body.stages.0.config.parameters"),
        (through, "not_offered@body.stages.0.config.parameters.retriever_config"),
    ):
        _, problems = api.refused("POST", "/retrievers", {"retriever_name": "r", "stages": [made]})
        assert problems == [problem]
