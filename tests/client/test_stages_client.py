"""Stages by the official client: what its typed models send runs, with what they write where nothing was given."""

from typing import Any

import pytest
from mixpeek import Mixpeek
from mixpeek.models.stage_params_group_by import StageParamsGroupBy
from mixpeek.models.stage_params_sample import StageParamsSample
from mixpeek.models.stage_params_sort_relevance import StageParamsSortRelevance


@pytest.fixture
def shop(client: Mixpeek, namespace: str) -> Mixpeek:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 2}])
    documents = [
        {"document_id": f"d{n}", "vectors": {"v": [1, n]}, "payload": {"kind": "odd" if n % 2 else "even", "n": [n, n]}}
        for n in range(6)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    return client


def run(shop: Mixpeek, stage_id: str, **parameters: Any) -> Any:
    """What the stage makes of the documents, from d0 on."""
    search = {"feature_uri": "v", "query": {"input_mode": "vector", "value": "{{INPUT.v}}"}}
    stages = [
        {"stage_name": "near", "config": {"stage_id": "feature_search", "parameters": {"searches": [search]}}},
        {"stage_name": "then", "config": {"stage_id": stage_id, "parameters": parameters}},
    ]
    shop.retrievers.create(name=stage_id, stages=stages, input_schema={"v": {"type": "array"}})
    return shop.retrievers.execute(stage_id, inputs={"v": [1, 0]})


def ids(answer: Any) -> list[str]:
    return [each.document_id for each in answer.documents]


def test_typed_parameters(shop: Mixpeek) -> None:
    grouped = run(shop, "group_by", **StageParamsGroupBy(group_by_field="kind").to_dict())
    assert ids(grouped) == ["d0", "d1"]
    assert [each.document_id for each in grouped.documents[0].group_documents] == ["d0", "d2", "d4"]
    drawn = run(shop, "sample", **StageParamsSample(count=3, seed=1, preserve_top_k=2).to_dict())
    assert ids(drawn)[:2] == ["d0", "d1"]
    assert len(ids(drawn)) == 3
    rising = StageParamsSortRelevance.from_dict({"direction": "asc"})
    assert rising is not None
    assert ids(run(shop, "sort_relevance", **rising.to_dict())) == ["d5", "d4", "d3", "d2", "d1", "d0"]


@pytest.mark.parametrize(
    ("stage_id", "parameters", "found"),
    [
        ("score_threshold", {"min_score": 0.5}, ["d0", "d1"]),
        ("score_normalize", {"method": "z_score"}, ["d0", "d1", "d2", "d3", "d4", "d5"]),
        ("deduplicate", {"fields": ["kind"]}, ["d0", "d1"]),
        ("unwind", {"field": "n"}, ["d0", "d0", "d1", "d1", "d2", "d2", "d3", "d3", "d4", "d4", "d5", "d5"]),
        ("limit", {"limit": 2, "offset": 1}, ["d1", "d2"]),
    ],
)
def test_parameters_that_have_no_types(shop: Mixpeek, stage_id: str, parameters: Any, found: list[str]) -> None:
    answer = run(shop, stage_id, **parameters)
    assert ids(answer) == found[: answer.pagination.limit]
