"""Indexes ensured, namespaces cloned, and both and deletion while others read and write."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from app.domain.runtime import Runtime
from app.jobs import worker
from tests.http import ROOT_KEY, Api, document, feature_search, search


@pytest.fixture
def filled(api: Api) -> Api:
    made = {"namespace_id": api.namespace, "namespace_name": f"{api.namespace} n", "description": "first"}
    configs = [{"name": "v", "dimension": 2}, {"name": "big", "dimension": 4500, "metric": "euclidean"}]
    mapped = {"name": "t", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "text"}
    indexes = [{"field_name": "a.b", "type": "keyword"}, {"field_name": "place", "type": "geo"}]
    api("POST", "/namespaces", {**made, "vector_configs": [*configs, mapped], "payload_indexes": indexes})
    api.upsert([document(f"d{n}", {"v": [1, n]}, n=n) for n in range(30)])
    api.upsert([document("other", {"big": [1.0] * 4500})], collection_id="more")
    api.retriever("near", feature_search(search("v", [1, 1])))
    api.retriever("near", feature_search(search("v", [1, 0])))
    return api


def ensure(api: Api, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = api("POST", f"/namespaces/{api.namespace} n/ensure-indexes{query}")
    return found


def states(conninfo: str, namespace: str) -> dict[str, str]:
    with psycopg.connect(conninfo) as conn:
        query = "SELECT name, index_state FROM pgretrieve.vector_configs WHERE namespace_id = %s"
        return dict(conn.execute(query, [namespace]).fetchall())


async def test_indexes_are_ensured_repaired_and_rebuilt(filled: Api, conninfo: str, runtime: Runtime) -> None:
    found = ensure(filled)
    assert (found["ensured"], found["rebuilt"], found["skipped"]) == (["v", "t", "a.b", "place"], [], ["big"])
    assert found["created"] == ["v", "t", "a.b", "place"]
    assert len(found["warnings"]) == 1

    with psycopg.connect(conninfo) as conn:
        conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(filled.namespace, "documents_v_hnsw")))
    assert ensure(filled)["rebuilt"] == ["v"]
    assert states(conninfo, filled.namespace)["v"] == "building"
    assert filled.ids("near")[0] == "d0"
    again = ensure(filled)
    assert (again["ensured"], again["rebuilt"], again["skipped"]) == (["t", "a.b", "place"], [], ["v", "big"])
    await worker.drain(conninfo, runtime)
    assert states(conninfo, filled.namespace)["v"] == "ready"
    assert ensure(filled)["ensured"] == ["v", "t", "a.b", "place"]

    with psycopg.connect(conninfo) as conn:
        query = "UPDATE pgretrieve.vector_configs SET index_state = 'failed' WHERE namespace_id = %s AND name = 't'"
        conn.execute(query, [filled.namespace])
    assert ensure(filled)["rebuilt"] == ["t"]
    await worker.drain(conninfo, runtime)
    assert ensure(filled, "?force_rebuild=true")["rebuilt"] == ["v", "t", "a.b", "place"]
    await worker.drain(conninfo, runtime)
    assert states(conninfo, filled.namespace) == {"v": "ready", "big": "ready", "t": "ready"}


def test_a_clone_has_all_of_its_source(filled: Api, conninfo: str) -> None:
    name = f"{filled.namespace} copy"
    cloned = filled("POST", f"/namespaces/{filled.namespace} n/clone", {"namespace_name": name})
    assert (cloned["status"], cloned["source_namespace_id"]) == ("ready", filled.namespace)
    assert cloned["cloned_resources"]["points"] == 31
    assert cloned["cloned_resources"]["collections"] == 2
    assert cloned["cloned_resources"]["retrievers"] == 1
    copy = cloned["namespace"]
    before = filled("GET", f"/namespaces/{filled.namespace}")
    own = ("namespace_id", "namespace_name", "created_at", "updated_at", "clone_status", "source_namespace_id")
    assert {k: v for k, v in copy.items() if k not in own} == {k: v for k, v in before.items() if k not in own}
    assert (copy["clone_status"], copy["source_namespace_id"]) == ("ready", filled.namespace)
    assert set(states(conninfo, copy["namespace_id"]).values()) == {"ready"}

    there = {"X-Namespace": name}
    source = [filled("GET", f"/documents/d{n}?return_vectors=true") for n in range(30)]
    assert [filled("GET", f"/documents/d{n}?return_vectors=true", headers=there) for n in range(30)] == source
    retriever = filled("GET", "/retrievers/near", headers=there)
    assert retriever["retriever_id"] == cloned["primary_retriever_id"]
    answer = filled("POST", "/retrievers/near/execute", {"inputs": {}}, headers=there)
    assert answer["documents"][0]["document_id"] == "d0"
    # From here on they are two.
    filled("DELETE", "/documents/d0", headers=there)
    filled("GET", "/documents/d0")
    filled("DELETE", f"/namespaces/{filled.namespace}")
    assert filled("GET", f"/namespaces/{name}")["document_count"] == 30


def test_a_clone_may_leave_things_out(filled: Api) -> None:
    body: dict[str, Any] = {"namespace_name": f"{filled.namespace}c", "description": "other"}
    body |= {"include_resources": {"collections": False, "retrievers": False}}
    cloned = filled("POST", f"/namespaces/{filled.namespace}/clone", body)
    assert (cloned["namespace"]["document_count"], cloned["namespace"]["description"]) == (0, "other")
    assert (cloned["cloned_resources"]["retrievers"], cloned["primary_retriever_id"]) == (0, None)
    assert len(cloned["namespace"]["vector_configs"]) == 3


def test_multi_vectors_and_sparse_ones_are_cloned(api: Api) -> None:
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace})
    api.upsert([document("a", {"m": [[1, 2], [3, 4]], "s": {"indices": [1], "values": [2.5]}, "d": [1]})])
    api("POST", f"/namespaces/{api.namespace}/clone", {"namespace_name": f"{api.namespace}c"})
    there = {"X-Namespace": f"{api.namespace}c"}
    read = "/documents/a?return_vectors=true"
    assert api("GET", read, headers=there)["vectors"] == api("GET", read)["vectors"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "bad_type"),
        ({"namespace_name": "a/b"}, 422, "bad_name"),
        ({"namespace_name": "x", "mode": "branch"}, 422, "not_offered"),
        ({"namespace_name": "x", "include_resources": {"taxonomies": True}}, 422, "not_offered"),
    ],
)
def test_bad_clones_are_refused(filled: Api, body: Any, status: int, code: str) -> None:
    path = f"/namespaces/{filled.namespace}/clone"
    assert filled.refused("POST", path, body, status=status)[0] == code
    assert filled.refused("POST", path, {"namespace_name": f"{filled.namespace} n"}, status=409)[0] == "already_exists"
    filled("POST", "/namespaces/no_such/clone", {"namespace_name": "x"}, status=404)


@contextmanager
def traffic(api: Api) -> Iterator[list[tuple[str, int]]]:
    """Readers and writers of the namespace, as fast as they can; their answers but for 200."""
    stop, answers = threading.Event(), list[tuple[str, int]]()
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}
    upserted = {"documents": [document("w", {"v": [1, 2]})]}
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/retrievers/near/execute", {}),
        ("GET", "/documents/d1?return_vectors=true", None),
        ("POST", f"/namespaces/{api.namespace}/documents/upsert", upserted),
        ("POST", "/documents/list", {}),
    ]

    def run(request: tuple[str, str, Any]) -> None:
        method, path, body = request
        with httpx.Client(base_url=api.http.base_url, headers=headers, timeout=30) as http:
            while not stop.is_set():
                answer = http.request(method, path, json=body)
                if answer.status_code != 200:
                    answers.append((f"{path} {answer.text}", answer.status_code))

    threads = [threading.Thread(target=run, args=[request]) for request in requests]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_namespace_in_use_is_changed_cloned_and_deleted(filled: Api) -> None:
    path = f"/namespaces/{filled.namespace}"
    with traffic(filled) as answers:
        for n in range(5):
            filled("PATCH", path, {"description": str(n), "namespace_name": f"{filled.namespace} {n}"})
            filled("POST", f"{path}/clone", {"namespace_name": f"{filled.namespace} c{n}"})
            filled("POST", f"{path}/ensure-indexes?force_rebuild=true")
        assert answers == []
        filled("DELETE", path)
    assert {status for _, status in answers} <= {404, 409}, answers[:3]


def test_a_deletion_gives_up_when_a_reader_stays(filled: Api, conninfo: str) -> None:
    path = f"/namespaces/{filled.namespace}"
    with psycopg.connect(conninfo) as conn:
        conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(filled.namespace, "documents")))
        assert filled.refused("DELETE", path, status=409)[0] == "locked"
    assert filled.ids("near")[0] == "d0"
    filled("DELETE", path)


def test_the_filters_of_a_list_take_no_templates(api: Api) -> None:
    body = {"filters": {"namespace_name": "{{INPUT.x}}"}}
    assert api.refused("POST", "/namespaces/list", body)[0] == "bad_filter"
