"""What stands around a stage's parameters: filters after it, what becomes of errors, names, and what is unknown."""

from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage

CHEAP = {"field": "price", "operator": "lte", "value": "{{INPUT.most}}"}


@pytest.fixture
def shop(api: Api) -> Api:
    api.standalone(("v", 2))
    api.upsert([document(name, {"v": [1, n]}, price=10 * n, tags=["t"]) for n, name in enumerate("abcd")])
    return api


def near(**config: Any) -> dict[str, Any]:
    made = feature_search(search("v", [1, 0], top_k=3))
    return {**made, "config": {**made["config"], **config}}


def test_post_filters_apply_to_what_the_stage_answers(shop: Api) -> None:
    # The three nearest are a, b and c: what is filtered out afterwards does not make room for d.
    shop.retriever("after", near(post_filters={"NOT": [{"field": "price", "operator": "eq", "value": 10}]}))
    shop.retriever("before", near(pre_filters={"NOT": [{"field": "price", "operator": "eq", "value": 10}]}))
    assert shop.ids("after") == ["a", "c"]
    assert shop.ids("before") == ["a", "c", "d"]
    shop.retriever(
        "both", near(post_filters={"must_not": [{"key": "price", "match": {"value": 10}}]}), stage("limit", limit=1)
    )
    answer = shop.execute("both")
    assert [found["document_id"] for found in answer["documents"]] == ["a"]


def test_post_filters_count_and_read_what_the_stage_changed(shop: Api) -> None:
    varied = stage("mmr", diversity_fields=["tags"], top_k=3, mmr_score_field="info.mmr")
    varied["config"]["post_filters"] = {"field": "info.mmr", "operator": "gt", "value": 0.5}
    shop.retriever("varied", near(), varied)
    answer = shop.execute("varied")
    assert [found["document_id"] for found in answer["documents"]] == ["a"]
    assert answer["documents"][0]["info"]["mmr"] == pytest.approx(0.7)


def test_post_filters_take_inputs_and_drop_conditions_without_theirs(shop: Api) -> None:
    shop.retriever("cheap", near(post_filters=CHEAP), input_schema={"most": {"type": "number"}})
    assert shop.ids("cheap", inputs={"most": 10}) == ["a", "b"]
    answer = shop.execute("cheap")
    assert len(answer["documents"]) == 3
    assert answer["interpretation"]["relaxations"][0]["dropped"]["field"] == "price"


def test_post_filters_are_checked(shop: Api) -> None:
    bad = {"field": "price", "operator": "nearly", "value": 1}
    body = {"retriever_name": "r", "stages": [near(post_filters=bad)]}
    code, problems = shop.refused("POST", "/retrievers", body)
    assert code == "unknown_operator"
    assert problems == ["unknown_operator@body.stages.0.config.post_filters.operator"]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({**near(), "when": {}}, "extra_forbidden@body.stages.0.when"),
        (near(filters={}), "extra_forbidden@body.stages.0.config.filters"),
        ({**near(), "on_error": "retry"}, "bad_stage@body.stages.0.on_error"),
        ({**near(), "stage_type": "magic"}, "bad_stage@body.stages.0.stage_type"),
        ({**near(), "output_alias": "not a name"}, "bad_stage@body.stages.0.output_alias"),
        ({**near(), "output_alias": 3}, "bad_stage@body.stages.0.output_alias"),
        (
            {"config": {"stage_id": "limit", "pre_filters": {"field": "a", "value": 1}}},
            "not_offered@body.stages.0.config.pre_filters",
        ),
        (
            {"config": {"stage_id": "sort_attribute", "parameters": {"sort_field": "a", "field": "b"}}},
            "bad_parameter@body.stages.0.config.parameters.sort_field",
        ),
        (
            {"config": {"stage_id": "sort_attribute", "parameters": {"fields": "a"}}},
            "bad_parameter@body.stages.0.config.parameters",
        ),
        ({"config": {"stage_id": "limits"}}, "unknown_stage@body.stages.0.config.stage_id"),
        ({"config": {"stage_id": "limit", "parameters": []}}, "bad_stage@body.stages.0"),
    ],
)
def test_what_an_envelope_may_not_hold(shop: Api, made: dict[str, Any], problem: str) -> None:
    _, problems = shop.refused("POST", "/retrievers", {"retriever_name": "r", "stages": [made]})
    assert problems == [problem]


def test_every_problem_of_every_envelope_is_told_at_once(shop: Api) -> None:
    stages = [{**near(), "extra": 1, "on_error": "no"}, {"config": {"stage_id": "limit", "more": 1}}]
    _, problems = shop.refused("POST", "/retrievers", {"retriever_name": "r", "stages": stages})
    assert sorted(problems) == [
        "bad_stage@body.stages.0.on_error",
        "extra_forbidden@body.stages.0.extra",
        "extra_forbidden@body.stages.1.config.more",
    ]


def test_other_names_of_parameters_mean_the_same(shop: Api) -> None:
    shop.retriever("canonical", near(), stage("sort_attribute", field="price", direction="desc"))
    shop.retriever("prose", near(), stage("sort_attribute", sort_field="price", order="desc"))
    assert shop.ids("canonical") == shop.ids("prose") == ["c", "b", "a"]
    # What is null is not given.
    shop.retriever("one", near(), stage("sort_attribute", sort_field="price", field=None, order="asc"))
    assert shop.ids("one") == ["a", "b", "c"]


def test_an_alias_keeps_rows_and_is_given_once(shop: Api) -> None:
    stages = [{**near(), "output_alias": "first"}, {**stage("limit", limit=2), "output_alias": "second"}]
    shop.retriever("aliased", *stages, stage("limit", limit=1, offset=1))
    answer = shop.execute("aliased")
    assert [found["document_id"] for found in answer["documents"]] == ["b"]
    counts = [told["output_count"] for told in answer["stage_statistics"]["stages"].values()]
    assert counts == [3, 2, 1]
    stages[1]["output_alias"] = "first"
    _, problems = shop.refused("POST", "/retrievers", {"retriever_name": "r", "stages": stages})
    assert problems == [f"duplicate_name@body.stages.{n}.output_alias" for n in (0, 1)]
