"""Upserts of documents that embed themselves: the answer says what cannot be found yet, or waits until it can."""

import pytest

from app.domain.background import working
from app.domain.runtime import Runtime
from tests.http import Api, document, feature_search, search


@pytest.fixture
def embedding(api: Api) -> Api:
    vector = {"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
    api(
        "POST",
        "/namespaces",
        {"namespace_id": api.namespace, "namespace_name": api.namespace, "vector_configs": [vector]},
    )
    api.retriever("near", feature_search(search("text", "boats", mode="text")))
    return api


async def test_without_waiting_the_answer_says_what_is_yet_to_be_embedded(embedding: Api, runtime: Runtime) -> None:
    answer = embedding.upsert([document("a", title="A ship"), document("b", {"text": [1.0] * 384}), document("c")])
    assert answer["unsearchable_document_ids"] == ["a", "c"]
    assert answer["consistency"]["retriever_visible"] == "after_processing"
    assert answer["consistency"]["expected_visible_within_ms"] is None
    assert answer["warnings"] == ["1 document is yet to be embedded for 'text', and cannot be found there until then."]
    poll = answer["consistency"]["poll"]
    path = poll["endpoint"].removeprefix("GET /v1").format(document_id="a")
    assert embedding("GET", path)[poll["field"]] == []
    await working.do_all(runtime, embedding.namespace)
    assert embedding("GET", path)[poll["field"]] == ["text"]
    again = embedding.upsert([document("a", title="A ship", n=2)])
    assert (again["unsearchable_document_ids"], again["warnings"]) == ([], [])
    assert again["consistency"]["retriever_visible"] == "immediate"


@pytest.mark.parametrize("asked", [{"wait": True}, {"options": {"wait": True}}])
def test_with_waiting_they_are_found_at_once(embedding: Api, asked: dict[str, object]) -> None:
    answer = embedding.upsert([document("a", title="A ship"), document("c")], **asked)
    assert answer["unsearchable_document_ids"] == ["c"]
    assert answer["consistency"]["retriever_visible"] == "immediate"
    assert answer["warnings"] == []
    assert embedding.ids("near") == ["a"]


def test_what_is_refused_for_good_is_told(embedding: Api) -> None:
    answer = embedding.upsert([document("long", title="x" * 100_001), document("a", title="A ship")], wait=True)
    assert answer["unsearchable_document_ids"] == ["long"]
    (told,) = answer["warnings"]
    assert told.startswith("'long' was not embedded and is not tried again as it is: ")
    assert embedding.ids("near") == ["a"]


def test_a_repeated_request_waits_for_what_the_first_one_left(embedding: Api) -> None:
    body = {"documents": [document("a", title="A ship")], "options": {"idempotency_key": "k", "wait": True}}
    path = f"/namespaces/{embedding.namespace}/documents/upsert"
    first = embedding("POST", path, body)
    assert embedding("POST", path, body) == first
    assert first["unsearchable_document_ids"] == []
