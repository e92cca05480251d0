"""Documents: upserted into a namespace, created in a collection; one read, changed or deleted in either."""

import time
from typing import Any
from uuid import uuid4

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.document_models import (
    AnyRequest,
    Consistency,
    Fields,
    Upserted,
    UpsertInput,
    UpsertOptions,
    read_new,
    shown,
)
from app.api.wire import Json, RuntimeDep, namespace_of, not_in_query
from app.api.writing import writing
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog, lock_catalog, refuse_adopted
from app.domain.documents import document_changes, documents, idempotency, pending
from app.domain.documents.documents import Document
from app.domain.documents.pending import Pending
from app.domain.runtime import Runtime
from app.domain.security import acls
from app.errors import Conflict, InvalidRequest, NotFound, Problem, Problems
from app.retrieval.catalog import Catalog


@post(
    "/namespaces/{namespace_id:str}/documents/upsert",
    dto=Json[UpsertInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="upsert_documents",
)
async def upsert(
    namespace_id: FromPath[str], data: JSONBody[UpsertInput], request: AnyRequest, runtime: RuntimeDep
) -> Upserted:
    """Store documents with the vectors that they bring; all or none. They can be found as soon as this answers.

    What a mapped index embeds of their source fields is embedded in the background, or with `wait` before the answer.
    """
    until = time.monotonic() + runtime.settings.request_timeout_s - pending.MARGIN_S
    refused = request.state.refused
    given = _documents(data, runtime, refused)
    options = data.options or UpsertOptions()
    body = await request.body() if options.idempotency_key else b""

    async def store(conn: AsyncConnection, catalog: Catalog) -> tuple[Upserted, Catalog]:
        key = options.idempotency_key
        if key:
            answered = await idempotency.claim(conn, catalog.namespace_id, key, body, runtime.settings)
            if answered is not None:
                return msgspec.json.decode(answered, type=Upserted), catalog
        await documents.upsert(conn, catalog, given, runtime.settings, data.collection_id, refused)
        answer = _upserted(given, await pending.look(conn, catalog, given), options.write_token)
        if key:
            await idempotency.keep(conn, catalog.namespace_id, key, msgspec.json.encode(answer))
        return answer, catalog

    answer, catalog = await writing(runtime, namespace_id, given, refused, store)
    if (data.wait or options.wait) and answer.consistency.poll is not None:
        _tell(answer, await pending.wait(runtime, catalog, given, until))
    return answer


def _upserted(given: list[Document], found: Pending, token: bool) -> Upserted:
    answer = Upserted(
        inserted=len(given),
        document_ids=[document.document_id for document in given],
        unsearchable_document_ids=[],
        write_token=f"wt_{uuid4().hex}" if token else None,
        consistency=Consistency(write_token_available=token),
        warnings=[],
    )
    _tell(answer, found)
    return answer


def _tell(answer: Upserted, found: Pending) -> None:
    """What is searchable, and what will be."""
    answer.unsearchable_document_ids, answer.warnings = found.without_vector, found.warnings()
    consistency = answer.consistency
    if found.open:
        consistency.retriever_visible, consistency.expected_visible_within_ms = "after_processing", None
        consistency.poll = {
            "endpoint": "GET /v1/documents/{document_id}?return_vector_names=true",
            "field": "_vectors",
            "ready_when": f"it holds {', '.join(map(repr, found.indexes))}",
        }
    else:
        consistency.retriever_visible, consistency.expected_visible_within_ms, consistency.poll = "immediate", 0, None


def _documents(data: UpsertInput, runtime: Runtime, refused: list[Problem]) -> list[Document]:
    most = runtime.settings.max_documents
    if len(data.documents) > most:
        message = f"One upsert takes at most {most} documents, not {len(data.documents)}; send several."
        raise InvalidRequest([*refused, Problem(("body", "documents"), "too_many_documents", message)])
    encode = msgspec.json.encode
    return [
        Document(
            d.document_id, d.vectors, encode(d.payload), encode(d.metadata), None if d.acl is None else d.acl.given()
        )
        for d in data.documents
    ]


@post(
    "/collections/{collection:str}/documents",
    dto=Json[Fields],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="create_document",
)
async def create(
    collection: FromPath[str], data: JSONBody[Fields], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """Create a document; its payload's fields stand at the root of the body, or under `payload`.

    An id is made up when none is given; one that exists is refused.
    """
    problems = Problems()
    given = read_new(data, collection, problems)
    problems.refuse()

    async def store(conn: AsyncConnection, catalog: Catalog) -> dict[str, Any]:
        named = documents.by_last_segment(catalog, given)
        await documents.upsert(conn, catalog, [named], runtime.settings, collection, new=True)
        return await documents.get(conn, catalog, named.document_id)

    return await writing(runtime, namespace_of(request), [given], [], store)


READ = not_in_query(return_presigned_urls="false", expand="")


@get(
    "/namespaces/{namespace_id:str}/documents/{document_id:path}",
    guards=[READ],
    scope="read",
    operation_id="get_namespace_document",
)
async def get_namespace_document(
    namespace_id: FromPath[str],
    document_id: FromPath[str],
    runtime: RuntimeDep,
    return_vectors: FromQuery[bool] = False,
    return_vector_names: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """A document of a namespace by its id."""
    return await _get(runtime, namespace_id, document_id, None, return_vectors, return_vector_names)


@get("/documents/{document_id:path}", guards=[READ], scope="read", operation_id="get_document")
async def get_document(
    document_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    return_vectors: FromQuery[bool] = False,
    return_vector_names: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """A document by its id."""
    return await _get(runtime, namespace_of(request), document_id, None, return_vectors, return_vector_names)


@get(
    "/collections/{collection:str}/documents/{document_id:path}",
    guards=[READ],
    scope="read",
    operation_id="get_collection_document",
)
async def get_collection_document(
    collection: FromPath[str],
    document_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    return_vectors: FromQuery[bool] = False,
    return_vector_names: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """A document of a collection by its id. `return_vector_names` is `true`, or names with commas between."""
    return await _get(runtime, namespace_of(request), document_id, collection, return_vectors, return_vector_names)


async def _get(
    runtime: Runtime, namespace: str, path: str, collection: str | None, vectors: bool, names: str | None
) -> dict[str, Any]:
    document_id, problems = _path_id(path), Problems()
    wanted = names.lower() == "true" or [name for name in names.split(",") if name] if names else None
    if isinstance(wanted, list) and names and names.lower() == "false":
        wanted = None
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        what = shown(catalog, problems, ("query",), vectors, wanted)
        problems.refuse()
        return await documents.get(conn, catalog, document_id, collection=collection, shown=what)


@patch("/documents/{document_id:path}", dto=Json[Fields], return_dto=None, scope="write", operation_id="patch_document")
async def patch_document(
    document_id: FromPath[str], data: JSONBody[Fields], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """Set fields of a document; those that are not given stay.

    Keys are fields of the payload, a dotted one a nested field. `metadata` and `payload` are objects whose keys are set
    one by one; a `metadata` key that is null is removed.
    """
    return await _change(runtime, namespace_of(request), document_id, None, data)


@put("/documents/{document_id:path}", dto=Json[Fields], return_dto=None, scope="write", operation_id="update_document")
async def put_document(
    document_id: FromPath[str], data: JSONBody[Fields], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """The same as PATCH: fields that are not given stay. An upsert replaces a document whole."""
    return await _change(runtime, namespace_of(request), document_id, None, data)


@patch(
    "/collections/{collection:str}/documents/{document_id:path}",
    dto=Json[Fields],
    return_dto=None,
    scope="write",
    operation_id="patch_collection_document",
)
async def patch_collection_document(
    collection: FromPath[str],
    document_id: FromPath[str],
    data: JSONBody[Fields],
    request: AnyRequest,
    runtime: RuntimeDep,
) -> dict[str, Any]:
    """Set fields of a document of a collection; those that are not given stay."""
    # The router takes all that comes behind `documents/` for an id, since ids may hold slashes.
    if document_id.endswith("/acl"):
        return await _change_acl(runtime, namespace_of(request), document_id.removesuffix("/acl"), collection, data)
    return await _change(runtime, namespace_of(request), document_id, collection, data)


@patch(
    "/collections/{collection:str}/documents/{document_id:str}/acl",
    dto=Json[Fields],
    return_dto=None,
    scope="write",
    operation_id="update_document_acl",
)
async def update_document_acl(
    collection: FromPath[str],
    document_id: FromPath[str],
    data: JSONBody[Fields],
    request: AnyRequest,
    runtime: RuntimeDep,
) -> dict[str, Any]:
    """Set fields of a document's access list: `read` and `write`, names of principals, each list in place of the one
    before; and `public`. Those that are not given stay."""
    return await _change_acl(runtime, namespace_of(request), document_id, collection, data)


@put(
    "/collections/{collection:str}/documents/{document_id:path}",
    dto=Json[Fields],
    return_dto=None,
    scope="write",
    operation_id="update_collection_document",
)
async def put_collection_document(
    collection: FromPath[str],
    document_id: FromPath[str],
    data: JSONBody[Fields],
    request: AnyRequest,
    runtime: RuntimeDep,
) -> dict[str, Any]:
    """The same as PATCH: fields that are not given stay. An upsert replaces a document whole."""
    return await _change(runtime, namespace_of(request), document_id, collection, data)


async def _change_acl(runtime: Runtime, namespace: str, path: str, collection: str, fields: Fields) -> dict[str, Any]:
    document_id, problems = _path_id(path), Problems()
    given = {name: msgspec.json.decode(raw) for name, raw in fields.items()}
    change = acls.check(given, ("body",), problems)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace, exclusive=False)
        await acls.change(conn, catalog, document_id, collection, change or {})
        return await documents.get(conn, catalog, document_id, collection=collection)


async def _change(
    runtime: Runtime, namespace: str, path: str, collection: str | None, fields: Fields
) -> dict[str, Any]:
    document_id, problems = _path_id(path), Problems()
    own = {"document_id": msgspec.json.encode(document_id)} | (
        {"collection_id": msgspec.json.encode(collection)} if collection is not None else {}
    )
    # What names the document anew as it is named already says nothing.
    fields = {name: raw for name, raw in fields.items() if own.get(name) != bytes(raw)}
    change = document_changes.read_change(fields, ("body",), problems, runtime.settings, merging=True)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace, exclusive=False)
        if not await document_changes.exists(conn, catalog, document_id, collection):
            raise NotFound("document", document_id)
        problems.refuse()
        done = await document_changes.change_each(conn, catalog, {document_id: change}, collection)
        if document_id not in done:
            raise NotFound("document", document_id)
        if not done[document_id]:
            message = "A dotted key goes through a value that is no object; set that value itself to replace it."
            raise Conflict(message, code="not_an_object")
        return await documents.get(conn, catalog, document_id, collection=collection)


@delete("/documents/{document_id:path}", status_code=200, scope="write", operation_id="delete_document")
async def delete_document(document_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a document."""
    return await _delete(runtime, namespace_of(request), document_id, None)


@delete(
    "/collections/{collection:str}/documents/{document_id:path}",
    status_code=200,
    scope="write",
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
        refuse_adopted(catalog)
        await documents.delete(conn, catalog, found, collection)
    return {"success": True, "message": f"Document {found!r} is deleted.", "document_id": found}


def _path_id(path: str) -> str:
    """Litestar's path parameters begin with the slash before them; ids may hold slashes."""
    return path.removeprefix("/")


router = Router(
    "/",
    route_handlers=[
        upsert,
        create,
        get_document,
        get_namespace_document,
        get_collection_document,
        patch_document,
        patch_collection_document,
        update_document_acl,
        put_document,
        put_collection_document,
        delete_document,
        delete_collection_document,
    ],
    tags=["Documents"],
)
