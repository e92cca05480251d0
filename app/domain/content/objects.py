"""Objects of buckets: stored by their unique keys, found, listed, changed, deleted; and what processing reads."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.catalog.listing import Listed
from app.domain.content.bucket_schemas import check_fields, unique_key
from app.domain.content.buckets import TIME, Held
from app.domain.content.new_objects import NewObject, as_text, check_nul, hash_of
from app.errors import Conflict, NotFound, Problems
from app.settings import Settings

UNIQUE_TRIES = 5
LISTED = Listed(
    statement="list_objects",
    columns={
        **dict.fromkeys(("object_id", "bucket_id", "key_prefix", "fields", "content_hash"), sa.Text()),
        "size_bytes": sa.BigInteger(),
        **dict.fromkeys(("status", "error"), sa.Text()),
        **dict.fromkeys(("created_at", "updated_at"), TIME),
        "document_count": sa.BigInteger(),
        "blobs": sa.Text(),
    },
    key="object_id",
    sortable=("object_id", "status", "created_at", "updated_at"),
    searched=("object_id", "key_prefix", "fields"),
    opened=("fields", "blobs"),
    root="fields",
)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob of an object: `sha256` where its bytes are in the store, else `url`."""

    blob_id: str
    position: int
    property: str
    type: str
    sha256: str | None
    url: str | None
    content_hash: str
    size_bytes: int | None
    mime_type: str | None
    filename: str | None
    key_prefix: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Object:
    """An object; `fields` is JSON text, `blobs` are in their order."""

    object_id: str
    bucket_id: str
    key_prefix: str | None
    fields: str
    content_hash: str
    size_bytes: int
    status: str
    error: str | None
    created_at: datetime
    updated_at: datetime
    document_count: int = 0
    blobs: tuple[StoredBlob, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """The object that a request led to; `replayed_by` says what made it an old one that was left as it is."""

    object_id: str
    replayed_by: str | None = None


def from_row(row: Mapping[Any, Any]) -> Object:
    return Object(**{**row, "blobs": msgspec.json.decode(row["blobs"], type=tuple[StoredBlob, ...])})


async def find(conn: AsyncConnection, bucket_id: str, object_id: str) -> Object:
    return await _find(conn, bucket_id, object_id)


async def object_content(conn: AsyncConnection, object_id: str) -> Object:
    """An object whichever bucket it is of, for jobs: its fields, its blobs, and the hash that says what it was."""
    return await _find(conn, None, object_id)


async def _find(conn: AsyncConnection, bucket_id: str | None, object_id: str) -> Object:
    binds = {"bucket_id": bucket_id, "object_id": object_id}
    row = None
    if "\0" not in object_id:
        row = (await conn.execute(statement("find_object"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("object", object_id)
    return from_row(row)


async def put(conn: AsyncConnection, held: Held, new: NewObject, policy: str) -> Put:
    """Store an object; what its key means where it is known is the policy's matter. Its contents are there already."""
    if new.idempotency_key is not None and (found := await _by_idempotency_key(conn, held, new)) is not None:
        return found
    if new.skip_duplicates:
        binds = {"bucket_id": held.bucket_id, "content_hash": new.content_hash}
        await conn.execute(statement("take_turn"), binds)
        same = (await conn.execute(statement("find_same_object"), binds)).scalar_one_or_none()
        if same is not None:
            return Put(same, "skip_duplicates")
    for _ in range(UNIQUE_TRIES):
        if policy != "update" and (inserted := await _insert(conn, held, new)) is not None:
            return Put(inserted)
        if new.idempotency_key is not None and (found := await _by_idempotency_key(conn, held, new)) is not None:
            return found  # of a request that came at the same time
        present = await _by_unique_key(conn, held, new)
        if present is not None:
            return await _meet(conn, held, new, policy, present)
        if policy == "update":
            raise NotFound("object", "with this unique key", "The policy `update` makes none.")
    message = "The object of this unique key comes and goes; try again."
    raise Conflict(message, code="changing", retryable=True)


async def _by_idempotency_key(conn: AsyncConnection, held: Held, new: NewObject) -> Put | None:
    binds = {"bucket_id": held.bucket_id, "idempotency_key": new.idempotency_key}
    found = (await conn.execute(statement("find_idempotent_object"), binds)).scalar_one_or_none()
    return None if found is None else Put(found, "idempotency_key")


async def _by_unique_key(conn: AsyncConnection, held: Held, new: NewObject) -> RowMapping | None:
    binds = {"bucket_id": held.bucket_id, "unique_key": new.unique_key}
    return (await conn.execute(statement("lock_object_by_key"), binds)).mappings().one_or_none()


async def _insert(conn: AsyncConnection, held: Held, new: NewObject) -> str | None:
    """The new object's id; None where its key is taken."""
    binds = {**_row(new), "object_id": f"obj_{secrets.token_hex(12)}", "bucket_id": held.bucket_id}
    binds["idempotency_key"] = new.idempotency_key
    object_id: str | None = (await conn.execute(statement("insert_object"), binds)).scalar_one_or_none()
    if object_id is not None:
        await _insert_blobs(conn, object_id, new)
    return object_id


async def _meet(conn: AsyncConnection, held: Held, new: NewObject, policy: str, present: RowMapping) -> Put:
    """The object of that key is there, and locked. Where it is the same already, its blobs stay what they are."""
    object_id = str(present["object_id"])
    if policy == "insert":
        names = ", ".join(held.schema.unique_fields or ())
        message = f"An object with this unique key ({names}) exists already; ?policy=upsert replaces it."
        raise Conflict(message, code="unique_key_exists", object_id=object_id)
    await conn.execute(statement("replace_object"), {**_row(new), "object_id": object_id})
    if present["content_hash"] != new.content_hash:
        await conn.execute(statement("delete_object_blobs"), {"object_id": object_id})
        await _insert_blobs(conn, object_id, new)
    return Put(object_id)


def _row(new: NewObject) -> dict[str, Any]:
    names = ("key_prefix", "fields", "content_hash", "unique_key", "size_bytes")
    return {name: getattr(new, name) for name in names}


async def _insert_blobs(conn: AsyncConnection, object_id: str, new: NewObject) -> None:
    if new.sources:
        rows = [{"blob_id": f"blob_{secrets.token_hex(12)}", **source.row()} for source in new.sources]
        await conn.execute(statement("insert_object_blobs"), {"object_id": object_id, "blobs": as_json(rows)})


async def change(
    conn: AsyncConnection,
    held: Held,
    settings: Settings,
    object_id: str,
    fields: Mapping[str, msgspec.Raw],
    *,
    in_metadata: bool = False,
    key_prefix: str | None = None,
) -> Object:
    """Set fields of an object, and check the whole again; what changes has to be processed again. Blobs stay.

    With `in_metadata` a key that the object has within its own `metadata` is set there.
    """
    binds = {"bucket_id": held.bucket_id, "object_id": object_id}
    row = None
    if "\0" not in object_id:
        row = (await conn.execute(statement("lock_object"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("object", object_id)
    texts = _merged(row["fields"], fields, in_metadata=in_metadata)
    sent = {name: msgspec.json.decode(text) for name, text in texts.items()}
    present = await find(conn, held.bucket_id, object_id)
    problems = Problems()
    if sum(len(bytes(text)) for text in texts.values()) > settings.max_object_bytes:
        message = (
            f"The fields of an object have at most {settings.max_object_bytes} bytes (PGRETRIEVE_MAX_OBJECT_BYTES)."
        )
        problems.add(("body",), "object_too_large", message)
    check_nul({**sent, "key_prefix": key_prefix}, problems, ("body",))
    whole = check_fields(held.schema, sent, problems, ("body",), frozenset(blob.property for blob in present.blobs))
    key = unique_key(held.schema, whole, problems, ("body",))
    problems.refuse()
    values = {
        "object_id": object_id,
        "fields": as_text(whole, sent, texts),
        "key_prefix": row["key_prefix"] if key_prefix is None else key_prefix,
        "content_hash": hash_of(whole, _hashed(present.blobs)),
        "unique_key": key,
    }
    try:
        async with conn.begin_nested():
            await conn.execute(statement("change_object"), values)
    except IntegrityError:
        message = "Another object of this bucket has this unique key."
        raise Conflict(message, code="unique_key_exists") from None
    return await find(conn, held.bucket_id, object_id)


def _hashed(blobs: Sequence[StoredBlob]) -> list[list[Any]]:
    return [[b.property, b.type, b.content_hash, b.mime_type, b.filename, b.metadata] for b in blobs]


def _merged(stored: str, given: Mapping[str, msgspec.Raw], *, in_metadata: bool) -> dict[str, msgspec.Raw]:
    texts = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
    inner: dict[str, msgspec.Raw] = {}
    if in_metadata and "metadata" in texts:
        inner = msgspec.json.decode(bytes(texts["metadata"]), type=dict[str, msgspec.Raw])
    for name, text in given.items():
        if name in inner:
            inner[name] = text
        else:
            texts[name] = text
    if inner:
        texts["metadata"] = msgspec.Raw(msgspec.json.encode(inner))
    return texts


async def delete(conn: AsyncConnection, bucket_id: str, object_id: str) -> None:
    binds = {"bucket_id": bucket_id, "object_id": object_id}
    if "\0" in object_id or (await conn.execute(statement("delete_object"), binds)).one_or_none() is None:
        raise NotFound("object", object_id)


async def find_blob(conn: AsyncConnection, bucket_id: str, object_id: str, blob_id: str) -> Mapping[str, Any]:
    """One blob of an object: `sha256` or `url`, what it is called and how large it is."""
    binds = {"bucket_id": bucket_id, "object_id": object_id, "blob_id": blob_id}
    row = None
    if "\0" not in object_id + blob_id:
        row = (await conn.execute(statement("find_object_blob"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("blob", blob_id)
    return dict(row)
