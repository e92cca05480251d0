"""Namespaces without declared vectors: the first vectors of a name make its config."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql

from app.domain.catalog import schema_on_write
from tests.http import ROOT_KEY, Api, document, feature_search, search


@pytest.fixture
def dynamic(api: Api) -> Api:
    made = api("POST", "/namespaces/standalone", {"namespace_id": api.namespace})
    assert made["vector_configs"] == []
    return api


def configs(api: Api) -> list[tuple[str, int, str]]:
    found = api("GET", f"/namespaces/{api.namespace}")
    return [(c["name"], c["dimension"], c["metric"]) for c in found["vector_configs"]]


def indexes(conninfo: str, namespace: str) -> dict[str, tuple[str, bool]]:
    query = """
        SELECT name, index_state, EXISTS (SELECT 1 FROM pg_indexes i
            WHERE i.schemaname = n.schema_name AND i.indexname = index_name)
        FROM pgretrieve.vector_configs c JOIN pgretrieve.namespaces n USING (namespace_id) WHERE namespace_id = %s"""
    with psycopg.connect(conninfo) as conn:
        return {name: (state, there) for name, state, there in conn.execute(query, [namespace])}


def test_new_names_become_indexes_that_are_searched(dynamic: Api, conninfo: str) -> None:
    documents = [document("a", {"v": [1, 0]}), document("b", {"w": [1, 2, 3], "v": [0, 1]}), document("c")]
    dynamic.upsert(documents)
    assert configs(dynamic) == [("v", 2, "cosine"), ("w", 3, "cosine")]
    assert indexes(conninfo, dynamic.namespace) == {"v": ("ready", True), "w": ("ready", True)}
    dynamic.retriever("near", feature_search(search("v", [1, 0])))
    assert dynamic.ids("near") == ["a", "b"]
    dynamic.upsert([document("d", {"x": [1]})])
    assert [name for name, *_ in configs(dynamic)] == ["v", "w", "x"]
    dynamic.retriever("x", feature_search(search("x", [2])))
    assert dynamic.ids("x") == ["d"]
    dynamic.promote({"vector_mappings": [], "add_vectors": [{"name": "y", "dimension": 2}]})
    dynamic.upsert([document("e", {"z": [1, 2], "y": [1, 2]})])
    assert [name for name, *_ in configs(dynamic)] == ["v", "w", "x", "y", "z"]


def test_what_a_retriever_asks_for_may_come_later(dynamic: Api) -> None:
    dynamic.upsert([document("a", {"v": [1, 0]})])
    near = feature_search(search("w", [1, 1]))
    assert dynamic.refused("POST", "/retrievers", {"retriever_name": "w", "stages": [near]})[0] == "unknown_index"
    dynamic.upsert([document("b", {"w": [1, 0]})])
    dynamic.retriever("w", near)
    assert dynamic.ids("w") == ["b"]


def test_the_kind_is_told_by_the_shape(dynamic: Api) -> None:
    vectors = {"d": [1, 2], "m": [[1, 2, 3], [4, 5, 6]], "s": {"indices": [3, 70000], "values": [0.5, 1.5]}}
    dynamic.upsert([document("a", vectors)])
    assert {name: metric for name, _, metric in configs(dynamic)} == {"d": "cosine", "m": "cosine", "s": "dot"}
    found = dynamic("GET", "/documents/a?return_vectors=true")["vectors"]
    assert found == vectors


def test_declared_vectors_stay_as_they_are(api: Api) -> None:
    api.standalone(("v", 2))
    body = {"documents": [document("a", {"w": [1, 2]})]}
    assert api.refused("POST", f"/namespaces/{api.namespace}/documents/upsert", body)[0] == "unknown_vector"


@pytest.mark.parametrize(
    ("documents", "problems"),
    [
        (
            [{"v": [1, 2]}, {"v": [1, 2, 3]}, {"v": [3, 4]}, {"v": [[1, 2]]}, {"known": [1]}],
            [
                "inconsistent_vectors@body.documents.1.vectors.v",
                "inconsistent_vectors@body.documents.3.vectors.v",
                "bad_vector@body.documents.4.vectors.known",
            ],
        ),
        ([{"v": []}], ["bad_vector@body.documents.0.vectors.v"]),
        (
            [{"v": "text"}, {"v": None}],
            ["bad_vector@body.documents.0.vectors.v", "bad_vector@body.documents.1.vectors.v"],
        ),
        ([{"v": [0, 0]}], ["bad_vector@body.documents.0.vectors.v"]),
        ([{"v": ["a", 1]}], ["bad_vector@body.documents.0.vectors.v"]),
        ([{"v": [1, 2]}, {"": [1]}, {"": [2]}], ["bad_name@body.documents.1.vectors."]),
        ([{"x" * 129: [1]}], [f"bad_name@body.documents.0.vectors.{'x' * 129}"]),
        ([{"v": [1] * 16_001}], ["bad_dimension@body.documents.0.vectors.v"]),
        ([{f"v{n}": [1] for n in range(64)}], ["too_many_vectors@body.documents.0.vectors.v63"]),
    ],
)
def test_bad_first_vectors_are_refused_and_nothing_is_made(dynamic: Api, documents: Any, problems: list[str]) -> None:
    dynamic.upsert([document("a", {"known": [1, 2]})])
    body = {"documents": [document(f"d{n}", vectors) for n, vectors in enumerate(documents)]}
    found = dynamic.refused("POST", f"/namespaces/{dynamic.namespace}/documents/upsert", body)[1]
    assert found == problems
    assert configs(dynamic) == [("known", 2, "cosine")]
    dynamic("GET", "/documents/d0", status=404)


def test_writers_who_bring_the_same_name_agree(dynamic: Api) -> None:
    def write(n: int) -> int:
        vectors = {"same": [n, 1], f"own{n % 3}": [1] * (n % 3 + 1)}
        body = {"documents": [document(f"d{n}-{m}", vectors) for m in range(20)]}
        headers = {"Authorization": f"Bearer {ROOT_KEY}"}
        path = f"/namespaces/{dynamic.namespace}/documents/upsert"
        return dynamic.http.post(path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(24))) == {200}
    assert sorted(configs(dynamic)) == [
        ("own0", 1, "cosine"),
        ("own1", 2, "cosine"),
        ("own2", 3, "cosine"),
        ("same", 2, "cosine"),
    ]
    assert dynamic("GET", f"/namespaces/{dynamic.namespace}")["document_count"] == 24 * 20


def test_two_dimensions_at_once_leave_one(dynamic: Api) -> None:
    def write(dimension: int) -> int:
        body = {"documents": [document(f"d{dimension}", {"v": [1] * dimension})]}
        headers = {"Authorization": f"Bearer {ROOT_KEY}"}
        path = f"/namespaces/{dynamic.namespace}/documents/upsert"
        return dynamic.http.post(path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(write, (2, 3, 4, 5)))
    assert sorted(statuses) == [200, 422, 422, 422]
    assert len(configs(dynamic)) == 1


def test_the_index_of_many_documents_is_left_to_the_job(
    dynamic: Api, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_on_write, "SMALL_TABLE", 2)
    dynamic.upsert([document(f"d{n}") for n in range(3)])
    dynamic.upsert([document("e", {"v": [1, 2]})])
    assert indexes(conninfo, dynamic.namespace) == {"v": ("building", False)}
    dynamic.retriever("near", feature_search(search("v", [1, 2])))
    assert dynamic.ids("near") == ["e"]


def test_a_lock_that_is_held_is_a_conflict(dynamic: Api, conninfo: str) -> None:
    dynamic.upsert([document("a", {"v": [1, 2]})])
    body = {"documents": [document("b", {"w": [1, 2]})]}
    with psycopg.connect(conninfo) as conn:
        conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(dynamic.namespace, "documents")))
        path = f"/namespaces/{dynamic.namespace}/documents/upsert"
        assert dynamic.refused("POST", path, body, status=409)[0] == "locked"
        dynamic.upsert([document("c", {"v": [1, 2]})])
    dynamic.upsert(body["documents"])
    assert [name for name, *_ in configs(dynamic)] == ["v", "w"]
