"""Buckets: made, found, listed, changed, deleted, within a namespace."""

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
from app.domain.content.bucket_schemas import POLICIES, BucketSchema, check_schema, check_unique_fields
from app.domain.documents.documents import holds_nul
from app.domain.security import audit
from app.errors import Conflict, InvalidRequest, NotFound, Problem, Problems
from app.settings import Settings

# Paths of other operations begin with it.
RESERVED_NAMES = frozenset({"list", ".", ".."})
TIME = sa.TIMESTAMP(timezone=True)
LISTED = Listed(
    statement="list_buckets",
    columns={
        **dict.fromkeys(("bucket_id", "namespace_id", "bucket_name", "description", "bucket_schema"), sa.Text()),
        "unique_fields": sa.ARRAY(sa.Text),
        **dict.fromkeys(("default_policy", "metadata"), sa.Text()),
        **dict.fromkeys(("created_at", "updated_at"), TIME),
        **dict.fromkeys(("object_count", "total_size_bytes"), sa.BigInteger()),
        "last_upload_at": TIME,
        "failed_object_count": sa.BigInteger(),
    },
    key="bucket_id",
    sortable=("bucket_id", "bucket_name", "created_at", "updated_at"),
    searched=("bucket_id", "bucket_name", "description"),
    opened=("bucket_schema", "metadata"),
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket with its counts; JSON parts are kept as text."""

    bucket_id: str
    namespace_id: str
    bucket_name: str
    description: str | None
    bucket_schema: str
    unique_fields: Sequence[str] | None
    default_policy: str | None
    metadata: str
    created_at: datetime
    updated_at: datetime
    object_count: int
    total_size_bytes: int
    last_upload_at: datetime | None
    failed_object_count: int


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """The fields whose values together no two objects share, and what a known key means by default."""

    fields: Sequence[str]
    default_policy: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A bucket that does not change until the transaction ends, as writing objects needs it."""

    bucket_id: str
    schema: BucketSchema


async def create(
    conn: AsyncConnection,
    settings: Settings,
    namespace_id: str,
    *,
    name: str,
    properties: Mapping[str, Any],
    unique_key: UniqueKey | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Bucket:
    """Make a bucket; a taken name is a `Conflict`."""
    problems = Problems()
    _check(name, description, metadata, problems)
    check_schema(properties, settings.max_schema_fields, problems, ("body", "bucket_schema", "properties"))
    if unique_key is not None:
        check_unique_fields(unique_key.fields, properties, problems, ("body", "unique_key", "fields"))
        check_policy(unique_key.default_policy, ("body", "unique_key", "default_policy"), problems)
    problems.refuse()
    binds = {
        "bucket_id": f"bkt_{secrets.token_hex(12)}",
        "namespace_id": namespace_id,
        "bucket_name": name,
        "description": description,
        "bucket_schema": as_json({"properties": properties}),
        "unique_fields": None if unique_key is None else sorted(unique_key.fields),
        "default_policy": unique_key and unique_key.default_policy,
        "metadata": as_json(metadata or {}),
    }
    try:
        await conn.execute(statement("insert_bucket"), binds)
    except IntegrityError as error:
        raise _refused(error, name) from error
    bucket_id = str(binds["bucket_id"])
    await audit.record(conn, "bucket", "created", bucket_id, namespace_id, bucket_name=name, fields=sorted(properties))
    return await find(conn, namespace_id, bucket_id)


def _refused(error: IntegrityError, name: str) -> Exception:
    if "buckets_name" in str(error.orig):
        return Conflict(f"A bucket {name!r} exists already in this namespace.", code="already_exists")
    message = "The namespace was deleted or changed while this ran; try again."
    return Conflict(message, code="changing", retryable=True)


def _check(name: str | None, description: str | None, metadata: Any, problems: Problems) -> None:
    if name is not None:
        lost = name != name.strip() or "/" in name or not name.isprintable()
        if not 1 <= len(name) <= 255 or lost or name in RESERVED_NAMES:
            message = (
                "A bucket_name has 1 to 255 printable characters without a slash, and no space at its ends; "
                f"{', '.join(sorted(RESERVED_NAMES))} are taken."
            )
            problems.add(("body", "bucket_name"), "bad_name", message)
    for field, value in (("description", description), ("metadata", metadata)):
        if holds_nul(value):
            problems.add(("body", field), "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")


def check_policy(policy: str | None, here: tuple[str | int, ...], problems: Problems) -> None:
    if policy is not None and policy not in POLICIES:
        problems.add(here, "bad_policy", f"A policy is one of {', '.join(POLICIES)}.")


async def find(conn: AsyncConnection, namespace_id: str, identifier: str) -> Bucket:
    """By id or name, with its counts; `NotFound` when there is none in this namespace."""
    return Bucket(**await _one(conn, "find_bucket", namespace_id, identifier))


async def resolve(conn: AsyncConnection, namespace_id: str, identifier: str) -> str:
    """Its id alone, for those who read: they hold up nobody."""
    return str((await _one(conn, "resolve_bucket", namespace_id, identifier))["bucket_id"])


async def hold(conn: AsyncConnection, namespace_id: str, identifier: str, *, alone: bool = False) -> Held:
    """The same, kept from changing until the transaction ends; writers of objects do not disturb each other."""
    row = await _one(conn, "lock_bucket_alone" if alone else "lock_bucket", namespace_id, identifier)
    properties = msgspec.json.decode(row["bucket_schema"])["properties"]
    return Held(row["bucket_id"], BucketSchema(properties, row["unique_fields"], row["default_policy"]))


async def _one(conn: AsyncConnection, name: str, namespace_id: str, identifier: str) -> RowMapping:
    binds = {"namespace_id": namespace_id, "identifier": identifier}
    row = None
    if "\0" not in identifier:
        row = (await conn.execute(statement(name), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("bucket", identifier)
    return row


async def change(
    conn: AsyncConnection,
    settings: Settings,
    namespace_id: str,
    identifier: str,
    changes: Mapping[str, Any],
    *,
    breaking: bool = False,
) -> Bucket:
    """Change what is given: name, description, metadata, `properties` of the schema, `unique_key`.

    Objects that are there are not looked at again, so a schema that takes fields away from them must be asked for.
    """
    held = await hold(conn, namespace_id, identifier, alone=True)
    problems = Problems()
    _check(changes.get("bucket_name"), changes.get("description"), changes.get("metadata"), problems)
    given: dict[str, Any] = {k: v for k, v in changes.items() if k not in ("properties", "unique_key")}
    if (properties := changes.get("properties")) is not None:
        here = ("body", "bucket_schema", "properties")
        check_schema(properties, settings.max_schema_fields, problems, here)
        check_unique_fields(held.schema.unique_fields or (), properties, problems, here)
        if not breaking:
            _check_kept(held.schema.properties, properties, problems)
        given["bucket_schema"] = {"properties": properties}
    if (unique_key := changes.get("unique_key")) is not None:
        _check_unique_key(held.schema, unique_key, problems)
        given["default_policy"] = unique_key.default_policy
    problems.refuse()
    try:
        await conn.execute(statement("change_bucket"), {"bucket_id": held.bucket_id, "changes": as_json(given)})
    except IntegrityError as error:
        raise _refused(error, str(changes.get("bucket_name"))) from error
    await audit.record(conn, "bucket", "updated", held.bucket_id, namespace_id, changed=sorted(changes), force=breaking)
    return await find(conn, namespace_id, held.bucket_id)


def _check_kept(before: Mapping[str, Any], after: Mapping[str, Any], problems: Problems) -> None:
    """A field that goes, changes its type or becomes required breaks what reads or writes the objects."""
    for name, field in before.items():
        here = ("body", "bucket_schema", "properties", name)
        if name not in after:
            message = f"The field {name!r} would be gone; ?force_schema_break=true takes it away all the same."
        elif after[name]["type"] != field["type"]:
            message = f"{name!r} is of type {field['type']}; ?force_schema_break=true changes it all the same."
        elif after[name].get("required") and not field.get("required"):
            message = f"{name!r} would become required; ?force_schema_break=true makes it so all the same."
        else:
            continue
        problems.add(here, "schema_break", message)


def _check_unique_key(schema: BucketSchema, wanted: UniqueKey, problems: Problems) -> None:
    here = ("body", "unique_key")
    if schema.unique_fields is None or sorted(wanted.fields) != list(schema.unique_fields):
        has = f"{', '.join(schema.unique_fields)}" if schema.unique_fields else "none"
        message = f"The fields of a unique key are fixed when the bucket is made; this one has {has}."
        problems.add((*here, "fields"), "bad_unique_key", message)
    check_policy(wanted.default_policy, (*here, "default_policy"), problems)


async def delete(conn: AsyncConnection, namespace_id: str, identifier: str) -> Bucket:
    """Delete a bucket with its objects and uploads; their bytes are swept later. `Conflict` while collections are made
    from it."""
    held = await hold(conn, namespace_id, identifier, alone=True)
    over = await conn.execute(statement("collections_over"), {"bucket_id": held.bucket_id, "parents": []})
    if names := [row.collection_name for row in over]:
        message = f"Collections are made from this bucket: {', '.join(names)}. Delete them first."
        raise Conflict(message, code="in_use", collections=names)
    found = await find(conn, namespace_id, held.bucket_id)
    await conn.execute(statement("delete_bucket"), {"bucket_id": found.bucket_id})
    about = {"bucket_name": found.bucket_name, "objects": found.object_count}
    await audit.record(conn, "bucket", "deleted", found.bucket_id, namespace_id, **about)
    return found


def policy_of(schema: BucketSchema, asked: str | None) -> str:
    """What a known key means: the request's policy, else the bucket's. Without a unique key there are only new ones."""
    problems = Problems()
    check_policy(asked, ("query", "policy"), problems)
    if asked is not None and schema.unique_fields is None:
        problems.add(
            ("query", "policy"), "bad_policy", "This bucket has no unique key, so there is no policy to choose."
        )
    problems.refuse()
    if schema.unique_fields is None:
        return "insert"
    policy = asked or schema.default_policy
    if policy is None:
        message = f"This bucket has a unique key and no default policy: say ?policy=, one of {', '.join(POLICIES)}."
        raise InvalidRequest([Problem(("query", "policy"), "bad_policy", message)])
    return policy
