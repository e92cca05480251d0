"""Executing retrievers, stored or not; and explaining without executing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.answers import analysis, answer, response
from app.api.execution_page import Paged
from app.api.streaming import streamed
from app.api.wire import Input, Json, NotOffered, RuntimeDep, namespace_of, not_in_query
from app.db.replica import reading
from app.domain.retrieving import adhoc, analyzing, execution, explaining
from app.domain.retrieving.execution import Execution, Outcome
from app.domain.retrieving.planning import Observer, Wishes, ignore
from app.domain.retrieving.sdk_stages import is_sdk_shape, sdk_pipeline
from app.domain.retrieving.windows import Window
from app.domain.runtime import Runtime
from app.domain.security import access
from app.errors import Forbidden, InvalidRequest, Problem, Problems
from app.retrieval.inputs import MAX_INPUT_NESTING, is_deeper
from app.telemetry import Timings

AnyRequest = Request[Any, Any, State]
NO_URLS = not_in_query(return_presigned_urls="false")


# Which version of a retriever is meant; without one, the present one.
VersionNumber = Annotated[int, msgspec.Meta(ge=1)] | None


class ExecuteInput(Paged, frozen=True, kw_only=True):
    """Inputs for the retriever's templates, filters AND-ed with its own, and a page of its rows.

    `exact` searches all vectors that the filters keep; `recall_target` is the share of the true nearest that searches
    by an index aim at: more takes longer (default 0.97). Nothing
    is cached, so `skip_cache` changes nothing. Every read is consistent, unless the server reads from a replica: then
    `consistency` of the mode `strong`, a `write_token`, or the header `X-Write-Token` of the write itself, make it so.
    """

    inputs: dict[str, Any] | None = None
    filters: Any = None
    version: VersionNumber = None
    exact: bool = False
    recall_target: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    return_vectors: bool = False
    explain: bool = False
    skip_cache: bool = False
    consistency: dict[str, Any] | None = None
    stream: bool = False
    expand: NotOffered = None
    return_presigned_urls: NotOffered = False
    write_token: str | None = None  # with a replica: the primary is read
    target_collection_id: NotOffered = None
    settings: NotOffered = None


class AdhocInput(ExecuteInput, frozen=True, kw_only=True):
    """A pipeline that is executed and not stored. `pre_filters` is another name of `filters`."""

    stages: list[Any]
    version: NotOffered = None
    input_schema: dict[str, Any] | None = None
    pre_filters: Any = None
    collection_identifiers: list[str] | None = None
    collection_ids: list[str] | None = None
    budget_limits: dict[str, Any] | None = None

    def pipeline(self) -> adhoc.Pipeline:
        collections = self.collection_identifiers or self.collection_ids
        if is_sdk_shape(self.stages):
            return sdk_pipeline(self.stages, self.inputs or {}, collections)
        names = ("stages", "input_schema", "budget_limits")
        definition = {name: getattr(self, name) for name in names} | {"collection_identifiers": collections}
        return adhoc.Pipeline({name: value for name, value in definition.items() if value is not None})


class ExplainInput(Input, frozen=True):
    """Inputs as they might be; without any, every condition is thought to have its input. With `analyze` it runs: they
    are then inputs as for executing, and so is `limit`."""

    inputs: dict[str, Any] | None = None
    filters: Any = None
    version: VersionNumber = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    analyze: bool = False


@post(
    "/retrievers/{retriever_id:str}/execute",
    dto=Json[ExecuteInput],
    return_dto=None,
    guards=[NO_URLS],
    status_code=200,
    scope="read",
    operation_id="execute_retriever",
)
async def execute_retriever(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[ExecuteInput | None] = None,
    version: FromQuery[int | None] = None,
    stream: FromQuery[bool] = False,
    explain: FromQuery[bool] = False,
    return_vectors: FromQuery[bool] = False,
    include_legacy_results: FromQuery[bool | None] = None,
) -> Response[dict[str, Any]]:
    """Run a retriever: embed what is text, search, and answer its documents, best first."""
    given = data or ExecuteInput()
    wanted, warnings = await wanted_of(request, runtime, given, vectors=return_vectors)
    wanted = replace(wanted, version=version_of(given.version, version))
    run = partial(execution.run, runtime, namespace_of(request), retriever_id)
    explained, results = given.explain or explain, _legacy(runtime, include_legacy_results)
    shown = Shown(warnings, explain=explained, results=results, stream=given.stream or stream)
    return await _answered(runtime, run, wanted, shown)


@post(
    "/retrievers/execute",
    dto=Json[AdhocInput],
    return_dto=None,
    guards=[NO_URLS],
    status_code=200,
    scope="read",
    operation_id="execute_adhoc_retriever",
)
async def execute_adhoc(
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[AdhocInput],
    stream: FromQuery[bool] = False,
    return_vectors: FromQuery[bool] = False,
    include_legacy_results: FromQuery[bool | None] = None,
) -> Response[dict[str, Any]]:
    """Run a pipeline that is not stored."""
    wanted, warnings = await wanted_of(request, runtime, data, filters=data.pre_filters, vectors=return_vectors)
    results = _legacy(runtime, include_legacy_results)
    shown = Shown(warnings, explain=data.explain, results=results, stream=data.stream or stream)
    return await run_adhoc(request, runtime, data.pipeline(), wanted, shown)


@dataclass(frozen=True, slots=True)
class Shown:
    """How an execution is answered: warnings about the request, the statement, an older name of `documents`, events."""

    warnings: list[str]
    explain: bool = False
    results: bool = False
    stream: bool = False


async def run_adhoc(
    request: AnyRequest, runtime: Runtime, pipeline: adhoc.Pipeline, wanted: Execution, shown: Shown
) -> Response[dict[str, Any]]:
    """What every route answers that runs a pipeline of its own making."""
    run = partial(adhoc.run, runtime, namespace_of(request), pipeline)
    return await _answered(runtime, run, wanted, shown, **{"X-Execution-Mode": "adhoc"})


async def _answered(
    runtime: Runtime,
    run: Callable[[Execution, Timings], Awaitable[Outcome]],
    wanted: Execution,
    shown: Shown,
    **headers: str,
) -> Response[Any]:
    timings = Timings()

    async def execute(observe: Observer = ignore, execution_id: str = "") -> dict[str, Any]:
        with timings("total"):
            outcome = await run(replace(wanted, observe=observe), timings)
        return answer(outcome, wanted, timings, shown.warnings, explain=shown.explain, execution_id=execution_id)

    if shown.explain and access.restriction() is not None:
        raise Forbidden(
            "A key with a principal_id is told no statement: leave `explain` out.", code="not_for_principals"
        )
    if shown.stream:
        return await streamed(execute, runtime.settings.request_timeout_s, **headers)
    return response(await execute(), timings, results=shown.results, **headers)


def version_of(body: int | None, query: int | None) -> int | None:
    """The version that is asked for, in the body or in the query."""
    if body is not None and query is not None and body != query:
        message = f"The body asks for version {body}, the query for {query}; give one."
        raise InvalidRequest([Problem(("query", "version"), "bad_value", message)])
    return query if body is None else body


def _legacy(runtime: Runtime, asked: bool | None) -> bool:
    return runtime.settings.legacy_results if asked is None else asked


async def wanted_of(
    request: AnyRequest, runtime: Runtime, given: Any, *, filters: Any = None, vectors: bool = False
) -> tuple[Execution, list[str]]:
    """What a body asks for, and warnings about it; refuses what is wrong with its page or the size of its inputs."""
    problems, warnings = Problems(), list[str]()
    if (read := reading.get()) and (given.write_token or (given.consistency or {}).get("mode") == "strong"):
        read.primary = True
    window = given.window(runtime.settings, problems, warnings)
    inputs = given.inputs or {}
    await check_size(request, runtime, {"inputs": inputs}, problems)
    if given.filters is not None and filters is not None:
        problems.add(("body", "pre_filters"), "bad_value", "`pre_filters` is another name of `filters`; give one.")
    problems.refuse()
    chosen = given.filters if given.filters is not None else filters
    wishes = Wishes(given.recall_target, given.exact)
    return Execution(inputs, chosen, window, given.return_vectors or vectors, wishes), warnings


async def check_size(request: AnyRequest, runtime: Runtime, parts: dict[str, Any], problems: Problems) -> None:
    """Inputs are bounded in bytes and depth. A small, flat body needs no closer look."""
    body, most = await request.body(), runtime.settings.max_input_bytes
    if len(body) > most:
        for name, value in parts.items():
            if (size := len(msgspec.json.encode(value))) > most:
                message = f"{name} have {size} bytes; PGRETRIEVE_MAX_INPUT_BYTES allows {most}."
                problems.add(("body", name), "input_too_large", message)
    if body.count(b"[") + body.count(b"{") > MAX_INPUT_NESTING:
        for name, value in parts.items():
            if is_deeper(value, MAX_INPUT_NESTING):
                problems.add(("body", name), "too_deep", f"{name} nest at most {MAX_INPUT_NESTING} deep.")


@post(
    "/retrievers/{retriever_id:str}/execute/explain",
    dto=Json[ExplainInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="explain_retriever",
)
async def explain_retriever(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[ExplainInput | None] = None,
    version: FromQuery[int | None] = None,
) -> dict[str, Any]:
    """Tell what executing would do, by PostgreSQL's estimates; nothing is run, unless the body says `analyze`.

    Then `analysis` has the statements that ran, their settings and values, PostgreSQL's account of each, and
    `findings` in words.
    """
    asked = data or ExplainInput()
    problems = Problems()
    await check_size(request, runtime, {"inputs": asked.inputs or {}}, problems)
    problems.refuse()
    window = Window(size=asked.limit, most=runtime.settings.max_result_page)
    pinned = version_of(asked.version, version)
    wanted = Execution(asked.inputs or {}, asked.filters, window, version=pinned)
    place = (namespace_of(request), retriever_id)
    explained: dict[str, Any] = msgspec.to_builtins(await explaining.explain(runtime, *place, wanted))
    if asked.analyze:
        timings = Timings()
        explained["analysis"] = analysis(await analyzing.analyze(runtime, *place, wanted, timings), timings)
    return explained


router = Router(
    "/",
    route_handlers=[execute_retriever, execute_adhoc, explain_retriever],
    tags=["Retrievers"],
)
