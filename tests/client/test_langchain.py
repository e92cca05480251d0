"""langchain-mixpeek, unchanged: the only thing it is told is where the server is."""

import json
from typing import Any

import pytest
from mixpeek import Mixpeek

from tests.http import ROOT_KEY

pytestmark = pytest.mark.filterwarnings("ignore")  # langchain's own, and the connections that it leaves open

TEXTS = ["a bird of prey", "a fast red car", "a small green boat"]


@pytest.fixture
def retriever_id(client: Mixpeek, namespace: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A promoted namespace with a retriever of texts, where langchain-mixpeek will find it."""
    monkeypatch.setattr(Mixpeek, "DEFAULT_BASE_URL", f"{base_url}/v1")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "text", "dimension": 384}])
    mapping = {"existing_index": "text", "inference_service": "minilm_l6_v2"}
    client.namespaces.promote(namespace, vector_mappings=[mapping])
    body = {"inference_name": "minilm_l6_v2", "inputs": {"texts": TEXTS}}
    embedded = client._request("POST", "/inference", body=body).data.embeddings
    documents = [
        {
            "document_id": f"d{n}",
            "vectors": {"text": embedded[n]},
            "payload": {"text": text, "n": n, "metadata": {"file_name": f"{n}.txt"}},
        }
        for n, text in enumerate(TEXTS)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    search = {"feature_uri": "text", "query": {"input_mode": "text", "value": "{{INPUT.query}}"}}
    stage = {"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": {"searches": [search]}}}
    schema = {"query": {"type": "text", "required": True}}
    made = client.retrievers.create(retriever_name="texts", stages=[stage], input_schema=schema)
    return str(made.retriever_id)


def test_its_retriever(retriever_id: str, namespace: str) -> None:
    from langchain_mixpeek import MixpeekRetriever

    retriever = MixpeekRetriever(api_key=ROOT_KEY, retriever_id=retriever_id, namespace=namespace, top_k=2)
    found = retriever.invoke("eagle")
    assert found[0].page_content == TEXTS[0]
    assert len(found) == 2
    assert found[0].metadata["document_id"] == "d0"
    assert 0 < found[0].metadata["score"] <= 1
    assert found[0].metadata["file_name"] == "0.txt"


def test_its_filters(retriever_id: str, namespace: str) -> None:
    from langchain_mixpeek import MixpeekRetriever

    filters = {"AND": [{"field": "n", "operator": "gte", "value": 1}]}
    retriever = MixpeekRetriever(api_key=ROOT_KEY, retriever_id=retriever_id, namespace=namespace, filters=filters)
    assert {document.metadata["document_id"] for document in retriever.invoke("eagle")} == {"d1", "d2"}


async def test_its_asynchronous_retriever(retriever_id: str, namespace: str) -> None:
    from langchain_mixpeek import AsyncMixpeekRetriever

    retriever = AsyncMixpeekRetriever(api_key=ROOT_KEY, retriever_id=retriever_id, namespace=namespace, top_k=1)
    (found,) = await retriever.ainvoke("automobile")
    assert found.page_content == TEXTS[1]


def test_its_tool(retriever_id: str, namespace: str) -> None:
    from langchain_mixpeek import MixpeekTool

    tool: Any = MixpeekTool(api_key=ROOT_KEY, retriever_id=retriever_id, namespace=namespace, top_k=1)
    (found,) = json.loads(tool.invoke("boat"))
    assert (found["document_id"], found["content"], found["source"]) == ("d2", TEXTS[2], "2.txt")


def test_its_vector_store(retriever_id: str, namespace: str) -> None:
    from langchain_mixpeek import MixpeekVectorStore

    store = MixpeekVectorStore(
        api_key=ROOT_KEY, namespace=namespace, bucket_id="none", collection_id="none", retriever_id=retriever_id
    )
    assert [document.page_content for document in store.similarity_search("eagle", k=1)] == [TEXTS[0]]
    ((found, score),) = store.similarity_search_with_score("automobile", k=1)
    assert (found.page_content, 0 < score <= 1) == (TEXTS[1], True)
