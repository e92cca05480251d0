"""Executing a retriever: prepared and compiled once, checked against the versions in force, answered as hits."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.documents.hits import hit
from app.domain.inference import services
from app.domain.retrieving import retriever_versions, retrievers, windows
from app.domain.retrieving.planning import NO_WISHES, Observer, Request, Wishes, ignore
from app.domain.retrieving.segments import Ran, Run
from app.domain.retrieving.windows import EVERY_ROW, Fingerprint, Limit, Place, Window
from app.domain.runtime import Bounded, Prepared, Runtime
from app.domain.security import access
from app.errors import Conflict, InvalidRequest, Problems
from app.retrieval.executor import Stale
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import Filter, all_of
from app.retrieval.inputs import check_inputs
from app.telemetry import Timings

# Catalog or retriever changed under a request: reload and try again this often before giving up.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Execution:
    """What a caller asks of a retriever, beside its own definition."""

    inputs: Mapping[str, Any]
    filters: Any = None
    window: Window = EVERY_ROW
    return_vectors: bool = False
    wishes: Wishes = NO_WISHES
    observe: Observer = ignore
    version: int | None = None  # of the retriever; None is the present one


@dataclass(frozen=True, slots=True)
class Outcome:
    """The hits and what is told about them."""

    prepared: Prepared
    ran: Ran
    documents: list[dict[str, Any]]
    place: Place
    limits: list[Limit]
    warnings: list[str]


Prepare = Callable[[], Awaitable[Prepared]]


async def run(runtime: Runtime, namespace: str, retriever: str, wanted: Execution, timings: Timings) -> Outcome:
    """Execute a stored retriever."""
    prepare = partial(_prepare, runtime, namespace, retriever, wanted.version)
    return await attempt(
        runtime, runtime.prepared, _key(namespace, retriever, wanted.version), prepare, wanted, timings
    )


def _key(namespace: str, retriever: str, version: int | None) -> tuple[str, ...]:
    return (*access.view(), namespace, retriever, *(() if version is None else (str(version),)))


async def attempt(
    runtime: Runtime,
    cache: Bounded[tuple[str, ...], Prepared],
    key: tuple[str, ...],
    prepare: Prepare,
    wanted: Execution,
    timings: Timings,
) -> Outcome:
    """Execute; a plan that is out of date is compiled anew, so no answer comes from a state that is gone."""
    for _attempt in range(ATTEMPTS):
        with timings("plan"):
            kept = cache.get(key)
            if kept and not access.may_use(kept.catalog):
                kept = None  # then the namespace is looked up, and not found, as one that does not exist
            prepared = kept or cache.put(key, await prepare())
        try:
            return await _run(runtime, prepared, wanted, timings)
        except Stale:
            pass
        except InvalidRequest:
            # Refused by what was kept, which may be out of date: only what was just read may refuse.
            if kept is None:
                raise
        cache.forget(key)
    raise Conflict("The namespace or the retriever keeps changing; try again.", code="changing", retryable=True)


async def prepared(runtime: Runtime, namespace: str, identifier: str, version: int | None = None) -> Prepared:
    """A stored retriever as it was last read, or read now."""
    key = _key(namespace, identifier, version)
    kept = runtime.prepared.get(key)
    if kept and access.may_use(kept.catalog):
        return kept
    return runtime.prepared.put(key, await _prepare(runtime, namespace, identifier, version))


async def fresh(runtime: Runtime, namespace: str, identifier: str, version: int | None = None) -> Prepared:
    """A stored retriever read now, for what runs no statement that would find it out of date."""
    key = _key(namespace, identifier, version)
    return runtime.prepared.put(key, await _prepare(runtime, namespace, identifier, version))


async def _prepare(runtime: Runtime, namespace: str, identifier: str, version: int | None) -> Prepared:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        if version is None:
            retriever = await retrievers.find(conn, catalog.namespace_id, identifier)
        else:
            retriever, pinned = await retriever_versions.find(conn, catalog.namespace_id, identifier, version)
    # After the catalog: as long as that is in force, no service that it maps to is another one.
    await services.refresh_for(runtime, catalog.inference_map.values())
    if version is None:
        return retrievers.prepare(retriever, catalog, runtime.limits)
    return retriever_versions.prepare(retriever, pinned, catalog, runtime.limits)


def requested(runtime: Runtime, prepared: Prepared, wanted: Execution, of: Fingerprint) -> tuple[Request, list[Limit]]:
    """What is asked for, checked, and what of it was capped; `InvalidRequest` holds every problem."""
    problems = Problems()
    inputs = check_inputs(prepared.input_schema, wanted.inputs, problems, ("body", "inputs"))
    filters = _filters(runtime, prepared, wanted, problems)
    page, limits = windows.page_of(wanted.window, prepared.pipeline.named_rows, of)
    vectors = tuple(prepared.catalog.by_name) if wanted.return_vectors else ()
    return Request(inputs, filters, page, vectors, wanted.wishes, wanted.observe), limits


def fingerprint_of(prepared: Prepared, wanted: Execution) -> Fingerprint:
    """What a cursor of this execution belongs to."""
    return partial(windows.fingerprint, prepared.identity, wanted.inputs, wanted.filters)


async def _run(runtime: Runtime, prepared: Prepared, wanted: Execution, timings: Timings) -> Outcome:
    of = fingerprint_of(prepared, wanted)
    with timings("plan"):
        request, limits = requested(runtime, prepared, wanted, of)
    page = request.page
    ran = await Run(runtime, prepared, request, timings)()
    with timings("encode"):
        warnings = list(ran.warnings)
        documents = [
            hit(row, request.vectors, warnings, fields=fields)
            for row, fields in list(zip(ran.hits, ran.fields, strict=True))[: page.limit]
        ]
        place = windows.place_of(page, ran.hits, ran.total, of)
    return Outcome(prepared, ran, documents, place, limits, list(dict.fromkeys(warnings)))


def _filters(runtime: Runtime, prepared: Prepared, wanted: Execution, problems: Problems) -> Filter | None:
    """The request's own filters; raises what was found until now."""
    limits = runtime.limits.filters
    found = parse_filter(wanted.filters, ("body", "filters"), problems, limits)
    among_inputs = None
    if prepared.filters_may_be_an_input and wanted.inputs.get("filters"):
        among_inputs = parse_filter(wanted.inputs["filters"], ("body", "inputs", "filters"), problems, limits)
    problems.refuse()
    return all_of([each for each in (found, among_inputs) if each is not None])
