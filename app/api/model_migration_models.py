"""What requests say of migrations of models, and what answers show of them."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from app.api.paging import Pagination
from app.api.wire import Input
from app.domain.models.model_migrations import Gate, Judged, Migration, Wanted, checks
from app.retrieval.catalog import Catalog

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
MAX_JUDGEMENTS = 1_000


class GateInput(Input, frozen=True):
    """What must hold before a cut-over.

    `min_coverage`: the share of the documents with a vector that have the new one. `min_overlap`: the mean share of the
    first ten documents that both models answer. `min_ndcg`: the new model's mean nDCG@10 on the judged queries.
    `min_queries`: on how many queries.
    """

    min_coverage: Share = 0.99
    min_overlap: Share | None = None
    min_ndcg: Share | None = None
    min_queries: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0


class JudgementInput(Input, frozen=True):
    """A query, and the documents that answer it."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]
    relevant_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1_000)]


class MigrationInput(Input, frozen=True):
    """An index, and the service that is to embed for it; `source_field` is by default what it embeds now.

    `rate_per_minute`: documents that the back-fill queues at most.
    """

    index: str
    to_service: str
    source_field: str | None = None
    gate: GateInput = GateInput()
    judgements: Annotated[list[JudgementInput], msgspec.Meta(max_length=MAX_JUDGEMENTS)] = []
    rate_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None

    def wanted(self) -> Wanted:
        gate = Gate(**msgspec.structs.asdict(self.gate))
        judged = [Judged(each.query, each.relevant_ids) for each in self.judgements]
        return Wanted(self.index, self.to_service, self.source_field, gate, self.rate_per_minute, judged)


class CutOverInput(Input, frozen=True):
    """`force` skips the gate."""

    force: bool = False


class GateCheck(msgspec.Struct, kw_only=True):
    """One condition of the gate, what was measured last, and whether it holds."""

    name: str
    wanted: float
    found: float | None
    met: bool


class Progress(msgspec.Struct, kw_only=True):
    """How far the back-fill is; `total` grows while documents are still looked at."""

    task_id: str | None
    total: int | None
    done: int | None
    failed: int | None


class ModelMigration(msgspec.Struct, kw_only=True):
    """A migration: `state` is `backfilling`, `comparing`, `ready`, `cut_over`, `rolled_back`, `finished`, `failed` or
    `canceled`. `dimension` and `index_state` are of the new model's column, as long as there is one."""

    migration_id: str
    namespace_id: str
    index: str
    from_service: str | None
    to_service: str
    source_field: str
    state: str
    dimension: int | None
    index_state: str | None
    gate: list[GateCheck]
    gate_met: bool
    metrics: dict[str, Any]
    progress: Progress
    rate_per_minute: int | None
    error: dict[str, str] | None
    created_by: str
    created_at: datetime
    changed_at: datetime
    warnings: list[str]


class ModelMigrations(msgspec.Struct, kw_only=True):
    """A page of a namespace's migrations, those that have ended too."""

    results: list[ModelMigration]
    pagination: Pagination
    total_count: int


def shown(catalog: Catalog, migration: Migration) -> ModelMigration:
    gate = [GateCheck(**_fields(check, GateCheck)) for check in checks(migration.gate, migration.metrics)]
    name = migration.shadow if migration.new_is_shadow else migration.index
    new = next((config for config in catalog.every_config if config.name == name), None)
    if migration.state == "canceled":
        new = None
    progress = Progress(task_id=migration.task_id, total=migration.total, done=migration.done, failed=migration.failed)
    return ModelMigration(
        **_fields(migration, ModelMigration, without=("gate", "metrics", "error")),
        dimension=new.dimension if new else None,
        index_state=new.index_state if new else None,
        gate=gate,
        gate_met=all(check.met for check in gate),
        metrics=dict(migration.metrics),
        progress=progress,
        error=dict(migration.error) if migration.error else None,
        warnings=_warnings(catalog, migration),
    )


def _fields(of: Any, model: type[msgspec.Struct], without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: getattr(of, name) for name in model.__struct_fields__ if name not in without and hasattr(of, name)}


def _warnings(catalog: Catalog, migration: Migration) -> list[str]:
    """What callers must know who bring vectors, and who may want to go back."""
    if migration.state in ("finished", "canceled", "failed"):
        return []
    found = []
    old = migration.index if migration.new_is_shadow else migration.shadow
    new = migration.shadow if migration.new_is_shadow else migration.index
    sizes = {config.name: config.dimension for config in catalog.every_config}
    if {old, new} <= sizes.keys():
        before = f"{migration.from_service or 'the old model'}'s ({sizes[old]} dimensions)"
        after = f"{migration.to_service}'s ({sizes[new]})"
        found.append(
            "Vectors that callers bring, in documents and in queries, are "
            f"{before} before the cut-over and must be {after} after it."
        )
    if not any(source.name == old for source in catalog.sources):
        found.append(
            "The old column embeds no field by itself, so documents that are written after the cut-over lack the old "
            "vector; a roll-back would not find them."
        )
    if brought := migration.metrics.get("old_by_callers"):
        found.append(f"{brought} of the old vectors were brought by callers.")
    return found
