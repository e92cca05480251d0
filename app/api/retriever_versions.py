"""/v1/retrievers/{id}/versions: what a retriever has been, and what differs between two of its versions."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.params import FromPath

from app.api.paging import PAGED, PageInput, PageQuery, Pagination, page_of, pagination
from app.api.retrievers import shown
from app.api.wire import RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.retrieving import retriever_versions
from app.domain.retrieving.retriever_versions import Version
from app.domain.retrieving.retrievers import Retriever
from app.errors import InvalidRequest, Problem

AnyRequest = Request[Any, Any, State]


class VersionSummary(msgspec.Struct, kw_only=True):
    """A version: its number, the name then, and who made it when (the id of a key; null where it is not known)."""

    version: int
    retriever_name: str | None
    created_by: str | None
    created_at: datetime
    current: bool


class VersionList(msgspec.Struct, kw_only=True):
    """A page of versions, the newest first."""

    retriever_id: str
    results: list[VersionSummary]
    total: int
    pagination: Pagination


class VersionDiff(msgspec.Struct, kw_only=True):
    """What differs: `changes` is a JSON Patch (RFC 6902) that turns the one version into the other. Where it replaces
    or removes something, `was` is what stood there."""

    retriever_id: str
    from_version: VersionSummary
    to_version: VersionSummary
    changes: list[dict[str, Any]]


@get("/", scope="read", operation_id="list_retriever_versions", **PAGED)
async def list_versions(
    retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep, paging: PageQuery
) -> VersionList:
    """A page of the versions of a retriever, the newest first."""
    page = page_of(None, paging, runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        retriever, found = await retriever_versions.find_all(
            conn, catalog.namespace_id, retriever_id, before=_before(page.after, paging), limit=page.size + 1
        )
    return VersionList(
        retriever_id=retriever.retriever_id,
        results=[_summary(retriever, version) for version in found[: page.size]],
        total=retriever.version,
        pagination=pagination(page, [str(version.version) for version in found], retriever.version),
    )


def _before(cursor: str | None, paging: PageInput) -> int | None:
    """A cursor of a list of versions: the last one that was shown."""
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 9:
        name = next(name for name in ("cursor", "next_cursor", "after") if getattr(paging, name))
        message = "This is no cursor of ours; start again without one."
        raise InvalidRequest([Problem(("query", name), "bad_cursor", message)])
    return int(cursor)


@get("/{version:int}", scope="read", operation_id="get_retriever_version")
async def get_version(
    retriever_id: FromPath[str], version: FromPath[int], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """A retriever as it was at a version: what POST /v1/retrievers takes, and who made it when."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        retriever, found = await retriever_versions.find(conn, catalog.namespace_id, retriever_id, version)
    told = shown(retriever_versions.as_it_was(retriever, found))
    return {**told, **msgspec.structs.asdict(_summary(retriever, found))}


@get("/{version:int}/diff/{other:int}", scope="read", operation_id="diff_retriever_versions")
async def diff_versions(
    retriever_id: FromPath[str],
    version: FromPath[int],
    other: FromPath[int],
    request: AnyRequest,
    runtime: RuntimeDep,
) -> VersionDiff:
    """What turns one version into another; the later one may stand first."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        retriever, before, after = await retriever_versions.two(
            conn, catalog.namespace_id, retriever_id, version, other
        )
    return VersionDiff(
        retriever_id=retriever.retriever_id,
        from_version=_summary(retriever, before),
        to_version=_summary(retriever, after),
        changes=await asyncio.to_thread(retriever_versions.diff, before, after),
    )


def _summary(retriever: Retriever, version: Version) -> VersionSummary:
    return VersionSummary(
        version=version.version,
        retriever_name=version.retriever_name,
        created_by=version.created_by,
        created_at=version.created_at,
        current=version.version == retriever.version,
    )


router = Router(
    "/retrievers/{retriever_id:str}/versions",
    route_handlers=[list_versions, get_version, diff_versions],
    tags=["Retrievers"],
)
