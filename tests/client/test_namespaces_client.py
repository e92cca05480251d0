"""Namespaces through both official clients: what they send is taken, what they get fits their models."""

from collections.abc import Callable

import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek.exceptions import ConflictException, NotFoundException, UnprocessableEntityException

Connect = Callable[..., mixpeek.ApiClient]


@pytest.fixture
def namespaces(generated: Connect) -> mixpeek.NamespacesApi:
    return mixpeek.NamespacesApi(generated())


def test_the_generated_client_creates_changes_and_counts(namespaces: mixpeek.NamespacesApi, namespace: str) -> None:
    indexes = [{"field_name": "a.b", "type": "keyword"}, {"field_name": "t", "type": "text"}]
    body = {"namespace_name": namespace, "vector_configs": [{"name": "v", "dimension": 2}], "payload_indexes": indexes}
    made = namespaces.create_namespace(mixpeek.CreateNamespaceRequest.from_dict(body))
    assert (made.namespace_name, made.mode, made.dynamic_vector_indexes) == (namespace, "managed", False)
    assert made.namespace_id.startswith("ns_")
    assert [index.field_name for index in made.payload_indexes] == ["a.b", "t"]
    assert (made.payload_index_count, made.namespace_ready, made.document_count_complete) == (2, True, True)
    with pytest.raises(ConflictException):
        namespaces.create_namespace(mixpeek.CreateNamespaceRequest.from_dict(body))

    changes = mixpeek.PatchNamespaceRequest(namespace_name=f"{namespace}_2", description="new")
    changed = namespaces.patch_namespace(namespace, changes)
    assert (changed.namespace_name, changed.description) == (f"{namespace}_2", "new")
    update = mixpeek.UpdateNamespaceRequest(namespace_name=namespace, payload_indexes=[])
    assert namespaces.update_namespace(made.namespace_id, update).payload_indexes == []
    with pytest.raises(NotFoundException):
        namespaces.get_namespace(f"{namespace}_2")
    with pytest.raises(UnprocessableEntityException):
        namespaces.patch_namespace(namespace, mixpeek.PatchNamespaceRequest(ttl_seconds=60))

    stats = namespaces.get_namespace_stats(namespace)
    assert (stats.namespace_id, stats.document_count, stats.document_count_complete) == (made.namespace_id, 0, True)
    asked = mixpeek.NamespaceStatsBatchRequest(namespace_ids=[made.namespace_id, "no_such"])
    assert set(namespaces.get_namespace_stats_batch(asked).stats) == {made.namespace_id}
    ensured = namespaces.ensure_namespace_indexes(namespace, force_rebuild=False)
    assert (ensured["ensured"], ensured["rebuilt"]) == (["v"], [])


def test_the_generated_client_searches_and_sorts(namespaces: mixpeek.NamespacesApi, namespace: str) -> None:
    for suffix in ("b", "a"):
        namespaces.create_namespace(mixpeek.CreateNamespaceRequest(namespace_name=f"{namespace}_{suffix}"))
    wanted = mixpeek.ListNamespacesRequest(search=namespace.upper(), sort={"field": "namespace_name"})
    found = namespaces.list_namespaces(list_namespaces_request=wanted, view="summary", include_total=True)
    assert [one.namespace_name for one in found.results] == [f"{namespace}_a", f"{namespace}_b"]
    assert found.total_count == found.pagination.total == 2
    wanted = mixpeek.ListNamespacesRequest(filters={"namespace_name": f"{namespace}_b"})
    assert len(namespaces.list_namespaces(list_namespaces_request=wanted).results) == 1


def test_the_generated_client_clones(generated: Connect, namespaces: mixpeek.NamespacesApi, namespace: str) -> None:
    namespaces.create_namespace(mixpeek.CreateNamespaceRequest(namespace_name=namespace))
    resources = mixpeek.CloneNamespaceResourcesConfig(collections=True, retrievers=True)
    wanted = mixpeek.CloneNamespaceRequest(namespace_name=f"{namespace}_c", include_resources=resources)
    cloned = mixpeek.NamespaceCloneApi(generated()).clone_namespace(namespace, wanted)
    assert (cloned.status, cloned.namespace.namespace_name) == ("ready", f"{namespace}_c")
    assert cloned.cloned_resources.points == 0


def test_the_hand_written_client_needs_no_vector_configs(client: Mixpeek, namespace: str) -> None:
    made = client.namespaces.create(namespace_id=namespace)
    assert (made.mode, made.vector_configs) == ("standalone", [])
    documents = [{"document_id": "a", "vectors": {"v": [1, 2]}}, {"document_id": "b", "vectors": {"v": [2, 1]}}]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    assert client.namespaces.get(namespace).vector_configs == [{"name": "v", "dimension": 2, "metric": "cosine"}]
    clone = client.namespaces.clone(namespace, namespace_name=f"{namespace} copy")
    assert clone.cloned_resources.points == 2
    client.namespaces.delete(f"{namespace} copy")

    managed = client.namespaces.create(name=f"{namespace}_m")
    assert (managed.mode, managed.namespace_name) == ("managed", f"{namespace}_m")
    assert namespace in {one["namespace_id"] for one in client.namespaces.list()["results"]}
