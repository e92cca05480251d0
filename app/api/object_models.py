"""What requests say of objects, and what answers show of them: fields at the root, beside names of the API's own."""

from typing import Annotated, Any

import msgspec

from app.api.paging import Pagination
from app.api.wire import Input, NotOffered, decode
from app.domain.content.blob_sources import RawBlob
from app.domain.content.new_objects import RawObject
from app.domain.content.objects import Object, StoredBlob
from app.errors import InvalidRequest, Problem, Problems

Body = dict[str, msgspec.Raw]


class BlobInput(Input, frozen=True):
    """A file or value of an object: `data` (a text, base64, a data URI, JSON or a URL), `url`, or an `upload_id`."""

    property: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    type: str
    data: Any = None
    url: str | None = None
    upload_id: str | None = None
    key_prefix: str | None = None
    checksum: str | None = None
    metadata: dict[str, Any] | None = None
    # A URL is always stored as that, and a file always here.
    canonicalize_source: bool | None = None
    force_remirror: NotOffered = False

    def raw(self) -> RawBlob:
        return RawBlob(
            self.property,
            self.type,
            self.data,
            self.url,
            self.upload_id,
            self.key_prefix,
            self.checksum,
            self.metadata or {},
        )


class ObjectInput(Input, frozen=True):
    """What an object may have beside its fields."""

    blobs: list[BlobInput] | None = None
    key_prefix: str | None = None
    idempotency_key: str | None = None
    skip_duplicates: bool | None = False
    canonicalize_source: bool | None = True
    force_remirror: NotOffered = False
    edges: NotOffered = None


class ObjectChange(Input, frozen=True):
    """What a change of an object may have beside its fields."""

    key_prefix: str | None = None
    skip_duplicates: NotOffered = False


class ObjectsBatchInput(Input, frozen=True):
    """Objects: each its fields, and `blobs`."""

    objects: list[Body]


class ObjectUpdate(Input, frozen=True):
    """Fields to set. One that the object has within its own `metadata` is set there."""

    metadata: Body | None = None
    key_prefix: str | None = None
    skip_duplicates: NotOffered = False


def split(body: Body, model: type[Input], here: tuple[str | int, ...]) -> tuple[Any, Body]:
    """The part of a body that `model` declares, and the rest, which are fields."""
    names = set(model.__struct_fields__)
    own = {name: text for name, text in body.items() if name in names}
    try:
        known, _ = decode(msgspec.json.encode(own), model)
    except InvalidRequest as error:
        moved = [Problem((*here, *problem.location[1:]), problem.code, problem.message) for problem in error.problems]
        raise InvalidRequest(moved) from None
    return known, {name: text for name, text in body.items() if name not in names}


def read_object(body: Body, problems: Problems, here: tuple[str | int, ...] = ("body",)) -> RawObject | None:
    """An object as it was sent; None, and problems, where its shape is wrong."""
    try:
        known, fields = split(body, ObjectInput, here)
    except InvalidRequest as error:
        problems.found.extend(error.problems)
        return None
    assert isinstance(known, ObjectInput)
    raw = [blob.raw() for blob in known.blobs or ()]
    return RawObject(fields, raw, known.key_prefix, known.idempotency_key, bool(known.skip_duplicates))


class BlobDetails(msgspec.Struct, kw_only=True):
    """What is known of a stored file."""

    filename: str | None = None
    size_bytes: int | None = None
    mime_type: str | None = None
    hash: str | None = None


class BlobModel(msgspec.Struct, kw_only=True):
    """A blob of an object. `properties.url` is its URL, or the path of this server that answers its bytes."""

    blob_id: str
    property: str
    type: str
    key_prefix: str | None = None
    properties: dict[str, Any]
    presigned_url: str | None = None
    details: BlobDetails


class ObjectStats(msgspec.Struct, kw_only=True):
    """Sums over the objects of a page."""

    total_objects: int
    total_blobs: int
    avg_blobs_per_object: float
    objects_by_status: dict[str, int]


class ObjectList(msgspec.Struct, kw_only=True):
    """A page of objects."""

    results: list[dict[str, Any]]
    pagination: Pagination
    stats: ObjectStats


class FailedObject(msgspec.Struct, kw_only=True):
    """Why an object of a batch was not stored."""

    object_index: int
    error: str
    error_type: str
    details: dict[str, Any]


class ObjectsBatch(msgspec.Struct, kw_only=True):
    """What became of the objects of a batch: each is stored, or refused by itself."""

    succeeded: list[dict[str, Any]]
    failed: list[FailedObject]
    total_requested: int
    succeeded_count: int
    failed_count: int


def shown(found: Object, *, written: bool = False) -> dict[str, Any]:
    """An object: its fields, and beside them what the API says of it. `written` tells how it becomes searchable."""
    fields = msgspec.json.decode(found.fields, type=Body)
    answer: dict[str, Any] = {
        **fields,
        "object_id": found.object_id,
        "bucket_id": found.bucket_id,
        "key_prefix": found.key_prefix,
        "blobs": [_blob(found, blob) for blob in found.blobs],
        "status": found.status,
        "error": found.error,
        "content_hash": found.content_hash,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
        "document_count": found.document_count,
    }
    if written:
        answer["consistency"] = {"retriever_visible": "after_processing", "write_token_available": False}
    return answer


def _blob(of: Object, blob: StoredBlob) -> BlobModel:
    path = f"/v1/buckets/{of.bucket_id}/objects/{of.object_id}/blobs/{blob.blob_id}"
    return BlobModel(
        blob_id=blob.blob_id,
        property=blob.property,
        type=blob.type,
        key_prefix=blob.key_prefix,
        properties={**blob.metadata, "url": blob.url or path},
        details=BlobDetails(
            filename=blob.filename,
            size_bytes=blob.size_bytes,
            mime_type=blob.mime_type,
            hash=blob.sha256 and f"sha256:{blob.sha256}",
        ),
    )


def statistics(objects: list[dict[str, Any]]) -> ObjectStats:
    blobs = sum(len(each["blobs"]) for each in objects)
    statuses: dict[str, int] = {}
    for each in objects:
        statuses[each["status"]] = statuses.get(each["status"], 0) + 1
    return ObjectStats(
        total_objects=len(objects),
        total_blobs=blobs,
        avg_blobs_per_object=blobs / (len(objects) or 1),
        objects_by_status=statuses,
    )


class Deleted(msgspec.Struct, kw_only=True):
    """That it is gone."""

    message: str
    success: bool = True
