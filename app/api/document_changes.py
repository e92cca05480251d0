"""Many documents of a collection changed or deleted at once: by their ids, or by a filter."""

import logging
from typing import Annotated, Any

import msgspec
from litestar import Router, delete, patch, post
from litestar.params import FromPath, JSONBody

from app.api.document_models import AnyRequest, Fields, Filters
from app.api.wire import Input, Json, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import lock_catalog
from app.domain.documents import document_changes
from app.domain.documents.document_changes import Change
from app.domain.runtime import Runtime
from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import Filter

log = logging.getLogger(__name__)
MOST = 1_000
GONE = "There is no such document in this collection."
OBSTRUCTED = "A dotted key goes through a value that is no object; set that value itself to replace it."


class UpdateInput(Input, frozen=True):
    """What is set in one document."""

    document_id: str
    update_data: Fields


class BatchUpdateInput(Input, frozen=True):
    """Documents by their ids, each with its own `update_data`; or one `update_data` for all that match `filters`.

    A dotted key sets one nested field; another replaces the whole field, `metadata` and `payload` too.
    """

    updates: Annotated[list[UpdateInput], msgspec.Meta(min_length=1, max_length=MOST)] | None = None
    filters: Filters = None
    update_data: Fields | None = None


class BulkUpdateInput(Input, frozen=True):
    """What is set in all documents that match `filters`; without filters, in all of the collection."""

    update_data: Fields
    filters: Filters = None


class BatchDeleteInput(Input, frozen=True):
    """Documents by their ids, or all that match `filters`. The `reason` is logged."""

    document_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST)] | None = None
    filters: Filters = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class Result(msgspec.Struct, kw_only=True):
    """What became of one document."""

    document_id: str
    success: bool
    error: str | None = None


class BatchUpdated(msgspec.Struct, kw_only=True):
    """How many documents were changed; those that were not are in `results`, or counted where a filter chose them."""

    updated_count: int
    failed_count: int = 0
    results: list[Result] = []
    message: str = "Batch update completed"


class BulkUpdated(msgspec.Struct, kw_only=True):
    """How many documents were changed: it is done when this answers, so there is no task to ask for."""

    updated_count: int
    failed_count: int = 0
    status: str = "COMPLETED"
    task_id: str | None = None
    message: str = "Bulk update completed"


class BatchDeleted(msgspec.Struct, kw_only=True):
    """How many documents were deleted: it is done when this answers, so there is no task to ask for."""

    deleted_count: int
    failed_count: int = 0
    results: list[Result] = []
    status: str | None = None
    task_id: str | None = None
    message: str = "Batch delete completed"


@post(
    "/collections/{collection:str}/documents/batch",
    dto=Json[BatchUpdateInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="batch_update_documents",
)
async def batch_update(
    collection: FromPath[str], data: JSONBody[BatchUpdateInput], request: AnyRequest, runtime: RuntimeDep
) -> BatchUpdated:
    """Set fields of documents, but for vectors; what is refused of one does not keep the others from being changed."""
    problems = Problems()
    if data.updates is None:
        if data.update_data is None:
            problems.add(("body", "update_data"), "one_of", "Give `updates`, or `filters` with `update_data`.")
        bulk = BulkUpdateInput(update_data=data.update_data or {}, filters=data.filters)
        chosen = _some(data.filters, problems, runtime)
        updated, failed = await _bulk(runtime, namespace_of(request), collection, bulk, chosen, problems)
        return BatchUpdated(updated_count=updated, failed_count=failed, message=_told(failed))
    if data.filters is not None or data.update_data is not None:
        problems.add(("body",), "one_of", "Give `updates`, or `filters` with `update_data`, not both.")
    changes = _changes(data.updates, runtime, problems)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        done = await document_changes.change_each(conn, catalog, changes, collection)
    errors = {None: GONE, False: OBSTRUCTED, True: None}
    results = [Result(document_id=one, success=done.get(one, False), error=errors[done.get(one)]) for one in changes]
    changed = sum(done.values())
    return BatchUpdated(updated_count=changed, failed_count=len(changes) - changed, results=results)


def _changes(updates: list[UpdateInput], runtime: Runtime, problems: Problems) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    for n, update in enumerate(updates):
        at = ("body", "updates", n)
        if update.document_id in changes:
            message = f"The document_id {update.document_id!r} is given more than once in this request."
            problems.add((*at, "document_id"), "duplicate_document_id", message)
        fields = update.update_data
        changes[update.document_id] = document_changes.read_change(
            fields, (*at, "update_data"), problems, runtime.settings, merging=False
        )
    return changes


@patch(
    "/collections/{collection:str}/documents/bulk",
    dto=Json[BulkUpdateInput],
    return_dto=None,
    scope="write",
    operation_id="bulk_update_documents",
)
async def bulk_update(
    collection: FromPath[str], data: JSONBody[BulkUpdateInput], request: AnyRequest, runtime: RuntimeDep
) -> BulkUpdated:
    """Set the same fields, but for vectors, of all documents that match; it is done when this answers."""
    problems = Problems()
    filters = parse_filter(data.filters, ("body", "filters"), problems, runtime.limits.filters, templated=False)
    updated, failed = await _bulk(runtime, namespace_of(request), collection, data, filters, problems)
    return BulkUpdated(updated_count=updated, failed_count=failed, message=_told(failed))


def _told(failed: int) -> str:
    return f"Update completed; {failed} documents were left alone. {OBSTRUCTED}" if failed else "Update completed"


async def _bulk(
    runtime: Runtime,
    namespace: str,
    collection: str,
    wanted: BulkUpdateInput,
    filters: Filter | None,
    problems: Problems,
) -> tuple[int, int]:
    at = ("body", "update_data")
    change = document_changes.read_change(wanted.update_data, at, problems, runtime.settings, merging=False)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace, exclusive=False)
        tally = await document_changes.change_matching(conn, catalog, change, collection, filters)
    return tally.changed, tally.obstructed


@delete(
    "/collections/{collection:str}/documents/batch",
    dto=Json[BatchDeleteInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="batch_delete_documents",
)
async def batch_delete(
    collection: FromPath[str], data: JSONBody[BatchDeleteInput], request: AnyRequest, runtime: RuntimeDep
) -> BatchDeleted:
    """Delete documents; also by a filter it is done when this answers."""
    problems, ids = Problems(), data.document_ids
    if (ids is None) == (data.filters is None):
        problems.add(("body",), "one_of", "Give `document_ids` or `filters`, one of them.")
    filters = _some(data.filters, problems, runtime) if ids is None else None
    problems.refuse()
    results: list[Result] = []
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        if ids is not None:
            gone = await document_changes.delete_each(conn, catalog, ids, collection)
            results = [_deleted(one, one in gone) for one in dict.fromkeys(ids)]
            deleted = len(gone)
        else:
            assert filters is not None
            deleted = await document_changes.delete_matching(conn, catalog, collection, filters)
    log.info("deleted %d documents of %s, %s: %r", deleted, catalog.namespace_id, collection, data.reason)
    return BatchDeleted(deleted_count=deleted, failed_count=len(results) - deleted if results else 0, results=results)


def _deleted(document_id: str, gone: bool) -> Result:
    return Result(document_id=document_id, success=gone, error=None if gone else GONE)


def _some(raw: Any, problems: Problems, runtime: Runtime) -> Filter | None:
    """The filter, which must ask for something: an empty one would mean everything."""
    before = len(problems.found)
    found = parse_filter(raw, ("body", "filters"), problems, runtime.limits.filters, templated=False)
    if found is None and len(problems.found) == before:
        message = "These filters match everything; say which documents are meant."
        problems.add(("body", "filters"), "empty_filter", message)
    return found


router = Router("/", route_handlers=[batch_update, bulk_update, batch_delete], tags=["Documents"])
