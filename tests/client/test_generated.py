"""The generated client: what it sends is taken, and our answers are what its strict models and exceptions expect."""

from collections.abc import Callable
from typing import Any

import mixpeek
import pytest
from mixpeek.exceptions import (
    ApiException,
    ConflictException,
    NotFoundException,
    UnauthorizedException,
    UnprocessableEntityException,
)

Connect = Callable[..., mixpeek.ApiClient]
COLORS = ["red", "green", "blue"]


class Sdk:
    """The generated API classes of one client, for one namespace."""

    def __init__(self, client: mixpeek.ApiClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.byo = mixpeek.BYODocumentsApi(client)
        self.namespaces = mixpeek.NamespacesApi(client)
        self.documents = mixpeek.DocumentsApi(client)
        self.collection = mixpeek.CollectionDocumentsApi(client)
        self.retrievers = mixpeek.RetrieversApi(client)

    def create(self, *vectors: dict[str, Any]) -> mixpeek.StandaloneNamespaceResponseModel:
        body = {"namespace_id": self.namespace, "vector_configs": list(vectors)}
        return self.byo.create_standalone_namespace(mixpeek.CreateStandaloneNamespaceRequestModel.from_dict(body))

    def upsert(self, body: dict[str, Any]) -> mixpeek.BYOUpsertResponse:
        return self.byo.upsert_documents_byo_namespaces(self.namespace, mixpeek.BYOUpsertRequest.from_dict(body))

    def promote(self, **body: Any) -> mixpeek.PromoteNamespaceResponseModel:
        return self.byo.promote_namespace(self.namespace, mixpeek.PromoteNamespaceRequestModel.from_dict(body))

    def retriever(self, name: str, *stages: dict[str, Any], **more: Any) -> mixpeek.RetrieverConfig:
        body = {"retriever_name": name, "stages": list(stages), **more}
        return self.retrievers.create_retriever(mixpeek.CreateRetrieverRequest.from_dict(body))

    def execute(self, name: str, **body: Any) -> mixpeek.ExecuteRetrieverResponse:
        return self.retrievers.execute_retriever(name, mixpeek.ExecuteRetrieverRequest.from_dict(body))


@pytest.fixture
def sdk(generated: Connect, namespace: str) -> Sdk:
    return Sdk(generated(), namespace)


@pytest.fixture
def shop(sdk: Sdk) -> Sdk:
    """Nine documents in a plane, in three colours, with sizes."""
    sdk.create({"name": "v", "dimension": 2})
    documents = [
        {
            "document_id": f"d{n}",
            "vectors": {"v": [1.0, float(n)]},
            "payload": {"color": COLORS[n % 3], "size": n},
            "metadata": {"batch": n // 3},
        }
        for n in range(9)
    ]
    sdk.upsert({"documents": documents, "options": {}})
    return sdk


def nearest(**more: Any) -> dict[str, Any]:
    search = {"feature_uri": "v", "query": {"input_mode": "vector", "value": "{{INPUT.v}}"}, **more}
    parameters = {"searches": [search], "final_top_k": 25}
    config = {"stage_id": "feature_search", "parameters": parameters}
    return {"stage_name": "near", "stage_type": "filter", "config": config}


def ids(answer: Any) -> list[str]:
    found = answer.documents if hasattr(answer, "documents") else [document.to_dict() for document in answer.results]
    return [document["document_id"] for document in found]


# Namespaces


def test_a_namespace_is_created_read_listed_and_deleted(sdk: Sdk) -> None:
    made = sdk.create({"name": "v", "dimension": 3, "metric": "dot_product"}, {"name": "w", "dimension": 2})
    assert (made.namespace_id, made.mode, made.status, made.document_count) == (
        sdk.namespace,
        "standalone",
        "active",
        0,
    )
    assert [config["metric"] for config in made.vector_configs] == ["dot", "cosine"]
    found = sdk.namespaces.get_namespace(sdk.namespace)
    assert (found.namespace_id, found.namespace_name, found.mode) == (sdk.namespace, sdk.namespace, "standalone")
    assert (found.document_count, found.namespace_ready, found.dynamic_vector_indexes) == (0, True, False)
    for listed in (
        sdk.namespaces.list_namespaces_get(limit=1000),
        sdk.namespaces.list_namespaces(page_size=1000, list_namespaces_request=mixpeek.ListNamespacesRequest()),
        sdk.namespaces.list_namespaces(list_namespaces_request=mixpeek.ListNamespacesRequest(limit=1000)),
    ):
        assert sdk.namespace in {namespace.namespace_id for namespace in listed.results}
        assert listed.total_count >= len(listed.results)
        assert (listed.pagination.total, listed.pagination.total_pages) == (None, None)
    counted = sdk.namespaces.list_namespaces_get(limit=1, include_total=True)
    assert counted.pagination.total == counted.pagination.total_pages == counted.total_count
    assert sdk.namespaces.delete_namespace(sdk.namespace, force=False)["success"] is True
    with pytest.raises(NotFoundException):
        sdk.namespaces.get_namespace(sdk.namespace)


def test_promotion_and_its_validation(sdk: Sdk) -> None:
    sdk.create({"name": "v", "dimension": 384}, {"name": "w", "dimension": 3})
    checked = sdk.byo.validate_promotion_namespaces_id_promote(sdk.namespace)
    assert (checked.valid, checked.current_mode, checked.errors) == (True, "standalone", [])
    assert checked.suggestions[0]["candidates"][0]["inference_service"] == "minilm_l6_v2"
    body = {
        "vector_mappings": [{"existing_index": "v", "inference_service": "minilm_l6_v2"}],
        "add_vectors": [{"name": "x", "dimension": 2}],
    }
    wanted = mixpeek.PromoteNamespaceRequestModel.from_dict(body)
    assert sdk.byo.validate_promotion_namespaces_id_promote(sdk.namespace, wanted).valid is True
    promoted = sdk.byo.promote_namespace(sdk.namespace, wanted)
    assert (promoted.previous_mode, promoted.mode, promoted.status) == ("standalone", "managed", "active")
    assert [config["name"] for config in promoted.vector_configs] == ["v", "w", "x"]
    assert promoted.vector_inference_map == {"v": "minilm_l6_v2"}
    found = sdk.namespaces.get_namespace(sdk.namespace)
    assert (found.mode, found.vector_inference_map) == ("managed", {"v": "minilm_l6_v2"})
    assert sdk.byo.validate_promotion_namespaces_id_promote(sdk.namespace).valid is False
    with pytest.raises(ConflictException) as refused:
        sdk.promote()
    assert envelope(refused.value).error.code == "not_standalone"


# Documents


def test_documents_are_upserted_and_read_by_every_path(shop: Sdk) -> None:
    stored = shop.upsert({"documents": [{"document_id": "bare", "vectors": {}}], "collection_id": "other"})
    assert (stored.inserted, stored.document_ids, stored.unsearchable_document_ids) == (1, ["bare"], ["bare"])
    assert (stored.consistency.retriever_visible, stored.write_token) == ("immediate", None)

    for found in (
        shop.documents.get_document_ns("d4", return_presigned_urls=False),
        shop.collection.get_document("_direct_upsert", "d4"),
    ):
        assert (found.document_id, found.collection_id) == ("d4", "_direct_upsert")
        assert found.additional_properties["color"] == "green"
        assert found.additional_properties["payload"] == {"color": "green", "size": 4}
        assert "vectors" not in found.additional_properties
    raw = shop.byo.get_document_byo_namespaces(shop.namespace, "d4", return_vectors=True)
    assert raw["vectors"] == {"v": [1, 4]}
    assert raw["_internal"]["metadata"] == {"batch": 1}

    deleted = shop.collection.delete_document("_direct_upsert", "d4")
    assert deleted.success is True
    with pytest.raises(NotFoundException):
        shop.documents.get_document_ns("d4")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"AND": [{"field": "color", "operator": "eq", "value": "red"}]}, [0, 3, 6]),
        ({"field": "color", "operator": "eq", "value": "red"}, [0, 3, 6]),
        ({"field": "color", "value": "red"}, [0, 3, 6]),
        ({"color": "red"}, [0, 3, 6]),
        ({"OR": [{"color": "red"}, {"field": "size", "operator": "gte", "value": 7}]}, [0, 3, 6, 7, 8]),
        ({"NOT": [{"field": "color", "operator": "in", "value": ["red", "blue"]}]}, [1, 4, 7]),
        ({"AND": [{"color": "red"}, {"OR": [{"size": 3}, {"size": 4}]}]}, [3]),
        ({"_internal.metadata.batch": 2}, [6, 7, 8]),
    ],
)
def test_typed_filters(shop: Sdk, filters: dict[str, Any], expected: list[int]) -> None:
    wanted = [f"d{n}" for n in expected]
    typed = mixpeek.LogicalOperatorInput.from_dict(filters)
    body = mixpeek.ListDocumentsRequest(filters=typed)
    assert ids(shop.collection.list_documents("_direct_upsert", list_documents_request=body)) == wanted
    of_all = mixpeek.NamespaceListDocumentsRequest(filters=typed, collection_ids=["_direct_upsert"])
    assert ids(shop.documents.list_documents_ns(namespace_list_documents_request=of_all)) == wanted
    as_text = mixpeek.LogicalOperatorInput.from_dict(filters).to_json()
    assert ids(shop.collection.list_documents_0("_direct_upsert", filters=as_text)) == wanted
    shop.retriever("near", nearest(filters=typed.to_dict()))
    assert sorted(ids(shop.execute("near", inputs={"v": [1, 0]}))) == wanted
    shop.retriever("all", nearest())
    assert sorted(ids(shop.execute("all", inputs={"v": [1, 0]}, filters=typed.to_dict()))) == wanted


@pytest.mark.parametrize("cursor", ["cursor", "next_cursor", "after"])
@pytest.mark.parametrize("method", ["list_documents", "list_documents_0"])
def test_lists_are_walked_in_the_query(shop: Sdk, method: str, cursor: str) -> None:
    walk, found = getattr(shop.collection, method), []
    at: dict[str, str] = {}
    while True:
        page = walk("_direct_upsert", page_size=4, include_total=True, **at)
        found.append(ids(page))
        assert (page.pagination.total, page.pagination.total_pages, page.pagination.page_size) == (9, 3, 4)
        assert page.total_documents == 9
        if page.pagination.next_cursor is None:
            break
        at = {cursor: page.pagination.next_cursor}
    assert found == [["d0", "d1", "d2", "d3"], ["d4", "d5", "d6", "d7"], ["d8"]]


def test_the_body_wins_over_the_query(shop: Sdk) -> None:
    page = shop.documents.list_documents_ns(
        limit=5, namespace_list_documents_request=mixpeek.NamespaceListDocumentsRequest(limit=2)
    )
    assert (ids(page), page.pagination.total, page.total_documents) == (["d0", "d1"], None, None)
    rest = shop.documents.list_documents_ns(
        limit=5,
        namespace_list_documents_request=mixpeek.NamespaceListDocumentsRequest.from_dict(
            {"cursor": page.pagination.next_cursor, "return_vectors": True}
        ),
    )
    assert ids(rest)[0] == "d2"
    assert rest.results[0].additional_properties["vectors"] == {"v": [1, 2]}


# Retrievers


def test_the_life_of_a_retriever(shop: Sdk) -> None:
    schema = {"v": {"type": "array", "items": {"type": "number"}, "required": True, "description": "the query"}}
    made = shop.retriever(
        "near", nearest(top_k=5), input_schema=schema, tags=["a"], budget_limits={"max_time_ms": 1000}
    )
    assert (made.version, made.fusion, made.collection_identifiers, made.tags) == (1, "rrf", [], ["a"])
    assert made.stages[0].parameters["searches"][0]["top_k"] == 5
    assert made.input_schema["v"].type == "array"
    for found in (shop.retrievers.get_retriever("near"), shop.retrievers.get_retriever(made.retriever_id)):
        assert (found.retriever_id, found.created_at) == (made.retriever_id, made.created_at)

    body = mixpeek.PatchRetrieverRequest(description="changed", retriever_name="nearer")
    changed = shop.retrievers.patch_retriever("near", body).retriever
    assert (changed.version, changed.description, changed.retriever_name) == (2, "changed", "nearer")

    shop.retriever("other", nearest())
    for method in (shop.retrievers.list_retrievers, shop.retrievers.list_retrievers_get):
        listed = method(limit=1)
        assert (len(listed.results), listed.total, listed.pagination.total) == (1, 2, None)
        rest = method(limit=1, after=listed.pagination.next_cursor, include_total=True)
        assert {listed.results[0].retriever_name, rest.results[0].retriever_name} == {"nearer", "other"}
        assert (rest.pagination.next_cursor, rest.pagination.total) == (None, 2)
    every = shop.retrievers.list_retrievers(list_retrievers_request=mixpeek.ListRetrieversRequest())
    assert len(every.results) == 2

    assert shop.retrievers.delete_retriever("nearer")["success"] is True
    with pytest.raises(NotFoundException):
        shop.retrievers.get_retriever("nearer")


def test_an_execution(shop: Sdk) -> None:
    made = shop.retriever("near", nearest())
    answer = shop.execute("near", inputs={"v": [1, 3]}, limit=2, consistency={"mode": "strong"})
    assert (answer.retriever_id, answer.status) == (made.retriever_id, "completed")
    assert ids(answer)[0] == "d3"
    assert answer.documents[0]["score"] == pytest.approx(1.0)
    assert (answer.documents[0]["color"], answer.documents[0]["size"]) == ("red", 3)
    assert answer.stage_statistics.stages["near"].output_count == 9
    assert (answer.pagination["returned"], answer.pagination["has_next"]) == (2, True)
    assert answer.results == answer.documents

    body = mixpeek.ExecuteRetrieverRequest(inputs={"v": [1, 3]}, return_vectors=True)
    full = shop.retrievers.execute_retriever("near", body, explain=True, include_legacy_results=False, skip_cache=True)
    assert full.results is None
    assert full.documents[0]["vectors"] == {"v": [1, 3]}
    assert "s1_feature_search" in full.explain_plan["statement"]


# Errors


def envelope(error: ApiException) -> mixpeek.ErrorResponse:
    """The body of an error, which the client has parsed itself where the status is declared."""
    parsed = mixpeek.ErrorResponse.from_json(error.body)
    assert parsed.success is False
    assert parsed.status == error.status
    assert error.data is None or error.data == parsed
    return parsed


def test_errors_are_the_clients_exceptions(sdk: Sdk, generated: Connect) -> None:
    sdk.create({"name": "v", "dimension": 2})
    with pytest.raises(ConflictException) as conflict:
        sdk.create({"name": "v", "dimension": 2})
    assert envelope(conflict.value).error.code == "already_exists"
    with pytest.raises(UnauthorizedException) as unauthorized:
        mixpeek.NamespacesApi(generated(key="nobody's")).get_namespace(sdk.namespace)
    assert envelope(unauthorized.value).error.type == "UnauthorizedError"
    with pytest.raises(NotFoundException) as missing:
        sdk.retrievers.get_retriever("nowhere")
    assert envelope(missing.value).error.details["resource"] == "retriever"
    with pytest.raises(UnprocessableEntityException) as invalid:
        sdk.upsert({"documents": [{"document_id": "d", "vectors": {"v": [1.0]}}]})
    problem = envelope(invalid.value).error.details["validation_errors"][0]
    assert (problem["type"], problem["location"]) == ("bad_vector", ["body", "documents", 0, "vectors", "v"])


def test_a_namespace_that_is_not_there_lists_no_retrievers(generated: Connect) -> None:
    listed = mixpeek.RetrieversApi(generated(namespace="nowhere")).list_retrievers()
    assert (listed.results, listed.total) == ([], 0)
    (warning,) = listed.warnings
    assert (warning.resource, warning.reason, warning.id) == ("namespace", "unresolved", "nowhere")


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"expand": ["x"]}, ["expand"]),
        (
            {"return_presigned_urls": True, "target_collection_id": "c"},
            ["return_presigned_urls", "target_collection_id"],
        ),
    ],
)
def test_what_is_not_offered_is_refused_by_name(shop: Sdk, body: dict[str, Any], places: list[str]) -> None:
    shop.retriever("near", nearest())
    with pytest.raises(UnprocessableEntityException) as refused:
        shop.execute("near", inputs={"v": [1, 0]}, **body)
    assert_not_offered(refused.value, "body", places)


def test_what_is_not_offered_is_refused_within_documents_too(shop: Sdk) -> None:
    documents = [
        {"document_id": "a", "vectors": {}},
        {"document_id": "b", "vectors": {}, "lineage_path": "a/b", "content_hash": "x"},
    ]
    with pytest.raises(UnprocessableEntityException) as refused:
        shop.upsert({"documents": documents})
    assert_not_offered(refused.value, "body.documents.1", ["lineage_path", "content_hash"])


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("get_document", {"document_id": "d1", "return_presigned_urls": True, "expand": "a"}),
        ("get_document", {"document_id": "d1", "expand": "x"}),
        ("list_documents_0", {"return_presigned_urls": True}),
    ],
)
def test_what_is_not_offered_in_a_query_is_refused_by_name(shop: Sdk, method: str, query: dict[str, Any]) -> None:
    with pytest.raises(UnprocessableEntityException) as refused:
        getattr(shop.collection, method)("_direct_upsert", **query)
    assert_not_offered(refused.value, "query", [name for name in query if name != "document_id"])


def test_what_asks_for_nothing_is_no_error(shop: Sdk) -> None:
    page = shop.collection.list_documents_0("_direct_upsert", page=1, offset=0, limit=1, return_presigned_urls=False)
    assert ids(page) == ["d0"]
    assert shop.documents.get_document_ns("d0", return_presigned_urls=False).document_id == "d0"


def assert_not_offered(error: ApiException, here: str, places: list[str]) -> None:
    parsed = envelope(error)
    assert parsed.error.code == "not_offered"
    problems = parsed.error.details["validation_errors"]
    assert {problem["type"] for problem in problems} == {"not_offered"}
    assert sorted(".".join(map(str, p["location"])) for p in problems) == sorted(f"{here}.{name}" for name in places)
