"""Collections: made with their index or over a promoted one, refused with every problem, changed, cloned, deleted."""

from typing import Any

import pytest

from tests.content.managed import (
    SERVICE,
    bucket,
    collection,
    documents,
    ended,
    extractor,
    promoted,
    put,
    quiet,
    searched,
)
from tests.http import Api, document, feature_search, search

TWO = "The cat sat on the mat.\n\nStock markets fell sharply today."


def test_an_object_becomes_documents_that_words_find(api: Api) -> None:
    promoted(api)
    bucket_id = bucket(api)
    passed = [{"source_path": "title", "target_path": "page"}]
    made = collection(
        api,
        feature_extractor=extractor(
            input_mappings={"text": "content"},
            parameters={"split_by": "paragraphs", "chunk_size": 1},
            field_passthrough=passed,
        ),
    )
    assert made["vector_indexes"][0]["feature_uri"] == f"mixpeek://text_extractor@v1/{SERVICE}"
    stored = put(api, TWO, title="Monday")
    assert stored["status"] == "PENDING"
    assert quiet(api)["document_count"] == 2
    found = {each["chunk_index"]: each for each in documents(api)}
    assert [found[n]["text"] for n in (0, 1)] == TWO.split("\n\n")
    assert [found[n]["page"] for n in (0, 1)] == ["Monday", "Monday"]
    assert found[0]["_internal"]["metadata"] == {
        "collection_id": made["collection_id"],
        "key": "0000",
        "source_type": "bucket",
        "root_object_id": stored["object_id"],
        "root_bucket_id": bucket_id,
        "source_object_id": stored["object_id"],
    }
    uri = made["vector_indexes"][0]["feature_uri"]
    assert searched(api, "a kitten", uri)[0]["text"] == TWO.split("\n\n")[0]
    after = api("GET", f"/buckets/pages/objects/{stored['object_id']}")
    assert (after["status"], after["error"], after["document_count"]) == ("COMPLETED", None, 2)
    grouped = feature_search(search(uri, "news", mode="text"), group_by={"field": "source_object_id"})
    assert len(api("POST", "/retrievers/execute", {"stages": [grouped]})["documents"]) == 1


def test_a_promoted_index_takes_new_content_beside_what_was_upserted(api: Api) -> None:
    asked = {"inference_name": SERVICE, "inputs": {"text": "An old tale of a dog"}}
    vector = api("POST", "/inference", asked)["data"]["embeddings"][0]
    api.standalone(("text", 384))
    api.upsert([document("old", {"text": vector}, text="An old tale of a dog")])
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": SERVICE}]})
    before = api("GET", f"/namespaces/{api.namespace}")["vector_configs"]
    bucket(api)
    made = collection(
        api, feature_extractor=extractor(input_mappings={"text": "content"}, parameters={"vector_index": "text"})
    )
    assert made["vector_indexes"][0] == {
        "name": "text",
        "feature_uri": "text",
        "type": "single",
        "index": {"name": "text", "dimensions": 384, "distance": "cosine", "inference_name": SERVICE},
        "source": "namespace_vector_config",
    }
    put(api, "A new story of a puppy")
    quiet(api)
    assert {hit["text"] for hit in searched(api, "dogs")[:2]} == {"An old tale of a dog", "A new story of a puppy"}
    assert api("GET", f"/namespaces/{api.namespace}")["vector_configs"] == before
    gone = api("DELETE", "/collections/chunks?force=true")
    assert (gone["document_count"], gone["dropped_indexes"]) == (1, [])
    assert [hit["document_id"] for hit in searched(api, "dogs")] == ["old"]


def test_a_mapping_with_a_source_field_gets_its_content_there(api: Api) -> None:
    promoted(api, source_field="content.main")
    bucket(api)
    collection(
        api, feature_extractor=extractor(input_mappings={"text": "content"}, parameters={"vector_index": "text"})
    )
    put(api, "A story")
    quiet(api)
    assert [each["content"] for each in documents(api)] == [{"main": "A story"}]
    assert searched(api, "story")[0]["content"] == {"main": "A story"}


def test_collections_with_one_service_share_their_index_until_the_last_is_deleted(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    collection(api, "other")
    assert [each["name"] for each in api("GET", f"/namespaces/{api.namespace}")["vector_configs"]] == ["text", SERVICE]
    assert api("DELETE", "/collections/other?force=true")["dropped_indexes"] == []
    assert api("DELETE", "/collections/chunks")["dropped_indexes"] == []
    collection(api)
    assert api("DELETE", "/collections/chunks?force=true")["dropped_indexes"] == [SERVICE]
    assert [each["name"] for each in api("GET", f"/namespaces/{api.namespace}")["vector_configs"]] == ["text"]


def test_only_managed_namespaces_have_collections(api: Api) -> None:
    api.standalone(("text", 384))
    bucket(api)
    body = {
        "collection_name": "chunks",
        "source": {"type": "bucket", "bucket_ids": ["pages"]},
        "feature_extractor": extractor(input_mappings={"text": "content"}),
    }
    error = api("POST", "/collections", body, status=409)["error"]
    assert (error["code"], error["details"]["mode"]) == ("not_managed", "standalone")
    assert "promote" in error["message"].lower()


def test_everything_that_is_wrong_is_told_at_once(api: Api) -> None:
    promoted(api)
    bucket(api)
    body: dict[str, Any] = {
        "collection_name": "a/b",
        "source": {"type": "bucket", "bucket_ids": ["pages", "none"]},
        "feature_extractor": extractor(
            parameters={"split_by": "sentences", "chunk_overlap": 5, "chunk_size": 5, "nonsense": 1},
            input_mappings={"text": "nothing", "picture": "content"},
            field_passthrough=[{"source_path": "title", "target_path": "text"}],
        ),
    }
    code, problems = api.refused("POST", "/collections", body)
    assert code == "bad_name"
    assert set(problems) >= {
        "bad_name@body.collection_name",
        "unknown_bucket@body.source.bucket_ids.1",
        "bad_parameter@body.feature_extractor.parameters.nonsense",
    }
    body["feature_extractor"]["parameters"] = {"chunk_size": 5}
    _, problems = api.refused("POST", "/collections", body)
    at = "body.feature_extractor"
    assert set(problems) >= {
        f"unknown_field@{at}.input_mappings.text",
        f"unknown_extractor_input@{at}.input_mappings.picture",
        f"reserved_field@{at}.field_passthrough.0.target_path",
    }


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"embedding_model": "none"}, "unknown_service@body.feature_extractor.parameters.embedding_model"),
        (
            {"embedding_model": "openai_text_3_small", "vector_index": "text"},
            "other_service@body.feature_extractor.parameters.embedding_model",
        ),
        ({"vector_index": "plain"}, "text_needs_service@body.feature_extractor.parameters.vector_index"),
        ({"vector_index": "{{x}}"}, "bad_name@body.feature_extractor.parameters.vector_index"),
    ],
)
def test_an_index_takes_the_vectors_of_its_own_service_alone(
    api: Api, parameters: dict[str, Any], problem: str
) -> None:
    api.standalone(("text", 384), ("plain", 384))
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": SERVICE}]})
    bucket(api)
    body = {
        "collection_name": "chunks",
        "source": {"type": "bucket", "bucket_ids": ["pages"]},
        "feature_extractor": extractor(input_mappings={"text": "content"}, parameters=parameters),
    }
    assert api.refused("POST", "/collections", body)[1] == [problem]
    assert api("POST", "/collections/list")["results"] == []


def test_names_lead_to_one_collection(api: Api) -> None:
    promoted(api)
    bucket(api)
    api.upsert([document("d", {}, a=1)], collection_id="upserted")
    assert api("GET", "/collections/upserted/documents/d")["a"] == 1
    body = {
        "source": {"type": "bucket", "bucket_ids": ["pages"]},
        "feature_extractor": extractor(input_mappings={"text": "content"}),
    }
    for taken in ("upserted", "chunks"):
        collection(api) if taken == "chunks" else None
        error = api("POST", "/collections", {**body, "collection_name": taken}, status=409)["error"]
        assert error["code"] == "already_exists"
    api.refused("POST", "/collections", {**body, "collection_name": "_direct_upsert"})
    put(api, "A story")
    quiet(api)
    by_id = api("GET", "/collections/chunks")["collection_id"]
    assert len(documents(api, "chunks")) == len(documents(api, by_id)) == 1
    api.upsert([document("mine", {}, b=1)], collection_id="chunks")
    assert api("GET", f"/collections/{by_id}/documents/mine")["collection_id"] == by_id
    stages = [feature_search(search(SERVICE, "story", mode="text"))]
    for name, count in (("chunks", 1), (by_id, 1), ("upserted", 0)):
        found = api("POST", "/retrievers/execute", {"stages": stages, "collection_identifiers": [name]})
        assert len(found["documents"]) == count
    api("PATCH", "/collections/chunks", {"collection_name": "pieces"})
    assert len(documents(api, "pieces")) == 2
    assert documents(api, "chunks") == []


def test_a_collection_is_changed_listed_and_cloned(api: Api) -> None:
    promoted(api)
    bucket(api)
    made = collection(api, description="Pieces", metadata={"team": "red"})
    changed = api("PATCH", "/collections/chunks", {"description": None, "metadata": {"team": "blue"}})
    assert (changed["description"], changed["metadata"]) == (None, {"team": "blue"})
    assert api.refused("PATCH", "/collections/chunks", {})[0] == "nothing_to_change"
    assert api.refused("PATCH", "/collections/chunks", {"source": {"type": "bucket"}})[0] == "not_offered"
    copy = api("POST", "/collections/chunks/clone", {"collection_name": "copy", "enabled": False})
    assert copy["source_collection_id"] == made["collection_id"]
    assert copy["collection"]["feature_extractor"] == made["feature_extractor"]
    assert (copy["collection"]["enabled"], copy["collection"]["metadata"]) == (False, {"team": "blue"})
    listed = api("POST", "/collections/list", {"search": "COPY"})
    assert [each["collection_name"] for each in listed["results"]] == ["copy"]
    assert [each["collection_name"] for each in api("GET", "/collections")["results"]] == ["copy", "chunks"]
    api("GET", "/collections/none", status=404)
    assert api("GET", f"/namespaces/{api.namespace}")["collection_count"] == 2
    assert api("GET", f"/namespaces/{api.namespace}/stats")["collection_count"] == 2
    features = api("GET", "/collections/chunks/features")["features"]
    assert features[0]["feature_uri"] == f"mixpeek://text_extractor@v1/{SERVICE}"
    assert features[0]["vector_index"]["dimensions"] == 384


def test_what_was_missed_is_made_up_for(api: Api) -> None:
    promoted(api)
    bucket(api)
    before = put(api, "Stored before the collection was made")
    collection(api)
    assert quiet(api)["document_count"] == 1
    api("PATCH", "/collections/chunks", {"enabled": False})
    put(api, "Stored while it was not enabled", title="b")
    api("PATCH", f"/buckets/pages/objects/{before['object_id']}", {"title": "changed"})
    assert quiet(api)["document_count"] == 1
    api("POST", "/collections/chunks/trigger", {}, status=409)
    api("PATCH", "/collections/chunks", {"enabled": True})
    assert quiet(api)["document_count"] == 2


def test_without_auto_only_what_is_asked_for_is_made(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api, auto=False)
    first = put(api, "One", title="a")
    put(api, "Two", title="b")
    assert quiet(api)["document_count"] == 0
    asked = api("POST", "/collections/chunks/trigger", {"object_ids": [first["object_id"]]}, status=202)
    assert asked["object_count"] == 1
    assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    assert [each["text"] for each in documents(api)] == ["One"]


def test_a_bucket_that_collections_read_stays(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    error = api("DELETE", "/buckets/pages", status=409)["error"]
    assert (error["code"], error["details"]["collections"]) == ("in_use", ["chunks"])
    api("DELETE", "/collections/chunks")
    api("DELETE", "/buckets/pages")


def test_a_namespace_goes_with_all_that_it_has(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    put(api, TWO)
    quiet(api)
    asked = api("POST", "/collections/chunks/trigger", {"dedup_strategy": "force"}, status=202)
    ended(api, asked["task_id"])
    api("DELETE", f"/namespaces/{api.namespace}")
    promoted(api)
    assert api("POST", "/collections/list")["results"] == []
    assert api("POST", "/buckets/list")["results"] == []
