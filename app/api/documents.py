"""Documents: upserted into a namespace; read, listed and deleted in it or in a collection."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.wire import Input, Json, Pagination, RuntimeDep, after_cursor, cursor_after, namespace_of, page_limit
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


class UpsertInput(Input, frozen=True):
    """Documents to store; one of an id that exists replaces it whole."""

    reports_refused = True

    documents: Annotated[list[DocumentInput], msgspec.Meta(min_length=1)]
    collection_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = DIRECT_UPSERT


class ListInput(Input, frozen=True):
    """A page of documents."""

    filters: Any = None
    cursor: str | None = None
    limit: int | None = None
    page_size: int | None = None
    include_total: bool = False
    return_vectors: bool = False
    collection_ids: list[str] = []


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


@get("/namespaces/{namespace_id:str}/documents/{document_id:path}", operation_id="get_namespace_document")
async def get_namespace_document(
    namespace_id: FromPath[str],
    document_id: FromPath[str],
    runtime: RuntimeDep,
    return_vectors: FromQuery[bool] = False,
) -> dict[str, Any]:
    """A document of a namespace by its id."""
    return await _get(runtime, namespace_id, document_id, None, return_vectors)


@get("/documents/{document_id:path}", operation_id="get_document")
async def get_document(
    document_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep, return_vectors: FromQuery[bool] = False
) -> dict[str, Any]:
    """A document by its id."""
    return await _get(runtime, namespace_of(request), document_id, None, return_vectors)


@get("/collections/{collection:str}/documents/{document_id:path}", operation_id="get_collection_document")
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


@post("/documents/list", dto=Json[ListInput], return_dto=None, status_code=200, operation_id="list_documents")
async def list_documents(
    request: AnyRequest, runtime: RuntimeDep, data: JSONBody[ListInput | None] = None
) -> DocumentList:
    """A page of documents in the order of their ids; `next_cursor` leads to the next one."""
    wanted = data or ListInput()
    return await _list(runtime, namespace_of(request), wanted, wanted.collection_ids)


@post(
    "/collections/{collection:str}/documents/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    operation_id="list_collection_documents",
)
async def list_collection_documents(
    collection: FromPath[str], request: AnyRequest, runtime: RuntimeDep, data: JSONBody[ListInput | None] = None
) -> DocumentList:
    """A page of a collection's documents in the order of their ids."""
    return await _list(runtime, namespace_of(request), data or ListInput(), [collection])


async def _list(runtime: Runtime, namespace: str, wanted: ListInput, collections: list[str]) -> DocumentList:
    problems = Problems()
    size = page_limit(
        wanted.limit if wanted.limit is not None else wanted.page_size, runtime.settings.max_page_size, 10
    )
    filters = parse_filter(wanted.filters, ("body", "filters"), problems, runtime.limits.filters)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        found, total = await documents.list_page(
            conn,
            catalog,
            collections=collections,
            filters=filters,
            after=after_cursor(wanted.cursor),
            limit=size + 1,
            vectors=wanted.return_vectors,
            total=wanted.include_total,
        )
    more = cursor_after(found[size - 1]["document_id"]) if len(found) > size else None
    pages = -(-total // size) if total is not None else None
    pagination = Pagination(page_size=size, next_cursor=more, total=total, total_pages=pages)
    return DocumentList(results=found[:size], pagination=pagination, total_documents=total)


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
        list_collection_documents,
    ],
    tags=["Documents"],
)
