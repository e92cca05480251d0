"""Idempotency keys: a request that comes again under its key gets the answer of the first time, and does nothing."""

import hashlib

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.errors import Conflict, InvalidRequest, Problem
from app.settings import Settings


async def claim(conn: AsyncConnection, namespace_id: str, key: str, body: bytes, settings: Settings) -> str | None:
    """The answer of the first time as JSON; None where this is the first. 409 where the first had another body.

    The key's row belongs to the caller's transaction: the same request at the same time waits for its end.
    """
    if "\0" in key:
        problem = Problem(("body", "options", "idempotency_key"), "nul_character", "The key holds U+0000; remove it.")
        raise InvalidRequest([problem])
    kept = settings.idempotency_hours * 3600
    row = {"namespace_id": namespace_id, "key": key, "body_hash": hashlib.sha256(body).digest()}
    if (await conn.execute(statement("take_idempotency_key"), row | {"kept": kept})).scalar_one_or_none():
        await conn.execute(statement("forget_idempotent_answers"), {"kept": kept})
        return None
    found = (await conn.execute(statement("find_idempotent_answer"), row)).one()
    if not found.same:
        message = f"The idempotency key {key!r} came with another body before; use a new key for a new request."
        raise Conflict(message, code="idempotency_conflict")
    return str(found.response)


async def keep(conn: AsyncConnection, namespace_id: str, key: str, response: bytes) -> None:
    """Keep the answer under the key that this transaction has claimed."""
    row = {"namespace_id": namespace_id, "key": key, "response": response.decode()}
    await conn.execute(statement("keep_idempotent_answer"), row)
