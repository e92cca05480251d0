"""Documents: upserted into a namespace; read, listed and deleted in it or in a collection."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.paging import PAGED, PageInput, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, NotOffered, RuntimeDep, namespace_of, not_in_query
from app.db.engine import transaction
from app.domain import documents
from app.domain.documents import DIRECT_UPSERT, Document
from app.domain.namespaces import load_catalog, lock_catalog
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem, Problems
from app.retrieval.filters import parse_filter

AnyRequest = Request[Any, Any, State]


class DocumentInput(Input, frozen=True):
    """A document with its vectors by index name; `payload` is any JSON object and comes back as it was sent."""

    document_id: str
    vectors: dict[str, Any]
    payload: dict[str, msgspec.Raw] = {}
    metadata: dict[str, msgspec.Raw] = {}
    acl: NotOffered = None
    source_type: NotOffered = None
    root_object_id: NotOffered = None
    root_bucket_id: NotOffered = None
    source_object_id: NotOffered = None
    source_document_id: NotOffered = None
    source_collection_id: NotOffered = None
    lineage_path: NotOffered = None
    lineage_chain: NotOffered = None
    content_hash: NotOffered = None


class UpsertOptions(Input, frozen=True):
    """What a write may ask for. Writes can be found at once here, which is what a token would wait for."""

    write_token: NotOffered = False
    idempotency_key: NotOffered = None


class UpsertInput(Input, frozen=True):
    """Documents to store; one of an id that exists replaces it whole."""

    reports_refused = True

    documents: Annotated[list[DocumentInput], msgspec.Meta(min_length=1)]
    collection_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = DIRECT_UPSERT
    options: UpsertOptions | None = None


class ListInput(PageInput, frozen=True):
    """A page of a collection's documents."""

    filters: Any = None
    return_vectors: bool = False
    sort: NotOffered = None
    search: NotOffered = None
    partition: NotOffered = None
    return_presigned_urls: NotOffered = False
    return_vector_names: NotOffered = None
    group_by: NotOffered = None
    select: NotOffered = None
    expand: NotOffered = None


class NamespaceListInput(ListInput, frozen=True):
    """A page of documents of all collections, or of some."""

    collection_ids: list[str] | None = None


class Consistency(msgspec.Struct, kw_only=True):
    """When a write can be found: here always at once, since it is committed before the answer."""

    retriever_visible: str = "immediate"
    write_token_available: bool = False
    expected_visible_within_ms: int = 0


class Upserted(msgspec.Struct, kw_only=True):
    """What was stored."""

    inserted: int
    document_ids: list[str]
    unsearchable_document_ids: list[str]
    consistency: Consistency
    warnings: list[str]


class DocumentList(msgspec.Struct, kw_only=True):
    """A page of documents."""

    results: list[dict[str, Any]]
    pagination: Pagination
    total_documents: int | None = None


@post(
    "/namespaces/{namespace_id:str}/documents/upsert",
    dto=Json[UpsertInput],
    return_dto=None,
    status_code=200,
    operation_id="upsert_documents",
)
async def upsert(
    namespace_id: FromPath[str], data: JSONBody[UpsertInput], request: AnyRequest, runtime: RuntimeDep
) -> Upserted:
    """Store documents with the vectors that they bring; all or none. They can be found as soon as this answers."""
    refused = request.state.refused
    given = _documents(data, runtime, refused)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_id, exclusive=False)
        await documents.upsert(conn, catalog, given, runtime.settings, data.collection_id, refused)
    bare = [document.document_id for document in given if not document.vectors]
    return Upserted(
        inserted=len(given),
        document_ids=[document.document_id for document in given],
        unsearchable_document_ids=bare,
        consistency=Consistency(),
        warnings=[],
    )


def _documents(data: UpsertInput, runtime: Runtime, refused: list[Problem]) -> list[Document]:
    most = runtime.settings.max_documents
    if len(data.documents) > most:
        message = f"One upsert takes at most {most} documents, not {len(data.documents)}; send several."
        raise InvalidRequest([*refused, Problem(("body", "documents"), "too_many_documents", message)])
    encode = msgspec.json.encode
    return [Document(d.document_id, d.vectors, encode(d.payload), encode(d.metadata)) for d in data.documents]


READ = not_in_query(return_presigned_urls="false", return_vector_names="false", expand="")


@get(
    "/namespaces/{namespace_id:str}/documents/{document_id:path}",
    guards=[READ],
    operation_id="get_namespace_document",
)
async def get_namespace_document(
    namespace_id: FromPath[str],
    document_id: FromPath[str],
    runtime: RuntimeDep,
    return_vectors: FromQuery[bool] = False,
) -> dict[str, Any]:
    """A document of a namespace by its id."""
    return await _get(runtime, namespace_id, document_id, None, return_vectors)


@get("/documents/{document_id:path}", guards=[READ], operation_id="get_document")
async def get_document(
    document_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep, return_vectors: FromQuery[bool] = False
) -> dict[str, Any]:
    """A document by its id."""
    return await _get(runtime, namespace_of(request), document_id, None, return_vectors)


@get(
    "/collections/{collection:str}/documents/{document_id:path}",
    guards=[READ],
    operation_id="get_collection_document",
)
async def get_collection_document(
    collection: FromPath[str],
    document_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    return_vectors: FromQuery[bool] = False,
) -> dict[str, Any]:
    """A document of a collection by its id."""
    return await _get(runtime, namespace_of(request), document_id, collection, return_vectors)


async def _get(
    runtime: Runtime, namespace: str, document_id: str, collection: str | None, vectors: bool
) -> dict[str, Any]:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        found = _path_id(document_id)
        return await documents.get(conn, catalog, found, collection=collection, vectors=vectors)


@delete("/documents/{document_id:path}", status_code=200, operation_id="delete_document")
async def delete_document(document_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a document."""
    return await _delete(runtime, namespace_of(request), document_id, None)


@delete(
    "/collections/{collection:str}/documents/{document_id:path}",
    status_code=200,
    operation_id="delete_collection_document",
)
async def delete_collection_document(
    collection: FromPath[str], document_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """Delete a document of a collection."""
    return await _delete(runtime, namespace_of(request), document_id, collection)


async def _delete(runtime: Runtime, namespace: str, document_id: str, collection: str | None) -> dict[str, Any]:
    found = _path_id(document_id)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        await documents.delete(conn, catalog, found, collection)
    return {"success": True, "message": f"Document {found!r} is deleted.", "document_id": found}


@post(
    "/documents/list",
    dto=Json[NamespaceListInput],
    return_dto=None,
    status_code=200,
    operation_id="list_documents",
    **PAGED,
)
async def list_documents(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[NamespaceListInput | None] = None
) -> DocumentList:
    """A page of documents in the order of their ids; `next_cursor` leads to the next one."""
    wanted = data or NamespaceListInput()
    return await _list(runtime, namespace_of(request), wanted, paging, wanted.collection_ids or [])


@get("/collections/{collection:str}/documents", operation_id="list_collection_documents", **PAGED)
async def list_collection_by_get(
    collection: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    paging: PageQuery,
    return_vectors: FromQuery[bool] = False,
    filters: FromQuery[str | None] = None,
) -> DocumentList:
    """A page of a collection's documents in the order of their ids; `filters` is JSON."""
    try:
        wanted = ListInput(return_vectors=return_vectors, filters=msgspec.json.decode(filters or "null"))
    except msgspec.DecodeError as error:
        problem = Problem(("query", "filters"), "malformed_json", f"`filters` is not JSON: {error}.")
        raise InvalidRequest([problem]) from None
    return await _list(runtime, namespace_of(request), wanted, paging, [collection])


@post(
    "/collections/{collection:str}/documents/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    operation_id="list_collection_documents_by_post",
    **PAGED,
)
async def list_collection_by_post(
    collection: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    paging: PageQuery,
    data: JSONBody[ListInput | None] = None,
    return_vectors: FromQuery[bool] = False,
) -> DocumentList:
    """A page of a collection's documents in the order of their ids."""
    wanted = data or ListInput()
    wanted = msgspec.structs.replace(wanted, return_vectors=wanted.return_vectors or return_vectors)
    return await _list(runtime, namespace_of(request), wanted, paging, [collection])


async def _list(
    runtime: Runtime, namespace: str, wanted: ListInput, paging: PageInput, collections: list[str]
) -> DocumentList:
    problems = Problems()
    page = page_of(wanted, paging, runtime.settings.max_page_size, 10)
    filters = parse_filter(wanted.filters, ("body", "filters"), problems, runtime.limits.filters)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        found, total = await documents.list_page(
            conn,
            catalog,
            collections=collections,
            filters=filters,
            after=page.after,
            limit=page.size + 1,
            vectors=wanted.return_vectors,
            total=page.total,
        )
    ids = [document["document_id"] for document in found]
    return DocumentList(results=found[: page.size], pagination=pagination(page, ids, total), total_documents=total)


def _path_id(path: str) -> str:
    """Litestar's path parameters begin with the slash before them; ids may hold slashes."""
    return path.removeprefix("/")


router = Router(
    "/",
    route_handlers=[
        upsert,
        get_document,
        get_namespace_document,
        get_collection_document,
        delete_document,
        delete_collection_document,
        list_documents,
        list_collection_by_get,
        list_collection_by_post,
    ],
    tags=["Documents"],
)
