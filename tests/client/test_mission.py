"""The page that defines the mission, run literally with the official client: vectors first, promotion, then text."""

import asyncio
from typing import Any

import numpy as np
import pytest
from mixpeek import Mixpeek
from openai import OpenAI

from app.inference.providers.open_clip import OpenClip
from app.inference.registry import Inference
from tests.fakes import settings_of
from tests.openai_server import OpenAIServer

PRODUCTS = [
    ("prod_001", "Wireless noise-cancelling headphones with a soft headband", "audio", 299.0),
    ("prod_002", "Wireless earbuds with a charging case", "audio", 129.5),
    ("prod_003", "Portable bluetooth speaker, waterproof", "audio", 79.0),
    ("prod_004", "Studio microphone for podcasts", "audio", 149.0),
    ("prod_005", "Wireless noise-cancelling headphones stand made of oak", "furniture", 39.0),
    ("prod_006", "Mechanical keyboard with quiet switches", "computers", 119.0),
]
QUESTION = "wireless noise-cancelling headphones"
AUDIO = {"must": [{"key": "category", "match": {"value": "audio"}}]}


def by_openai(openai: OpenAIServer, texts: list[str]) -> list[list[float]]:
    """What a caller of a standalone namespace does: ask the provider for vectors."""
    with OpenAI(api_key=openai.key, base_url=openai.base_url) as provider:
        answer = provider.embeddings.create(model="text-embedding-3-small", input=texts)
    return [found.embedding for found in answer.data]


def by_minilm(texts: list[str]) -> list[list[float]]:
    vectors = asyncio.run(Inference.from_settings(settings_of()).embed("minilm_l6_v2", texts, "document"))
    found: list[list[float]] = vectors.tolist()
    return found


def products(vectors: list[list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "document_id": document_id,
            "vectors": {"text_embedding": vector},
            "payload": {"title": title, "category": category, "price": price},
        }
        for (document_id, title, category, price), vector in zip(PRODUCTS, vectors, strict=True)
    ]


def stage(input_mode: str, value: str) -> dict[str, Any]:
    search = {
        "feature_uri": "text_embedding",
        "query": {"input_mode": input_mode, "value": value},
        "top_k": 50,
        "filters": AUDIO,
    }
    parameters = {"searches": [search], "final_top_k": 10}
    return {
        "stage_name": "search",
        "stage_type": "filter",
        "config": {"stage_id": "feature_search", "parameters": parameters},
    }


BY_VECTOR = {
    "stages": [stage("vector", "{{INPUT.query_vector}}")],
    "input_schema": {"query_vector": {"type": "array", "required": True}},
}
BY_TEXT = {
    "stages": [stage("text", "{{INPUT.q}}")],
    "input_schema": {"q": {"type": "string", "required": True}},
}


def hits(answer: Any) -> list[tuple[str, float]]:
    return [(hit.document_id, hit.score) for hit in answer.documents]


@pytest.mark.parametrize("clip_is_installed", [True, False])
def test_the_page_with_openai(
    client: Mixpeek,
    namespace: str,
    openai: OpenAIServer,
    clip_is_installed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if clip_is_installed:
        monkeypatch.setattr(OpenClip, "unavailable", lambda _: None)
    made = client.namespaces.create(
        namespace_id=namespace,
        vector_configs=[{"name": "text_embedding", "dimension": 1536, "metric": "cosine"}],
    )
    assert (made.namespace_id, made.mode, made.status) == (namespace, "standalone", "active")

    stored = client.namespaces.documents.upsert(
        namespace_id=namespace, documents=products(by_openai(openai, [title for _, title, *_ in PRODUCTS]))
    )
    assert stored.inserted == len(PRODUCTS)

    retriever = client.retrievers.create(name="product_search", **BY_VECTOR)
    (question,) = by_openai(openai, [QUESTION])
    before = client.retrievers.execute(retriever.retriever_id, inputs={"query_vector": question})
    first = before.documents[0]
    assert (first.document_id, first.title, first.category, first.price) == (PRODUCTS[0][0], *PRODUCTS[0][1:])
    assert [document_id for document_id, _ in hits(before)][:2] == ["prod_001", "prod_002"]
    assert {hit.category for hit in before.documents} == {"audio"}
    assert len(before.documents) == 4

    answer = client.namespaces.promote(
        namespace_id=namespace,
        vector_mappings=[{"existing_index": "text_embedding", "inference_service": "openai_text_3_small"}],
        add_vectors=[
            {"name": "image_embedding", "dimension": 512, "metric": "cosine", "inference_service": "clip_vit_b32"}
        ],
    )
    assert answer == {
        "namespace_id": namespace,
        "previous_mode": "standalone",
        "mode": "managed",
        "status": "active",
        "vector_configs": [
            {"name": "text_embedding", "dimension": 1536, "metric": "cosine"},
            {"name": "image_embedding", "dimension": 512, "metric": "cosine"},
        ],
        "vector_inference_map": {"text_embedding": "openai_text_3_small", "image_embedding": "clip_vit_b32"},
    }
    after = client.retrievers.execute(retriever.retriever_id, inputs={"query_vector": question})
    assert after.documents == before.documents

    flipped = client.retrievers.create(retriever_name="product_search", **BY_TEXT)
    assert (flipped.retriever_id, flipped.version) == (retriever.retriever_id, 2)
    by_text = client.retrievers.execute(flipped.retriever_id, inputs={"q": QUESTION})
    assert [document_id for document_id, _ in hits(by_text)] == [document_id for document_id, _ in hits(before)]
    assert [score for _, score in hits(by_text)] == pytest.approx([score for _, score in hits(before)], abs=1e-6)
    assert by_text.documents[0].title == PRODUCTS[0][1]
    assert openai.requests[-1]["input"] == [QUESTION]


SENTENCES = {
    "chess": "Play chess against the computer, from beginner to grandmaster.",
    "mail": "Read and write electronic mail on several accounts.",
    "music": "Organise your song collection and edit the tags of audio files.",
    "photo": "Retouch photographs and remove red eyes.",
}


def test_the_page_with_the_local_service(client: Mixpeek, namespace: str) -> None:
    client.namespaces.create(
        namespace_id=namespace,
        vector_configs=[{"name": "text_embedding", "dimension": 384, "metric": "cosine"}],
    )
    vectors = dict(zip(SENTENCES, by_minilm(list(SENTENCES.values())), strict=True))
    client.namespaces.documents.upsert(
        namespace_id=namespace,
        documents=[
            {
                "document_id": name,
                "vectors": {"text_embedding": vectors[name]},
                "payload": {"title": text, "category": "audio"},
            }
            for name, text in SENTENCES.items()
        ],
    )
    retriever = client.retrievers.create(name="product_search", **BY_VECTOR)
    (asked,) = by_minilm(["a board game with kings and queens"])
    before = client.retrievers.execute(retriever.retriever_id, inputs={"query_vector": asked})
    exact = {name: float(np.dot(vector, asked)) for name, vector in vectors.items()}
    assert [name for name, _ in hits(before)] == sorted(exact, key=lambda name: -exact[name])
    assert [score for _, score in hits(before)] == pytest.approx(sorted(exact.values(), reverse=True), abs=1e-6)

    answer = client.namespaces.promote(
        namespace_id=namespace,
        vector_mappings=[{"existing_index": "text_embedding", "inference_service": "minilm_l6_v2"}],
    )
    assert answer == {
        "namespace_id": namespace,
        "previous_mode": "standalone",
        "mode": "managed",
        "status": "active",
        "vector_configs": [{"name": "text_embedding", "dimension": 384, "metric": "cosine"}],
        "vector_inference_map": {"text_embedding": "minilm_l6_v2"},
    }
    after = client.retrievers.execute(retriever.retriever_id, inputs={"query_vector": asked})
    assert after.documents == before.documents

    client.retrievers.update(retriever.retriever_id, **BY_TEXT)
    for question, expected in {
        "a board game with kings and queens": "chess",
        "tag my mp3s": "music",
        "correct a picture": "photo",
        "answer a letter from my boss": "mail",
    }.items():
        assert hits(client.retrievers.execute("product_search", inputs={"q": question}))[0][0] == expected
