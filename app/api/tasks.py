"""/v1/tasks: what takes longer than a request, how far it is, and how it is ended."""

from typing import Annotated, Any, Literal, get_args

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from app.api.paging import PAGED, PageInput, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, NotOffered, RuntimeDep, has_namespace, namespace_of
from app.db.engine import transaction
from app.domain.background import tasks
from app.domain.background.tasks import Task, Wanted
from app.domain.catalog.namespaces import load_catalog
from app.domain.security import audit
from app.errors import InvalidRequest, Problem, Problems

AnyRequest = Request[Any, Any, Any]
# The public API's closed list. Of our own kinds, each is shown as the nearest of them.
TaskType = Literal[
    "api_namespaces_create",
    "api_namespaces_delete",
    "api_namespaces_snapshot_create",
    "api_namespaces_snapshot_restore",
    "api_namespaces_migrations_run",
    "api_buckets_objects_create",
    "api_buckets_delete",
    "api_buckets_batches_process",
    "api_buckets_batches_submit",
    "api_buckets_uploads_create",
    "api_buckets_uploads_confirm",
    "api_buckets_uploads_batch_confirm",
    "api_collections_documents_create",
    "api_collections_documents_bulk_update",
    "api_collections_documents_bulk_delete",
    "api_collections_reembed",
    "api_collections_extraction_artifacts",
    "api_taxonomies_create",
    "api_taxonomies_execute",
    "api_taxonomies_materialize",
    "api_evaluations_run",
    "api_evaluations_dataset_create",
    "api_retrievers_publish",
    "api_manifest_apply",
    "api_retrievers_execute",
    "api_collections_export",
    "api_collections_trigger",
    "engine_feature_extractor_run",
    "engine_inference_run",
    "engine_object_processing",
    "engine_cluster_build",
    "thumbnail",
    "video_segment",
    "audio_segment",
    "converted_video",
    "materialize",
    "plugin_custom",
    "model_custom",
]
TaskStatus = Literal[
    "PENDING",
    "QUEUED",
    "IN_PROGRESS",
    "PROCESSING",
    "COMPLETED",
    "COMPLETED_WITH_ERRORS",
    "FAILED",
    "CANCELED",
    "INTERRUPTED",
    "UNKNOWN",
    "SKIPPED",
    "DRAFT",
    "ACTIVE",
    "ARCHIVED",
    "SUSPENDED",
    "DEACTIVATED",
]
PUBLIC: tuple[str, ...] = get_args(TaskType)
SHOWN_AS: dict[str, TaskType] = {
    "build_index": "materialize",
    "rebuild_index": "materialize",
    "backfill": "api_collections_reembed",
    "migration": "api_namespaces_migrations_run",
    "batch": "api_buckets_batches_process",
    "trigger": "api_collections_trigger",
}
# A kind that is neither public nor in the table.
ANY_OTHER: TaskType = "engine_object_processing"
FIELDS = {"task_type": "kind"}
ADDITIONAL = (
    *("namespace_id", "kind", "subject", "percentage", "done", "failed", "total", "build", "about"),
    *("created_by", "created_at", "started_at", "finished_at"),
)


class SortInput(Input, frozen=True):
    """A field of a task (`created_at`, `status`, `task_type` or `task_id`), and which way."""

    field: str
    direction: Literal["asc", "desc"] | None = None


class ListInput(PageInput, frozen=True):
    """A page of tasks, the newest first unless `sort` says otherwise; with a `search` text in their id, kind, subject
    or error. `task_type` is one of the public API's, or a kind of ours (`additional_data.kind`)."""

    status: TaskStatus | None = None
    task_type: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    search: Annotated[str, msgspec.Meta(max_length=1_000)] | None = None
    sort: SortInput | None = None
    filters: NotOffered = None


class TaskShown(msgspec.Struct, kw_only=True):
    """A task. `additional_data` has its real kind, its namespace and subject, how far it is (`percentage`, `done`,
    `failed`, `total`; of an index build also `build`, as PostgreSQL tells it), its times, and why it failed."""

    task_id: str
    task_type: TaskType
    status: TaskStatus
    inputs: list[str | dict[str, Any]] | None = None
    outputs: list[str | dict[str, Any]] | None = None
    additional_data: dict[str, Any]
    error: str | None = None


class TaskList(msgspec.Struct, kw_only=True):
    """A page of tasks."""

    results: list[TaskShown]
    pagination: Pagination


class Cancelled(msgspec.Struct, kw_only=True):
    """What became of the task."""

    message: str
    success: bool = True


def shown(task: Task) -> TaskShown:
    """The task as the public API shows one."""
    about = {name: getattr(task, name) for name in ADDITIONAL}
    if task.error is not None:
        about |= {"error": task.error["message"], "error_code": task.error["code"]}
    return TaskShown(
        task_id=task.task_id,
        task_type=_type_of(task.kind),
        status=task.status,
        inputs=[text for text in (task.namespace_id, task.subject) if text is not None],
        additional_data=about,
        error=None if task.error is None else task.error["message"],
    )


def _type_of(kind: str) -> TaskType:
    return kind if kind in PUBLIC else SHOWN_AS.get(kind, ANY_OTHER)  # type: ignore[return-value]


def _wanted(asked: ListInput, after: str | None, namespace_id: str | None) -> Wanted:
    problems = Problems()
    field = FIELDS.get(asked.sort.field, asked.sort.field) if asked.sort else "created_at"
    if field not in tasks.SORTABLE:
        names = ", ".join({name: name for name in tasks.SORTABLE} | {"kind": "task_type"})
        problems.add(("body", "sort", "field"), "bad_sort", f"Sort by one of {names}.")
    if "\0" in (asked.search or ""):
        problems.add(("body", "search"), "nul_character", "No text holds U+0000.")
    kinds, other_than = _kinds(asked.task_type, problems)
    problems.refuse()
    return Wanted(
        namespace_id,
        asked.status,
        kinds,
        other_than,
        asked.search,
        field,
        descending=asked.sort is None or asked.sort.direction == "desc",
        after=None if after is None else _place(after, field),
    )


def _kinds(wanted: str | None, problems: Problems) -> tuple[list[str] | None, list[str] | None]:
    """The kinds that are shown as this type; or those that are not."""
    if wanted is None:
        return None, None
    if wanted in SHOWN_AS:
        return [wanted], None
    if wanted == ANY_OTHER:
        return None, [*SHOWN_AS, *(name for name in PUBLIC if name != ANY_OTHER)]
    if wanted not in PUBLIC:
        known = ", ".join((*SHOWN_AS, *PUBLIC))
        problems.add(("body", "task_type"), "unknown_type", f"No tasks are of the type {wanted!r}; types are {known}.")
    return [wanted, *(kind for kind, type_ in SHOWN_AS.items() if type_ == wanted)], None


def _place(after: str, field: str) -> tuple[str, str]:
    try:
        of, value, task_id = msgspec.json.decode(after, type=tuple[str, str, str])
    except msgspec.DecodeError:
        of = value = task_id = ""
    if of != field:
        message = "This is no cursor of a list in this order; start again without one."
        raise InvalidRequest([Problem(("body", "cursor"), "bad_cursor", message)])
    return value, task_id


def _cursor(task: Task, field: str) -> str:
    value = getattr(task, field)
    text = value if isinstance(value, str) else value.isoformat()
    return msgspec.json.encode([field, text, task.task_id]).decode()


@get("/{task_id:str}", scope="read", operation_id="get_task")
async def get_task(task_id: FromPath[str], runtime: RuntimeDep) -> TaskShown:
    """A task as it stands now."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return shown(await tasks.find(conn, task_id))


@post(
    "/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_tasks",
    **PAGED,
)
async def list_tasks(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[ListInput | None] = None
) -> TaskList:
    """A page of tasks: of the namespace in `X-Namespace`, else of all that the key sees."""
    asked = data or ListInput()
    page = page_of(asked, paging, runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        namespace_id = None
        if has_namespace(request):
            namespace_id = (await load_catalog(conn, namespace_of(request))).namespace_id
        wanted = _wanted(asked, page.after, namespace_id)
        found, total = await tasks.list_page(conn, wanted, page.size + 1, total=page.total)
    return TaskList(
        results=[shown(task) for task in found[: page.size]],
        pagination=pagination(page, [_cursor(task, wanted.order) for task in found], total),
    )


@delete("/{task_id:str}", status_code=200, scope="manage", operation_id="cancel_task")
async def cancel_task(task_id: FromPath[str], runtime: RuntimeDep) -> Cancelled:
    """Cancel a task: what is not begun is not done, what is done stays, a build of an index ends within a second.

    A second time it answers the same; 409 where the task has ended otherwise.
    """
    async with transaction(runtime.engine, runtime.settings) as conn:
        if (found := await tasks.find(conn, task_id)).status != "CANCELED":
            await tasks.cancel(conn, task_id)
            await audit.record(conn, "task", "canceled", task_id, found.namespace_id, kind=found.kind)
    return Cancelled(message=f"The task {task_id!r} is cancelled.")


router = Router("/tasks", route_handlers=[get_task, list_tasks, cancel_task], tags=["Tasks"])
