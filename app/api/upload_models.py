"""What requests say of uploads, and what answers show of them."""

from datetime import datetime
from typing import Any

import msgspec

from app.api.paging import Pagination
from app.api.wire import Input, NotOffered
from app.domain.content.uploads import NewUpload, Upload


class UploadInput(Input, frozen=True):
    """A file that will be sent: its name and kind, and the object that it becomes."""

    filename: str
    content_type: str
    file_size_bytes: int | None = None
    presigned_url_expiration: int | None = 3600
    metadata: dict[str, Any] | None = None
    create_object_on_confirm: bool | None = True
    object_metadata: dict[str, Any] | None = None
    blob_property: str | None = None
    blob_type: str | None = None
    file_hash: str | None = None
    skip_duplicates: bool | None = True


class UploadsBatchInput(Input, frozen=True):
    """Files that will be sent; what is shared is merged under what each says itself."""

    uploads: list[UploadInput]
    shared_metadata: dict[str, Any] | None = None
    shared_object_metadata: dict[str, Any] | None = None


class ConfirmInput(Input, frozen=True):
    """What was sent, to be compared with what came: the `ETag` of the answer to PUT, and the size."""

    etag: str | None = None
    file_size_bytes: int | None = None
    auto_submit_batch: NotOffered = False


class UploadModel(msgspec.Struct, kw_only=True):
    """An upload. PUT the file to `presigned_url`, then confirm it."""

    upload_id: str
    bucket_id: str
    filename: str
    content_type: str
    file_size_bytes: int | None = None
    presigned_url: str | None = None
    presigned_url_expiration: int
    s3_key: str
    status: str
    metadata: dict[str, Any]
    create_object_on_confirm: bool
    object_metadata: dict[str, Any]
    blob_property: str | None = None
    blob_type: str | None = None
    file_hash: str | None = None
    skip_duplicates: bool = True
    is_duplicate: bool = False
    duplicate_of_upload_id: str | None = None
    message: str | None = None
    created_at: datetime
    expires_at: datetime
    completed_at: datetime | None = None
    verified_at: datetime | None = None
    etag: str | None = None
    object_id: str | None = None
    task_id: str | None = None


class UploadStats(msgspec.Struct, kw_only=True):
    """Sums over the uploads of a page."""

    total_uploads: int
    total_size_bytes: int
    uploads_by_status: dict[str, int]
    avg_file_size_bytes: float
    unique_buckets: int


class UploadList(msgspec.Struct, kw_only=True):
    """A page of uploads."""

    results: list[UploadModel]
    pagination: Pagination
    stats: UploadStats


class UploadsBatch(msgspec.Struct, kw_only=True):
    """The uploads of a batch, in its order."""

    uploads: list[UploadModel]
    total: int


class Confirmed(msgspec.Struct, kw_only=True):
    """A file that is here, and the object that was made of it."""

    upload_id: str
    status: str
    etag: str | None = None
    file_size_bytes: int | None = None
    file_hash: str | None = None
    verified_at: datetime | None = None
    completed_at: datetime | None = None
    object_id: str | None = None
    task_id: str | None = None
    batch_id: str | None = None
    message: str | None = None


def wanted(sent: UploadInput, shared: UploadsBatchInput | None = None) -> NewUpload:
    metadata = {**((shared and shared.shared_metadata) or {}), **(sent.metadata or {})}
    fields = {**((shared and shared.shared_object_metadata) or {}), **(sent.object_metadata or {})}
    return NewUpload(
        sent.filename,
        sent.content_type,
        sent.file_size_bytes,
        sent.file_hash,
        3600 if sent.presigned_url_expiration is None else sent.presigned_url_expiration,
        metadata,
        sent.create_object_on_confirm is not False,
        fields,
        sent.blob_property,
        sent.blob_type,
        sent.skip_duplicates is not False,
    )


def shown(upload: Upload, url: str | None = None, *, duplicate: bool = False) -> UploadModel:
    """An upload; `url` is its address, which is told only when it is made."""
    return UploadModel(
        upload_id=upload.upload_id,
        bucket_id=upload.bucket_id,
        filename=upload.filename,
        content_type=upload.content_type,
        file_size_bytes=upload.file_size_bytes,
        presigned_url=url,
        presigned_url_expiration=upload.seconds,
        s3_key=upload.upload_id,
        status=upload.status,
        metadata=msgspec.json.decode(upload.metadata),
        create_object_on_confirm=upload.create_object,
        object_metadata=msgspec.json.decode(upload.object_fields),
        blob_property=upload.blob_property,
        blob_type=upload.blob_type,
        file_hash=upload.file_hash,
        skip_duplicates=upload.skip_duplicates,
        is_duplicate=duplicate,
        duplicate_of_upload_id=upload.upload_id if duplicate else None,
        message=_message(upload, duplicate),
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        completed_at=upload.completed_at,
        verified_at=upload.received_at,
        etag=upload.sha256 and f'"{upload.sha256}"',
        object_id=upload.object_id,
    )


def _message(upload: Upload, duplicate: bool) -> str | None:
    if duplicate:
        return "This file is here already; nothing needs to be sent."
    return "It was not confirmed before its address ended." if upload.status == "FAILED" else None


def confirmed(upload: Upload) -> Confirmed:
    return Confirmed(
        upload_id=upload.upload_id,
        status=upload.status,
        etag=upload.sha256 and f'"{upload.sha256}"',
        file_size_bytes=upload.file_size_bytes,
        file_hash=upload.sha256,
        verified_at=upload.received_at,
        completed_at=upload.completed_at,
        object_id=upload.object_id,
        message="The upload is confirmed.",
    )


def statistics(uploads: list[UploadModel]) -> UploadStats:
    size = sum(each.file_size_bytes or 0 for each in uploads)
    statuses: dict[str, int] = {}
    for each in uploads:
        statuses[each.status] = statuses.get(each.status, 0) + 1
    return UploadStats(
        total_uploads=len(uploads),
        total_size_bytes=size,
        uploads_by_status=statuses,
        avg_file_size_bytes=size / (len(uploads) or 1),
        unique_buckets=len({each.bucket_id for each in uploads}),
    )
