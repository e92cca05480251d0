"""Objects: checked against their bucket's schema, with blobs of every form, kept unique, changed, listed, deleted."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.http import Api

SCHEMA: dict[str, Any] = {
    "title": {"type": "string", "required": True},
    "year": {"type": "integer", "default": 2026},
    "price": {"type": "number"},
    "day": {"type": "date"},
    "colour": {"type": "string", "enum": ["red", "blue"]},
    "size": {"type": "object", "properties": {"w": {"type": "integer", "required": True}}},
    "tags": {"type": "array", "items": {"type": "string"}},
    "photo": {"type": "image"},
    "manual": {"type": "pdf"},
    "content": {"type": "text"},
}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAMBAQDJ/pLvAAAAAElFTkSuQmCC")


@pytest.fixture
def bucket(api: Api) -> str:
    return made(api, "things")


def made(api: Api, name: str, **more: Any) -> str:
    api("GET", f"/namespaces/{api.namespace}") if more else api.standalone()
    body = {"bucket_name": name, "bucket_schema": {"properties": SCHEMA}, **more}
    return f"/buckets/{api('POST', '/buckets', body)['bucket_id']}"


def text(content: str = "words", **more: Any) -> dict[str, Any]:
    return {"property": "content", "type": "text", "data": content, **more}


def image(data: Any, **more: Any) -> dict[str, Any]:
    return {"property": "photo", "type": "image", "data": data, **more}


def bytes_of(api: Api, bucket: str, stored: dict[str, Any], n: int = 0) -> bytes:
    """Downloaded, and held to what the object says of it."""
    blob = stored["blobs"][n]
    headers = {"Authorization": api.authorization, "X-Namespace": api.namespace}
    answer = api.http.get(blob["properties"]["url"].removeprefix("/v1"), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert blob["details"]["hash"] == f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    assert blob["details"]["size_bytes"] == len(answer.content)
    return answer.content


@pytest.mark.parametrize(
    ("blob", "content", "mime"),
    [
        (text("Käse"), "Käse".encode(), "text/plain; charset=utf-8"),
        (text("data is all"), b"data is all", "text/plain; charset=utf-8"),
        ({**text(), "data": {"text": "t"}}, b"t", "text/plain; charset=utf-8"),
        (text("data:text/markdown;base64,IyBI"), b"# H", "text/markdown"),
        (text("data:,a%20b"), b"a b", "text/plain"),
        (image(base64.b64encode(PNG).decode()), PNG, None),
        (image("data:image/png;base64," + base64.b64encode(PNG).decode()), PNG, "image/png"),
        (image({"base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}), PNG, "image/png"),
        (image({"base64": base64.b64encode(PNG).decode(), "filename": "ä.png"}), PNG, "image/png"),
        ({"property": "size", "type": "object", "data": {"w": 3}}, b'{"w":3}', "application/json"),
        ({"property": "tags", "type": "array", "data": ["a"]}, b'["a"]', "application/json"),
    ],
)
def test_a_blob_is_stored_whatever_form_it_has(
    api: Api, bucket: str, blob: dict[str, Any], content: bytes, mime: str | None
) -> None:
    stored = api("POST", f"{bucket}/objects", {"title": "a", "blobs": [blob]})
    assert bytes_of(api, bucket, stored) == content
    assert stored["blobs"][0]["details"]["mime_type"] == mime
    assert stored == {**api("GET", f"{bucket}/objects/{stored['object_id']}"), "consistency": stored["consistency"]}
    assert api("GET", bucket)["total_size_bytes"] == len(content)


def test_urls_are_kept_and_not_fetched(api: Api, bucket: str) -> None:
    url = "http://127.0.0.1:1/never?asked=1"
    blobs = [image(url), image({"url": url}), {"property": "photo", "type": "image", "url": url}, text("https://a.b/c")]
    stored = api("POST", f"{bucket}/objects", {"title": "a", "blobs": blobs})
    assert [blob["properties"]["url"] for blob in stored["blobs"]] == [url, url, url, "https://a.b/c"]
    assert all(blob["details"]["size_bytes"] is None for blob in stored["blobs"])
    path = f"{bucket}/objects/{stored['object_id']}/blobs/{stored['blobs'][0]['blob_id']}"
    refused = api("GET", path, status=409)["error"]
    assert (refused["code"], refused["details"]["url"]) == ("blob_is_url", url)


def test_fields_keep_their_digits_get_defaults_and_metadata_counts(api: Api, bucket: str) -> None:
    headers = {"Authorization": api.authorization, "X-Namespace": api.namespace, "Content-Type": "application/json"}
    raw = b'{"title": "a", "price": 0.10000000000000000001, "beside": {"n": 12345678901234567890123}, "blobs": []}'
    answer = api.http.post(f"{bucket}/objects", content=raw, headers=headers)
    assert b'"price":0.10000000000000000001' in answer.content.replace(b" ", b"")
    assert b"12345678901234567890123" in answer.content
    assert answer.json()["year"] == 2026
    stored = api("POST", f"{bucket}/objects", {"metadata": {"title": "within", "x": 1}})
    assert stored["metadata"] == {"title": "within", "x": 1}
    blob = text(metadata={"title": "of the blob", "camera": "x", "object_id": "no"})
    promoted = api("POST", f"{bucket}/objects", {"blobs": [blob]})
    assert (promoted["title"], promoted["camera"]) == ("of the blob", "x")
    assert promoted["object_id"].startswith("obj_")


def test_every_problem_of_an_object_is_told_at_once(api: Api, bucket: str) -> None:
    blobs = [
        {"property": "none", "type": "image", "data": "x"},
        {"property": "photo", "type": "video", "data": "x"},
        image("not base64!"),
        image("s3://bucket/key"),
        image("http://"),
        image({"b64": "x"}),
        image(3),
        {"property": "photo", "type": "image"},
        {**image("x"), "url": "http://a.b"},
        {"property": "photo", "type": "image", "upload_id": "upl_none"},
        text(checksum="sha256:" + "0" * 64),
        text(checksum="md5:1"),
        image("http://a.b/c", checksum="0" * 64),
        {"property": "size", "type": "object", "data": {"w": "wide"}},
        text(key_prefix="\0"),
    ]
    body = {
        "year": "last",
        "day": "yesterday",
        "colour": "green",
        "size": {},
        "tags": ["a", 3],
        "photo": "http://a.b/c.png",
        "status": "COMPLETED",
        "beside": "\0",
        "metadata": [1],
        "blobs": blobs,
    }
    _, problems = api.refused("POST", f"{bucket}/objects", body)
    codes = ["unknown_property", "schema_violation", "bad_base64", "bad_url", "bad_url", *["bad_blob"] * 4]
    codes += ["unknown_upload", "bad_checksum", "bad_checksum", "bad_checksum", "schema_violation"]
    places = ["property", "type", *["data"] * 5, "", "", "upload_id", *["data"] * 4]
    of_blobs = [
        f"{code}@body.blobs.{n}{f'.{at}' if at else ''}" for n, (code, at) in enumerate(zip(codes, places, strict=True))
    ]
    of_fields = [
        f"schema_violation@body.{at}"
        for at in ("title", "year", "day", "colour", "size.w", "tags.1", "photo", "metadata")
    ]
    others = ["reserved_field@body.status", "nul_character@body.beside", "nul_character@body.blobs.14.key_prefix"]
    assert sorted(problems) == sorted([*of_blobs, *of_fields, *others])
    assert api("GET", bucket)["object_count"] == 0


def test_limits_are_told(api: Api, bucket: str) -> None:
    for body, code in (
        ({"title": "x" * 2**20}, "object_too_large"),
        ({"title": "a", "blobs": [text()] * 101}, "too_many_blobs"),
        ({"title": "a", "idempotency_key": "x" * 256}, "out_of_range"),
        ({"title": "a", "beside": [[]]}, None),
    ):
        if code is None:
            api("POST", f"{bucket}/objects", body)
        else:
            assert api.refused("POST", f"{bucket}/objects", body)[0] == code
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    assert api.refused("POST", f"{bucket}/objects", {"title": "a", "beside": deep})[0] == "too_deep"
    assert api.refused("POST", f"{bucket}/objects/batch", {"objects": [{"title": "a"}] * 101})[0] == "out_of_range"
    assert api.refused("POST", f"{bucket}/objects?auto_process=true", {"title": "a"})[0] == "not_offered"


def test_the_same_bytes_are_stored_once(api: Api, bucket: str, conninfo: str) -> None:
    word = api.namespace
    stored = [api("POST", f"{bucket}/objects", {"title": str(n), "blobs": [text(word)] * 3}) for n in range(3)]
    with psycopg.connect(conninfo) as conn:
        query = """
            SELECT count(*), count(DISTINCT b.store_key)
            FROM pgretrieve.object_blobs JOIN pgretrieve.blobs b USING (sha256) WHERE sha256 = %s
        """
        assert conn.execute(query, [hashlib.sha256(word.encode()).hexdigest()]).fetchone() == (9, 1)
    api("DELETE", f"{bucket}/objects/{stored[0]['object_id']}")
    assert bytes_of(api, bucket, stored[2], 2) == word.encode()


def test_unique_keys_insert_update_and_upsert(api: Api, bucket: str) -> None:
    keyed = made(api, "keyed", unique_key={"fields": ["year", "title"]})
    body = {"title": "a", "year": 1, "blobs": [text("one")]}
    assert api.refused("POST", f"{keyed}/objects", body)[0] == "bad_policy"
    assert api.refused("POST", f"{keyed}/objects?policy=replace", body)[0] == "bad_policy"
    assert api.refused("POST", f"{bucket}/objects?policy=insert", body)[0] == "bad_policy"
    api("POST", f"{keyed}/objects?policy=update", body, status=404)
    first = api("POST", f"{keyed}/objects?policy=insert", body)
    refused = api("POST", f"{keyed}/objects?policy=insert", {**body, "year": 1.0}, status=409)
    assert refused["error"]["code"] == "unique_key_exists"
    assert refused["error"]["details"]["object_id"] == first["object_id"]
    same = api("POST", f"{keyed}/objects?policy=upsert", body)
    assert [same[name] for name in ("object_id", "content_hash", "blobs")] == [
        first[name] for name in ("object_id", "content_hash", "blobs")
    ]
    new = api("POST", f"{keyed}/objects?policy=update", {"title": "a", "year": 1, "price": 2, "blobs": [text("two")]})
    assert new["object_id"] == first["object_id"]
    assert new["content_hash"] != first["content_hash"]
    assert bytes_of(api, keyed, new) == b"two"
    api("PATCH", keyed, {"unique_key": {"fields": ["title", "year"], "default_policy": "upsert"}})
    assert api("POST", f"{keyed}/objects", {"title": "b"})["year"] == 2026
    assert api("GET", keyed)["object_count"] == 2
    for missing in ({"title": ""}, {"title": "x" * 256}):
        code, problems = api.refused("POST", f"{keyed}/objects", missing)
        assert (code, problems) == ("bad_unique_key", ["bad_unique_key@body.title"])


def test_creators_of_one_key_at_once_make_one_object(api: Api, bucket: str) -> None:
    keyed = made(api, "keyed", unique_key={"fields": ["title"], "default_policy": "insert"})

    def create(n: int) -> int:
        body = {"title": "same", "price": n, "blobs": [text(f"{n}")]}
        headers = {"Authorization": api.authorization, "X-Namespace": api.namespace}
        return api.http.post(f"{keyed}/objects", json=body, headers=headers).status_code

    def upsert(n: int) -> str:
        body = {"title": "other", "price": n, "blobs": [text("shared"), text(f"{n}")]}
        return str(api("POST", f"{keyed}/objects?policy=upsert", body)["object_id"])

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [200, *[409] * 7]
        assert len(set(pool.map(upsert, range(8)))) == 1
    assert api("GET", keyed)["object_count"] == 2
    other = api("POST", f"{keyed}/objects/list", {"filters": {"title": "other"}})["results"][0]
    assert bytes_of(api, keyed, other, 1) == str(other["price"]).encode()  # of one request, not of two


def test_the_same_request_again_answers_the_same_object(api: Api, bucket: str) -> None:
    def create(n: int) -> str:
        body = {"title": "a", "price": n, "idempotency_key": "k1", "blobs": [text()]}
        return str(api("POST", f"{bucket}/objects", body)["object_id"])

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(create, range(6)))) == 1

    def skip(_: int) -> str:
        body = {"title": "b", "skip_duplicates": True, "blobs": [text()]}
        return str(api("POST", f"{bucket}/objects", body)["object_id"])

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(skip, range(6)))) == 1
    assert api("GET", bucket)["object_count"] == 2


def test_a_batch_stores_what_is_right_and_tells_of_the_rest(api: Api, bucket: str) -> None:
    keyed = made(api, "keyed", unique_key={"fields": ["title"], "default_policy": "insert"})
    objects: list[dict[str, Any]] = [
        {"title": "z", "blobs": [text("z")]},
        {"title": 3, "blobs": [image("!")]},
        {"title": "a", "blobs": [text("a")], "idempotency_key": "k"},
        {"title": "z"},
        {"title": "b", "colours": 1, "edges": [{"to": "x"}]},
        {"title": "a", "blobs": [text("a")], "idempotency_key": "k"},
    ]
    answer = api("POST", f"{keyed}/objects/batch", {"objects": objects})
    assert [(row["object_index"], row["title"], row["replayed_by"]) for row in answer["succeeded"]] == [
        (0, "z", None),
        (2, "a", None),
        (5, "a", "idempotency_key"),
    ]
    assert [(row["object_index"], row["details"]["code"]) for row in answer["failed"]] == [
        (1, "schema_violation"),
        (3, "unique_key_exists"),
        (4, "not_offered"),
    ]
    places = [problem["location"] for problem in answer["failed"][0]["details"]["validation_errors"]]
    assert places == [["body", "objects", 1, "title"], ["body", "objects", 1, "blobs", 0, "data"]]
    assert (answer["total_requested"], answer["succeeded_count"], answer["failed_count"]) == (6, 3, 3)
    assert api("GET", keyed)["object_count"] == 2


def test_fields_change_and_blobs_stay(api: Api, bucket: str) -> None:
    stored = api("POST", f"{bucket}/objects", {"title": "a", "metadata": {"n": 1}, "blobs": [text()]})
    path = f"{bucket}/objects/{stored['object_id']}"
    changed = api("PATCH", path, {"price": 1.5, "beside": None, "key_prefix": "here/"})
    assert (changed["title"], changed["price"], changed["beside"], changed["key_prefix"]) == ("a", 1.5, None, "here/")
    assert changed["blobs"] == stored["blobs"]
    assert changed["content_hash"] != stored["content_hash"]
    assert api("PATCH", path, {"price": 1.5})["content_hash"] == changed["content_hash"]
    put = api("PUT", path, {"metadata": {"n": 2, "year": 7}})
    assert (put["metadata"], put["year"]) == ({"n": 2}, 7)
    for body, code in (
        ({"year": "x"}, "schema_violation"),
        ({"status": "FAILED"}, "reserved_field"),
        ({"blobs": []}, "reserved_field"),
        ({"title": None}, "schema_violation"),
        ({"beside": "\0"}, "nul_character"),
    ):
        assert api.refused("PATCH", path, body)[0] == code
    keyed = made(api, "keyed", unique_key={"fields": ["title"], "default_policy": "insert"})
    one, two = (api("POST", f"{keyed}/objects", {"title": t})["object_id"] for t in "ab")
    assert api.refused("PATCH", f"{keyed}/objects/{two}", {"title": "a"}, status=409)[0] == "unique_key_exists"
    api("PATCH", f"{keyed}/objects/{one}", {"title": "c"})
    api("PATCH", f"{keyed}/objects/{two}", {"title": "a"})


def test_objects_are_listed_by_their_fields(api: Api, bucket: str) -> None:
    ids = []
    for n in range(4):
        body = {"title": f"t{n}", "price": n, "blobs": [text()] * n, "a": {"b": n}}
        ids.append(api("POST", f"{bucket}/objects", body)["object_id"])

    def listed(**body: Any) -> list[int]:
        return [ids.index(found["object_id"]) for found in api("POST", f"{bucket}/objects/list", body)["results"]]

    assert listed() == [3, 2, 1, 0]
    assert [f["object_id"] for f in api("GET", f"{bucket}/objects?limit=2")["results"]] == ids[:1:-1]
    assert listed(filters={"AND": [{"field": "price", "operator": "gte", "value": 2}]}) == [3, 2]
    assert listed(filters={"a.b": 1}) == [1]
    assert listed(filters={"status": "PENDING"}, sort={"field": "created_at"}) == [0, 1, 2, 3]
    assert listed(filters={"must": [{"key": "blobs[].property", "match": {"value": "content"}}]}) == [3, 2, 1]
    assert listed(search="T3") == [3]
    page = api("POST", f"{bucket}/objects/list", {"page_size": 3, "include_total": True})
    assert (page["pagination"]["total"], page["stats"]["total_blobs"]) == (4, 6)
    assert page["stats"]["objects_by_status"] == {"PENDING": 3}
    assert listed(page_size=3, cursor=page["pagination"]["next_cursor"]) == [0]
    assert api.refused("POST", f"{bucket}/objects/list", {"select": ["title"]})[0] == "not_offered"
    api("DELETE", f"{bucket}/objects/{ids[0]}")
    for method in ("GET", "DELETE"):
        api(method, f"{bucket}/objects/{ids[0]}", status=404)
    for path in (f"{bucket}/objects/%00", f"{bucket}/objects/{ids[1]}/blobs/none", "/buckets/none/objects"):
        api("GET", path, status=404)
