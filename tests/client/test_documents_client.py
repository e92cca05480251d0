"""Documents through both official clients: changed, listed, aggregated, deleted."""

from typing import Any

import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from mixpeek.exceptions import ConflictException, NotFoundException

from tests.client.test_generated import Connect

C = "_direct_upsert"
CONFIGS = [
    {"name": "v", "dimension": 2},
    {"name": "s", "dimension": 100, "kind": "sparse"},
    {"name": "m", "dimension": 2, "kind": "multi"},
]


@pytest.fixture
def shop(client: Mixpeek, namespace: str) -> Mixpeek:
    client.namespaces.create(namespace_id=namespace, vector_configs=CONFIGS)
    documents = [
        {
            "document_id": f"d{n}",
            "vectors": {"v": [1, n], "s": {"indices": [n], "values": [0.5]}, "m": [[n, 1], [1, n]]},
            "payload": {"n": n, "kind": "ab"[n % 2], "at": f"2024-0{n + 1}-01"},
            "metadata": {"state": "new"},
        }
        for n in range(4)
    ]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    return client


@pytest.fixture
def documents(shop: Mixpeek, generated: Connect) -> mixpeek.DocumentsApi:
    return mixpeek.DocumentsApi(generated())


@pytest.fixture
def collection(shop: Mixpeek, generated: Connect) -> mixpeek.CollectionDocumentsApi:
    return mixpeek.CollectionDocumentsApi(generated())


def ids(answer: Any) -> list[str]:
    return [found.document_id for found in answer.results]


# The hand-written client


def test_documents_are_updated(shop: Mixpeek) -> None:
    changed = shop.documents.update(C, "d1", update_data={"n": 9, "metadata": {"state": None, "k": 1}})
    assert (changed.n, changed["_internal"].metadata) == (9, {"k": 1})
    updates = [{"document_id": f"d{n}", "update_data": {"metadata.state": "old", "deep.x": n}} for n in range(5)]
    answer = shop.documents.batch_update(C, updates=updates)
    assert (answer.updated_count, answer.failed_count) == (4, 1)
    assert shop.documents.get(C, "d3").deep == {"x": 3}
    assert shop.documents.get(C, "d1")["_internal"].metadata == {"k": 1, "state": "old"}
    with pytest.raises(MixpeekAPIError) as caught:
        shop.documents.update(C, "none", update_data={"n": 1})
    assert caught.value.status == 404


def test_documents_are_listed(shop: Mixpeek) -> None:
    body = {"sort": {"field": "n", "direction": "desc"}, "filters": {"metadata.state": "new"}}
    first = shop.documents.list(C, page_size=3, include_total=True, **body)
    assert (ids(first), first.pagination.total, first.total_documents) == (["d3", "d2", "d1"], 4, 4)
    assert ids(shop.documents.list(C, page_size=3, cursor=first.pagination.next_cursor, **body)) == ["d0"]
    assert ids(shop.documents.list(C, search="B")) == ["d1", "d3"]
    assert shop.documents.list(C, select=["n"]).results[0].payload == {"n": 0}
    groups = shop.documents.list(C, group_by="kind").groups
    assert [(group.group_key, group.count) for group in groups] == [("a", 2), ("b", 2)]
    found = shop.documents.list(C, return_vectors=True, page_size=2).results[1].vectors
    assert found["s"] == {"indices": [1], "values": [0.5]}
    assert (found.v, found.m) == ([1, 1], [[1, 1], [1, 1]])


def test_an_upsert_is_repeated_safely(shop: Mixpeek, namespace: str) -> None:
    def upsert(n: int) -> Any:
        options = {"idempotency_key": "k", "write_token": True}
        documents = [{"document_id": "d", "vectors": {}, "payload": {"n": n}}]
        return shop.namespaces.documents.upsert(namespace_id=namespace, documents=documents, options=options)

    assert upsert(1) == upsert(1)
    with pytest.raises(MixpeekAPIError) as caught:
        upsert(2)
    assert (caught.value.status, caught.value.detail["error"]["code"]) == (409, "idempotency_conflict")


# The generated one


def test_one_document(documents: mixpeek.DocumentsApi, collection: mixpeek.CollectionDocumentsApi) -> None:
    for change in (documents.patch_document_ns, documents.update_document_ns):
        assert change("d0", {"color": "red"}).additional_properties["color"] == "red"
    for change in (collection.patch_document, collection.update_document):
        changed = change(C, "d0", {"metadata": {"state": None, "by": "me"}})
        assert changed.internal.metadata == {"by": "me"}
    request = mixpeek.DocumentCreateRequest.from_dict(
        {"vectors": {"v": [1.0, 0.0]}, "metadata": {"k": 1}, "color": "blue"}
    )
    made = collection.create_document("shelf", request)
    assert (made.collection_id, made.internal.metadata) == ("shelf", {"k": 1})
    assert made.additional_properties["payload"] == {"color": "blue"}
    assert collection.count_documents("shelf").count == 1
    assert documents.get_document_ns(made.document_id, return_vector_names="true").additional_properties[
        "_vectors"
    ] == ["v"]
    assert collection.delete_document("shelf", made.document_id).success is True
    with pytest.raises(NotFoundException):
        collection.patch_document("shelf", made.document_id, {"a": 1})
    with pytest.raises(ConflictException):
        documents.patch_document_ns("d0", {"color.a": 1})


def test_an_access_list(collection: mixpeek.CollectionDocumentsApi) -> None:
    change = mixpeek.UpdateDocumentACLRequest(read=["anna"], public=True)
    for found in (collection.update_document_acl(C, "d1", change), collection.get_document(C, "d1")):
        assert found.internal is not None
        assert found.internal.acl is not None
        assert (found.internal.acl.read, found.internal.acl.write, found.internal.acl.public) == (["anna"], [], True)


def test_many_documents(documents: mixpeek.DocumentsApi, collection: mixpeek.CollectionDocumentsApi) -> None:
    updates = [{"document_id": "d0", "update_data": {"n": 7}}, {"document_id": "x", "update_data": {"n": 7}}]
    done = collection.batch_update(C, mixpeek.BatchUpdateDocumentsRequest.from_dict({"updates": updates}))
    assert (done.updated_count, done.failed_count) == (1, 1)
    assert [(one.document_id, one.success) for one in done.results] == [("d0", True), ("x", False)]
    filters = {"AND": [{"field": "kind", "operator": "eq", "value": "b"}]}
    body = {"filters": filters, "update_data": {"metadata.state": "seen"}}
    assert collection.batch_update(C, mixpeek.BatchUpdateDocumentsRequest.from_dict(body)).updated_count == 2
    bulk = collection.bulk_update(C, mixpeek.BulkUpdateDocumentsRequest.from_dict(body))
    assert (bulk.updated_count, bulk.status, bulk.task_id) == (2, "COMPLETED", None)
    got = documents.batch_get(mixpeek.BatchGetDocumentsRequest(document_ids=["d1", "x"]))
    assert ([one.document_id for one in got.documents], got.not_found) == (["d1"], ["x"])
    assert got.documents[0].internal.metadata == {"state": "seen"}
    gone = collection.batch_delete(C, mixpeek.BatchDeleteDocumentsRequest(document_ids=["d0", "x"], reason="a test"))
    assert (gone.deleted_count, gone.failed_count, gone.task_id) == (1, 1, None)
    gone = collection.batch_delete(C, mixpeek.BatchDeleteDocumentsRequest.from_dict({"filters": filters}))
    assert gone.deleted_count == 2
    assert ids(documents.list_documents_ns()) == ["d2"]


def test_lists(documents: mixpeek.DocumentsApi, collection: mixpeek.CollectionDocumentsApi) -> None:
    body = {"sort": {"field": "n", "direction": "desc"}, "select": ["kind"], "offset": 1, "limit": 2}
    request = mixpeek.ListDocumentsRequest.from_dict(body)
    assert ids(collection.list_documents(C, list_documents_request=request)) == ["d2", "d1"]
    assert ids(collection.list_documents_0(C, sort="n:desc", page=2, page_size=3)) == ["d0"]
    assert ids(collection.list_documents_0(C, search="A", include_total=True)) == ["d0", "d2"]
    grouped = mixpeek.ListDocumentsRequest.from_dict({"group_by": "kind", "include_total": True})
    answer = collection.list_documents(C, list_documents_request=grouped)
    assert [(group.group_key, group.count) for group in answer.groups] == [("a", 2), ("b", 2)]
    assert (answer.group_by_field, answer.pagination.total) == ("kind", 2)
    queries = [{"key": "one", "request": {"limit": 1}}, {"key": "bad", "request": {"cursor": "?"}}]
    batch = documents.list_documents_batch(mixpeek.BatchListDocumentsRequest.from_dict({"queries": queries}))
    assert ids(batch.results[0].response) == ["d0"]
    assert batch.results[1].error


def test_aggregations(collection: mixpeek.CollectionDocumentsApi) -> None:
    body = {
        "group_by": [{"field": "kind", "alias": "k"}, {"field": "at", "date_trunc": "year", "alias": "y"}],
        "aggregations": [{"function": "count", "alias": "c"}, {"function": "sum", "field": "n", "alias": "s"}],
        "having": [{"field": "c", "operator": "gte", "value": 2}],
        "range_buckets": [{"field": "n", "boundaries": [0, 10]}],
        "sort_by": "s",
    }
    answer = collection.aggregate_documents(C, mixpeek.DocumentAggregationRequest.from_dict(body))
    year = "2024-01-01T00:00:00+00:00"
    assert [(row.group, row.metrics) for row in answer.results] == [
        ({"k": "b", "y": year, "n": "0-10"}, {"c": 2, "s": 4}),
        ({"k": "a", "y": year, "n": "0-10"}, {"c": 2, "s": 2}),
    ]
    distinct = mixpeek.DistinctValuesRequest.from_dict({"field": "kind", "limit": 1})
    values = collection.distinct_document_values(C, distinct)
    assert [(one.value, one.count) for one in values.values] == [("a", 2)]
