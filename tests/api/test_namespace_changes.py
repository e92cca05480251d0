"""Namespaces created in either mode, listed, changed, counted."""

from typing import Any

import pytest

from tests.http import Api, document, feature_search, search

UNIT = {"name": "v", "dimension": 384, "inference_service": "minilm_l6_v2"}


def create(api: Api, **body: Any) -> Any:
    return api("POST", "/namespaces", {"namespace_id": api.namespace, "namespace_name": f"{api.namespace} n", **body})


def test_a_managed_namespace_is_mapped_from_its_creation(api: Api) -> None:
    plain = {"name": "w", "dimension": 2, "metric": "dot_product"}
    made = create(api, vector_configs=[UNIT, plain], description="of mine", auto_create_indexes=True)
    assert (made["mode"], made["dynamic_vector_indexes"], made["description"]) == ("managed", False, "of mine")
    assert made["vector_inference_map"] == {"v": "minilm_l6_v2"}
    assert made["vector_configs"][1]["metric"] == "dot"
    assert made["auto_create_indexes"] is True
    assert api("GET", f"/namespaces/{api.namespace} n") == made
    api.upsert([document("d", {"w": [1, 2]})])
    api.retriever("texts", feature_search(search("v", "words", mode="text")))
    assert api.ids("texts") == []
    assert api.refused("POST", f"/namespaces/{api.namespace}/promote", status=409)[0] == "not_standalone"


def test_an_id_is_made_where_none_is_given(api: Api) -> None:
    made = api("POST", "/namespaces", {"namespace_name": f"{api.namespace} x"})
    assert made["namespace_id"].startswith("ns_")
    assert (made["mode"], made["dynamic_vector_indexes"]) == ("managed", True)
    assert api("GET", f"/namespaces/{api.namespace} x")["namespace_id"] == made["namespace_id"]


@pytest.mark.parametrize(
    ("more", "mode"),
    [
        ({}, "managed"),
        ({"vector_configs": [{"name": "v", "dimension": 2}]}, "standalone"),
        ({"vector_configs": [{"name": "v", "dimension": 2}], "mode": "managed"}, "managed"),
        ({"vector_configs": [UNIT]}, "managed"),
        ({"mode": "standalone"}, "standalone"),
    ],
)
def test_the_mode_is_inferred(api: Api, more: Any, mode: str) -> None:
    assert create(api, **more)["mode"] == mode


@pytest.mark.parametrize(
    ("more", "problems"),
    [
        ({"mode": "other"}, ["bad_mode@body.mode"]),
        ({"vector_configs": [UNIT], "mode": "standalone"}, ["bad_mode@body.vector_configs.0.inference_service"]),
        (
            {"vector_configs": [UNIT | {"dimension": 3}, {"name": "v", "dimension": 0, "inference_service": "nope"}]},
            [
                "dimension_mismatch@body.vector_configs.0.inference_service",
                "unknown_service@body.vector_configs.1.inference_service",
                "duplicate_name@body.vector_configs.1.name",
                "bad_dimension@body.vector_configs.1.dimension",
            ],
        ),
        (
            {"payload_indexes": [{"field_name": "", "type": "keyword"}, {"field_name": "a", "type": "x"}] * 2},
            [
                "bad_field@body.payload_indexes.0.field_name",
                "unknown_type@body.payload_indexes.1.type",
                "bad_field@body.payload_indexes.2.field_name",
                "duplicate_name@body.payload_indexes.2.field_name",
                "duplicate_name@body.payload_indexes.3.field_name",
                "unknown_type@body.payload_indexes.3.type",
            ],
        ),
        ({"features": ["faces"], "ttl_seconds": 60}, ["not_offered@body.features", "not_offered@body.ttl_seconds"]),
        ({"feature_extractors": [{"feature_extractor_name": "x"}]}, ["not_offered@body.feature_extractors"]),
        ({"adaptive_indexing": True}, ["not_offered@body.adaptive_indexing"]),
        ({"namespace_name": "a/b c"}, ["bad_name@body.namespace_name"]),
        ({"namespace_name": "standalone"}, ["bad_name@body.namespace_name"]),
        ({"namespace_name": " padded"}, ["bad_name@body.namespace_name"]),
        ({"namespace_name": "nul\0"}, ["bad_name@body.namespace_name"]),
        ({"namespace_name": "ab"}, ["bad_type@body.namespace_name"]),
        ({"namespace_id": "stats"}, ["bad_type@body.namespace_id"]),
        ({"namespace_id": "x\n"}, ["bad_type@body.namespace_id"]),
    ],
)
def test_bad_creations_are_refused_with_every_problem(api: Api, more: Any, problems: list[str]) -> None:
    body = {"namespace_id": api.namespace, "namespace_name": f"{api.namespace} n", **more}
    found = api.refused("POST", "/namespaces", body)[1]
    assert sorted(found) == sorted(problems)
    api("GET", f"/namespaces/{api.namespace}", status=404)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_namespace_is_renamed_and_described(api: Api, method: str) -> None:
    create(api, vector_configs=[{"name": "v", "dimension": 2}])
    api.upsert([document("d", {"v": [1, 2]})])
    api.retriever("near", feature_search(search("v", [1, 1])))
    old, new = {"X-Namespace": f"{api.namespace} n"}, {"X-Namespace": f"{api.namespace} Ümläut"}
    assert api("POST", "/retrievers/near/execute", headers=old)["documents"]

    indexes = [
        {"field_name": "b", "type": "text", "field_schema": {"type": "text"}},
        {"field_name": "a", "type": "geo"},
    ]
    changes = {"namespace_name": f"{api.namespace} Ümläut", "description": "d", "payload_indexes": indexes}
    changed = api(method, f"/namespaces/{api.namespace} n", changes)
    assert (changed["namespace_name"], changed["description"]) == (f"{api.namespace} Ümläut", "d")
    assert [index["field_name"] for index in changed["payload_indexes"]] == ["a", "b"]
    assert changed["payload_index_count"] == 2
    # The old name is free at once, also for what was cached under it; the new one holds in paths, headers and queries.
    api("POST", "/retrievers/near/execute", headers=old, status=404)
    assert api("GET", f"/namespaces/{api.namespace} Ümläut")["namespace_id"] == api.namespace
    sent = {b"Authorization": api.authorization.encode(), b"X-Namespace": new["X-Namespace"].encode()}
    assert api.http.post("/retrievers/near/execute", headers=sent).json()["documents"]
    api.http.headers["Authorization"] = api.authorization
    found = api.http.post("/retrievers/near/execute", params={"namespace": new["X-Namespace"]})
    assert found.json()["documents"]

    kept = api(method, f"/namespaces/{api.namespace}", {"description": None, "payload_indexes": []})
    assert (kept["namespace_name"], kept["description"]) == (f"{api.namespace} Ümläut", None)
    assert kept["payload_indexes"] == []
    back = api(method, f"/namespaces/{api.namespace}", {"namespace_name": api.namespace})
    assert back["namespace_name"] == api.namespace


def test_a_name_that_is_taken_is_a_conflict_and_changes_nothing(api: Api) -> None:
    create(api)
    other = api("POST", "/namespaces", {"namespace_name": f"{api.namespace} other"})
    changes = {"namespace_name": f"{api.namespace} other", "description": "x"}
    assert api.refused("PATCH", f"/namespaces/{api.namespace}", changes, status=409)[0] == "already_exists"
    changes["namespace_name"] = other["namespace_id"]
    assert api.refused("PATCH", f"/namespaces/{api.namespace}", changes, status=409)[0] == "already_exists"
    assert api("GET", f"/namespaces/{api.namespace} n")["description"] is None


def test_what_a_patch_cannot_do_is_said(api: Api) -> None:
    create(api)
    path = f"/namespaces/{api.namespace}"
    assert api.refused("PATCH", path, {"ttl_seconds": 60, "pinned": True})[1] == [
        "not_offered@body.pinned",
        "not_offered@body.ttl_seconds",
    ]
    assert api.refused("PATCH", path, {"surprise": 1})[1] == ["extra_forbidden@body"]
    api("PATCH", "/namespaces/no_such", {"description": "x"}, status=404)


@pytest.fixture
def three(api: Api) -> Api:
    for n, name in enumerate(("Beta", "alpha", "Gamma")):
        body = {"namespace_id": f"{api.namespace}_{n}", "namespace_name": f"{api.namespace}{name}"}
        api("POST", "/namespaces", {**body, "description": f"{name} 100%", "mode": "standalone" if n else "managed"})
    return api


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"search": "ALPHA"}, [1]),
        ({"search": "ALPHA", "case_sensitive": True}, []),
        ({"search": "a 100%"}, [0, 1, 2]),
        ({"search": "%a"}, []),
        ({"filters": {"mode": "MANAGED"}}, [0]),
        ({"filters": {"mode": "MANAGED"}, "case_sensitive": True}, []),
        ({"filters": {"NOT": [{"field": "mode", "operator": "eq", "value": "managed"}]}}, [1, 2]),
        ({"filters": {"must": [{"key": "namespace_name", "match": {"substring": "gam"}}]}}, [2]),
        ({"sort": {"field": "namespace_name", "direction": "desc"}}, None),
        ({"sorts": [{"field": "created_at", "direction": "desc"}]}, [2, 1, 0]),
        ({"sort": {"field": "mode"}}, [0, 1, 2]),
    ],
)
def test_namespaces_are_found_and_sorted(three: Api, asked: Any, expected: list[int] | None) -> None:
    ours = {"field": "namespace_id", "operator": "starts_with", "value": three.namespace}
    filters = {"AND": [ours, *([asked["filters"]] if "filters" in asked else [])]}
    for size in (1, 2, 10):
        found: list[str] = []
        cursor = None
        while True:
            body = {**asked, "filters": filters, "page_size": size, "cursor": cursor}
            page = three("POST", "/namespaces/list?include_total=true", body)
            found += [namespace["namespace_id"] for namespace in page["results"]]
            cursor = page["pagination"]["next_cursor"]
            if cursor is None:
                break
        assert page["pagination"]["total"] == page["total_count"] == len(found) == len(set(found))
        if expected is not None:
            assert found == [f"{three.namespace}_{n}" for n in expected]


def test_a_summary_leaves_out_what_is_long(three: Api) -> None:
    ours = {"filters": {"namespace_id": f"{three.namespace}_0"}}
    (whole,) = three("POST", "/namespaces/list", ours)["results"]
    assert whole["vector_configs"] == []
    (short,) = three("POST", "/namespaces/list?view=summary", ours)["results"]
    assert (short["vector_configs"], short["payload_indexes"], short["payload_index_count"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"sort": {"field": "settings"}}, "bad_sort"),
        ({"sort": {"field": "mode", "direction": "up"}}, "bad_sort"),
        ({"sort": {"field": {}}}, "bad_sort"),
        ({"sorts": [{"field": "mode"}, {"field": "namespace_id"}]}, "bad_sort"),
        ({"filters": {"field": "mode", "operator": "nope", "value": 1}}, "unknown_operator"),
        ({"search": "\0"}, "nul_character"),
        ({"cursor": "eA"}, "bad_cursor"),
        ({"sort": {"field": "created_at"}, "cursor": "WyJhIiwiYiJd"}, "bad_cursor"),
        ({"limit": 1001}, "out_of_range"),
    ],
)
def test_bad_lists_are_refused(api: Api, body: Any, code: str) -> None:
    assert api.refused("POST", "/namespaces/list", body)[0] == code


def test_stats_count_documents(api: Api) -> None:
    create(api)
    api.upsert([document("a"), document("b")])
    stats = api("GET", f"/namespaces/{api.namespace} n/stats")
    assert stats == {
        "namespace_id": api.namespace,
        "document_count": 2,
        "document_count_complete": True,
        "bucket_count": 0,
        "collection_count": 0,
        "object_count": 0,
    }
    asked = [api.namespace, f"{api.namespace} n", "no_such", "nul\0"]
    found = api("POST", "/namespaces/stats/batch", {"namespace_ids": asked})
    assert found == {"stats": {api.namespace: stats, f"{api.namespace} n": stats}}
    assert api.refused("POST", "/namespaces/stats/batch", {"namespace_ids": ["x"] * 101})[0] == "bad_type"
