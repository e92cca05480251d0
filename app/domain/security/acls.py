"""Access lists of documents: who may read them, beside keys that read everything."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import Conflict, NotFound, Problems
from app.retrieval.catalog import Catalog

FIELDS = ("read", "write", "public")
COLUMNS = ("acl", "readers")
MOST = 256
LONGEST = 200
EVERYBODY = "*"  # among the readers: the list is public
NOTHING: Mapping[str, Any] = {"read": [], "write": [], "public": False}


def check_principal(name: str) -> str | None:
    """What is wrong with the name of a principal."""
    if not 1 <= len(name) <= LONGEST or not name.isprintable() or name == EVERYBODY:
        return f"A principal is named by 1 to {LONGEST} printable characters, and not by `{EVERYBODY}` alone."
    return None


def check(acl: Any, at: tuple[str | int, ...], problems: Problems) -> Mapping[str, Any] | None:
    """The list, if there is one and nothing is wrong with it."""
    if acl is None:
        return None
    if not isinstance(acl, Mapping) or acl.keys() - set(FIELDS):
        problems.add(at, "bad_acl", "An access list is an object with `read`, `write` and `public`.")
        return None
    before = len(problems.found)
    for field in ("read", "write"):
        names = acl.get(field)
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            problems.add((*at, field), "bad_acl", f"`{field}` is a list of names of principals.")
        elif len(names) > MOST:
            problems.add((*at, field), "bad_acl", f"`{field}` has at most {MOST} names, not {len(names)}.")
        else:
            wrong = next((message for name in names if (message := check_principal(name))), None)
            if wrong is not None:
                problems.add((*at, field), "bad_acl", wrong)
    if not isinstance(acl.get("public"), bool | None):
        problems.add((*at, "public"), "bad_acl", "`public` is true or false.")
    return acl if len(problems.found) == before else None


def _given(acl: Mapping[str, Any]) -> dict[str, Any]:
    return {field: acl[field] for field in FIELDS if acl.get(field) is not None}


def whole(acl: Mapping[str, Any]) -> str:
    """The JSON of a checked list, with all its fields."""
    return msgspec.json.encode({**NOTHING, **_given(acl)}).decode()


def storable(catalog: Catalog, acls: Sequence[Any]) -> bool:
    """Whether there are columns for access lists; `Conflict` where there are none for one of these."""
    if not catalog.has_access_lists and any(acl is not None for acl in acls):
        message = "This namespace has no access lists yet: have `pgretrieve migrate` run to its end, and try again."
        raise Conflict(message, code="not_migrated")
    return catalog.has_access_lists


def columns(acl: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    """The values of `COLUMNS` for a list."""
    return [acl, sa.func.pgretrieve.acl_readers(acl, type_=sa.ARRAY(sa.Text))]


async def change(
    conn: AsyncConnection, catalog: Catalog, document_id: str, collection: str, change: Mapping[str, Any]
) -> None:
    """Set these fields of a document's list, which is made if there is none; those that are not given stay."""
    storable(catalog, [change])
    documents = catalog.relation
    stored = sa.func.coalesce(documents.c.acl, sa.cast(sa.bindparam("nothing", type_=sa.Text), JSONB), type_=JSONB)
    changed = stored.op("||", return_type=JSONB())(sa.cast(sa.bindparam("change", type_=sa.Text), JSONB))
    update = (
        sa.update(documents)
        .where(documents.c.document_id == sa.bindparam("which"))
        .where(documents.c.collection_id == sa.bindparam("place"))
        .values(dict(zip(COLUMNS, columns(changed), strict=True)) | {"updated_at": sa.func.now()})
    )
    values = {"nothing": whole({}), "change": msgspec.json.encode(_given(change)).decode(), "which": document_id}
    values["place"] = catalog.collection_id(collection)
    if "\0" in document_id or (await conn.execute(update, values)).rowcount == 0:
        raise NotFound("document", document_id)
