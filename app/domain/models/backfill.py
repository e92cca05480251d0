"""Back-fills: an index that a service embeds for is filled from the documents that are there, as a task.

Starting one is a row, a mark at the index (`filled_by`, so that searches tell what is missing) and a job, in the
caller's transaction. `app.domain.models.filling_up` does it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.background import tasks
from app.domain.catalog.namespaces import Backfill, NewVector, lock_catalog
from app.domain.documents import sources
from app.domain.indexing import vector_changes
from app.domain.models.forecasting import Forecast
from app.domain.security import audit
from app.errors import Conflict, NotFound, Problems
from app.jobs import queue
from app.retrieval.catalog import Catalog, Source, VectorConfig

KIND = "backfill"
# Below all other jobs, and of the work of a namespace below what is written now.
JOB_PRIORITY, WORK_PRIORITY = -10, -10


@dataclass(frozen=True, slots=True)
class Place:
    """The index that is to be filled: its config (a shadow's, too), its service, and the field that is its source."""

    config: VectorConfig
    service: str
    field: str


def check_backfill(wanted: Backfill, at: tuple[str | int, ...], problems: Problems) -> None:
    """Find what is wrong with a back-fill as it is asked for."""
    sources.check_field(wanted.source_field, (*at, "source_field"), problems)
    if wanted.rate_per_minute is not None and not 1 <= wanted.rate_per_minute <= 10_000_000:
        problems.add((*at, "rate"), "out_of_range", "A rate is from 1 to 10,000,000 documents a minute.")


def check_filled(vector: NewVector, at: tuple[str | int, ...], problems: Problems) -> None:
    """Find what is wrong with a new index's back-fill, where it has one."""
    if vector.backfill is None:
        return
    if vector.inference_service is None:
        message = f"The index {vector.name!r} has no inference_service that could fill it."
        problems.add((*at, "backfill"), "backfill_needs_service", message)
    if vector.source_field != vector.backfill.source_field:
        message = "`source_field` and the back-fill's are one field; give it once."
        problems.add((*at, "source_field"), "conflicting_fields", message)
    check_backfill(vector.backfill, (*at, "backfill"), problems)


def source_of(catalog: Catalog, name: str) -> Source | None:
    """What is embedded into the vector config (or shadow) of that name, if anything is."""
    return next((source for source in catalog.sources if source.name == name), None)


def place_of(catalog: Catalog, name: str, wanted: Backfill) -> Place:
    """Where the back-fill goes, with its source: the one that is mapped, or the one that is asked for."""
    config = catalog.index(name)
    if config is None:
        available = ", ".join(map(repr, catalog.by_name)) or "none"
        raise NotFound("vector index", name, f"Available indexes: {available}.")
    service = catalog.inference_map.get(config.name)
    if service is None:
        message = f"The index {config.name!r} is mapped to no inference service, so nothing can fill it."
        raise Conflict(message, code="not_mapped")
    mapped = source_of(catalog, config.name)
    if mapped is not None and wanted.source_field not in (None, mapped.field):
        message = f"The index {config.name!r} embeds the field {mapped.field!r}, not {wanted.source_field!r}."
        raise Conflict(message, code="other_source_field")
    field, problems = mapped.field if mapped else wanted.source_field, Problems()
    if field is None:
        message = f"The index {config.name!r} has no source field yet: say which payload field is embedded."
        problems.add(("body", "source_field"), "missing_source_field", message)
    check_backfill(wanted, ("body",), problems)
    problems.refuse()
    if config.filled_by is not None:
        message = f"The index {config.name!r} is being filled already, by {config.filled_by}; wait for it or cancel it."
        raise Conflict(message, code="backfill_running", task_id=config.filled_by)
    assert field is not None
    return Place(config, service, field)


async def request(
    conn: AsyncConnection, identifier: str, name: str, wanted: Backfill, forecast: Forecast, changed_by: str
) -> str:
    """Start filling an index of a managed namespace. The source field that is asked for becomes its mapping's, so that
    later content embeds itself. Answers the task's id; the edge commits."""
    before = await lock_catalog(conn, identifier, exclusive=True)
    place = place_of(before, name, wanted)
    await vector_changes.refuse_while_migrating(conn, before, place.config.name)
    field = {"namespace_id": before.namespace_id, "name": place.config.name, "source_field": place.field}
    if source_of(before, place.config.name) is None:
        await conn.execute(statement("set_source_field"), field)
    task_id = await start(conn, before.namespace_id, place, wanted.rate_per_minute, forecast)
    asked = {"index": place.config.name, "task_id": task_id, **asdict(wanted)}
    about = {"task_id": task_id, "source_field": place.field, "rate_per_minute": wanted.rate_per_minute}
    await audit.record(conn, "backfill", "started", place.config.name, before.namespace_id, **about)
    # Last, for triggers may have to be made, which shuts out writers until the transaction ends.
    await vector_changes.finish(conn, before, KIND, changed_by, asked)
    return task_id


async def start(
    conn: AsyncConnection,
    namespace_id: str,
    place: Place,
    rate_per_minute: int | None,
    forecast: Forecast | None,
    *,
    kind: str = KIND,
    about: Mapping[str, Any] | None = None,
) -> str:
    """A task that fills a config's column (a shadow's, too), and the job that begins it. The caller holds the namespace
    alone, and gives it a new version."""
    told: dict[str, Any] = {"index": place.config.name, "source_field": place.field}
    told |= {
        "inference_service": place.service,
        "rate_per_minute": rate_per_minute,
        "forecast": asdict(forecast) if forecast else None,
        **(about or {}),
    }
    total = forecast.items if forecast else None
    task_id = await tasks.create(conn, namespace_id, kind, subject=place.config.name, total=total, about=told)
    marked = {"namespace_id": namespace_id, "name": place.config.name, "task_id": task_id}
    await conn.execute(statement("set_filled_by"), marked)
    await defer_slice(conn, task_id, 0)
    return task_id


async def start_new(
    conn: AsyncConnection,
    namespace_id: str,
    vectors: Sequence[NewVector],
    configs: Sequence[VectorConfig],
    forecasts: Mapping[str, Forecast],
) -> None:
    """`start` for those of the new vectors that are to be filled; `configs` are theirs, in the same order."""
    for vector, config in zip(vectors, configs, strict=True):
        if vector.backfill is not None and vector.inference_service is not None:
            assert vector.source_field is not None, "a back-fill has one"
            place = Place(config, vector.inference_service, vector.source_field)
            forecast = forecasts.get(vector.name)
            await start(conn, namespace_id, place, vector.backfill.rate_per_minute, forecast)


async def defer_slice(conn: AsyncConnection, task_id: str, number: int, pause_s: float = 0.0) -> None:
    """The job of a task's next slice; slices of one task run one after the other."""
    after = timedelta(seconds=pause_s) if pause_s > 0 else None
    arguments = {"task_id": task_id, "number": number}
    await queue.defer(conn, KIND, arguments, lock=f"{KIND}:{task_id}", after=after, priority=JOB_PRIORITY)
