"""Stages on the host by both official clients: typed parameters of the generated one, sent as its models write them."""

from collections.abc import Callable
from typing import Any

import mixpeek
import pytest
from mixpeek import Mixpeek

from tests.openai_server import OpenAIServer, echo

Connect = Callable[..., mixpeek.ApiClient]
TEXTS = {"a": "a bird of prey", "b": "a fast red car", "c": "a small green boat"}


@pytest.fixture
def shop(client: Mixpeek, namespace: str) -> Mixpeek:
    vectors = [{"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2"}]
    client._request("POST", "/namespaces", body={"namespace_name": namespace, "vector_configs": vectors})
    body = {"inference_name": "minilm_l6_v2", "inputs": {"texts": list(TEXTS.values())}}
    embedded = client._request("POST", "/inference", body=body).data.embeddings
    documents = [
        {"document_id": name, "vectors": {"text": vector}, "payload": {"content": text}}
        for (name, text), vector in zip(TEXTS.items(), embedded, strict=True)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    return client


SEARCH = {"searches": [{"feature_uri": "text", "query": "{{INPUT.query}}"}], "final_top_k": 3}
FOUND = {"stage_name": "search", "stage_type": "filter", "config": {"stage_id": "feature_search", "parameters": SEARCH}}


def says(prompt: str, request: dict[str, Any]) -> Any:
    if "keep" in str(request.get("response_format")):
        return {"keep": "car" in prompt.partition("Document:")[2], "reason": "r"}
    return "vehicle" if "search queries" in prompt else echo(prompt, request)


TYPED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "rerank": (mixpeek.StageParamsRerank, {"inference_name": "late_interaction"}, "sort"),
    "json_transform": (mixpeek.StageParamsJsonTransform, {}, "apply"),
    "rag_prepare": (mixpeek.StageParamsRagPrepare, {}, "apply"),
    "llm_filter": (mixpeek.StageParamsLlmFilter, {"provider": "openai"}, "filter"),
    "llm_enrich": (mixpeek.StageParamsLlmEnrich, {}, "enrich"),
    "summarize": (mixpeek.StageParamsSummarize, {}, "reduce"),
    "query_expand": (mixpeek.StageParamsQueryExpand, {"feature_search_config": SEARCH}, "filter"),
    "api_call": (
        mixpeek.StageParamsApiCall,
        {"url": "http://127.0.0.1:1/", "allowed_domains": ["127.0.0.1"]},
        "enrich",
    ),
}


@pytest.mark.parametrize("stage_id", TYPED)
def test_typed_parameters_as_the_generated_client_writes_them(
    shop: Mixpeek, generated: Connect, openai: OpenAIServer, stage_id: str
) -> None:
    openai.chat = says
    model, chosen, stage_type = TYPED[stage_id]
    parameters = model(**chosen).to_dict()
    config = {"stage_id": stage_id, "parameters": parameters}
    stage = {"stage_name": stage_id, "stage_type": stage_type, "config": config}
    stages = [stage] if stage_id == "query_expand" else [FOUND, stage]
    retrievers = mixpeek.RetrieversApi(generated())
    body = {"retriever_name": "typed", "stages": stages, "input_schema": {"query": {"type": "string"}}}
    retrievers.create_retriever(mixpeek.CreateRetrieverRequest.from_dict(body))
    inputs = mixpeek.ExecuteRetrieverRequest(inputs={"query": "automobile"})
    answer = retrievers.execute_retriever("typed", inputs)
    count = {"rag_prepare": 1, "summarize": 1, "llm_filter": 1}.get(stage_id, 3)
    assert len(answer.documents) == count
    by_hand = shop.retrievers.execute("typed", inputs={"query": "automobile"})
    assert [found.document_id for found in by_hand.documents] == [found["document_id"] for found in answer.documents]
    openai.chat = echo


def test_every_parameter_of_the_clients_models_is_known(shop: Mixpeek) -> None:
    from app.retrieval.stages import REGISTRY

    for stage_id, (model, *_) in TYPED.items():
        stage = REGISTRY[stage_id]
        ours = {*stage.__struct_fields__, *stage.not_offered, *stage.aliases}
        assert {field.alias or name for name, field in model.model_fields.items()} - ours <= {"additional_properties"}
