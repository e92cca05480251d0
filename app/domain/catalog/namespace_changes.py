"""What may change of a namespace after its creation: its name, its description, what it declares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.catalog.namespaces import check_name, insert_identifiers, lock_catalog, taken
from app.domain.indexing import payload_indexes
from app.domain.indexing.payload_indexes import PayloadIndex
from app.domain.retrieving import functions
from app.domain.security import audit
from app.errors import Problems

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType


@dataclass(frozen=True, slots=True)
class Changes:
    """What is given changes; a description may become none."""

    namespace_name: str | None = None
    description: str | Unset | None = UNSET
    payload_indexes: Sequence[PayloadIndex] | None = None
    auto_create_indexes: bool | None = None


async def change(conn: AsyncConnection, identifier: str, changes: Changes) -> str:
    """Change the namespace, and answer its id; plans that were made for it, also under its old name, end with it."""
    problems = Problems()
    if changes.namespace_name is not None:
        check_name(changes.namespace_name, ("body", "namespace_name"), problems, 3, 64)
    payload_indexes.check_declared(changes.payload_indexes or (), problems)
    problems.refuse()
    catalog = await lock_catalog(conn, identifier, exclusive=True, adopted_too=changes.payload_indexes is None)
    namespace_id = catalog.namespace_id
    name = catalog.namespace_name if changes.namespace_name is None else changes.namespace_name
    if name != catalog.namespace_name:
        await _rename(conn, namespace_id, name)
    if changes.payload_indexes is not None:
        # A whole list replaces adaptive indexes only where they would not be made again.
        replaced = changes.auto_create_indexes is False
        await payload_indexes.put_declared(conn, catalog, changes.payload_indexes, adaptive_too=replaced)
    kept = {} if changes.auto_create_indexes is None else {"auto_create_indexes": changes.auto_create_indexes}
    binds = {
        "namespace_id": namespace_id,
        "namespace_name": name,
        "settings": as_json(kept),
        "describe": changes.description is not UNSET,
        "description": None if changes.description is UNSET else changes.description,
    }
    await conn.execute(statement("change_namespace"), binds)
    await functions.follow(conn, namespace_id)
    await audit.record(conn, "namespace", "updated", namespace_id, namespace_id, **_in_short(changes))
    return namespace_id


def _in_short(changes: Changes) -> dict[str, Any]:
    """What was given; of a description, only that it was."""
    indexes = None if changes.payload_indexes is None else [index.field_name for index in changes.payload_indexes]
    return {
        "namespace_name": changes.namespace_name,
        "description": None if changes.description is UNSET else "changed",
        "payload_indexes": indexes,
        "auto_create_indexes": changes.auto_create_indexes,
    }


async def _rename(conn: AsyncConnection, namespace_id: str, name: str) -> None:
    await conn.execute(statement("forget_namespace_names"), {"namespace_id": namespace_id})
    try:
        if name != namespace_id:
            await insert_identifiers(conn, namespace_id, [name])
    except IntegrityError as error:
        raise taken(name) from error
