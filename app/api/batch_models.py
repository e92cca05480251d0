"""What requests say of batches of objects, and what answers show of them."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from app.api.paging import PageInput, Pagination
from app.api.wire import Input, NotOffered
from app.domain.content.batch_accounts import Accounted
from app.domain.content.batches import Batch, Wanted
from app.errors import Problems

Ids = Annotated[list[str], msgspec.Meta(min_length=1, max_length=50_000)]
Dedup = Literal["skip", "replace", "force"]
LIFECYCLE = {
    "DRAFT": ("accepted", "It is not submitted yet."),
    "PENDING": ("queued", "It waits for a worker."),
    "IN_PROGRESS": ("extracting", "Its objects are extracted and embedded."),
    "COMPLETED": ("indexed", "All of it can be searched."),
    "COMPLETED_WITH_ERRORS": ("indexed", "What did not fail can be searched; failed-documents tells the rest."),
    "FAILED": ("failed", "None of it could be processed; failed-documents tells why."),
    "CANCELED": ("canceled", "It was cancelled; what was done stays."),
}


class BatchInput(Input, frozen=True):
    """A batch of these objects, or of the whole bucket. Without `collection_ids` it is for all collections over it."""

    object_ids: Ids | None = None
    collection_ids: Ids | None = None
    dedup_strategy: Dedup | None = "skip"
    batch_name: str | None = None
    metadata: dict[str, Any] | None = None
    auto_submit: bool | None = None
    trigger_processing: bool | None = None
    filters: NotOffered = None
    limit: NotOffered = None

    def wanted(self) -> Wanted:
        dedup = self.dedup_strategy or "skip"
        return Wanted(self.object_ids, self.collection_ids, self.batch_name, dedup, self.metadata)

    @property
    def is_submitted(self) -> bool:
        return bool(self.trigger_processing if self.auto_submit is None else self.auto_submit)


class AddInput(Input, frozen=True):
    """Objects that a batch is to have, too."""

    object_ids: Ids


class SubmitInput(Input, frozen=True):
    """Nothing that this server has: the public API's client sends its defaults."""

    include_processing_history: bool | None = True
    collection_ids: NotOffered = None
    webhook_url: NotOffered = None


class PatchInput(Input, frozen=True):
    """What a batch's user keeps with it."""

    metadata: dict[str, Any]


class RetryInput(Input, frozen=True):
    """What is tried again: by `transient_only` what may have passed, by `all` what was wrong with the content, too."""

    retry_mode: Literal["transient_only", "all"] | None = "transient_only"
    tier_nums: NotOffered = None
    max_retry_count: int | None = 3  # there is no limit of our own: each retry is asked for


class BatchListInput(PageInput, frozen=True):
    """A page of batches, the newest first."""

    status: str | None = None
    collection_id: str | None = None
    bucket_id: str | None = None
    namespace_id: str | None = None


class Progress(msgspec.Struct, kw_only=True):
    """Pieces of work that are done: objects extracted, documents embedded. The total grows while objects are read."""

    processed: int
    total: int | None = None
    percent: float | None = None
    errors: int = 0


class TierTask(msgspec.Struct, kw_only=True):
    """The collections at one distance from the bucket."""

    tier_num: int
    task_id: str | None = None
    status: str
    collection_ids: list[str]
    source_type: str
    started_at: datetime | None = None
    completed_at: datetime | None = None


class BatchModel(msgspec.Struct, kw_only=True):
    """A batch, and how far it is."""

    batch_id: str
    bucket_id: str
    namespace_id: str
    batch_name: str | None = None
    status: str
    type: str = "BUCKET"
    object_ids: list[str] | None = None
    object_count: int
    collection_ids: list[str] | None = None
    dedup_strategy: str
    task_id: str | None = None
    metadata: dict[str, Any]
    error: str | None = None
    failure_reason: str | None = None
    failed_object_count: int = 0
    progress: Progress
    tier_tasks: list[TierTask] = []
    current_tier: int | None = None
    total_tiers: int = 1
    dag_tiers: list[list[str]] = []
    lifecycle: str
    lifecycle_reason: str
    status_message: str
    submitted_by_key_id: str | None = None
    max_node_death_resubmits: int = 0
    max_deploy_resubmits: int = 0
    created_at: datetime
    updated_at: datetime


class BatchList(msgspec.Struct, kw_only=True):
    """A page of batches."""

    results: list[BatchModel]
    total_count: int
    pagination: Pagination


class Failure(msgspec.Struct, kw_only=True):
    """An object or row that gave no document (`stage` extract or row), or a document that has no vector (embed)."""

    collection_id: str | None = None
    object_id: str | None = None
    document_id: str | None = None
    key: str | None = None
    stage: str
    error_type: str
    error_code: str
    error_message: str
    attempts: int
    failed_at: datetime


class Failures(msgspec.Struct, kw_only=True):
    """A page of what failed in a batch."""

    batch_id: str
    results: list[Failure]
    failed_documents: list[Failure]
    total_count: int
    limit: int
    offset: int


class AuditedTier(msgspec.Struct, kw_only=True):
    """What became of the sources of one collection. `deleted_count` are those that are gone since."""

    tier_num: int
    collection_id: str
    submitted_count: int
    succeeded_count: int
    failed_count: int
    pending_count: int
    deleted_count: int
    lost_count: int
    is_balanced: bool


class Audit(msgspec.Struct, kw_only=True):
    """Whether every object of a batch is accounted for."""

    batch_id: str
    status: str
    all_balanced: bool
    has_lost_objects: bool
    tiers: list[AuditedTier]


class Retried(msgspec.Struct, kw_only=True):
    """How much is tried again."""

    batch_id: str
    task_id: str | None
    retried_count: int
    message: str


def shown(
    found: Batch, tiers: list[list[str]], object_ids: list[str] | None = None, failed_objects: int = 0
) -> BatchModel:
    lifecycle, reason = LIFECYCLE[found.status]
    total, done = found.total, found.done + found.failed
    percent = None if not total else round(100 * min(done, total) / total, 1)
    if found.status == "COMPLETED":
        percent = 100.0
    tier_status = "PENDING" if found.status == "DRAFT" else found.status
    return BatchModel(
        batch_id=found.batch_id,
        bucket_id=found.bucket_id,
        namespace_id=found.namespace_id,
        batch_name=found.batch_name,
        status=found.status,
        object_ids=object_ids,
        object_count=found.object_count,
        collection_ids=[each for tier in tiers for each in tier],
        dedup_strategy=found.dedup,
        task_id=found.task_id,
        metadata=msgspec.json.decode(found.metadata),
        error=found.error,
        failure_reason=reason if found.status == "FAILED" else None,
        failed_object_count=failed_objects,
        progress=Progress(processed=done, total=total, percent=percent, errors=found.failed),
        tier_tasks=[
            TierTask(
                tier_num=n,
                task_id=found.task_id,
                status=tier_status,
                collection_ids=tier,
                source_type="collection" if n else "bucket",
                started_at=found.started_at,
                completed_at=found.finished_at,
            )
            for n, tier in enumerate(tiers)
        ],
        total_tiers=max(len(tiers), 1),
        dag_tiers=tiers,
        lifecycle=lifecycle,
        lifecycle_reason=reason,
        status_message=reason,
        submitted_by_key_id=found.created_by,
        created_at=found.created_at,
        updated_at=found.finished_at or found.started_at or found.submitted_at or found.created_at,
    )


def failure(row: dict[str, Any]) -> Failure:
    embedding = row["kind"] == "embed"
    return Failure(
        collection_id=row["collection_id"],
        object_id=None if embedding else row["source_id"],
        document_id=row["source_id"] if embedding else None,
        key=row["key"],
        stage=row["kind"],
        error_type="transient" if row["transient"] else "permanent",
        error_code=row["code"],
        error_message=row["message"],
        attempts=row["attempts"],
        failed_at=row["failed_at"],
    )


def audited(found: Batch, accounts: list[Accounted]) -> Audit:
    tiers = [
        AuditedTier(
            tier_num=each.tier,
            collection_id=each.collection_id,
            submitted_count=each.submitted,
            succeeded_count=each.succeeded,
            failed_count=each.failed,
            pending_count=each.pending,
            deleted_count=each.gone,
            lost_count=each.lost,
            is_balanced=each.lost == 0,
        )
        for each in accounts
    ]
    lost = any(each.lost_count for each in tiers)
    return Audit(
        batch_id=found.batch_id, status=found.status, all_balanced=not lost, has_lost_objects=lost, tiers=tiers
    )


def check_page(limit: int, offset: int, most: int, problems: Problems) -> None:
    if not 1 <= limit <= most:
        problems.add(("query", "limit"), "out_of_range", f"limit is from 1 to {most}, not {limit}.")
    if not 0 <= offset <= 1_000_000:
        problems.add(("query", "offset"), "out_of_range", f"offset is from 0 to 1000000, not {offset}.")
