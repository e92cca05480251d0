"""Retrievers by both official clients: all that they can ask of executions, with answers their models understand."""

from collections.abc import Callable
from typing import Any

import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from mixpeek.exceptions import UnprocessableEntityException

from tests.http import ROOT_KEY

Connect = Callable[..., mixpeek.ApiClient]
TEXTS = ["a bird of prey", "a fast red car", "a small green boat", "an old oak tree"]


def stage(**search: Any) -> dict[str, Any]:
    searches = [{"feature_uri": "v", "query": {"input_mode": "vector", "value": "{{INPUT.v}}"}, **search}]
    config = {"stage_id": "feature_search", "parameters": {"searches": searches}}
    return {"stage_name": "near", "stage_type": "filter", "config": config}


@pytest.fixture
def shop(client: Mixpeek, namespace: str) -> Mixpeek:
    """Four texts embedded by the local model, with vectors of their own."""
    configs = [{"name": "v", "dimension": 2}, {"name": "text", "dimension": 384}]
    client.namespaces.create(namespace_id=namespace, vector_configs=configs)
    mapping = {"existing_index": "text", "inference_service": "minilm_l6_v2"}
    client.namespaces.promote(namespace, vector_mappings=[mapping])
    body = {"inference_name": "minilm_l6_v2", "inputs": {"texts": TEXTS}}
    embedded = client._request("POST", "/inference", body=body).data.embeddings
    documents = [
        {"document_id": f"d{n}", "vectors": {"v": [1, n], "text": embedded[n]}, "payload": {"text": text, "n": n}}
        for n, text in enumerate(TEXTS)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    return client


def ids(answer: Any) -> list[str]:
    found = answer["documents"] if isinstance(answer, dict) else answer.documents
    return [document["document_id"] for document in found]


def test_searches_of_the_hand_written_client(shop: Mixpeek, namespace: str) -> None:
    assert ids(shop.search("eagle"))[0] == "d0"
    assert ids(shop.search("automobile", limit=1)) == ["d1"]
    assert ids(shop.search("{{ automobile }}", limit=1)) == ["d1"]
    assert ids(shop.search("eagle", filters={"AND": [{"field": "n", "operator": "gte", "value": 3}]})) == ["d3"]
    assert ids(shop.search("eagle", collection="elsewhere")) == []
    assert ids(shop.search("eagle", collection="_direct_upsert", limit=2))[0] == "d0"
    assert ids(shop.search(queries=[{"vector_name": "v", "vector": [1, 3], "top_k": 1}])) == ["d3"]
    assert ids(shop.documents.search(query="eagle", page_size=1)) == ["d0"]
    assert ids(shop.documents.search(collection_ids=["_direct_upsert"], filters={"n": 2})) == ["d2"]
    assert ids(shop.documents.search(query="eagle", collection_ids=["elsewhere"])) == []
    assert shop.documents.search(query="eagle").results[0].text == TEXTS[0]
    assert shop.retrievers.list().results == []


def test_a_search_for_text_says_what_it_lacks(client: Mixpeek, namespace: str) -> None:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 2}])
    for search in (client.search, lambda text: client.documents.search(query=text)):
        with pytest.raises(MixpeekAPIError) as refused:
            search("eagle")
        assert refused.value.detail["error"]["code"] == "text_needs_promotion"
        assert "promote" in refused.value.detail["error"]["message"]


def test_retrievers_of_the_hand_written_client(shop: Mixpeek) -> None:
    made = shop.retrievers.create(name="near", stages=[stage()], input_schema={"v": {"type": "array"}})
    cloned = shop.retrievers.clone("near", name="copy", description="another")
    assert (cloned.source_retriever_id, cloned.retriever.description) == (made.retriever_id, "another")
    answer = shop.retrievers.execute_batch(
        "copy", queries=[{"v": [1, 0]}, {"inputs": {"v": [1]}}], concurrency=2, return_vectors=True
    )
    assert [result.status for result in answer.results] == ["completed", "failed"]
    assert answer.results[0].documents[0].vectors.v == [1, 0]
    with pytest.raises(MixpeekAPIError) as refused:
        shop.retrievers.execute_batch("copy", queries=[{"v": [1, 0]}] * 17)
    assert refused.value.detail["error"]["details"]["limits"]["max_queries"] == 16
    first = shop.retrievers.run("near", inputs={"v": [1, 0]}, pagination={"method": "cursor", "limit": 3})
    rest = {"method": "cursor", "limit": 3, "cursor": first.pagination.cursor}
    assert ids(first) + ids(shop.retrievers.run("near", inputs={"v": [1, 0]}, pagination=rest)) == [
        "d0",
        "d1",
        "d2",
        "d3",
    ]


@pytest.fixture
def sdk(generated: Connect, shop: Mixpeek) -> mixpeek.RetrieversApi:
    api = mixpeek.RetrieversApi(generated())
    body = {"retriever_name": "near", "stages": [stage()], "input_schema": {"v": {"type": "array", "required": True}}}
    api.create_retriever(mixpeek.CreateRetrieverRequest.from_dict(body))
    return api


def test_pages_of_the_generated_client(sdk: mixpeek.RetrieversApi) -> None:
    def execute(pagination: dict[str, Any]) -> mixpeek.ExecuteRetrieverResponse:
        body = mixpeek.ExecuteRetrieverRequest.from_dict({"inputs": {"v": [1, 0]}, "pagination": pagination})
        return sdk.execute_retriever("near", body)

    for method in ("cursor", "scroll", "keyset"):
        first = execute({"method": method, "limit": 3})
        assert (ids(first), first.pagination["has_next"]) == (["d0", "d1", "d2"], True)
        key = {"cursor": "cursor", "scroll": "scroll_id", "keyset": "after"}[method]
        rest = execute({"method": method, "limit": 3, key: first.pagination[key]})
        assert (ids(rest), rest.pagination["has_next"]) == (["d3"], False)
    assert ids(execute({"method": "offset", "page_size": 1, "page_number": 3})) == ["d2"]


def test_the_rest_of_the_generated_client(sdk: mixpeek.RetrieversApi, generated: Connect) -> None:
    cloned = sdk.clone_retriever("near", mixpeek.CloneRetrieverRequest(retriever_name="copy"))
    assert cloned.retriever.retriever_id != cloned.source_retriever_id
    body = {"queries": [{"inputs": {"v": [1, n]}, "filters": {"n": n}} for n in range(3)]}
    batch: Any = sdk.execute_batch_retrievers("near", mixpeek.ExecuteBatchRequest.from_dict(body))
    assert [ids(result) for result in batch["results"]] == [["d0"], ["d1"], ["d2"]]
    told = sdk.explain_retriever_execution_id_execute("near", mixpeek.ExplainRetrieverRequest())
    assert [planned.stage_name for planned in told.execution_plan] == ["near"]
    assert told.execution_plan[0].stage_type == "filter"
    listed = sdk.list_retrievers(
        list_retrievers_request=mixpeek.ListRetrieversRequest.from_dict(
            {"search": "cop", "sort": {"field": "retriever_name", "direction": "desc"}, "case_sensitive": False}
        )
    )
    assert [found.retriever_name for found in listed.results] == ["copy"]
    adhoc: Any = mixpeek.AdhocRetrieversApi(generated()).execute_adhoc_retriever(
        mixpeek.AdhocExecuteRequest.from_dict({"stages": [stage()], "inputs": {"v": [1, 0]}, "limit": 2})
    )
    assert ids(adhoc) == ["d0", "d1"]
    features = mixpeek.FeatureSearchApi(generated())
    text = mixpeek.FeatureSearchRequest.from_dict({"query": {"text": "eagle"}})
    found: Any = features.feature_search(text)
    assert ids(found)[0] == "d0"
    vector = {"query": {"input_mode": "vector", "vector": [1, 2]}, "feature_uri": "v", "top_k": 1}
    found = features.feature_search(mixpeek.FeatureSearchRequest.from_dict(vector))
    assert ids(found) == ["d2"]


def test_limits_are_told_as_the_model_has_them(sdk: mixpeek.RetrieversApi) -> None:
    body = mixpeek.ExecuteRetrieverRequest(inputs={"v": [1, 0]})
    wide = stage()
    wide["config"]["parameters"]["final_top_k"] = 900
    sdk.patch_retriever("near", mixpeek.PatchRetrieverRequest.from_dict({"stages": [wide]}))
    (limit,) = sdk.execute_retriever("near", body).limits
    assert (limit.name, limit.requested, limit.applied, limit.ceiling) == ("limit", 900, 500, 500)


def test_the_stages_are_what_the_models_expect(generated: Connect) -> None:
    key = {"Authorization": f"Bearer {ROOT_KEY}"}  # which the client sends with these calls only where it is told to
    listed = mixpeek.RetrieverStagesApi(generated()).list_stages_retrievers(_headers=key)
    discovered = mixpeek.DiscoveryApi(generated()).list_stages_with_examples_discovery(_headers=key)
    assert [told.stage_id for told in listed] == [told.stage_id for told in discovered]
    assert all(told.parameter_schema for told in listed)
    assert all(told.example_config for told in discovered)


def test_a_schema_of_the_generated_client(sdk: mixpeek.RetrieversApi) -> None:
    schema = {
        "v": {"type": "array", "items": {"type": "number"}, "required": True, "description": "the query"},
        "kind": {"type": "string", "enum": ["a", "b"], "default": "a", "examples": ["a"]},
        "more": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }
    changed = sdk.patch_retriever("near", mixpeek.PatchRetrieverRequest.from_dict({"input_schema": schema})).retriever
    assert changed.input_schema["kind"].enum == ["a", "b"]
    body = mixpeek.ExecuteRetrieverRequest(inputs={"v": [1, 0], "kind": "c", "more": {"n": "x"}})
    with pytest.raises(UnprocessableEntityException) as refused:
        sdk.execute_retriever("near", body)
    problems = mixpeek.ErrorResponse.from_json(refused.value.body).error.details["validation_errors"]
    assert [problem["location"] for problem in problems] == [
        ["body", "inputs", "kind"],
        ["body", "inputs", "more", "n"],
    ]
