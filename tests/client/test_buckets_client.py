"""Buckets, objects and uploads through both official clients."""

from collections.abc import Callable
from typing import Any

import httpx
import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from mixpeek.exceptions import ConflictException, UnprocessableEntityException

SCHEMA: dict[str, Any] = {"properties": {"title": {"type": "string"}, "photo": {"type": "image", "required": True}}}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
Connect = Callable[..., mixpeek.ApiClient]


@pytest.fixture(autouse=True)
def made(client: Mixpeek, namespace: str) -> None:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 2}])


def test_the_high_level_client_uploads_and_lists(client: Mixpeek) -> None:
    bucket = client.buckets.create(name="photos", bucket_schema=SCHEMA, description="Pictures")
    assert client.buckets.get("photos") == client.buckets.get(bucket.bucket_id) == bucket
    assert [found["bucket_id"] for found in client.buckets.list()["results"]] == [bucket.bucket_id]
    by_url = client.buckets.upload("photos", url="https://example.com/a.png", metadata={"title": "a"})
    by_data = client.buckets.upload("photos", data=PNG, title="b")
    assert [entry["property"] for entry in (*by_url.blobs, *by_data.blobs)] == ["photo", "photo"]
    assert by_data.blobs[0].details.size_bytes == 69
    first = client.buckets.list_objects("photos", page_size=1)
    second = client.buckets.list_objects("photos", page_size=1, cursor=first.pagination.next_cursor)
    assert [page["results"][0]["object_id"] for page in (first, second)] == [by_data.object_id, by_url.object_id]
    assert client.buckets.get("photos").object_count == 2
    with pytest.raises(MixpeekAPIError) as refused:
        client.buckets.upload("photos", title="no photo")
    assert refused.value.detail["error"]["code"] == "schema_violation"
    assert client.buckets.delete("photos").success
    assert client.buckets.list()["results"] == []


def test_the_generated_client_makes_changes_and_deletes_buckets(generated: Connect) -> None:
    api = mixpeek.BucketsApi(generated())
    unique = mixpeek.UniqueKeyConfig(fields=["title"], default_policy="insert")
    schema = mixpeek.BucketSchemaInput.from_dict(SCHEMA)
    request = mixpeek.BucketCreateRequest(bucket_name="photos", bucket_schema=schema, unique_key=unique)
    made = api.create_bucket(request)
    assert made.bucket_schema.properties["photo"].required is True
    assert api.get_bucket("photos") == made
    assert api.list_buckets_get().results == [made]
    listed = api.list_buckets(list_buckets_request=mixpeek.ListBucketsRequest(search="PHOTO"), include_total=True)
    assert (listed.total_count, listed.pagination.total, listed.stats.total_objects) == (1, 1, 0)
    changed = api.patch_bucket(made.bucket_id, mixpeek.BucketPatchRequest(description="Pictures"))
    assert changed.description == "Pictures"
    assert api.update_bucket("photos", mixpeek.BucketUpdateRequest(metadata={"a": 1})).metadata == {"a": 1}
    with pytest.raises(ConflictException):
        api.create_bucket(request)
    api.delete_bucket("photos")
    assert api.list_buckets_get().results == []


def test_the_generated_client_keeps_objects(generated: Connect, client: Mixpeek) -> None:
    client.buckets.create(
        bucket_name="photos",
        bucket_schema=SCHEMA,
        unique_key={"fields": ["title"], "default_policy": "insert"},
    )
    api = mixpeek.BucketObjectsApi(generated())

    def wanted(title: str) -> mixpeek.CreateObjectRequest:
        blob = mixpeek.CreateBlobRequest(property="photo", type="image", data=mixpeek.Data(PNG))
        return mixpeek.CreateObjectRequest.from_dict({"title": title, "blobs": [blob.to_dict()]})

    made = api.create_object_buckets("photos", wanted("a"))
    assert made.additional_properties["title"] == "a"
    assert (made.status, made.consistency.retriever_visible) == ("PENDING", "after_processing")
    assert made.blobs[0].details.size_bytes == 69
    with pytest.raises(ConflictException):
        api.create_object_buckets("photos", wanted("a"))
    assert api.create_object_buckets("photos", wanted("a"), policy="upsert").object_id == made.object_id
    batch = mixpeek.CreateObjectsBatchRequest(objects=[wanted("a"), wanted("b")])
    answered = api.create_objects_batch_buckets("photos", batch)
    assert (answered.succeeded_count, answered.failed[0].object_index) == (1, 0)
    assert answered.succeeded[0].object_index == 1
    found = api.list_objects_buckets(
        "photos",
        list_objects_request=mixpeek.ListObjectsRequest(filters=mixpeek.LogicalOperatorInput.from_dict({"title": "b"})),
    )
    assert [each.object_id for each in found.results] == [answered.succeeded[0].object_id]
    assert len(api.list_objects_get_buckets("photos", limit=1).results) == 1
    patch = mixpeek.PatchObjectRequest.from_dict({"title": "c"})
    assert api.patch_object_buckets("photos", made.object_id, patch).additional_properties["title"] == "c"
    update = mixpeek.UpdateObjectRequest(metadata={"title": "d"})
    assert api.update_object_buckets("photos", made.object_id, update).additional_properties["title"] == "d"
    with pytest.raises(UnprocessableEntityException):
        api.patch_object_buckets("photos", made.object_id, mixpeek.PatchObjectRequest.from_dict({"title": 3}))
    assert api.get_object_buckets("photos", made.object_id).updated_at > made.updated_at
    api.delete_object_buckets("photos", made.object_id)
    assert len(api.list_objects_get_buckets("photos").results) == 1


def test_the_generated_client_sends_files(generated: Connect, client: Mixpeek) -> None:
    client.buckets.create(bucket_name="photos", bucket_schema=SCHEMA)
    api = mixpeek.BucketUploadsApi(generated())
    request = mixpeek.CreateUploadRequest(filename="a.png", content_type="image/png", object_metadata={"title": "a"})
    upload = api.create_upload_buckets("photos", request)
    assert upload.status == "PENDING"
    sent = httpx.put(upload.presigned_url, content=b"\x89PNG", headers={"Content-Type": "image/png"})
    assert sent.status_code == 200
    confirm = mixpeek.ConfirmUploadRequest(etag=sent.headers["etag"], file_size_bytes=4)
    confirmed = api.confirm_upload_buckets("photos", upload.upload_id, confirm_upload_request=confirm)
    assert confirmed.status == "COMPLETED"
    stored = mixpeek.BucketObjectsApi(generated()).get_object_buckets("photos", confirmed.object_id)
    assert stored.blobs[0].details.filename == "a.png"
    assert api.get_upload_buckets("photos", upload.upload_id)["object_id"] == confirmed.object_id
    batch = mixpeek.BatchUploadRequest(uploads=[request, request])
    assert api.create_uploads_batch_buckets("photos", batch).total == 2
    listed = api.list_uploads_buckets("photos", list_uploads_request=mixpeek.ListUploadsRequest())
    assert listed.stats.uploads_by_status == {"PENDING": 2, "COMPLETED": 1}
    api.delete_upload_buckets("photos", listed.results[0].upload_id)
    assert len(api.list_uploads_buckets("photos").results) == 2
