"""The hand-written client beyond the mission's page: every call in scope, and what its code expects of a server."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import psycopg
import pytest
import urllib3
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError

from app import service
from app.settings import Settings
from tests.http import ROOT_KEY
from tests.openai_server import OpenAIServer


@pytest.fixture
def shop(client: Mixpeek, namespace: str) -> Mixpeek:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 2}])
    documents = [{"document_id": f"d{n}", "vectors": {"v": [1, n]}, "payload": {"even": n % 2 == 0}} for n in range(5)]
    client.namespaces.documents.upsert(namespace_id=namespace, documents=documents)
    return client


def stage(**search: Any) -> dict[str, Any]:
    searches = [{"feature_uri": "v", "query": {"input_mode": "vector", "value": [1, 0]}, **search}]
    return {"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": {"searches": searches}}}


def refused(call: Any, *arguments: Any, **named: Any) -> MixpeekAPIError:
    with pytest.raises(MixpeekAPIError) as caught:
        call(*arguments, **named)
    error = caught.value
    assert isinstance(error, MixpeekAPIError)
    assert error.detail["status"] == error.status
    return error


def test_namespaces(client: Mixpeek, namespace: str) -> None:
    client.namespaces.create(namespace_id=namespace, name=f"{namespace} by name", vector_configs=[])
    assert client.namespaces.get(f"{namespace} by name").namespace_id == namespace
    listed = client.namespaces.list()
    assert listed.total_count >= len(listed.results)  # other tests' are among them
    assert [found.namespace_name for found in listed.results if found.namespace_id == namespace] == [
        f"{namespace} by name"
    ]
    assert client.namespaces.promote(namespace).mode == "managed"
    assert refused(client.namespaces.promote, namespace).status == 409
    assert client.namespaces.delete(namespace).success is True
    assert refused(client.namespaces.get, namespace).status == 404


def test_documents(shop: Mixpeek, namespace: str) -> None:
    found, cursor = [], None
    while True:
        page = shop.documents.list("_direct_upsert", page_size=2, cursor=cursor)
        found.append([document.document_id for document in page.results])
        if (cursor := page.pagination.next_cursor) is None:
            break
    assert found == [["d0", "d1"], ["d2", "d3"], ["d4"]]
    even = shop.documents.list("_direct_upsert", filters={"even": True}, include_total=True)
    assert ([document.document_id for document in even.results], even.pagination.total) == (["d0", "d2", "d4"], 3)

    shop.namespaces.documents.upsert(
        namespace_id=namespace, documents=[{"document_id": "a/b c", "vectors": {}}], collection_id="other"
    )
    assert shop.documents.get("other", "a/b c").document_id == "a/b c"
    assert shop.documents.delete("other", "a/b c").success is True
    assert refused(shop.documents.get, "other", "a/b c").status == 404


def test_retrievers(shop: Mixpeek) -> None:
    made = shop.retrievers.create(name="r", stages=[stage()], description="first")
    assert shop.retrievers.get("r") == shop.retrievers.get(made.retriever_id) == made
    changed = shop.retrievers.update("r", stages=[stage(top_k=1)]).retriever
    assert (changed.version, changed.description) == (2, "first")
    assert [hit.document_id for hit in shop.retrievers.execute("r", inputs={}).documents] == ["d0"]
    assert [found.retriever_name for found in shop.retrievers.list().results] == ["r"]
    assert shop.retrievers.delete("r").success is True
    assert shop.retrievers.list()["results"] == []


def test_search_makes_runs_and_removes_a_retriever(shop: Mixpeek, namespace: str) -> None:
    found = shop.search(
        namespace_id=namespace,
        queries=[{"vector_name": "v", "vector": [1.0, 2.0], "top_k": 3}],
        filters={"AND": [{"field": "even", "operator": "eq", "value": True}]},
    )
    assert [hit.document_id for hit in found.documents] == ["d2", "d4", "d0"]
    assert all(a.score > b.score for a, b in pairwise(found.documents))
    assert shop.retrievers.list().results == []


def test_a_call_may_name_another_namespace(shop: Mixpeek, namespace: str) -> None:
    other = f"{namespace}_b"
    shop.namespaces.create(namespace_id=other, vector_configs=[{"name": "v", "dimension": 2}])
    shop.retrievers.create(name="r", stages=[stage()], namespace_id=other)
    assert shop.retrievers.list().results == []
    assert shop.retrievers.execute("r", inputs={}, namespace=other).documents == []
    assert refused(shop.retrievers.execute, "r", inputs={}).status == 404


def test_errors_say_what_is_wrong(shop: Mixpeek, namespace: str, base_url: str) -> None:
    nan = {"document_id": "d", "vectors": {"v": [1.0, float("nan")]}}
    error = refused(shop.namespaces.documents.upsert, namespace_id=namespace, documents=[nan])
    assert (error.status, error.detail["error"]["code"]) == (422, "not_finite")
    error = refused(shop.retrievers.execute, "r", inputs={}, settings={"a": 1})
    assert (error.status, error.detail["error"]["code"]) == (422, "not_offered")
    error = refused(shop.retrievers.create, name="r", stages=[stage()], surprise=1)
    assert (error.status, error.detail["error"]["code"]) == (422, "extra_forbidden")
    assert "the keys are retriever_name, " in error.detail["error"]["message"]
    assert "visibility" not in error.detail["error"]["message"]
    stranger = Mixpeek("nobody's key", base_url=f"{base_url}/v1")
    assert refused(stranger.namespaces.list).status == 401
    stranger._http.clear()


def test_an_id_that_would_be_a_path_is_refused(client: Mixpeek) -> None:
    for taken in ("list", "standalone"):
        assert refused(client.namespaces.create, namespace_id=taken, vector_configs=[]).status == 422


def test_nothing_given_as_none_is_an_error(shop: Mixpeek) -> None:
    shop.retrievers.create(name="r", stages=[stage()], input_schema=None, collection_identifiers=None, tags=None)
    assert len(shop.retrievers.execute("r", inputs=None, filters=None, limit=None).documents) == 5
    page = shop.documents.list("_direct_upsert", cursor=None, filters=None, include_total=None)
    assert len(page.results) == 5


def test_a_service_that_needs_its_operator_is_not_asked_again(
    client: Mixpeek, namespace: str, openai: OpenAIServer
) -> None:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 1536}])
    mapping = {"existing_index": "v", "inference_service": "openai_text_3_small"}
    client.namespaces.promote(namespace, vector_mappings=[mapping])
    client.retrievers.create(name="r", stages=[stage(query={"input_mode": "text", "value": "{{INPUT.q}}"})])
    openai.statuses = [401]
    try:
        error = refused(client.retrievers.execute, "r", inputs={"q": "x"})
    finally:
        openai.statuses = []
    assert (error.status, error.detail["error"]["type"]) == (503, "ServiceUnavailableError")
    assert error.detail["error"]["details"]["retryable"] is False


def test_the_client_waits_out_a_busy_server(shop: Mixpeek, namespace: str, conninfo: str, settings: Settings) -> None:
    """With one connection in the pool, held by a write that waits for a lock, a read is told to come again."""
    busy = settings.model_copy(update={"pool_size": 1, "pool_timeout_s": 0.05})
    write = {"namespace_id": namespace, "documents": [{"document_id": "late", "vectors": {}}]}
    with service.in_background(busy, conninfo, ROOT_KEY) as url, psycopg.connect(conninfo) as holder:
        client = Mixpeek(ROOT_KEY, namespace=namespace, base_url=f"{url}/v1")
        client.namespaces.get(namespace)  # from here on the key is known without the database
        holder.execute("SELECT 1 FROM pgretrieve.namespaces WHERE namespace_id = %s FOR UPDATE", [namespace])
        with ThreadPoolExecutor() as threads:
            writing = threads.submit(client.namespaces.documents.upsert, **write)
            while not waiting(conninfo, holder):
                time.sleep(0.01)
            headers = {"Authorization": f"Bearer {ROOT_KEY}"}
            told = json.loads(
                client._http.request("GET", f"{url}/v1/namespaces/{namespace}", headers=headers, retries=False).data
            )
            reading = threads.submit(client.namespaces.get, namespace)
            time.sleep(0.3)
            holder.rollback()
            assert reading.result().document_count == 6
            assert writing.result().inserted == 1
        client._http.clear()
    assert (told["status"], told["error"]["code"]) == (503, "pool_exhausted")
    assert told["error"]["details"] == {"retryable": True, "retry_after_seconds": 1}


def waiting(conninfo: str, holder: psycopg.Connection[Any]) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    with psycopg.connect(conninfo) as conn:
        return conn.execute(query, [holder.info.backend_pid]).fetchone() != (0,)


@pytest.mark.parametrize("path", ["/namespaces", "/namespaces/", "/retrievers", "/retrievers/"])
def test_nothing_is_redirected(shop: Mixpeek, path: str) -> None:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": str(shop.namespace)}
    answer = shop._http.request("GET", f"{shop.base_url}{path}", headers=headers, redirect=False, retries=False)
    assert answer.status == 200


def test_posts_without_a_body_are_taken(shop: Mixpeek) -> None:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "Content-Type": "application/json"}
    headers |= {"X-Namespace": str(shop.namespace)}
    for path in ("/retrievers/list", "/documents/list", "/namespaces/list"):
        answer: urllib3.BaseHTTPResponse = shop._http.request("POST", f"{shop.base_url}{path}", headers=headers)
        assert answer.status == 200, answer.data
