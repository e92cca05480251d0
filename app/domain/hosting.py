"""What host stages may ask for: services, templates filled in, filters and searches in the database."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec

from app.domain.embedding import embed_one
from app.domain.runtime import Prepared, Runtime
from app.errors import PgretrieveError
from app.inference.base import Task
from app.retrieval import templates
from app.retrieval.compiler import compile_plan
from app.retrieval.executor import Page, Versions, execute, fill_binds
from app.retrieval.host import Row
from app.retrieval.pipeline import Segment, Step
from app.retrieval.stages.attribute_filter import AttributeFilter
from app.retrieval.stages.base import Stage
from app.retrieval.vectors import Vector
from app.telemetry import Timings

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Hosting:
    """`app.retrieval.host.Host` for one stage of one execution."""

    runtime: Runtime
    prepared: Prepared
    inputs: Mapping[str, Any]
    context: Mapping[str, Sequence[Row]]
    deadline: float
    timings: Timings
    told: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        return max(0.001, self.deadline - time.monotonic())

    def fill(self, value: Any, row: Row | None = None, **names: Any) -> Any:
        return templates.fill(value, self.inputs)

    def tell(self, key: str, value: Any) -> None:
        self.told[key] = value

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    async def each(
        self, work: Callable[[T], Awaitable[R]], items: Sequence[T], *, concurrency: int
    ) -> list[R | Exception]:
        turn = asyncio.Semaphore(concurrency)

        async def one(item: T) -> R | Exception:
            async with turn:
                try:
                    return await work(item)
                except PgretrieveError as error:
                    return error

        return list(await asyncio.gather(*(one(item) for item in items)))

    async def embed(self, service: str, text: str, task: Task) -> Vector:
        return await embed_one(self.runtime, service, text, task)

    async def matching(self, condition: Any, rows: Sequence[Row]) -> list[bool]:
        kept = await self._answered([AttributeFilter(conditions=condition)], rows, self.inputs)
        ranks = {hit[0] for hit, _ in kept}
        return [rank in ranks for rank in range(1, len(rows) + 1)]

    async def run(self, stages: Sequence[Stage], rows: Sequence[Row] | None, inputs: Mapping[str, Any]) -> list[Row]:
        found = await self._answered(stages, rows, inputs)
        decode = msgspec.json.decode
        return [Row(hit[1], hit[2], decode(fields or hit[4] or "{}"), hit[3:]) for hit, fields in found]

    async def _answered(
        self, stages: Sequence[Stage], rows: Sequence[Row] | None, inputs: Mapping[str, Any]
    ) -> list[tuple[tuple[Any, ...], str | None]]:
        """The hits of SQL stages with their fields, at most as many as host stages may see."""
        runtime, prepared = self.runtime, self.prepared
        segment = Segment(0, tuple(Step(stage.stage_id, stage) for stage in stages))
        plan = compile_plan(
            segment,
            prepared.catalog,
            runtime.limits,
            retriever_id=prepared.retriever_id,
            provided=frozenset(inputs),
            filters=prepared.within,
            ef_search=runtime.settings.hnsw_ef_search,
            after_host=rows is not None,
        )
        values = await fill_binds(plan, inputs, partial(embed_one, runtime))
        if rows is not None:
            given = [
                {"document_id": row.document_id, "score": row.score, "rank": rank, "fields": row.fields}
                for rank, row in enumerate(rows, start=1)
            ]
            values["rows"] = msgspec.json.encode(given).decode()
        limit_ms = max(1, min(runtime.settings.statement_timeout_ms, int(self.left_s * 1000)))
        versions = Versions(prepared.catalog.version, prepared.version)
        page, limits = Page(limit=runtime.limits.host_rows), {"statement_timeout": f"{limit_ms}ms"}
        found = await execute(runtime.engine, plan, versions, values, page, limits, self.timings)
        return list(zip(found.hits, found.fields, strict=True))
