"""Vector indexes over HTTP: shown, changed while they are searched, and what searches say while one is built."""

from typing import Any

import psycopg
import pytest

from app.domain.runtime import Runtime
from app.jobs import worker
from tests.http import Api, document, feature_search, search


@pytest.fixture
def filled(api: Api) -> Api:
    configs: list[dict[str, Any]] = [
        {"name": "v", "dimension": 3},
        {"name": "a/b", "dimension": 3000, "metric": "euclidean"},
        {"name": "s", "dimension": 9, "kind": "sparse"},
        {"name": "m", "dimension": 4, "kind": "multi"},
    ]
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace, "vector_configs": configs})
    api.upsert([document(f"d{n}", {"v": [1, n, 0]}) for n in range(20)])
    api.retriever("r", feature_search(search("v", [1, 0, 0])))
    return api


def shown(api: Api, name: str = "v") -> dict[str, Any]:
    answer = api("GET", f"/namespaces/{api.namespace}/vector-indexes")
    assert answer["namespace_id"] == api.namespace
    return next(dict(index) for index in answer["results"] if index["name"] == name)


def path(api: Api, name: str = "v") -> str:
    return f"/namespaces/{api.namespace}/vector-indexes/{name}"


def test_indexes_are_shown_as_they_are(filled: Api) -> None:
    index = shown(filled)
    assert index.pop("size_bytes") > 0
    assert index == {
        "name": "v",
        "kind": "dense",
        "dimension": 3,
        "metric": "cosine",
        "index_method": "hnsw_vector",
        "index_state": "ready",
        "index_name": "documents_v_hnsw",
        "valid": True,
        "m": 16,
        "ef_construction": 64,
        "task_id": None,
    }
    sparse = shown(filled, "s")
    assert (sparse["index_method"], sparse["index_name"], sparse["valid"], sparse["m"]) == ("exact", None, True, None)


@pytest.mark.parametrize(("name", "methods"), [("v", "hnsw_halfvec"), ("a/b", "exact"), ("m", "hnsw_halfvec")])
async def test_an_index_is_changed(filled: Api, conninfo: str, runtime: Runtime, name: str, methods: str) -> None:
    before = shown(filled, name)
    made = filled("PATCH", path(filled, name), {"index_method": methods, "m": 7, "ef_construction": 33})
    assert (made["name"], made["index_method"], made["m"], made["ef_construction"]) == (name, methods, 7, 33)
    assert shown(filled, name) == before | {"task_id": made["task_id"]}
    assert filled.execute("r")["warnings"] == []
    code, _ = filled.refused("PATCH", path(filled, name), {"m": 8}, status=409)
    assert code == "index_building"
    await worker.drain(conninfo, runtime)
    after = shown(filled, name)
    assert (after["index_method"], after["index_state"], after["task_id"]) == (methods, "ready", None)
    assert (after["m"], after["ef_construction"]) == ((7, 33) if methods != "exact" else (None, None))
    assert filled.ids("r")[0] == "d0"


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("v", {}, "nothing_to_change@body"),
        ("v", {"m": 1}, "bad_type@body.m"),
        ("v", {"index_method": "ivfflat"}, "bad_type@body.index_method"),
        ("v", {"m": 40}, "out_of_range@body.ef_construction"),
        ("a/b", {"index_method": "hnsw_vector"}, "bad_index_method@body.index_method"),
        ("a/b", {"index_method": "hnsw_binary"}, "bad_index_method@body.index_method"),
        ("s", {"index_method": "hnsw_vector"}, "bad_index_method@body.index_method"),
        ("m", {"index_method": "hnsw_binary"}, "bad_index_method@body.index_method"),
        ("v", {"dimension": 4}, "extra_forbidden@body"),
    ],
)
def test_bad_changes_are_refused(filled: Api, name: str, body: Any, problem: str) -> None:
    assert filled.refused("PATCH", path(filled, name), body)[1] == [problem]


def test_what_is_not_there_is_404(filled: Api) -> None:
    filled("PATCH", path(filled, "none"), {"m": 8}, status=404)
    filled("PATCH", "/namespaces/no_such/vector-indexes/v", {"m": 8}, status=404)
    filled("GET", "/namespaces/no_such/vector-indexes", status=404)


def test_coarse_methods_come_with_a_warning(filled: Api) -> None:
    (warning,) = filled("PATCH", path(filled), {"index_method": "hnsw_binary"})["warnings"]
    assert "signs" in warning
    (warning,) = filled("PATCH", path(filled, "m"), {"index_method": "hnsw_halfvec"})["warnings"]
    assert "65504" in warning


async def test_a_search_says_that_its_index_is_being_built(filled: Api, conninfo: str, runtime: Runtime) -> None:
    with psycopg.connect(conninfo) as conn:
        conn.execute(f"DROP INDEX {filled.namespace}.documents_v_hnsw")
    ensured = filled("POST", f"/namespaces/{filled.namespace}/ensure-indexes")
    task_id = ensured["task_ids"]["v"]
    assert filled("GET", f"/tasks/{task_id}")["additional_data"]["kind"] == "build_index"

    def told() -> tuple[Any, list[str]]:
        answer = filled.execute("r")
        (found,) = answer["stage_statistics"]["stages"]["feature_search"]["metadata"]["searches"]
        assert found["plan"] == "exact"
        return found.get("index_state"), answer["warnings"]

    state, (warning,) = told()
    assert (state, "is being built" in warning) == ("building", True)
    filled("DELETE", f"/tasks/{task_id}")
    await worker.drain(conninfo, runtime)
    state, (warning,) = told()
    assert (state, "ensure-indexes" in warning) == ("failed", True)
    filled("POST", f"/namespaces/{filled.namespace}/ensure-indexes")
    await worker.drain(conninfo, runtime)
    assert told() == (None, [])


async def test_a_forced_rebuild_leaves_the_old_index_in_force_until_the_new_one_is(
    filled: Api, conninfo: str, runtime: Runtime
) -> None:
    before = shown(filled)
    answer = filled("POST", f"/namespaces/{filled.namespace}/ensure-indexes?force_rebuild=true")
    assert answer["rebuilt"] == ["v", "a/b", "m"] == list(answer["task_ids"])
    assert shown(filled) == before | {"task_id": answer["task_ids"]["v"]}
    assert filled.execute("r")["warnings"] == []
    await worker.drain(conninfo, runtime)
    after = shown(filled)
    assert after["index_name"] != before["index_name"]
    assert after | {"index_name": before["index_name"], "size_bytes": before["size_bytes"]} == before


async def test_numbers_that_half_precision_cannot_hold_are_refused_and_not_a_fault(
    filled: Api, conninfo: str, runtime: Runtime
) -> None:
    filled("PATCH", path(filled), {"index_method": "hnsw_halfvec"})
    await worker.drain(conninfo, runtime)
    body = {"documents": [document("big", {"v": [1e6, 0, 0]})]}
    assert filled.refused("POST", f"/namespaces/{filled.namespace}/documents/upsert", body)[0] == "bad_vector"
