"""Chooses how each search of a statement runs: exact, by the index, or by the index with iteration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.runtime import Prepared, Runtime
from app.retrieval.compiler import compile_plan
from app.retrieval.executor import Page
from app.retrieval.filters import Filter, all_of
from app.retrieval.plan import Plan
from app.telemetry import Timings


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks of its searches: a recall, or exactness."""

    recall_target: float | None = None
    exact: bool = False


NO_WISHES = Wishes()
Observer = Callable[[str, Mapping[str, Any]], None]
"""Is told of events as they happen: `stage_start`, `stage_complete`, `stage_error`."""


def ignore(_event: str, _about: Mapping[str, Any]) -> None:
    """The observer of those who wait for the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """One execution, checked: its inputs with their defaults, its own filters, the page that is answered."""

    inputs: Mapping[str, Any]
    filters: Filter | None
    page: Page
    vectors: tuple[str, ...]
    wishes: Wishes = NO_WISHES
    observe: Observer = ignore


@dataclass(frozen=True, slots=True)
class Base:
    """A segment's plan before a choice was made."""

    plan: Plan
    key: tuple[Any, ...] | None


def base_plan(runtime: Runtime, prepared: Prepared, request: Request, n: int, *, after_host: bool) -> Base:
    """The compiled plan of a segment for a request of this shape, from the cache where it may be."""
    pipeline = prepared.pipeline
    last = n == len(pipeline.segments) - 1
    after = last and request.page.after is not None
    vectors = request.vectors
    # Only inputs that templates use change the shape of the statement.
    provided = frozenset(request.inputs)
    key = (n, provided & pipeline.input_names, vectors, after, after_host)
    plan = prepared.plans.get(key) if request.filters is None else None
    if plan is None:
        filters = all_of([each for each in (prepared.within, request.filters) if each is not None])
        plan = compile_plan(
            pipeline.segments[n],
            prepared.catalog,
            runtime.limits,
            retriever_id=prepared.retriever_id,
            provided=provided,
            filters=filters,
            vectors=vectors,
            ef_search=runtime.settings.hnsw_ef_search,
            after=after,
            after_host=after_host,
        )
        if request.filters is None:
            prepared.plans.put(key, plan)
    return Base(plan, key if request.filters is None else None)


async def choose(
    runtime: Runtime, prepared: Prepared, request: Request, base: Base, values: dict[str, Any], timings: Timings
) -> tuple[Plan, dict[str, Any]]:
    """The plan that fits these values best."""
    return base.plan, values


def learn(runtime: Runtime, prepared: Prepared, base: Base, values: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Remember what a search turned out to be."""
