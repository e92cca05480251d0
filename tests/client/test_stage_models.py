"""Parameters written with the official client's typed models, as they serialise them, are taken as they come."""

from typing import Any

import mixpeek
from mixpeek import Mixpeek
from mixpeek.models.stage_params_aggregate import StageParamsAggregate
from mixpeek.models.stage_params_document_enrich import StageParamsDocumentEnrich
from mixpeek.models.stage_params_mmr import StageParamsMmr


def stage(stage_id: str, parameters: Any) -> dict[str, Any]:
    return {"stage_name": stage_id, "config": {"stage_id": stage_id, "parameters": parameters.to_dict()}}


def test_aggregate_mmr_and_document_enrich(client: Mixpeek, namespace: str) -> None:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 2}])
    documents = [
        {"document_id": f"d{n}", "vectors": {"v": [1, n]}, "payload": {"kind": kind, "maker": "m"}}
        for n, kind in enumerate(["lamp", "lamp", "desk"])
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    maker = {"document_id": "m", "vectors": {}, "payload": {"name": "Anna"}}
    client.namespaces.documents.upsert(namespace_id=namespace, documents=[maker], collection_id="makers")
    count = mixpeek.StageDefsAggregationOperation.from_dict({"function": "count", "alias": "n"})
    kind = mixpeek.StageDefsGroupByFieldConfig.from_dict({"field": "kind"})
    searches = [{"feature_uri": "v", "query": {"input_mode": "vector", "value": [1, 0]}}]
    near = {"stage_name": "near", "config": {"stage_id": "feature_search", "parameters": {"searches": searches}}}
    stages = [
        near,
        stage("mmr", StageParamsMmr(top_k=2, diversity_fields=["kind"])),
        stage("document_enrich", StageParamsDocumentEnrich(target_collection_id="makers", source_field="maker")),
        stage("aggregate", StageParamsAggregate(aggregations=[count], group_by=[kind], include_documents=True)),
    ]
    client.retrievers.create(name="typed", stages=stages)
    answer = client.retrievers.run("typed", inputs={})
    assert [(found.document_id, found.name) for found in answer.documents] == [("d0", "Anna"), ("d2", "Anna")]
    told = answer.stage_statistics.stages["aggregate"]["metadata"]
    assert told["aggregations"] == [
        {"group": {"kind": "lamp"}, "metrics": {"n": 1}},
        {"group": {"kind": "desk"}, "metrics": {"n": 1}},
    ]
