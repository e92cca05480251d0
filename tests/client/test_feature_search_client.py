"""feature_search and maxsim_rerank, written with the official client's typed models, as they serialise them."""

import base64
from typing import Any

import pytest
from mixpeek import Mixpeek
from mixpeek.models.query import Query
from mixpeek.models.stage_defs_content_query_input import StageDefsContentQueryInput
from mixpeek.models.stage_defs_document_query_input import StageDefsDocumentQueryInput
from mixpeek.models.stage_defs_document_reference import StageDefsDocumentReference
from mixpeek.models.stage_defs_facet_field_config import StageDefsFacetFieldConfig
from mixpeek.models.stage_defs_feature_search_config import StageDefsFeatureSearchConfig
from mixpeek.models.stage_defs_feature_search_group_by import StageDefsFeatureSearchGroupBy
from mixpeek.models.stage_defs_multi_content_query_input import StageDefsMultiContentQueryInput
from mixpeek.models.stage_defs_text_query_input import StageDefsTextQueryInput
from mixpeek.models.stage_defs_vector_query_input import StageDefsVectorQueryInput
from mixpeek.models.stage_params_feature_search import StageParamsFeatureSearch
from mixpeek.models.stage_params_maxsim_rerank import StageParamsMaxsimRerank
from mixpeek.models.value2 import Value2
from mixpeek.models.value3 import Value3

from tests.data.emoji import drawing


def stage(stage_id: str, parameters: Any) -> dict[str, Any]:
    return {"stage_name": stage_id, "config": {"stage_id": stage_id, "parameters": parameters.to_dict()}}


def search(index: str, query: Any, **more: Any) -> Any:
    return StageDefsFeatureSearchConfig(feature_uri=index, query=Query(actual_instance=query), **more)


def vector(value: Any) -> Any:
    return StageDefsVectorQueryInput(value=Value3(actual_instance=value))


@pytest.fixture
def shop(client: Mixpeek, namespace: str) -> Mixpeek:
    """Indexes of three kinds, by what is written first."""
    client.namespaces.create(namespace_id=namespace)
    documents = [
        {
            "document_id": f"d{n}",
            "vectors": {"v": [1, n], "tokens": [[n, 1], [1, 0]], "sparse": {"indices": [n], "values": [1.0]}},
            "payload": {"kind": f"k{n % 2}", "title": f"lamp number {n}"},
        }
        for n in range(4)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    return client


def found(client: Mixpeek, parameters: Any, *stages: dict[str, Any], **inputs: Any) -> Any:
    client.retrievers.create(name="typed", stages=[stage("feature_search", parameters), *stages])
    return client.retrievers.run("typed", inputs=inputs)


def ids(answer: Any) -> list[str]:
    return [document.document_id for document in answer.documents]


def test_vectors_of_every_kind(shop: Mixpeek) -> None:
    multi = search("tokens", vector("{{INPUT.tokens}}"), top_k=2)
    assert ids(found(shop, StageParamsFeatureSearch(searches=[multi]), tokens=[[3, 1]])) == ["d3", "d2"]
    sparse = search("sparse", vector("{{INPUT.sparse}}"))
    answer = found(shop, StageParamsFeatureSearch(searches=[sparse]), sparse={"indices": [1, 2], "values": [1, 2]})
    assert ids(answer) == ["d2", "d1"]
    like = StageDefsDocumentQueryInput(document_ref=StageDefsDocumentReference(document_id="d3"))
    assert ids(found(shop, StageParamsFeatureSearch(searches=[search("v", like)]))) == ["d2", "d1", "d0"]
    words = StageDefsTextQueryInput(value="number 2")
    lexical = StageParamsFeatureSearch(searches=[search("v", words, lexical=True)])
    assert ids(found(shop, lexical))[0] == "d2"


def test_groups_facets_and_a_reranker(shop: Mixpeek) -> None:
    groups = StageDefsFeatureSearchGroupBy(field="kind", max_per_group=2, limit=1, output_mode="all")
    parameters = StageParamsFeatureSearch(
        searches=[
            search("v", vector([1, 0]), weight=0.5, optional=False, on_empty="skip"),
            search("v", vector([0, 1]), min_score=0.1),
        ],
        fusion="dbsf",
        group_by=groups,
        facets=[StageDefsFacetFieldConfig(key="kind", limit=5)],
        hard_timeout_ms=5_000,
    )
    answer = found(shop, parameters)
    assert answer["facets"] == [{"key": "kind", "values": [{"value": "k0", "count": 2}, {"value": "k1", "count": 2}]}]
    assert len(answer.documents) == 1
    assert [document["kind"] for document in answer.documents[0]["group_documents"]] == ["k1", "k1"]
    rerank = StageParamsMaxsimRerank(feature_uri="tokens", query="{{INPUT.q}}", top_n=2, missing="drop")
    near = StageParamsFeatureSearch(searches=[search("v", vector([1, 0]))])
    assert ids(found(shop, near, stage("maxsim_rerank", rerank), q=[[1, 1]])) == ["d1", "d0", "d2", "d3"]


def test_several_contents(shop: Mixpeek) -> None:
    several = StageDefsMultiContentQueryInput(values=["{{INPUT.one}}", "{{INPUT.other}}"])
    parameters = StageParamsFeatureSearch(searches=[search("v", several)], final_top_k=1)
    assert ids(found(shop, parameters, one=[1, 0], other=[0, 1])) == ["d1"]


def test_an_image_finds_its_like_and_words_find_it(client: Mixpeek, namespace: str) -> None:
    names = ["guitar", "snowman", "red apple"]
    images = [base64.b64encode(drawing(name)).decode() for name in names]
    body = {"inference_name": "emoji_minilm", "inputs": {"images": images}}
    vectors = client._request("POST", "/inference", body=body).data.embeddings
    client.namespaces.create(
        namespace_id=namespace, vector_configs=[{"name": "image", "dimension": 384, "metric": "cosine"}]
    )
    documents = [
        {"document_id": name, "vectors": {"image": vector}, "payload": {}}
        for name, vector in zip(names, vectors, strict=True)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    mapping = [{"existing_index": "image", "inference_service": "emoji_minilm"}]
    client.namespaces.promote(namespace_id=namespace, vector_mappings=mapping)
    content = StageDefsContentQueryInput(value=Value2(actual_instance="{{INPUT.q}}"))
    image = search("image", content, top_k=1)
    assert ids(found(client, StageParamsFeatureSearch(searches=[image]), q=f"data:image/png;base64,{images[1]}")) == [
        "snowman"
    ]
    words = search("image", StageDefsTextQueryInput(value="{{INPUT.q}}"), top_k=1)
    assert ids(found(client, StageParamsFeatureSearch(searches=[words]), q="fruit")) == ["red apple"]
