"""What host stages may ask for: services, templates filled in, filters and searches in the database."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from app.db.engine import transaction
from app.domain.inference.embedding import embed_one
from app.domain.retrieving import lookups
from app.domain.retrieving.planning import Request
from app.domain.retrieving.statements import rows_of, run_statement
from app.domain.runtime import Bounded, Prepared, Runtime
from app.errors import InvalidRequest, PgretrieveError, Problem
from app.inference.base import Task
from app.inference.fetching import NotFetched, host_of, is_listed
from app.inference.references import Secrets
from app.inference.rerankers.registry import DEFAULT
from app.inference.tokenizers import cut
from app.retrieval import templates
from app.retrieval.executor import Page, Rows
from app.retrieval.filters import Filter
from app.retrieval.host import Completion, Prompt, Row
from app.retrieval.pipeline import Pipeline, Step
from app.retrieval.stages.attribute_filter import AttributeFilter
from app.retrieval.stages.base import Stage
from app.retrieval.vectors import Vector
from app.telemetry import Timings

T = TypeVar("T")
R = TypeVar("R")

INPUTS = ("body", "inputs")


@dataclass(slots=True)
class Hosting:
    """`app.retrieval.host.Host` for one stage of one execution."""

    runtime: Runtime
    prepared: Prepared
    inputs: Mapping[str, Any]
    context: Mapping[str, Sequence[Row]]
    deadline: float
    timings: Timings
    stage: Mapping[str, Any] = field(default_factory=dict)  # what templates see as STAGE
    first: bool = False
    filters: Filter | None = None  # of the request: for what a stage finds by itself
    told: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _context: dict[str, Any] | None = None

    @property
    def left_s(self) -> float:
        return max(0.001, self.deadline - time.monotonic())

    def fill(self, value: Any, row: Row | None = None, **names: Any) -> Any:
        if self._context is None:
            alias = {name: [document_of(row) for row in rows] for name, rows in self.context.items()}
            self._context = {**alias, "namespace_id": self.prepared.catalog.namespace_id}
        context = {**self._context, **names.pop("context", {})}
        secrets = Secrets(self.runtime.settings)
        known = {"context": context, "stage": self.stage, "secret": secrets, **names}
        if row is not None:
            known.setdefault("doc", document_of(row))
        try:
            return templates.fill(value, self.inputs, known)
        except templates.MissingInput as error:
            message = f"The input {error.name!r} is needed by this retriever."
            raise InvalidRequest([Problem((*INPUTS, error.name), "missing_input", message)]) from None
        except ValueError as error:
            raise InvalidRequest([Problem(INPUTS, "bad_input", f"{error}.")]) from None

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

        tasks = [asyncio.create_task(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # none goes on for an answer that nobody waits for
                task.cancel()

    async def embed(self, service: str, text: str, task: Task) -> Vector:
        return await embed_one(self.runtime, service, text, task)

    async def rerank(self, name: str | None, query: str, texts: Sequence[str], limit_s: float) -> list[float]:
        rerankers = self.runtime.inference.rerankers
        return await rerankers.scores(name or DEFAULT, query, texts, min(limit_s, self.left_s))

    async def chat(self, prompt: Prompt, limit_s: float | None = None) -> Completion:
        settings = self.runtime.settings
        cost = self.told.setdefault("llm", {"calls": 0, "input_tokens": 0, "output_tokens": 0})
        spent = cost["input_tokens"] + cost["output_tokens"]
        if cost["calls"] >= settings.chat_max_calls or spent >= settings.chat_max_tokens:
            message = (
                f"A stage may make {settings.chat_max_calls:,} calls to the language model, and none after "
                f"{settings.chat_max_tokens:,} tokens (PGRETRIEVE_CHAT_MAX_CALLS, PGRETRIEVE_CHAT_MAX_TOKENS): put a "
                "limit before it."
            )
            raise InvalidRequest([Problem(("body", "stages"), "budget_spent", message)])
        cost["calls"] += 1
        answer = await self.runtime.inference.chat.complete(prompt, min(limit_s or self.left_s, self.left_s))
        cost["model"] = answer.model
        cost["input_tokens"] += answer.input_tokens
        cost["output_tokens"] += answer.output_tokens
        return answer

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any = None,
        limit_s: float,
        max_bytes: int | None,
        domains: Sequence[str],
        secret: bool,
        per_minute: int | None = None,
    ) -> tuple[int, bytes]:
        if not is_listed(host_of(url), domains):
            raise NotFetched(f"{host_of(url)} is not one of the stage's allowed_domains.", code="domain_refused")
        hosts = self.runtime.settings.secret_hosts.split(",")
        if secret and not is_listed(host_of(url), hosts):
            message = f"No secret is sent to {host_of(url)}: its host is not one of PGRETRIEVE_SECRET_HOSTS."
            raise InvalidRequest([Problem(("body", "stages"), "secret_refused", message)])
        limit_s = min(limit_s, self.left_s)
        got = await self.runtime.inference.fetcher.fetch(
            method, url, headers=headers, json=json, limit_s=limit_s, max_bytes=max_bytes, per_minute=per_minute
        )
        return got.status, got.content

    async def cut(self, tokenizer: str, text: str, most: int | None = None) -> tuple[str, int]:
        return await cut(tokenizer, text, most)

    async def lookup(
        self, name: str, values: Sequence[Mapping[str, Any]], limit_s: float
    ) -> list[list[dict[str, Any]]]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            stored = await lookups.find(conn, name)
        found, more = await lookups.run(self.runtime, stored, values, min(limit_s, self.left_s))
        if more:
            self.warn(f"The look-up {name!r} answers {stored.row_limit:,} rows; there were more.")
        return found

    async def matching(self, condition: Any, rows: Sequence[Row]) -> list[bool]:
        found = await self._answered([AttributeFilter(conditions=condition)], rows, self.inputs)
        ranks = {hit[0] for hit in found.hits}
        return [rank in ranks for rank in range(1, len(rows) + 1)]

    async def run(self, stages: Sequence[Stage], rows: Sequence[Row] | None, inputs: Mapping[str, Any]) -> list[Row]:
        return rows_of(await self._answered(stages, rows, inputs))

    async def _answered(self, stages: Sequence[Stage], rows: Sequence[Row] | None, inputs: Mapping[str, Any]) -> Rows:
        """What SQL stages answer, at most as many rows as host stages may see."""
        steps = tuple(Step(stage.stage_id, stage) for stage in stages)
        prepared = replace(self.prepared, pipeline=Pipeline(steps, frozenset(inputs)), plans=Bounded(len(steps) + 1))
        page = Page(limit=self.runtime.limits.host_rows)
        request = Request(inputs, self.filters if rows is None else None, page, ())
        planned, found = await run_statement(self.runtime, prepared, request, 0, rows, page, self.left_s, self.timings)
        for condition in planned.plan.relaxed:
            self.warn(f"The condition {condition} was left out, since its input is missing.")
        return found


def document_of(row: Row) -> dict[str, Any]:
    """What templates see as DOC: the row's fields, and the system's beside them."""
    collection, metadata = (row.stored[0], row.stored[2]) if row.stored else (None, "{}")
    system = {"document_id": row.document_id, "score": row.score, "collection_id": collection}
    return {"metadata": msgspec.json.decode(metadata), **row.fields, **system}
