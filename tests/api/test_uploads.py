"""Uploads: announced, sent by PUT to an address of their own, confirmed as objects."""

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.http import Api

SCHEMA: dict[str, Any] = {"title": {"type": "string", "required": True}, "photo": {"type": "image"}}
FILE = b"\x89PNG a file " * 1000
SHA = hashlib.sha256(FILE).hexdigest()


@pytest.fixture
def bucket(api: Api) -> str:
    api.standalone()
    body = {"bucket_name": "files", "bucket_schema": {"properties": SCHEMA}}
    return f"/buckets/{api('POST', '/buckets', body)['bucket_id']}"


@pytest.fixture
def sender() -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(timeout=30) as client:
        yield client


def announced(api: Api, bucket: str, **more: Any) -> dict[str, Any]:
    body = {"filename": "a.png", "content_type": "image/png", "object_metadata": {"title": "a"}, **more}
    found: dict[str, Any] = api("POST", f"{bucket}/uploads", body)
    return found


def test_a_file_is_announced_sent_and_confirmed(api: Api, bucket: str, sender: httpx.Client) -> None:
    upload = announced(api, bucket, file_size_bytes=len(FILE), metadata={"campaign": "x"})
    assert upload["upload_id"].startswith("upl_")
    assert (upload["status"], upload["blob_property"], upload["blob_type"]) == ("PENDING", "photo", "image")
    path = f"{bucket}/uploads/{upload['upload_id']}"
    assert api.refused("POST", f"{path}/confirm", status=409)[0] == "upload_incomplete"
    sent = sender.put(upload["presigned_url"], content=FILE, headers={"Content-Type": "image/png"})
    assert (sent.status_code, sent.headers["etag"]) == (200, f'"{SHA}"')
    assert api("GET", path)["status"] == "PROCESSING"
    assert api("GET", path)["presigned_url"] is None
    confirmed = api("POST", f"{path}/confirm", {"etag": sent.headers["etag"], "file_size_bytes": len(FILE)})
    assert (confirmed["status"], confirmed["file_hash"]) == ("COMPLETED", SHA)
    assert api("POST", f"{path}/confirm") == confirmed
    stored = api("GET", f"{bucket}/objects/{confirmed['object_id']}")
    assert stored["title"] == "a"
    assert stored["blobs"][0]["details"] == {
        "filename": "a.png",
        "size_bytes": len(FILE),
        "mime_type": "image/png",
        "hash": f"sha256:{SHA}",
    }
    headers = {"Authorization": api.authorization, "X-Namespace": api.namespace}
    got = api.http.get(stored["blobs"][0]["properties"]["url"].removeprefix("/v1"), headers=headers)
    assert got.content == FILE
    assert sender.put(upload["presigned_url"], content=FILE).status_code == 404
    assert api.refused("DELETE", path, status=409)[0] == "upload_completed"
    assert api("GET", bucket)["object_count"] == 1


def test_bytes_larger_than_a_body_are_streamed(api: Api, bucket: str, sender: httpx.Client) -> None:
    upload = announced(api, bucket)
    chunk = b"x" * 2**20

    def many() -> Iterator[bytes]:
        for _ in range(80):  # above PGRETRIEVE_MAX_BODY_BYTES
            yield chunk

    assert sender.put(upload["presigned_url"], content=many()).status_code == 200
    found = api("GET", f"{bucket}/uploads/{upload['upload_id']}")
    assert found["file_size_bytes"] == 80 * 2**20


def test_other_bytes_than_announced_are_refused(api: Api, bucket: str, sender: httpx.Client) -> None:
    size = announced(api, bucket, file_size_bytes=10)
    assert sender.put(size["presigned_url"], content=b"x" * 9).json()["error"]["code"] == "bad_size"
    assert sender.put(size["presigned_url"], content=b"x" * 11).json()["error"]["code"] == "blob_too_large"
    hashed = announced(api, bucket, file_hash=SHA)
    assert sender.put(hashed["presigned_url"], content=b"other").json()["error"]["code"] == "bad_checksum"
    for upload in (size, hashed):
        assert api("GET", f"{bucket}/uploads/{upload['upload_id']}")["status"] == "PENDING"
    assert sender.put(size["presigned_url"], content=b"x" * 10).status_code == 200
    path = f"{bucket}/uploads/{size['upload_id']}/confirm"
    assert api.refused("POST", path, {"file_size_bytes": 9})[0] == "bad_size"
    assert api.refused("POST", path, {"etag": '"abc"'})[0] == "bad_checksum"
    assert api.refused("POST", path, {"auto_submit_batch": True})[0] == "not_offered"


def test_the_address_is_a_secret_that_ends(api: Api, bucket: str, sender: httpx.Client, conninfo: str) -> None:
    upload = announced(api, bucket)
    url = upload["presigned_url"]
    for wrong in (url[:-1], f"{url}x", url.replace(upload["upload_id"], "upl_none"), f"{url.rsplit('/', 1)[0]}/%00"):
        assert sender.put(wrong, content=FILE).status_code == 404
    with psycopg.connect(conninfo, autocommit=True) as conn:
        secret = url.rsplit("/", 1)[1]
        row = conn.execute("SELECT u::text FROM pgretrieve.uploads u WHERE upload_id = %s", [upload["upload_id"]])
        assert secret not in str(row.fetchone())
        ended = "UPDATE pgretrieve.uploads SET expires_at = now() WHERE upload_id = %s"
        conn.execute(ended, [upload["upload_id"]])
    assert sender.put(url, content=FILE).status_code == 404
    path = f"{bucket}/uploads/{upload['upload_id']}"
    assert api("GET", path)["status"] == "FAILED"
    assert api.refused("POST", f"{path}/confirm", status=409)[0] == "upload_expired"
    api("DELETE", path)
    api("GET", path, status=404)


def test_an_object_refers_to_uploads(api: Api, bucket: str, sender: httpx.Client) -> None:
    upload = announced(api, bucket, create_object_on_confirm=False, object_metadata=None)
    blob = {"property": "photo", "type": "image", "upload_id": upload["upload_id"]}
    body = {"title": "b", "blobs": [blob]}
    assert api.refused("POST", f"{bucket}/objects", body)[0] == "unknown_upload"
    sender.put(upload["presigned_url"], content=FILE)
    confirmed = api("POST", f"{bucket}/uploads/{upload['upload_id']}/confirm")
    assert confirmed["object_id"] is None
    stored = api("POST", f"{bucket}/objects", {**body, "blobs": [{**blob, "checksum": SHA}]})
    assert stored["blobs"][0]["details"]["hash"] == f"sha256:{SHA}"
    other = api("POST", "/buckets", {"bucket_name": "other", "bucket_schema": {"properties": SCHEMA}})
    assert api.refused("POST", f"/buckets/{other['bucket_id']}/objects", body)[0] == "unknown_upload"


def test_a_file_that_is_here_need_not_be_sent(api: Api, bucket: str, sender: httpx.Client) -> None:
    first = announced(api, bucket, file_hash=SHA)
    assert announced(api, bucket, file_hash=SHA)["is_duplicate"] is False
    sender.put(first["presigned_url"], content=FILE)
    api("POST", f"{bucket}/uploads/{first['upload_id']}/confirm")
    again = announced(api, bucket, file_hash=SHA.upper())
    assert (again["is_duplicate"], again["presigned_url"]) == (True, None)
    assert again["duplicate_of_upload_id"] == first["upload_id"]
    assert announced(api, bucket, file_hash=SHA, skip_duplicates=False)["presigned_url"]


def test_uploads_are_announced_in_batches_and_listed(api: Api, bucket: str) -> None:
    one = {"filename": "a.png", "content_type": "image/png", "file_size_bytes": 5, "metadata": {"n": 1}}
    body = {"uploads": [one, {**one, "filename": "b.png"}], "shared_object_metadata": {"title": "t"}}
    made = api("POST", f"{bucket}/uploads/batch", {**body, "shared_metadata": {"n": 0, "m": 2}})
    assert made["total"] == 2
    assert [upload["metadata"] for upload in made["uploads"]] == [{"n": 1, "m": 2}] * 2
    listed = api("POST", f"{bucket}/uploads/list", {"filters": {"metadata.n": 1}, "sort": {"field": "filename"}})
    assert [upload["filename"] for upload in listed["results"]] == ["a.png", "b.png"]
    assert listed["stats"]["uploads_by_status"] == {"PENDING": 2}
    assert len(api("POST", f"{bucket}/uploads/list")["results"]) == 2
    broken = {"uploads": [one, {**one, "filename": "../b"}, {**one, "content_type": "text/html"}]}
    _, problems = api.refused("POST", f"{bucket}/uploads/batch", broken)
    assert sorted(problems) == [
        "bad_name@body.uploads.1.filename",
        "schema_violation@body.uploads.0.object_metadata.title",
        "schema_violation@body.uploads.1.object_metadata.title",
        "schema_violation@body.uploads.2.content_type",
        "schema_violation@body.uploads.2.object_metadata.title",
    ]
    assert len(api("POST", f"{bucket}/uploads/list")["results"]) == 2
    assert api.refused("POST", f"{bucket}/uploads/batch", {"uploads": []})[0] == "out_of_range"


def test_every_problem_of_an_upload_is_told_before_it_is_sent(api: Api, bucket: str) -> None:
    body = {
        "filename": "a/b.png",
        "content_type": "image",
        "file_size_bytes": 2**40,
        "presigned_url_expiration": 5,
        "file_hash": "x",
        "blob_type": "video",
        "metadata": {"a": "\0"},
        "object_metadata": {"status": "x"},
    }
    _, problems = api.refused("POST", f"{bucket}/uploads", body)
    assert sorted(problems) == [
        "bad_checksum@body.file_hash",
        "bad_name@body.filename",
        "bad_value@body.content_type",
        "blob_too_large@body.file_size_bytes",
        "nul_character@body.metadata",
        "out_of_range@body.presigned_url_expiration",
        "reserved_field@body.object_metadata.status",
        "schema_violation@body.blob_type",
        "schema_violation@body.content_type",
        "schema_violation@body.object_metadata.title",
    ]
    other = {"filename": "a.png", "content_type": "image/png", "blob_property": "none"}
    assert api.refused("POST", f"{bucket}/uploads", other)[0] == "unknown_property"
