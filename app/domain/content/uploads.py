"""Uploads: a file is announced, its bytes are sent to an address of its own, and it is confirmed as an object."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.catalog.listing import Listed
from app.domain.content import blobs, objects
from app.domain.content.blob_sources import MIME, RawBlob, Source
from app.domain.content.bucket_schemas import BucketSchema, check_fields, property_of_file, unique_key
from app.domain.content.buckets import TIME, Held, policy_of
from app.domain.content.new_objects import RawObject, check
from app.domain.documents.documents import holds_nul
from app.errors import Conflict, InvalidRequest, NotFound, Problems
from app.settings import Settings
from app.storage import Written

Location = tuple[str | int, ...]
TYPES_BY_MIME = {"image/": "image", "video/": "video", "audio/": "audio", "application/pdf": "pdf"}
LISTED = Listed(
    statement="list_uploads",
    columns={
        **dict.fromkeys(("upload_id", "bucket_id", "filename", "content_type"), sa.Text()),
        "file_size_bytes": sa.BigInteger(),
        "file_hash": sa.Text(),
        "seconds": sa.Integer(),
        "metadata": sa.Text(),
        "create_object": sa.Boolean(),
        **dict.fromkeys(("object_fields", "blob_property", "blob_type"), sa.Text()),
        "skip_duplicates": sa.Boolean(),
        **dict.fromkeys(("status", "sha256", "object_id"), sa.Text()),
        **dict.fromkeys(("created_at", "expires_at", "received_at", "completed_at"), TIME),
    },
    key="upload_id",
    sortable=("upload_id", "filename", "created_at", "expires_at"),
    searched=("filename", "metadata"),
    opened=("metadata", "object_fields"),
)


@dataclass(frozen=True, slots=True)
class NewUpload:
    """A file that is announced."""

    filename: str
    content_type: str
    file_size_bytes: int | None = None
    file_hash: str | None = None
    seconds: int = 3600
    metadata: Mapping[str, Any] = field(default_factory=dict)
    create_object: bool = True
    object_fields: Mapping[str, Any] = field(default_factory=dict)
    blob_property: str | None = None
    blob_type: str | None = None
    skip_duplicates: bool = True


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload; JSON parts are kept as text. `sha256` is there once the bytes are."""

    upload_id: str
    bucket_id: str
    filename: str
    content_type: str
    file_size_bytes: int | None
    file_hash: str | None
    seconds: int
    metadata: str
    create_object: bool
    object_fields: str
    blob_property: str | None
    blob_type: str | None
    skip_duplicates: bool
    status: str
    sha256: str | None
    object_id: str | None
    created_at: datetime
    expires_at: datetime
    received_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Announced:
    """An upload with the secret of its address; None where the same file is here already and need not be sent."""

    upload: Upload
    signature: str | None


async def announce(
    conn: AsyncConnection, held: Held, settings: Settings, new: NewUpload, here: Location = ("body",)
) -> Announced:
    """Check everything that can be checked before the bytes come, and make their address."""
    problems = Problems()
    prop, kind = _target(held.schema, new, problems, here)
    _check(new, settings, problems, here)
    if new.create_object:
        there = frozenset({prop} if prop is not None else ())
        at = (*here, "object_metadata")
        whole = check_fields(held.schema, new.object_fields, problems, at, there)
        unique_key(held.schema, whole, problems, at)
    problems.refuse()
    if new.skip_duplicates and new.file_hash is not None:
        binds = {"bucket_id": held.bucket_id, "sha256": new.file_hash.lower()}
        same = (await conn.execute(statement("find_same_upload"), binds)).scalar_one_or_none()
        if same is not None:
            return Announced(await find(conn, held.bucket_id, same), None)
    signature, upload_id = secrets.token_urlsafe(32), f"upl_{secrets.token_hex(12)}"
    row = {
        "upload_id": upload_id,
        "bucket_id": held.bucket_id,
        "signature_hash": _hashed(signature),
        "file_hash": new.file_hash and new.file_hash.lower(),
        "metadata": as_json(new.metadata),
        "object_fields": as_json(new.object_fields),
        "blob_property": prop,
        "blob_type": kind,
    }
    names = ("filename", "content_type", "file_size_bytes", "seconds", "create_object", "skip_duplicates")
    await conn.execute(statement("insert_upload"), {**row, **{name: getattr(new, name) for name in names}})
    return Announced(await find(conn, held.bucket_id, upload_id), signature)


def _target(schema: BucketSchema, new: NewUpload, problems: Problems, here: Location) -> tuple[str | None, str | None]:
    """The property that the file is a value of, and its type."""
    by_mime = next((kind for start, kind in TYPES_BY_MIME.items() if new.content_type.startswith(start)), None)
    if not new.create_object:
        return new.blob_property, (new.blob_type or by_mime or "text").lower()
    prop = new.blob_property or property_of_file(schema, new.filename)
    declared = schema.properties.get(prop)
    if declared is None:
        message = (
            f"The bucket's schema has no property {prop!r}; say `blob_property`, of {', '.join(schema.properties)}."
        )
        problems.add((*here, "blob_property"), "unknown_property", message)
        return None, None
    kind = str(declared["type"])
    if new.blob_type is not None and new.blob_type.lower() != kind:
        message = f"The property {prop!r} is of type {kind}, not {new.blob_type}."
        problems.add((*here, "blob_type"), "schema_violation", message)
    gif = new.content_type.startswith("image/gif") and kind == "video"
    if not gif and kind in TYPES_BY_MIME.values() and by_mime != kind:
        message = f"The property {prop!r} is of type {kind}, which {new.content_type!r} is not."
        problems.add((*here, "content_type"), "schema_violation", message)
    return prop, kind


def _check(new: NewUpload, settings: Settings, problems: Problems, here: Location) -> None:
    name = new.filename
    if not 1 <= len(name) <= 255 or re.search(r"[/\\]", name) or name in (".", "..") or not name.isprintable():
        problems.add((*here, "filename"), "bad_name", "A filename has 1 to 255 printable characters and no slash.")
    if not MIME.fullmatch(new.content_type) or not new.content_type.isprintable():
        problems.add((*here, "content_type"), "bad_value", "A content_type is like image/png.")
    if new.file_size_bytes is not None and not 1 <= new.file_size_bytes <= settings.max_blob_bytes:
        message = f"A blob has 1 to {settings.max_blob_bytes} bytes (PGRETRIEVE_MAX_BLOB_BYTES)."
        problems.add((*here, "file_size_bytes"), "blob_too_large", message)
    if new.file_hash is not None and not re.fullmatch("[0-9a-fA-F]{64}", new.file_hash):
        problems.add((*here, "file_hash"), "bad_checksum", "A file_hash is a SHA-256: 64 hexadecimal digits.")
    if not 60 <= new.seconds <= 86_400:
        problems.add((*here, "presigned_url_expiration"), "out_of_range", "An address holds for 60 to 86400 seconds.")
    texts = {"metadata": new.metadata, "object_metadata": new.object_fields, "blob_property": new.blob_property}
    for name, value in texts.items():
        if holds_nul(value):
            problems.add((*here, name), "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")


def _hashed(signature: str) -> bytes:
    return hashlib.sha256(signature.encode()).digest()


@dataclass(frozen=True, slots=True)
class Awaited:
    """What an upload still waits for."""

    upload_id: str
    file_size_bytes: int | None
    file_hash: str | None


async def awaited(conn: AsyncConnection, upload_id: str, signature: str) -> Awaited:
    """The upload of this address; `NotFound` where there is none, or none any more."""
    row = None
    if "\0" not in upload_id:
        binds = {"upload_id": upload_id, "signature_hash": _hashed(signature)}
        row = (await conn.execute(statement("open_upload"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("upload", upload_id, "Its address has ended, was confirmed, or was never made.")
    return Awaited(**row)


async def receive(conn: AsyncConnection, upload: Awaited, written: Written) -> None:
    """The bytes were written; those that are not as announced are refused, and left to be swept."""
    problems = Problems()
    check_bytes(upload.file_size_bytes, upload.file_hash, written.size_bytes, written.sha256, problems)
    problems.refuse()
    await blobs.put(conn, [written], [])
    binds = {"upload_id": upload.upload_id, "sha256": written.sha256, "size_bytes": written.size_bytes}
    if (await conn.execute(statement("receive_upload"), binds)).one_or_none() is None:
        raise NotFound("upload", upload.upload_id, "It was confirmed or cancelled meanwhile.")


def check_bytes(size: int | None, sha256: str | None, came: int | None, hashed: str | None, problems: Problems) -> None:
    """Size and hash as they were said, against those of what came."""
    if size is not None and size != came:
        problems.add(("body",), "bad_size", f"{size} bytes were announced, {came} came; send them again.")
    if sha256 is not None and sha256.strip('"').lower() != hashed:
        problems.add(("body",), "bad_checksum", f"The bytes that came have the SHA-256 {hashed}; send them again.")


async def find(conn: AsyncConnection, bucket_id: str, upload_id: str, *, lock: bool = False) -> Upload:
    binds = {"bucket_id": bucket_id, "upload_id": upload_id}
    row = None
    if "\0" not in upload_id:
        name = "lock_upload" if lock else "find_upload"
        row = (await conn.execute(statement(name), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("upload", upload_id)
    return Upload(**row)


async def uploaded(conn: AsyncConnection, bucket_id: str, upload_ids: Iterable[str]) -> dict[str, Source]:
    """What these uploads have brought; one that has brought nothing is not there."""
    asked = [each for each in upload_ids if "\0" not in each]
    if not asked:
        return {}
    rows = await conn.execute(statement("uploaded"), {"bucket_id": bucket_id, "upload_ids": asked})
    return {row.upload_id: _source(row.sha256, row.file_size_bytes, row.content_type, row.filename) for row in rows}


def _source(sha256: str, size: int | None, content_type: str, filename: str) -> Source:
    return Source("", "", sha256=sha256, size_bytes=size, mime_type=content_type, filename=filename)


async def confirm(
    conn: AsyncConnection,
    held: Held,
    settings: Settings,
    upload_id: str,
    *,
    etag: str | None,
    size: int | None,
    policy: str | None,
) -> Upload:
    """Confirm that the bytes are here, and make the object; confirmed once more it answers the same."""
    found = await find(conn, held.bucket_id, upload_id, lock=True)
    if found.status == "COMPLETED":
        return found
    if found.status == "FAILED":
        raise Conflict("The time of this upload is over; announce it again.", code="upload_expired")
    if found.sha256 is None:
        raise Conflict("The bytes are not here yet: PUT them to the presigned_url.", code="upload_incomplete")
    problems = Problems()
    check_bytes(size, etag, found.file_size_bytes, found.sha256, problems)
    problems.refuse()
    object_id = None
    if found.create_object:
        object_id = await _make_object(conn, held, settings, found, policy_of(held.schema, policy))
    await conn.execute(statement("complete_upload"), {"upload_id": upload_id, "object_id": object_id})
    return await find(conn, held.bucket_id, upload_id)


async def _make_object(conn: AsyncConnection, held: Held, settings: Settings, found: Upload, policy: str) -> str:
    assert found.sha256 is not None and found.blob_property is not None and found.blob_type is not None
    there = {found.upload_id: _source(found.sha256, found.file_size_bytes, found.content_type, found.filename)}
    blob = RawBlob(found.blob_property, found.blob_type, upload_id=found.upload_id)
    fields = msgspec.json.decode(found.object_fields, type=dict[str, msgspec.Raw])
    problems = Problems()
    new = check(RawObject(fields, [blob]), there, held.schema, settings, problems)
    if new is None:  # the schema has changed since it was announced
        raise InvalidRequest(problems.found)
    await blobs.put(conn, [], new.sources)
    return (await objects.put(conn, held, new, policy)).object_id


async def cancel(conn: AsyncConnection, bucket_id: str, upload_id: str) -> None:
    """Forget an upload that was not confirmed; its bytes are left to be swept."""
    found = await find(conn, bucket_id, upload_id, lock=True)
    if found.status == "COMPLETED":
        raise Conflict("This upload is confirmed; delete its object instead.", code="upload_completed")
    await conn.execute(statement("delete_upload"), {"upload_id": upload_id})
