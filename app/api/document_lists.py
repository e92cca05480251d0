"""Documents in lists: of the namespace or a collection, several lists at once, by ids, and counted."""

from typing import Annotated, Any

import msgspec
import psycopg
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.exc import DBAPIError

from app.api.document_models import (
    AnyRequest,
    DocumentList,
    ListInput,
    NamespaceListInput,
    Stats,
    shown,
)
from app.api.document_paging import LISTED, ListQuery, Window
from app.api.problems import from_driver
from app.api.wire import Input, Json, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.documents import document_lists
from app.domain.documents.document_lists import GROUP_SIZE, Wanted
from app.domain.runtime import Runtime
from app.errors import PgretrieveError, Problems
from app.retrieval.filter_parser import parse_filter

NO_QUERY = ListInput()


class NamedList(Input, frozen=True):
    """A list, and the key that its answer is given under."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    request: NamespaceListInput


class BatchListInput(Input, frozen=True):
    """Several lists of one namespace."""

    queries: Annotated[list[NamedList], msgspec.Meta(min_length=1, max_length=10)]


class NamedAnswer(msgspec.Struct, kw_only=True):
    """The answer to one of several lists, or why there is none."""

    key: str
    response: DocumentList | None = None
    error: str | None = None


class BatchList(msgspec.Struct, kw_only=True):
    """The answers, in the order of the lists."""

    results: list[NamedAnswer]


class BatchGetInput(Input, frozen=True):
    """Documents by their ids."""

    document_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1_000)]
    return_vectors: bool = False
    return_presigned_urls: bool | None = None  # there are no files to sign URLs of


class BatchGot(msgspec.Struct, kw_only=True):
    """The documents in the order of the ids, and the ids that there are none of."""

    documents: list[dict[str, Any]]
    not_found: list[str]


class Count(msgspec.Struct, kw_only=True):
    """How many documents a collection has."""

    collection_id: str
    count: int


@post(
    "/documents/list",
    dto=Json[NamespaceListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_documents",
    **LISTED,
)
async def list_documents(
    request: AnyRequest, runtime: RuntimeDep, paging: ListQuery, data: JSONBody[NamespaceListInput | None] = None
) -> DocumentList:
    """A page of documents in the order of `sort`, else of their ids; `next_cursor` leads to the next one."""
    wanted = data or NamespaceListInput()
    return await _list(runtime, namespace_of(request), wanted, paging, wanted.collection_ids or [])


@post(
    "/documents/list/batch",
    dto=Json[BatchListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_documents_batch",
)
async def list_batch(request: AnyRequest, runtime: RuntimeDep, data: JSONBody[BatchListInput]) -> BatchList:
    """Up to ten lists, one after the other; one that is refused does not keep the others from being answered."""
    results = []
    for query in data.queries:
        wanted = query.request
        try:
            found = await _list(runtime, namespace_of(request), wanted, NO_QUERY, wanted.collection_ids or [])
            results.append(NamedAnswer(key=query.key, response=found))
        except PgretrieveError as error:
            results.append(NamedAnswer(key=query.key, error=error.message))
        except DBAPIError as error:
            known = from_driver(error.orig) if isinstance(error.orig, psycopg.Error) else None
            if known is None:
                raise
            results.append(NamedAnswer(key=query.key, error=known.message))
    return BatchList(results=results)


@get(
    "/collections/{collection:str}/documents",
    scope="read",
    operation_id="list_collection_documents",
    **LISTED,
)
async def list_collection_by_get(
    collection: FromPath[str], request: AnyRequest, runtime: RuntimeDep, paging: ListQuery
) -> DocumentList:
    """A page of a collection's documents; `filters` is JSON, `sort` is `field:direction`."""
    return await _list(runtime, namespace_of(request), ListInput(), paging, [collection])


@post(
    "/collections/{collection:str}/documents/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_collection_documents_by_post",
    **LISTED,
)
async def list_collection_by_post(
    collection: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    paging: ListQuery,
    data: JSONBody[ListInput | None] = None,
) -> DocumentList:
    """A page of a collection's documents in the order of `sort`, else of their ids."""
    return await _list(runtime, namespace_of(request), data or ListInput(), paging, [collection])


async def _list(
    runtime: Runtime, namespace: str, asked: ListInput, query: ListInput, collections: list[str]
) -> DocumentList:
    problems = Problems()
    window = Window(asked, query, runtime.settings.max_page_size, problems)
    filters = parse_filter(window.filters, window.of_filters, problems, runtime.limits.filters, templated=False)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        vectors = asked.return_vectors or query.return_vectors
        what = shown(catalog, problems, ("body",), vectors, asked.return_vector_names, asked.select)
        problems.refuse()
        wanted = Wanted(
            limit=window.size + 1,
            collections=collections,
            filters=filters,
            search=window.search,
            sort=window.sort,
            after=window.after,
            offset=window.offset,
            total=window.total,
            shown=what,
        )
        if window.group_by is not None:
            found = await document_lists.groups(conn, catalog, wanted, window.group_by)
        else:
            found = await document_lists.page(conn, catalog, wanted)
    items, place = found.items[: window.size], window.pagination(found)
    if window.group_by is None:
        stats = Stats(total_documents=found.total) if window.total else None
        return DocumentList(results=items, pagination=place, total_documents=found.total, stats=stats)
    cut = [f"Of each group at most {GROUP_SIZE} documents are answered; `count` is of all of them."]
    return DocumentList(
        groups=items,
        group_by_field=window.group_by,
        pagination=place,
        stats=Stats(total_groups=found.total) if window.total else None,
        warnings=cut if any(item["count"] > GROUP_SIZE for item in items) else None,
    )


@post(
    "/documents/batch-get",
    dto=Json[BatchGetInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="batch_get_documents",
)
async def batch_get(request: AnyRequest, runtime: RuntimeDep, data: JSONBody[BatchGetInput]) -> BatchGot:
    """Documents by their ids, and which of the ids are none."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        what = shown(catalog, Problems(), ("body",), data.return_vectors)
        found, missing = await document_lists.by_ids(conn, catalog, data.document_ids, what)
    return BatchGot(documents=found, not_found=missing)


@get("/collections/{collection:str}/documents/count", scope="read", operation_id="count_documents")
async def count_documents(collection: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> Count:
    """How many documents the collection has."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        return Count(collection_id=collection, count=await document_lists.count(conn, catalog, [collection]))


router = Router(
    "/",
    route_handlers=[
        list_documents,
        list_batch,
        list_collection_by_get,
        list_collection_by_post,
        batch_get,
        count_documents,
    ],
    tags=["Documents"],
)
