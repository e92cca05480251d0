"""Chooses how each search of a statement runs, by what its filter keeps: estimated, remembered, corrected by answers.

A plan is a shape of SQL. A segment is compiled once to learn of its searches, and once for each combination of their
ways that occurs; a warm execution compiles nothing and asks the database nothing.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from app.db.engine import connection, raw
from app.domain.indexing.adaptive_indexes import note_use
from app.domain.runtime import Known, Prepared, Runtime
from app.domain.security import access
from app.errors import InvalidRequest, Problem
from app.retrieval.catalog import Catalog
from app.retrieval.compiler import compile_plan
from app.retrieval.executor import INPUTS, Page, estimate_rows, fill_estimate
from app.retrieval.filters import Filter, all_of
from app.retrieval.indexed import advice, unindexed
from app.retrieval.literals import lift_values
from app.retrieval.plan import Plan, SearchShape, render
from app.retrieval.strategy import MEMORY, UNREACHED, Choice, Size, choose
from app.telemetry import Timings


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks of its searches: a recall, or exactness."""

    recall_target: float | None = None
    exact: bool = False


NO_WISHES = Wishes()
SKIPPED = {"empty_query": "its query is empty", "empty_index": "no document has a vector in its index"}
LACKING: Mapping[str | None, str] = {
    "building": "The index {!r} is being built; until it is ready, its searches are exact, and slower.",
    "failed": "The index {!r} could not be built; its searches are exact, and slower. "
    "POST /v1/namespaces/…/ensure-indexes builds it.",
}
# Workers that a plan has ready, though it may not need them, take 5 ms to start; and compiling takes 10 ms.
ALONE = {"max_parallel_workers_per_gather": "0", "jit": "off"}
# Where all searches go by a vector index, one plan is good for all values, and PostgreSQL is to keep it: that saves 0.4
# of 1.8 ms. By itself it would plan each time, for the exact search that completes an iteration has a high cost; and
# the plan that it would keep reads all documents there, in 1,000 ms instead of 20, if it may not only use indexes.
PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
WORTH_WORKERS = 50_000
# One that gives up costs 1.5 times an exact search, one that finds enough about 0.3 times: iteration pays while fewer
# than 0.6 of them give up. The share is a moving average, so that a few unlucky queries do not make all of them exact.
LESSON, GIVEN_UP = 0.1, 0.6
NO_CHOICES: Mapping[str, Choice] = MappingProxyType({})
Observer = Callable[[str, Mapping[str, Any]], None]
"""Is told of events as they happen: `statement`, `stage_start`, `stage_complete`, `stage_error`."""


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
class Planned:
    """A segment's statement for one request: the plan, the inputs that its binds read, and what was chosen."""

    plan: Plan
    inputs: Mapping[str, Any]
    choices: Mapping[str, Choice]
    sizes: Mapping[str, Hashable]  # of each search, where its estimate is remembered
    warnings: Sequence[str] = ()


async def plan(
    runtime: Runtime, prepared: Prepared, request: Request, n: int, *, after_host: bool, timings: Timings
) -> Planned:
    """The plan of a segment for this request, from the cache where it may be."""
    with timings("plan"):
        filters, values = lift_values(request.filters)
        lifted = replace(request, filters=filters, inputs={**request.inputs, **values})
        scout = compiled(runtime, prepared, lifted, n, after_host=after_host)
    warnings = [*scout.warnings, *await _advice(runtime, prepared, scout, timings)]
    open_ = [shape for shape in scout.shapes if shape.ready]
    if not open_:
        return Planned(scout, lifted.inputs, {}, {}, warnings)
    sizes, places = await _sizes(runtime, prepared, open_, lifted.inputs, timings)
    with timings("plan"):
        wishes, ef_search = request.wishes, runtime.settings.hnsw_ef_search
        choices = {
            shape.key: choose(
                sizes[shape.key],
                shape.rows,
                ef_search=ef_search,
                recall_target=wishes.recall_target,
                exact=wishes.exact,
            )
            for shape in open_
        }
        found = compiled(runtime, prepared, lifted, n, choices, after_host=after_host)
        settled = replace(found, settings=_settings(choices, prepared.catalog, found))
        return Planned(settled, lifted.inputs, choices, places, warnings)


def _settings(choices: Mapping[str, Choice], catalog: Catalog, found: Plan) -> dict[str, str]:
    """What every index scan of the statement runs with: the widest that one of its searches needs."""
    scans = [choice for choice in choices.values() if choice.strategy != "exact"]
    if not scans:
        return {} if any(choice.cost > WORTH_WORKERS for choice in choices.values()) else ALONE
    return {
        **ALONE,
        **(PLANNED_ONCE if len(scans) == len(found.shapes) and _is_by_indexes(catalog, found) else {}),
        "hnsw.ef_search": str(max(choice.ef_search for choice in scans)),
        # Relaxed order finds more with the same work; the statement sorts what it found by the exact distances.
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(UNREACHED),
        "hnsw.scan_mem_multiplier": str(MEMORY),
    }


def _is_by_indexes(catalog: Catalog, found: Plan) -> bool:
    """Whether indexes serve all that a statement asks of the whole namespace, beside its vectors. How much a principal
    may read differs from one to the other, so no plan is good for all of them."""
    return (
        not catalog.restricted
        and not found.wholes
        and all(shape.served or shape.kept is None for shape in found.shapes)
    )


def compiled(
    runtime: Runtime,
    prepared: Prepared,
    request: Request,
    n: int,
    choices: Mapping[str, Choice] = NO_CHOICES,
    *,
    after_host: bool = False,
) -> Plan:
    """The statement of a segment for requests of this form, from the cache where it may be."""
    pipeline = prepared.pipeline
    after = n == len(pipeline.segments) - 1 and request.page.after is not None
    # Only inputs that templates use change the shape of the statement.
    provided = frozenset(request.inputs)
    ways = {key: choice.way for key, choice in choices.items()}
    key = (
        n,
        provided & pipeline.input_names,
        repr(request.filters),  # a value that was not lifted may have no hash
        request.vectors,
        after,
        after_host,
        tuple(ways.items()),
    )
    found = prepared.plans.get(key)
    if found is None:
        found = compile_plan(
            pipeline.segments[n],
            prepared.catalog,
            runtime.limits,
            retriever_id=prepared.retriever_id,
            provided=provided,
            filters=all_of([each for each in (prepared.within, request.filters) if each is not None]),
            vectors=request.vectors,
            ways=ways,
            after=after,
            after_host=after_host,
        )
        prepared.plans.put(key, found)
    return found


# Sizes


async def _sizes(
    runtime: Runtime, prepared: Prepared, shapes: Sequence[SearchShape], inputs: Mapping[str, Any], timings: Timings
) -> tuple[dict[str, Size], dict[str, Hashable]]:
    """The size of each search; what is not remembered is estimated, all in one round trip."""
    wanted = {shape.key: _wanted(prepared, shape, inputs) for shape in shapes}
    rows = await _known(runtime, [each for several in wanted.values() for each in several], timings)
    sizes = {}
    for shape in shapes:
        documents, *kept = (rows[asked.place] for asked in wanted[shape.key])
        sizes[shape.key] = Size(documents, min(kept[0], documents) if kept else documents, bool(kept), shape.served)
    return sizes, {key: several[-1].place for key, several in wanted.items()}


@dataclass(frozen=True, slots=True)
class _Asked:
    place: Hashable  # where the answer is remembered
    text: str
    values: dict[str, Any]


async def _known(runtime: Runtime, wanted: Sequence[_Asked], timings: Timings) -> dict[Hashable, int]:
    """Rows by place; what is not remembered is estimated now."""
    now, rows, missing = time.monotonic(), dict[Hashable, int](), dict[Hashable, _Asked]()
    for asked in wanted:
        known = runtime.estimates.get(asked.place)
        if known is not None and known.until > now:
            rows[asked.place] = known.rows
        else:
            missing[asked.place] = asked
    if missing:
        with timings("estimate"):
            async with connection(runtime.engine) as conn:
                texts = [(asked.text, asked.values) for asked in missing.values()]
                limits = {"statement_timeout": f"{runtime.settings.statement_timeout_ms}ms"}
                found = await estimate_rows(await raw(conn), texts, limits)
        rows |= dict(zip(missing, found, strict=True))
        for place in missing:
            runtime.estimates.put(place, Known(rows[place], now + runtime.settings.estimate_seconds))
    return rows


async def _advice(runtime: Runtime, prepared: Prepared, plan: Plan, timings: Timings) -> list[str]:
    """What would serve the filters that read every document, where there are many."""
    catalog = prepared.catalog
    if catalog.restricted:  # how many documents there are is not for them
        return []
    said = list(dict.fromkeys(line for read in plan.reads for line in advice(read, catalog)))
    if not said:
        return []
    every: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(catalog.documents)
    text = render(every)
    place = (catalog.schema, text)
    rows = await _known(runtime, [_Asked(place, text, {})], timings)
    if rows[place] >= runtime.settings.adaptive_index_documents:
        await note_use(runtime, catalog, [use for read in plan.reads for use in unindexed(read, catalog)])
    return said if rows[place] >= runtime.settings.index_advice_documents else []


def _wanted(prepared: Prepared, shape: SearchShape, inputs: Mapping[str, Any]) -> list[_Asked]:
    """What must be known of a search: its documents, and how many of them its filter keeps."""
    found = []
    for estimate in (shape.documents, shape.kept):
        values = fill_estimate(estimate, inputs) if estimate is not None else None
        if estimate is not None and values is not None:
            values |= prepared.catalog.restriction
            place = (prepared.catalog.schema, estimate.text, tuple(map(repr, values.values())))
            found.append(_Asked(place, estimate.text, values))
    return found


def learn(runtime: Runtime, planned: Planned, told: Mapping[str, Mapping[str, Any]]) -> None:
    """Where too many iterations with a filter give up before they have found enough, its searches are exact at once."""
    for shape in planned.plan.shapes:
        place, exhausted = planned.sizes.get(shape.key), _told_of(shape, told).get("exhausted")
        if place is None or exhausted is None or (known := runtime.estimates.get(place)) is None:
            continue
        given_up = known.given_up + LESSON * (exhausted - known.given_up)
        rows = 0 if given_up > GIVEN_UP else known.rows
        runtime.estimates.put(place, replace(known, rows=rows, given_up=given_up))


def report(planned: Planned, prefix: str, told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a stage told; of each of its searches also its plan, what was asked of it, and what its filter may keep."""
    searches: list[dict[str, Any]] = []
    for shape in sorted(planned.plan.shapes, key=lambda shape: shape.number):
        if shape.prefix == prefix:
            choice = planned.choices.get(shape.key)
            about = {"index": shape.index, "asked": shape.rows, "plan": choice.strategy if choice else "exact"}
            if shape.lacking is not None:
                about["index_state"] = shape.lacking
            # What a filter keeps is estimated of all documents: not for a principal, who may see few of them.
            if choice is not None and shape.kept is not None and access.restriction() is None:
                about["estimated"] = choice.estimated
            searches.append({"search": shape.number, **about, **_told_of(shape, told)})
    found = dict(told.get(prefix, {}))
    return {**found, "searches": searches} if searches else found


def lacks(planned: Planned) -> list[str]:
    """Which indexes are not there to be searched by, for the answer's `warnings`."""
    return [LACKING[shape.lacking].format(shape.index) for shape in planned.plan.shapes if shape.lacking in LACKING]


def refuse_missing(told: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `InvalidRequest` where a document whose vector is the query does not exist, or has none."""
    missing = [
        f"The document that search {search['search']} asks for does not exist, or has no vector in its index."
        for stage in told.values()
        for search in stage.get("searches") or ()
        if search.get("missing_document")
    ]
    if missing:
        raise InvalidRequest([Problem(INPUTS, "no_query_document", message) for message in missing])


def skips(name: str, told: Mapping[str, Any]) -> list[str]:
    """Which searches of a stage were left out, for the answer's `warnings`."""
    return [
        f"Search {search['search']} of the stage {name!r} was skipped: {SKIPPED[search['skipped']]}."
        for search in told.get("searches") or ()
        if search.get("skipped")
    ]


def gaps(name: str, told: Mapping[str, Any]) -> list[str]:
    """Which searches of a stage looked in an index that is still being filled, for the answer's `warnings`."""
    return [
        f"Search {search['search']} of the stage {name!r}: the index {search['index']!r} is still being filled; about "
        f"{search['missing']:,} documents are not in it yet."
        for search in told.get("searches") or ()
        if search.get("missing")
    ]


def _told_of(shape: SearchShape, told: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    searches = told.get(shape.prefix, {}).get("searches") or []
    return next((search for search in searches if search.get("search") == shape.number), {})
