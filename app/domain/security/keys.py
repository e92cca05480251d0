"""API keys, kept as hashes only. A key is 32 random bytes, so that a plain SHA-256 cannot be guessed backwards."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.security import acls, audit
from app.domain.security.access import EVERYTHING, READING, SCOPES, WHOLE_SERVER, Principal
from app.errors import Conflict, Forbidden, InvalidRequest, NotFound, Problem, Problems, Unauthorized

ROOT = "root"
LONGEST_NAME = 200
CHANGEABLE = ("name", "rate_limit_override")
LONGEST_GRACE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored; `status` is active, expired or revoked, by the database's clock."""

    key_id: str
    name: str
    scopes: list[str]
    namespaces: list[str] | None
    status: str
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    previous_until: datetime | None
    rate_limit_override: int | None
    principal_id: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key that is to be made. `namespaces`: ids or names; one that does not exist counts as an id. With a
    `principal_id` it reads the documents of that principal only, and writes nothing."""

    name: str
    scopes: Sequence[str]
    namespaces: Sequence[str] | None = None
    expires_at: datetime | None = None
    rate_limit_override: int | None = None
    principal_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A key that is in force, and for how many seconds more; None: it does not end by itself."""

    principal: Principal
    seconds_left: float | None


def new_key() -> str:
    return f"pgr_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def find(conn: AsyncConnection, hashed: bytes) -> Found | None:
    """The key of that hash; None for one that never was, `Unauthorized` for one that has ended."""
    row = (await conn.execute(statement("find_key"), {"key_hash": hashed})).one_or_none()
    if row is None:
        return None
    if row.revoked_at is not None:
        raise Unauthorized("This API key was revoked; ask for another one.", code="key_revoked")
    if row.is_over:
        message = f"This API key ended at {row.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}; ask for another one."
        raise Unauthorized(message, code="key_expired")
    if row.is_previous and row.seconds_left <= 0:
        message = (
            "This API key was rotated, and the time is over in which the secret before worked, too; use the new one."
        )
        raise Unauthorized(message, code="key_rotated")
    namespaces = None if row.namespaces is None else frozenset(row.namespaces)
    limits = (row.rate_limit_override, row.name, row.principal_id)
    principal = Principal(row.key_id, frozenset(row.scopes), namespaces, row.expires_at, *limits)
    return Found(principal, row.seconds_left)


def check(wanted: Wanted, now: datetime) -> None:
    """Find everything that is wrong with a key that is to be made."""
    problems = Problems()
    _check_name(wanted.name, problems)
    if not wanted.scopes:
        problems.add(("body", "scopes"), "no_scopes", f"Give at least one scope: {', '.join(SCOPES)}.")
    for n, scope in enumerate(wanted.scopes):
        if scope not in SCOPES and scope != EVERYTHING:
            message = f"No scope {scope!r}; the scopes are {', '.join(SCOPES)}, and {EVERYTHING} for all of them."
            problems.add(("body", "scopes", n), "unknown_scope", message)
        elif wanted.namespaces is not None and scope in (WHOLE_SERVER, EVERYTHING):
            message = f"A key that is limited to namespaces has no scope {scope!r}; name others, or do not limit it."
            problems.add(("body", "scopes", n), "scope_of_whole_server", message)
    if wanted.principal_id is not None:
        _check_principal(wanted.principal_id, wanted.scopes, problems)
    if wanted.namespaces is not None:
        if not wanted.namespaces:
            message = "Name at least one namespace, or leave this out: then the key sees all of them."
            problems.add(("body", "namespaces"), "no_namespaces", message)
        for n, namespace in enumerate(wanted.namespaces):
            if not 1 <= len(namespace) <= 128 or "\0" in namespace:
                problems.add(("body", "namespaces", n), "bad_name", "An id or a name has 1 to 128 characters.")
    if wanted.expires_at is not None and wanted.expires_at <= now:
        problems.add(("body", "expires_at"), "bad_expiry", "A key must end in the future.")
    problems.refuse()


def _check_name(name: str, problems: Problems) -> None:
    if not 1 <= len(name) <= LONGEST_NAME or "\0" in name:
        problems.add(("body", "name"), "bad_name", f"The name of a key has 1 to {LONGEST_NAME} characters.")


def _check_principal(principal_id: str, scopes: Sequence[str], problems: Problems) -> None:
    if (wrong := acls.check_principal(principal_id)) is not None:
        problems.add(("body", "principal_id"), "bad_principal", wrong)
    for n, scope in enumerate(scopes):
        if scope != READING:
            message = f"A key with a principal_id only reads: its one scope is {READING!r}, not {scope!r}."
            problems.add(("body", "scopes", n), "scope_of_no_principal", message)


def bounded(wanted: Wanted, maker: Principal) -> Wanted:
    """Nobody gives what they do not have: no scope, no place, no time beyond their own. Unsaid, the end is theirs."""
    if maker.namespaces is not None:
        raise Forbidden("A key that is limited to namespaces cannot make keys.")
    missing = [scope for scope in wanted.scopes if scope not in maker.scopes and EVERYTHING not in maker.scopes]
    if missing:
        raise Forbidden(f"This key does not have {', '.join(missing)}, so it cannot give that.", scopes=missing)
    if maker.expires_at is None:
        return wanted
    if wanted.expires_at is not None and wanted.expires_at > maker.expires_at:
        raise Forbidden(f"This key ends at {maker.expires_at.isoformat()}; one that it makes cannot outlast it.")
    return replace(wanted, expires_at=wanted.expires_at or maker.expires_at)


async def create(conn: AsyncConnection, wanted: Wanted, created_by: str) -> tuple[str, Key, list[str]]:
    """Store a checked key. Answers the key itself, here and nowhere else; its row; the namespaces that do not exist."""
    namespaces, absent = await _resolved(conn, wanted.namespaces)
    key = new_key()
    row: dict[str, Any] = {"key_id": f"key_{secrets.token_hex(12)}", "key_hash": hash_key(key), "name": wanted.name}
    row |= {"scopes": sorted(set(wanted.scopes)), "namespaces": namespaces}
    row |= {"expires_at": wanted.expires_at, "created_by": created_by}
    row |= {"rate_limit_override": wanted.rate_limit_override, "principal_id": wanted.principal_id}
    await conn.execute(statement("insert_key"), row)
    about = {
        name: row[name]
        for name in ("name", "scopes", "namespaces", "expires_at", "rate_limit_override", "principal_id")
    }
    await audit.record(conn, "api_key", "created", row["key_id"], **about)
    return key, await get(conn, row["key_id"]), absent


async def _resolved(conn: AsyncConnection, identifiers: Sequence[str] | None) -> tuple[list[str] | None, list[str]]:
    """Ids for ids or names, and which of them do not exist; those are taken for ids of namespaces to come."""
    if identifiers is None:
        return None, []
    rows = await conn.execute(statement("resolve_namespaces"), {"identifiers": list(identifiers)})
    known = {row.identifier: row.namespace_id for row in rows}
    absent = [identifier for identifier in dict.fromkeys(identifiers) if identifier not in known]
    return sorted({known.get(identifier, identifier) for identifier in identifiers}), absent


async def get(conn: AsyncConnection, key_id: str) -> Key:
    row = (await conn.execute(statement("list_keys"), {"key_id": key_id, "after": None, "limit": 1})).one_or_none()
    if row is None:
        raise NotFound("key", key_id)
    return Key(**row._mapping)


async def list_page(conn: AsyncConnection, *, after: str | None, limit: int) -> tuple[list[Key], int]:
    """A page of keys in the order of their ids, those that have ended too; and how many there are."""
    rows = await conn.execute(statement("list_keys"), {"key_id": None, "after": after, "limit": limit})
    total: int = (await conn.execute(statement("count_keys"))).scalar_one()
    return [Key(**row._mapping) for row in rows], total


async def change(conn: AsyncConnection, key_id: str, changes: Mapping[str, Any]) -> Key:
    """Give a key another name or another limit; what it may do stays as it was made."""
    if key_id == ROOT:
        message = "The root key has no other name, and no limit."
        raise Conflict(message, code="root_key")
    if "name" in changes:
        problems = Problems()
        _check_name(changes["name"], problems)
        problems.refuse()
    binds = {"key_id": key_id, "changed": list(changes), **dict.fromkeys(CHANGEABLE), **changes}
    if (await conn.execute(statement("change_key"), binds)).rowcount:
        await audit.record(conn, "api_key", "updated", key_id, changed=sorted(changes), **changes)
    return await get(conn, key_id)


async def revoke(conn: AsyncConnection, key_id: str) -> Key:
    """End a key; one that has ended already stays as it is."""
    if key_id == ROOT:
        message = (
            "The root key cannot be revoked. To replace it, start the service with another PGRETRIEVE_ROOT_KEY, "
            "or without its file root.key: a new one is made."
        )
        raise Conflict(message, code="root_key")
    if (await conn.execute(statement("revoke_key"), {"key_id": key_id})).rowcount:
        await audit.record(conn, "api_key", "revoked", key_id)
    return await get(conn, key_id)


async def rotate(
    conn: AsyncConnection, key_id: str, grace: timedelta, maker: Principal | None = None
) -> tuple[str, Key]:
    """Give a key another secret; the one before works on for a while. Answers the secret, here and nowhere else.

    Who gets it can do what the key can, so it must be nothing that the `maker` could not give; None: a command.
    """
    if not timedelta() <= grace <= LONGEST_GRACE:
        problem = f"The secret before works for 0 to {LONGEST_GRACE.days} days more."
        raise InvalidRequest([Problem(("body", "grace_seconds"), "out_of_range", problem)])
    if key_id == ROOT:
        message = "The root key is replaced by the service's setting (PGRETRIEVE_ROOT_KEY), not rotated."
        raise Conflict(message, code="root_key")
    stored = await get(conn, key_id)
    if maker is not None:
        end = stored.expires_at or datetime.max.replace(tzinfo=UTC)
        bounded(Wanted(stored.name, stored.scopes, stored.namespaces, end), maker)
    key = new_key()
    binds = {"key_id": key_id, "key_hash": hash_key(key), "grace": grace}
    if (await conn.execute(statement("rotate_key"), binds)).one_or_none() is None:
        raise Conflict(f"The key {key_id!r} has ended; make another one.", code="key_ended")
    await audit.record(conn, "api_key", "rotated", key_id, grace_seconds=int(grace.total_seconds()))
    return key, await get(conn, key_id)


async def note_uses(conn: AsyncConnection, uses: Mapping[str, datetime]) -> None:
    """Write when keys were last used. Rows that another process is writing are left to it: it was used just now."""
    await conn.execute(statement("note_key_uses"), {"key_ids": list(uses), "used_at": list(uses.values())})


async def set_root(conn: AsyncConnection, key: str) -> None:
    """Make this the root key; the one before it ends. One that is it already stays, without a word."""
    values = {"key_id": ROOT, "key_hash": hash_key(key), "name": "root key", "scopes": [EVERYTHING]}
    if (await conn.execute(statement("put_key"), values)).rowcount:
        await audit.record(conn, "api_key", "rotated", ROOT)
