"""Documents over HTTP: what was sent comes back, and what cannot be stored is refused whole."""

import json
import math
import struct

import numpy as np
import pytest

from tests.http import ROOT_KEY, Api, document, feature_search, search


def float32(values: list[float]) -> list[bytes]:
    return [struct.pack("<f", value) for value in values]


def test_a_document_comes_back_as_it_was_sent(api: Api) -> None:
    api.standalone(("v", 4, "euclidean"))
    vector = [0.1, -2.5e-7, 3.4028234e38, -0.0]
    payload = {"a": {"b": [1, 2.50, None, True]}, "name": "Ünï\ncode 🎧", "big": 12345678901234567890, "empty": {}}
    answer = api.upsert(
        [{"document_id": "d/1?x#y", "vectors": {"v": vector}, "payload": payload, "metadata": {"k": 1}}]
    )
    assert answer["inserted"] == 1
    assert answer["document_ids"] == ["d/1?x#y"]
    assert answer["consistency"]["retriever_visible"] == "immediate"

    found = api("GET", f"/namespaces/{api.namespace}/documents/d/1%3Fx%23y?return_vectors=true")
    assert found["payload"] == payload
    assert {name: found[name] for name in payload} == payload
    assert found["_internal"]["metadata"] == {"k": 1}
    assert found["collection_id"] == "_direct_upsert"
    assert float32(found["vectors"]["v"]) == float32(vector)


def test_numbers_of_a_payload_keep_their_digits(api: Api) -> None:
    api.standalone(("v", 1))
    body = (
        '{"documents": [{"document_id": "d", "vectors": {}, "payload":'
        ' {"price": 1.10, "huge": 123456789012345678901234567890.5}}]}'
    )
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    url = f"/namespaces/{api.namespace}/documents"
    assert api.http.post(f"{url}/upsert", content=body, headers=headers).status_code == 200
    text = api.http.get(f"{url}/d", headers=headers).text
    assert '"price":1.10' in text.replace(" ", "")
    assert '"huge":123456789012345678901234567890.5' in text.replace(" ", "")


def test_an_upsert_replaces_the_whole_document(api: Api) -> None:
    api.standalone(("v", 2), ("w", 2))
    api.upsert([document("d", {"v": [1, 0], "w": [0, 1]}, color="red", size=1)])
    api.upsert([document("d", {"w": [1, 1]}, color="blue")])
    found = api("GET", f"/namespaces/{api.namespace}/documents/d?return_vectors=true")
    assert found["payload"] == {"color": "blue"}
    assert found["vectors"] == {"w": [1, 1]}
    assert found["_internal"]["updated_at"] > found["_internal"]["created_at"]


def test_system_keys_in_a_payload_are_kept_under_payload(api: Api) -> None:
    api.standalone(("v", 2))
    payload = {"document_id": "mine", "score": "mine", "collection_id": 7}
    api.upsert([{"document_id": "d", "vectors": {"v": [1, 0]}, "payload": payload}])
    api.retriever("r", feature_search(search("v", [1, 0])))
    answer = api.execute("r")
    (found,) = answer["documents"]
    assert found["document_id"] == "d"
    assert found["score"] == pytest.approx(1.0)
    assert found["payload"] == payload
    assert "system keys" in answer["warnings"][0]


def test_every_offending_document_is_listed_and_nothing_is_stored(api: Api) -> None:
    api.standalone(("v", 3), ("e", 3, "euclidean"))
    good = document("good", {"v": [1, 2, 3]})
    documents = [
        good,
        document("short", {"v": [1, 2]}),
        document("unknown", {"nope": [1, 2, 3]}),
        document("zero", {"v": [0, 0, 0], "e": [0, 0, 0]}),  # a zero vector is refused under cosine only
        document("text", {"v": ["1", 2, 3]}),
        document("overflow", {"e": [1e39, 0, 0]}),
        document("nul", {}, name="a\0b"),
        document("twice", {}),
        document("twice", {}),
        document("", {}),
        document("underflow", {"v": [1e-30, 0, 0]}),
        document("sparse", {"v": {"indices": [1], "values": [1]}}),
        document("flag", {"v": [True, False, True]}),
    ]
    code, problems = api.refused("POST", f"/namespaces/{api.namespace}/documents/upsert", {"documents": documents})
    assert code == "bad_vector"
    assert problems == [
        "bad_vector@body.documents.1.vectors.v",
        "unknown_vector@body.documents.2.vectors.nope",
        "bad_vector@body.documents.3.vectors.v",
        "bad_vector@body.documents.4.vectors.v",
        "bad_vector@body.documents.5.vectors.e",
        "nul_character@body.documents.6.payload",
        "duplicate_document_id@body.documents.7.document_id",
        "duplicate_document_id@body.documents.8.document_id",
        "bad_document_id@body.documents.9.document_id",
        "bad_vector@body.documents.10.vectors.v",
        "bad_vector@body.documents.11.vectors.v",
        "bad_vector@body.documents.12.vectors.v",
    ]
    assert api("POST", "/documents/list")["results"] == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_bare_nan_and_infinity_are_listed_beside_other_problems(api: Api, value: float) -> None:
    api.standalone(("v", 2))
    body = {
        "documents": [
            document("nan", {"v": [1.0, value]}),
            document("fine", {"v": [1.0, 2.0]}),
            document("short", {"v": [1.0]}),
            document("payload", {}, price=value),
        ]
    }
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    url = f"/namespaces/{api.namespace}/documents/upsert"
    answer = api.http.post(url, content=json.dumps(body), headers=headers)
    assert answer.status_code == 422
    problems = answer.json()["error"]["details"]["validation_errors"]
    assert [p["location"][2:5] for p in problems] == [[0, "vectors", "v"], [2, "vectors", "v"], [3, "payload", "price"]]
    assert api("POST", "/documents/list")["results"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 422),
        ("[]", 422),
        ('{"documents": []}', 422),
        ('{"documents": 3}', 422),
        ('{"documents": [{"document_id": "d"}]}', 422),
        ('{"documents": [{"document_id": "d", "vectors": {}, "payload": []}]}', 422),
        ('{"documents": [{"document_id": "\\ud800", "vectors": {}}]}', 422),
        ('{"documents": [{"document_id": "d", "vectors": {}, "payload": {"\\ud800": 1}}]}', 422),
        ('{"documents": [{"document_id": "d", "vectors": {}, "payload": {"a": 1e999999}}]}', 422),
        ('{"documents": [{"document_id": "d", "vectors": {}}], "extra": 1}', 422),
        ("[" * 100_000, 422),
        (b"\xff\xfe", 422),
    ],
)
def test_malformed_bodies_are_refused_in_the_envelope(api: Api, body: str | bytes, status: int) -> None:
    api.standalone(("v", 2))
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "Content-Type": "application/json"}
    answer = api.http.post(f"/namespaces/{api.namespace}/documents/upsert", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["success"] is False
    assert answer.json()["error"]["message"]


def test_too_much_is_refused(api: Api) -> None:
    api.standalone(("v", 2))
    many = [document(str(n)) for n in range(1001)]
    path = f"/namespaces/{api.namespace}/documents/upsert"
    assert api.refused("POST", path, {"documents": many})[0] == "too_many_documents"
    assert api.refused("POST", path, {"documents": [document("d", text="x" * 2**20)]})[0] == "document_too_large"
    assert api.refused("POST", path, {"documents": [document("d", text="x" * 2**26)]}, status=413)[0]


def test_half_precision_indexes_refuse_what_they_cannot_hold(api: Api) -> None:
    api.standalone(("v", 2001, "dot"))
    api.upsert([document("fits", {"v": [65504.0] * 2001})])
    path = f"/namespaces/{api.namespace}/documents/upsert"
    assert api.refused("POST", path, {"documents": [document("d", {"v": [65505.0] * 2001})]})[0] == "bad_vector"


def test_a_list_is_walked_by_cursor(api: Api) -> None:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n:02}", {"v": [1, n]}, even=n % 2 == 0) for n in range(25)])
    seen, cursor = [], None
    while True:
        page = api("POST", "/collections/_direct_upsert/documents/list", {"page_size": 10, "cursor": cursor})
        seen += [found["document_id"] for found in page["results"]]
        cursor = page["pagination"]["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"d{n:02}" for n in range(25)]
    even = api("POST", "/documents/list", {"filters": {"even": True}, "include_total": True, "limit": 5})
    assert [found["document_id"] for found in even["results"]] == ["d00", "d02", "d04", "d06", "d08"]
    assert even["pagination"]["total"] == 13
    assert even["pagination"]["total_pages"] == 3
    assert api.refused("POST", "/documents/list", {"cursor": "%%%"})[0] == "bad_cursor"
    assert api.refused("POST", "/documents/list", {"limit": 1001})[0] == "out_of_range"


def test_a_document_is_deleted_once(api: Api) -> None:
    api.standalone(("v", 2))
    api.upsert([document("a/b"), document("c")])
    assert api("DELETE", "/collections/_direct_upsert/documents/a/b")["success"] is True
    api("DELETE", "/documents/a/b", status=404)
    api("GET", "/documents/a/b", status=404)
    api("GET", "/collections/other/documents/c", status=404)
    assert api("GET", "/documents/c")["document_id"] == "c"


def test_an_id_of_another_collection_is_not_taken_over(api: Api) -> None:
    api.standalone(("v", 2))
    api.upsert([document("d", n=1)], collection_id="first")
    body = {"documents": [document("new"), document("d", n=2)], "collection_id": "second"}
    code, _ = api.refused("POST", f"/namespaces/{api.namespace}/documents/upsert", body, status=409)
    assert code == "other_collection"
    assert [d["payload"] for d in api("POST", "/documents/list")["results"]] == [{"n": 1}]


def test_random_float32_vectors_are_bit_exact(api: Api) -> None:
    api.standalone(("v", 64, "euclidean"))
    bits = np.random.default_rng(7).integers(0, 2**32, size=(50, 64), dtype=np.uint64).astype(np.uint32)
    vectors = bits.view(np.float32)
    vectors[~np.isfinite(vectors)] = 0.5
    api.upsert([document(str(n), {"v": vector.tolist()}) for n, vector in enumerate(vectors)])
    found = api("POST", "/documents/list", {"limit": 50, "return_vectors": True})["results"]
    stored = {d["document_id"]: np.asarray(d["vectors"]["v"], dtype=np.float32) for d in found}
    for n, vector in enumerate(vectors):
        assert (stored[str(n)].view(np.uint32) == vector.view(np.uint32)).all()
