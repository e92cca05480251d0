"""Runs a pipeline: its statements one after the other, and between them the stages of the host."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.retrieving import planning
from app.domain.retrieving.hosting import Hosting
from app.domain.retrieving.planning import Request, ignore
from app.domain.retrieving.statements import rows_of, run_statement
from app.domain.runtime import Prepared, Runtime
from app.errors import PgretrieveError, Unavailable
from app.retrieval.executor import Page, Rows
from app.retrieval.host import Row
from app.retrieval.pipeline import Segment, Step
from app.retrieval.plan import Plan
from app.retrieval.stages.base import HostStage
from app.telemetry import Timings


@dataclass(frozen=True, slots=True)
class StageRun:
    """What became of one stage. The stages of one statement share its time, which stands at the last of them."""

    name: str
    stage_id: str
    count: int
    duration_ms: float
    told: Mapping[str, Any]
    error: str | None = None


@dataclass(slots=True)
class Ran:
    """What a pipeline answered: the page's rows (columns as in `Rows.hits`) with their fields where stages changed
    them, the number of rows before the page was cut, and what every stage did."""

    hits: list[tuple[Any, ...]] = field(default_factory=list)
    fields: Sequence[str | Mapping[str, Any] | None] = ()
    total: int = 0
    stages: list[StageRun] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """One pass over the segments of a pipeline."""

    runtime: Runtime
    prepared: Prepared
    request: Request
    timings: Timings
    ran: Ran = field(default_factory=Ran)
    context: dict[str, list[Row]] = field(default_factory=dict)
    deadline: float = 0.0

    async def __call__(self) -> Ran:
        settings = self.runtime.settings
        self.deadline = time.monotonic() + min(settings.request_timeout_s, self.prepared.max_time_ms / 1000)
        segments = self.prepared.pipeline.segments
        rows: list[Row] | None = None
        for n, segment in enumerate(segments):
            last = n == len(segments) - 1
            if segment.host is not None:
                rows = await self._host(segment.steps[0], rows)
                if last:
                    self._page_of(rows)
            else:
                found = await self._sql(n, segment, rows, self.request.page if last else None)
                rows = [] if last else rows_of(found)
            self._keep(segment, rows if rows is not None else [])
        return self.ran

    async def _sql(self, n: int, segment: Segment, given: list[Row] | None, page: Page | None) -> Rows:
        request, most = self.request, self.runtime.limits.host_rows
        started = self.timings.phases.get("db", 0.0)
        for m, step in enumerate(segment.steps):
            request.observe("stage_start", self._about(step, segment.first + m))
        planned, found = await run_statement(
            self.runtime, self.prepared, request, n, given, page or Page(limit=most), self._left(), self.timings
        )
        self.ran.plans.append(planned.plan)
        self.ran.warnings += [*planned.warnings, *planning.lacks(planned)]
        took = self.timings.phases["db"] - started
        for m, (step, count) in enumerate(zip(segment.steps, found.counts, strict=True)):
            told = planning.report(planned, f"s{segment.first + m + 1}", found.told)
            self.ran.warnings += [*planning.skips(step.name, told), *planning.gaps(step.name, told)]
            ended = m == len(segment.steps) - 1
            pairs = [(hit[1], hit[2]) for hit in found.hits] if ended and request.observe is not ignore else []
            self._note(step, count, took if ended else 0.0, told, documents=pairs)
        if page is not None:
            self.ran.hits, self.ran.fields, self.ran.total = found.hits, found.fields, found.counts[-1]
        elif found.counts[-1] > most:
            message = f"Only the first {most:,} of {found.counts[-1]:,} documents went on to the next stage."
            self.ran.warnings.append(f"{message} (PGRETRIEVE_MAX_HOST_ROWS)")
        return found

    async def _host(self, step: Step, given: list[Row] | None) -> list[Row]:
        rows = given or []
        about = self._about(step, len(self.ran.stages))
        self.request.observe("stage_start", about)
        host = Hosting(
            self.runtime,
            self.prepared,
            self.request.inputs,
            self.context,
            self.deadline,
            self.timings,
            stage={**about, "input_count": len(rows)},
            first=given is None,
            filters=self.request.filters,
        )
        started, error = time.perf_counter(), None
        segment = Segment(0, (step,))
        assert segment.host is not None
        before = [Row(row.document_id, row.score, dict(row.fields), row.stored) for row in rows]
        try:
            with self.timings("host"):
                async with asyncio.timeout(max(self._left(), 0.001)):
                    rows = await segment.host.run(rows, host)
        except (PgretrieveError, TimeoutError) as failure:
            error = str(failure) or f"It took longer than the {self.runtime.settings.request_timeout_s} s of a request."
            self.request.observe("stage_error", {**about, "error": error})
            if step.on_error == "error":
                raise _told(failure, step, error) from failure
            rows = before
            self.ran.degraded.append(step.name)
            self.ran.warnings.append(f"The stage {step.name!r} failed and was skipped: {error}")
        self.ran.warnings += host.warnings
        took = (time.perf_counter() - started) * 1000
        self._note(step, len(rows), took, host.told, error, documents=[(row.document_id, row.score) for row in rows])
        return rows

    def _note(
        self,
        step: Step,
        count: int,
        took: float,
        told: Mapping[str, Any],
        error: str | None = None,
        documents: Sequence[tuple[str, float | None]] = (),
    ) -> None:
        """`documents` are ids and scores, where the rows after this stage are at hand."""
        run = StageRun(step.name, step.stage.stage_id, count, round(took, 3), told, error)
        about = {**self._about(step, len(self.ran.stages)), "run": run, "documents": documents}
        self.ran.stages.append(run)
        self.request.observe("stage_complete", about)

    def _about(self, step: Step, index: int) -> dict[str, Any]:
        total = len(self.prepared.pipeline.steps)
        return {
            "stage_name": step.name,
            "stage_id": step.stage.stage_id,
            "stage_index": index,
            "runs_on": "host" if isinstance(step.stage, HostStage) else "database",
            "total_stages": total,
        }

    def _keep(self, segment: Segment, rows: list[Row]) -> None:
        if alias := segment.steps[-1].alias:
            self.context[alias] = [Row(row.document_id, row.score, dict(row.fields), row.stored) for row in rows]

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _page_of(self, rows: list[Row]) -> None:
        """Cut the answered page out of the rows that the last stage made on the host."""
        page, ranked = self.request.page, list(enumerate(rows, start=1))
        more = 0
        if page.after is not None:
            ranked, more = ranked[_place(rows, page) :], 1
        else:
            ranked = ranked[page.offset :]
        if page.limit is not None:
            ranked = ranked[: page.limit + more]
        nothing = (None, "{}", "{}", None, None, *[None] * len(self.request.vectors))
        self.ran.hits = [(rank, row.document_id, row.score, *(row.stored or nothing)) for rank, row in ranked]
        self.ran.fields = [row.fields for _, row in ranked]
        self.ran.total = len(rows)


def _place(rows: Sequence[Row], page: Page) -> int:
    """How many rows come before the page: up to the document that it comes after, or to the place where that was."""
    after = page.after
    assert after is not None
    for shown in after.ids:
        if ranks := [n for n, row in enumerate(rows, start=1) if row.document_id == shown]:
            return min(ranks, key=lambda rank: abs(rank - (after.rank or rank)))
    if after.rank is not None:
        return after.rank - 1
    return max((n for n, row in enumerate(rows, start=1) if (row.score or 0.0) > (after.score or 0.0)), default=0)


def _told(failure: BaseException, step: Step, error: str) -> Exception:
    if isinstance(failure, PgretrieveError):
        return failure
    return Unavailable(f"The stage {step.name!r} did not end in time: {error}", code="timeout")
