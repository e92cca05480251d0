"""The versions of a retriever: each kept as it was, compared as JSON Patch (RFC 6902), and pinned by executions."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import jsonpatch
import jsonpointer
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.retrieving import retrievers
from app.domain.retrieving.retrievers import Retriever
from app.domain.runtime import Prepared
from app.errors import Conflict, InvalidRequest, NotFound
from app.retrieval.catalog import Catalog
from app.retrieval.stages.base import Limits

MOST = 2**31 - 1  # of what the column holds


@dataclass(frozen=True, slots=True)
class Version:
    """A retriever as it was at one version. The name is None where it was not kept yet, the key where none is known."""

    version: int
    retriever_name: str | None
    definition: dict[str, Any]
    created_by: str | None
    created_at: datetime


async def find_all(
    conn: AsyncConnection, namespace_id: str, identifier: str, *, before: int | None, limit: int
) -> tuple[Retriever, list[Version]]:
    """The retriever, and at most `limit` of its versions below `before`, the newest first."""
    retriever = await retrievers.find(conn, namespace_id, identifier)
    binds = {"retriever_id": retriever.retriever_id, "before": MOST if before is None else before, "limit": limit}
    rows = (await conn.execute(statement("retriever_versions"), binds)).mappings()
    return retriever, [_from_row(row) for row in rows]


async def find(conn: AsyncConnection, namespace_id: str, identifier: str, version: int) -> tuple[Retriever, Version]:
    """The retriever and one version of it; `NotFound` says which there are."""
    retriever = await retrievers.find(conn, namespace_id, identifier)
    return retriever, await _of(conn, retriever, version)


async def _of(conn: AsyncConnection, retriever: Retriever, version: int) -> Version:
    if 1 <= version <= retriever.version:
        binds = {"retriever_id": retriever.retriever_id, "version": version}
        row = (await conn.execute(statement("retriever_version"), binds)).mappings().one_or_none()
        if row is not None:
            return _from_row(row)
    hint = f"The versions of {retriever.retriever_name!r} are 1 to {retriever.version}."
    raise NotFound("version", str(version), hint)


async def two(
    conn: AsyncConnection, namespace_id: str, identifier: str, first: int, second: int
) -> tuple[Retriever, Version, Version]:
    """The retriever, and two of its versions."""
    retriever = await retrievers.find(conn, namespace_id, identifier)
    return retriever, await _of(conn, retriever, first), await _of(conn, retriever, second)


def diff(before: Version, after: Version) -> list[dict[str, Any]]:
    """The operations that turn one version into another, in their order."""
    named = before.retriever_name is not None and after.retriever_name is not None
    return changes(
        *({**({"retriever_name": v.retriever_name} if named else {}), **v.definition} for v in (before, after))
    )


def changes(before: Any, after: Any) -> list[dict[str, Any]]:
    """A JSON Patch whose operations also say what `was` there, which those who apply patches pass over."""
    try:
        document, told = copy.deepcopy(before), list[dict[str, Any]]()
        for operation in jsonpatch.make_patch(before, after):
            was = {}
            if operation["op"] in ("remove", "replace"):
                was = {"was": jsonpointer.resolve_pointer(document, operation["path"])}
            told.append({**operation, **was})
            document = jsonpatch.JsonPatch([copy.deepcopy(operation)]).apply(document, in_place=True)
    except RecursionError:  # nested deeper than is worth telling apart
        return [{"op": "replace", "path": "", "value": after, "was": before}]
    return told


def as_it_was(retriever: Retriever, version: Version) -> Retriever:
    """The retriever with the definition and the time of this version, under its present name."""
    made = version.created_at
    return replace(retriever, version=version.version, definition=version.definition, updated_at=made)


def prepare(retriever: Retriever, version: Version, catalog: Catalog, limits: Limits) -> Prepared:
    """A version checked against the namespace as it is now; `Conflict` where that has moved on."""
    try:
        prepared = retrievers.prepare(as_it_was(retriever, version), catalog, limits)
    except InvalidRequest as error:
        problems = [f"{'.'.join(map(str, problem.location[1:]))}: {problem.message}" for problem in error.problems]
        message = f"Version {version.version} of {retriever.retriever_name!r} no longer fits its namespace: "
        raise Conflict(message + " ".join(problems), code="no_longer_fits", problems=problems) from None
    return replace(prepared, present=retriever.version)


def _from_row(row: Mapping[Any, Any]) -> Version:
    return Version(**{**row, "definition": msgspec.json.decode(row["definition"])})
