"""Payload indexes: which fields of payloads are declared to be filtered by, and what their values are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.errors import Problems

TYPES = ("keyword", "integer", "float", "bool", "datetime", "geo", "text", "uuid")


@dataclass(frozen=True, slots=True)
class PayloadIndex:
    """A declared field, a dotted path into the payload; `field_schema` has the options that came with it."""

    field_name: str
    type: str
    field_schema: Any = None


def check(indexes: Sequence[PayloadIndex], problems: Problems) -> None:
    """Find everything that is wrong with declarations."""
    seen: set[str] = set()
    for n, index in enumerate(indexes):
        here = ("body", "payload_indexes", n)
        if not 1 <= len(index.field_name) <= 255 or "\0" in index.field_name:
            message = "Name a field by a dotted path of 1 to 255 characters."
            problems.add((*here, "field_name"), "bad_field", message)
        if index.field_name in seen:
            message = f"The field {index.field_name!r} is declared more than once."
            problems.add((*here, "field_name"), "duplicate_name", message)
        seen.add(index.field_name)
        if index.type not in TYPES:
            message = f"Unknown type {index.type!r}; the types are {', '.join(TYPES)}."
            problems.add((*here, "type"), "unknown_type", message)


async def put(conn: AsyncConnection, namespace_id: str, indexes: Sequence[PayloadIndex]) -> None:
    """These declarations in the place of those before."""
    rows = as_json([asdict(index) for index in indexes])
    binds = {"namespace_id": namespace_id, "indexes": rows}
    await conn.execute(statement("forget_payload_indexes"), binds)
    await conn.execute(statement("put_payload_indexes"), binds)


async def declared(conn: AsyncConnection, namespace_id: str) -> list[str]:
    """The declared fields, in the order of their names."""
    rows = await conn.execute(statement("declared_payload_indexes"), {"namespace_id": namespace_id})
    return list(rows.scalars())
