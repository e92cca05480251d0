"""What requests say of buckets, and what answers show of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from app.api.paging import PageInput, Pagination
from app.api.wire import Input, NotOffered
from app.domain.content.buckets import Bucket, UniqueKey

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET
FieldType = Literal[
    "string",
    "number",
    "integer",
    "float",
    "boolean",
    "object",
    "array",
    "date",
    "datetime",
    "text",
    "image",
    "audio",
    "video",
    "pdf",
    "excel",
]


class SchemaField(Input, frozen=True):
    """A field of the objects: of JSON (`string`, `number`, `object`, …), or a file (`text`, `image`, `pdf`, …)."""

    type: FieldType
    required: bool | None = False
    default: Any = None
    description: str | None = None
    enum: list[Any] | None = None
    examples: list[Any] | None = None
    items: SchemaField | None = None
    properties: dict[str, SchemaField] | None = None


class BucketSchemaInput(Input, frozen=True):
    """The fields that objects have, by name."""

    properties: dict[str, SchemaField]

    def wanted(self) -> dict[str, Any]:
        return {name: _plain(field) for name, field in self.properties.items()}


def _plain(field: SchemaField) -> dict[str, Any]:
    """The field without what it does not say."""
    given: dict[str, Any] = {
        name: value
        for name in SchemaField.__struct_fields__
        if (value := getattr(field, name)) is not None and name not in ("items", "properties")
    }
    if field.items is not None:
        given["items"] = _plain(field.items)
    if field.properties is not None:
        given["properties"] = {name: _plain(each) for name, each in field.properties.items()}
    return given


class UniqueKeyInput(Input, frozen=True):
    """Fields whose values together no two objects share; and what a known key means where the request does not say:
    `insert` (409), `update` (404 where it is new) or `upsert`."""

    fields: Annotated[list[str], msgspec.Meta(min_length=1)]
    default_policy: str | None = None

    def wanted(self) -> UniqueKey:
        return UniqueKey(self.fields, self.default_policy)


class BucketInput(Input, frozen=True):
    """A bucket: its name and the schema of its objects."""

    bucket_name: str
    bucket_schema: BucketSchemaInput
    description: str | None = None
    unique_key: UniqueKeyInput | None = None
    metadata: dict[str, Any] | None = None
    storage_class: NotOffered = None
    destination: NotOffered = None
    ingest_filter: NotOffered = None
    source_adapter: NotOffered = None


class BucketPatch(Input, frozen=True):
    """What of a bucket changes; the fields of its unique key are fixed, their default policy is not."""

    bucket_name: str | None = None
    description: str | Unset | None = UNSET
    metadata: dict[str, Any] | None = None
    bucket_schema: BucketSchemaInput | None = None
    unique_key: UniqueKeyInput | None = None
    storage_class: NotOffered = None
    destination: NotOffered = None
    ingest_filter: NotOffered = None
    source_adapter: NotOffered = None

    def changes(self) -> dict[str, Any]:
        given: dict[str, Any] = {"bucket_name": self.bucket_name, "metadata": self.metadata}
        given["properties"] = None if self.bucket_schema is None else self.bucket_schema.wanted()
        given["unique_key"] = None if self.unique_key is None else self.unique_key.wanted()
        found = {name: value for name, value in given.items() if value is not None}
        return found if self.description is UNSET else {**found, "description": self.description}


class ListInput(PageInput, frozen=True):
    """A page of a list: filters in either language, one `{field, direction}` to sort by, a text to search for."""

    filters: Any = None
    sort: dict[str, Any] | None = None
    sorts: list[dict[str, Any]] | None = None
    search: str | None = None
    case_sensitive: bool | None = False
    select: NotOffered = None
    return_presigned_urls: NotOffered = False


class BucketModel(msgspec.Struct, kw_only=True):
    """A bucket with its counts, which are exact."""

    bucket_id: str
    bucket_name: str
    description: str | None = None
    bucket_schema: dict[str, Any]
    unique_key: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    object_count: int
    failed_object_count: int = 0
    total_size_bytes: int
    created_at: datetime
    updated_at: datetime
    last_upload_at: datetime | None = None
    status: str = "ACTIVE"
    is_locked: bool = False


class BucketStats(msgspec.Struct, kw_only=True):
    """Sums over the buckets of a page."""

    total_objects: int
    total_size_bytes: int
    avg_objects_per_bucket: float
    avg_size_per_bucket: float


class BucketList(msgspec.Struct, kw_only=True):
    """A page of buckets."""

    results: list[BucketModel]
    pagination: Pagination
    total_count: int
    stats: BucketStats
    warnings: list[dict[str, Any]] = []


class BucketDeleted(msgspec.Struct, kw_only=True):
    """What was deleted; there is nothing to wait for, so no task."""

    bucket_id: str
    bucket_name: str
    object_count: int
    message: str
    status: str = "COMPLETED"
    success: bool = True
    task_id: str | None = None


def shown(bucket: Bucket) -> BucketModel:
    unique = bucket.unique_fields and {"fields": list(bucket.unique_fields), "default_policy": bucket.default_policy}
    return BucketModel(
        bucket_id=bucket.bucket_id,
        bucket_name=bucket.bucket_name,
        description=bucket.description,
        bucket_schema=msgspec.json.decode(bucket.bucket_schema),
        unique_key=unique or None,
        metadata=msgspec.json.decode(bucket.metadata),
        object_count=bucket.object_count,
        failed_object_count=bucket.failed_object_count,
        total_size_bytes=bucket.total_size_bytes,
        created_at=bucket.created_at,
        updated_at=bucket.updated_at,
        last_upload_at=bucket.last_upload_at,
    )


def statistics(buckets: list[BucketModel]) -> BucketStats:
    objects, size = sum(b.object_count for b in buckets), sum(b.total_size_bytes for b in buckets)
    n = len(buckets) or 1
    return BucketStats(
        total_objects=objects,
        total_size_bytes=size,
        avg_objects_per_bucket=objects / n,
        avg_size_per_bucket=size / n,
    )
