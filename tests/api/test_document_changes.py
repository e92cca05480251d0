"""Documents changed and deleted over HTTP: one, many by ids, many by a filter."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http import ROOT_KEY, Api, document

ONE = "/collections/_direct_upsert/documents"


@pytest.fixture
def stock(api: Api) -> Api:
    api.standalone(("v", 2))
    documents = [document(f"d{n}", {"v": [1, n]}, n=n, tags=["a"], deep={"x": 1, "y": {"z": n}}) for n in range(4)]
    for one in documents:
        one["metadata"] = {"state": "new", "by": {"whom": "me"}}
    api.upsert(documents)
    return api


def payload(api: Api, document_id: str) -> Any:
    return api("GET", f"/documents/{document_id}")["payload"]


def metadata(api: Api, document_id: str) -> Any:
    return api("GET", f"/documents/{document_id}")["_internal"]["metadata"]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("path", ["/documents/d1", f"{ONE}/d1"])
def test_a_patch_merges(stock: Api, method: str, path: str) -> None:
    body = {
        "n": None,
        "new": [1],
        "deep.y.z": "set",
        "made.on.the.way": True,
        "metadata": {"state": None, "seen": 1},
        "payload": {"metadata": "mine", "a.b": 2},
    }
    answer = stock(method, path, body)
    expected = {
        "n": None,
        "tags": ["a"],
        "deep": {"x": 1, "y": {"z": "set"}},
        "new": [1],
        "made": {"on": {"the": {"way": True}}},
        "metadata": "mine",
        "a.b": 2,
    }
    assert answer["payload"] == expected == payload(stock, "d1")
    assert answer["_internal"]["metadata"] == {"by": {"whom": "me"}, "seen": 1}
    assert answer["_internal"]["updated_at"] > answer["_internal"]["created_at"]
    assert stock("GET", "/documents/d1?return_vectors=true")["vectors"] == {"v": [1, 1]}
    assert payload(stock, "d2")["n"] == 2


def test_numbers_keep_their_digits_through_a_patch(api: Api) -> None:
    api.standalone(("v", 1))
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}
    text = '{"document_id": "d", "a": 1.10, "b": {"c": 12345678901234567890.5}}'
    assert api.http.post(ONE, content=text, headers=headers).is_success
    assert api.http.patch("/documents/d", content='{"b.d": 2.50, "e": 1e400}', headers=headers).is_success
    found = api.http.get("/documents/d", headers=headers).text.replace(" ", "")
    for number in ('"a":1.10', '"c":12345678901234567890.5', '"d":2.50', f'"e":1{"0" * 400}'):
        assert number in found


def test_what_a_patch_may_not_do(stock: Api) -> None:
    body = {
        "document_id": "other",
        "vectors": {"v": [0, 0]},
        "_internal": {},
        "a..b": 1,
        "metadata": 3,
        "nul": "\0",
        ".".join("a" * 17): 1,
    }
    code, problems = stock.refused("PATCH", "/documents/d1", body)
    assert code == "not_changeable"
    assert problems == [
        "not_changeable@body.document_id",
        "not_changeable@body.vectors",
        "not_changeable@body._internal",
        "bad_field@body.a..b",
        "bad_type@body.metadata",
        "nul_character@body.nul",
        "bad_field@body." + ".".join("a" * 17),
    ]
    assert stock.refused("PATCH", "/documents/d1", {"deep": 1, "deep.x": 2})[0] == "conflicting_fields"
    assert (
        stock.refused("PATCH", "/documents/d1", {"metadata": {"by": None}, "metadata.by.whom": 2})[0]
        == "conflicting_fields"
    )
    assert stock.refused("PATCH", "/documents/d1", {"n.x": 1}, status=409)[0] == "not_an_object"
    assert stock.refused("PATCH", "/documents/d1", {"tags.0": 1}, status=409)[0] == "not_an_object"
    assert stock.refused("PATCH", "/documents/d1", {"big": "x" * 2**20})[0] == "document_too_large"
    assert stock.refused("PATCH", "/documents/d1", [1])[0] == "bad_type"
    many = {f"k{n}.x": n for n in range(65)}
    assert stock.refused("PATCH", "/documents/d1", many)[0] == "out_of_range"
    many = {f"k{n}.x": n for n in range(64)}
    assert stock("PATCH", "/documents/d3", many)["payload"]["k63"] == {"x": 63}
    deep = {f"p{n}.{'x.' * 14}x": n for n in range(4)}
    assert stock("PATCH", "/documents/d3", deep)["payload"]["p3"]["x"]["x"]
    for path in ("/documents/none", "/collections/other/documents/d1"):
        assert stock.refused("PATCH", path, {"a": 1}, status=404)[0] == "not_found"
    assert payload(stock, "d1") == {"n": 1, "tags": ["a"], "deep": {"x": 1, "y": {"z": 1}}}


def test_what_is_below_a_document_is_refused_by_name(stock: Api) -> None:
    assert stock.refused("GET", f"{ONE}/d1/lineage", status=501)[0] == "not_offered"
    stock.upsert([document("d1/lineage", {}, a=1)])
    assert stock("PATCH", f"{ONE}/d1/lineage", {"a": 2})["payload"] == {"a": 2}


def test_an_access_list_is_no_document_whatever_ids_there_are(stock: Api) -> None:
    stock.upsert([document("d1/acl", {}, a=1)])
    assert stock("PATCH", f"{ONE}/d1/acl", {"public": True})["document_id"] == "d1"
    assert stock("PUT", f"{ONE}/d1/acl", {"a": 2})["payload"] == {"a": 2}


def test_a_whole_document_may_be_sent_back(stock: Api) -> None:
    found = stock("GET", f"{ONE}/d1")
    sent = {name: found[name] for name in ("document_id", "collection_id", "payload")} | {"n": 7}
    assert stock("PATCH", f"{ONE}/d1", sent)["payload"] == found["payload"] | {"n": 7}


def test_a_batch_of_updates(stock: Api) -> None:
    updates = [
        {"document_id": "d0", "update_data": {"metadata": {"k": 1}, "deep.x": 5}},
        {"document_id": "d1", "update_data": {"metadata.state": "old", "n": {"a": 1}}},
        {"document_id": "d2", "update_data": {"n.a": 1, "tags": []}},
        {"document_id": "none", "update_data": {"a": 1}},
        {"document_id": "d3", "update_data": {"payload": {"only": 1}, "metadata.x.y": 1}},
    ]
    answer = stock("POST", f"{ONE}/batch", {"updates": updates})
    assert (answer["updated_count"], answer["failed_count"]) == (3, 2)
    assert [(r["document_id"], r["success"], bool(r["error"])) for r in answer["results"]] == [
        ("d0", True, False),
        ("d1", True, False),
        ("d2", False, True),
        ("none", False, True),
        ("d3", True, False),
    ]
    assert metadata(stock, "d0") == {"k": 1}
    assert payload(stock, "d0")["deep"] == {"x": 5, "y": {"z": 0}}
    assert metadata(stock, "d1") == {"state": "old", "by": {"whom": "me"}}
    assert payload(stock, "d2") == {"n": 2, "tags": ["a"], "deep": {"x": 1, "y": {"z": 2}}}
    assert payload(stock, "d3") == {"only": 1}
    assert metadata(stock, "d3") == {"state": "new", "by": {"whom": "me"}, "x": {"y": 1}}
    twice = [{"document_id": "d0", "update_data": {"a": 1}}] * 2
    assert stock.refused("POST", f"{ONE}/batch", {"updates": twice})[0] == "duplicate_document_id"


def test_a_thousand_updates_of_many_shapes(api: Api) -> None:
    api.standalone(("v", 1))
    api.upsert([document(f"d{n:04}", {}, n=n) for n in range(1000)])
    updates = [{"document_id": f"d{n:04}", "update_data": {f"a{n % 7}.b": n, "n": -n}} for n in range(1000)]
    assert api("POST", f"{ONE}/batch", {"updates": updates})["updated_count"] == 1000
    assert payload(api, "d0999") == {"n": -999, "a5": {"b": 999}}


def test_updates_by_a_filter(stock: Api) -> None:
    stock.upsert([document("x", {}, n=0, deep="text")], collection_id="other")
    filters = {"AND": [{"field": "n", "operator": "lt", "value": 2}]}
    update = {"metadata.state": "done", "deep.x": 9}
    answer = stock("POST", f"{ONE}/batch", {"filters": filters, "update_data": update})
    assert (answer["updated_count"], answer["failed_count"]) == (2, 0)
    assert [metadata(stock, f"d{n}")["state"] for n in range(4)] == ["done", "done", "new", "new"]
    stock("PATCH", "/documents/d3", {"deep": 1})
    answer = stock("PATCH", f"{ONE}/bulk", {"update_data": {"deep.x": 0}})
    assert (answer["updated_count"], answer["failed_count"], answer["status"]) == (3, 1, "COMPLETED")
    by_metadata = {"AND": [{"field": "metadata.state", "operator": "eq", "value": "done"}]}
    assert stock("PATCH", f"{ONE}/bulk", {"filters": by_metadata, "update_data": {"n": -1}})["updated_count"] == 2
    assert payload(stock, "x") == {"n": 0, "deep": "text"}
    bodies: list[Any] = [{}, {"filters": {}, "update_data": {"a": 1}}, {"update_data": {"a": 1}}]
    for body in bodies:
        assert stock.refused("POST", f"{ONE}/batch", body)[0] in ("one_of", "empty_filter")


def test_documents_are_deleted_by_ids_and_by_filters(stock: Api) -> None:
    stock.upsert([document("x", {}, n=0)], collection_id="other")
    answer = stock("DELETE", f"{ONE}/batch", {"document_ids": ["d0", "none", "x", "d0", "a\0"], "reason": "test"})
    assert (answer["deleted_count"], answer["failed_count"]) == (1, 3)
    assert [(r["document_id"], r["success"]) for r in answer["results"]] == [
        ("d0", True),
        ("none", False),
        ("x", False),
        ("a\0", False),
    ]
    answer = stock("DELETE", f"{ONE}/batch", {"filters": {"n": 2}})
    assert (answer["deleted_count"], answer["results"], answer["task_id"]) == (1, [], None)
    assert [d["document_id"] for d in stock("POST", "/documents/list")["results"]] == ["d1", "d3", "x"]
    bodies: list[Any] = [{}, {"filters": {}}, {"document_ids": []}, {"document_ids": ["d1"], "filters": {"n": 1}}]
    for body in bodies:
        assert stock.refused("DELETE", f"{ONE}/batch", body)[0] in ("one_of", "empty_filter", "bad_type")


def test_a_document_is_created(api: Api) -> None:
    api.standalone(("v", 2))
    body = {"title": "t", "n": 1.5, "metadata": {"k": 1}, "vectors": {"mixpeek://any@v1/v": [1, 0]}, "features": None}
    made = api("POST", "/collections/c/documents", body)
    assert made["document_id"].startswith("doc_")
    assert (made["collection_id"], made["title"], made["payload"]) == ("c", "t", {"title": "t", "n": 1.5})
    found = api("GET", f"/collections/c/documents/{made['document_id']}?return_vectors=true")
    assert (found["vectors"], found["_internal"]["metadata"]) == ({"v": [1, 0]}, {"k": 1})
    api("POST", "/collections/c/documents", {"document_id": "mine", "collection_id": "c", "payload": {"score": 1}})
    again = {"document_id": "mine", "n": 1}
    assert api.refused("POST", "/collections/c/documents", again, status=409)[0] == "already_exists"
    bad = {"collection_id": "d", "source_type": "bucket", "score": 1, "a": 1, "payload": {"a": 2}, "vectors": 3}
    assert api.refused("POST", "/collections/c/documents", bad)[1] == [
        "not_offered@body.source_type",
        "bad_value@body.collection_id",
        "bad_type@body.vectors",
        "not_changeable@body.score",
        "conflicting_fields@body.a",
    ]


# Merging against a reference in Python

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)
UPDATES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c", "metadata"]), min_size=1, max_size=3).map(".".join), VALUES, max_size=4
)


class Refused(Exception):
    pass


def merged(stored: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """What `update_data` means: dotted keys set nested fields, others whole ones; the document as one object."""
    for one in update:
        if any(other.startswith(f"{one}.") for other in update):
            raise Refused("conflict")
    if not isinstance(update.get("metadata", {}), dict):
        raise Refused("type")
    result: dict[str, Any] = json.loads(json.dumps(stored))
    for name, value in update.items():
        *inner, last = name.split(".")
        at: Any = result
        for key in inner:
            if at.get(key) is None:
                at[key] = {}
            at = at[key]
            if not isinstance(at, dict):
                raise Refused("obstructed")
        at[last] = value
    return result


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=OBJECTS, metadata=OBJECTS, update=UPDATES)
def test_updates_mean_what_the_reference_says(
    merging: httpx.Client, payload: dict[str, Any], metadata: dict[str, Any], update: dict[str, Any]
) -> None:
    document = {"document_id": "d", "vectors": {}, "payload": payload, "metadata": metadata}
    namespace = merging.headers["X-Namespace"]
    assert merging.post(f"/namespaces/{namespace}/documents/upsert", json={"documents": [document]}).is_success
    body = {"updates": [{"document_id": "d", "update_data": update}]}
    answer = merging.post(f"{ONE}/batch", json=body)
    found = merging.get("/documents/d").json()
    try:
        expected = merged({**payload, "metadata": metadata}, update)
    except Refused as reason:
        assert answer.status_code == (200 if str(reason) == "obstructed" else 422), answer.text
        assert answer.status_code == 422 or answer.json()["failed_count"] == 1
        expected = {**payload, "metadata": metadata}
    else:
        assert answer.json()["updated_count"] == 1, answer.text
    assert {**found["payload"], "metadata": found["_internal"]["metadata"]} == expected


@pytest.fixture
def merging(api: Api) -> httpx.Client:
    api.standalone(("v", 1))
    api.http.headers.update({"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace})
    return api.http
