"""A batch: one retriever, several queries, each with its answer or its error in its place."""

import asyncio
from typing import Annotated, Any

import msgspec
import psycopg
from litestar import Request, Router, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.exc import SQLAlchemyError

from app.api.answers import answer
from app.api.execution import VersionNumber, check_size, version_of
from app.api.problems import error_of
from app.api.wire import Input, Json, NotOffered, RuntimeDep, namespace_of, not_in_query
from app.domain.retrieving import execution
from app.domain.retrieving.execution import Execution
from app.domain.retrieving.windows import Window
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, PgretrieveError, Problem, Problems
from app.telemetry import Timings

AnyRequest = Request[Any, Any, State]


class BatchQuery(Input, frozen=True):
    """One query of a batch."""

    inputs: dict[str, Any]
    filters: Any = None


class BatchSettings(Input, frozen=True):
    """What holds for every query of a batch."""

    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_chunks: NotOffered = None


class BatchInput(Input, frozen=True):
    """Queries for one retriever; `concurrency` of them run at a time."""

    queries: Annotated[list[BatchQuery], msgspec.Meta(min_length=1)]
    settings: BatchSettings | None = None
    version: VersionNumber = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5
    return_vectors: bool = False
    return_presigned_urls: NotOffered = False
    stream: NotOffered = False


@post(
    "/retrievers/{retriever_id:str}/execute/batch",
    dto=Json[BatchInput],
    return_dto=None,
    guards=[not_in_query(return_presigned_urls="false", stream="false")],
    status_code=200,
    scope="read",
    operation_id="execute_retriever_batch",
)
async def execute_batch(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[BatchInput],
    version: FromQuery[int | None] = None,
    return_vectors: FromQuery[bool] = False,
) -> dict[str, Any]:
    """Run a retriever for several queries; each has its answer or its error in `results`, in their order."""
    await _check(request, runtime, data)
    place = (namespace_of(request), retriever_id)
    pinned = version_of(data.version, version)
    await execution.prepared(runtime, *place, pinned)  # what is wrong with the retriever is no query's matter
    window = Window(size=data.settings.limit if data.settings else None, most=runtime.settings.max_result_page)
    vectors = data.return_vectors or return_vectors
    concurrency = min(data.concurrency, runtime.settings.max_batch_concurrency)
    turn = asyncio.Semaphore(concurrency)

    async def one(n: int, query: BatchQuery) -> dict[str, Any]:
        async with turn:
            wanted = Execution(query.inputs, query.filters, window, vectors, version=pinned)
            return await _one(runtime, place, n, wanted)

    timings = Timings()
    with timings("total"):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(n, query)) for n, query in enumerate(data.queries)]
    return _answer([task.result() for task in tasks], data.concurrency, concurrency, timings)


async def _check(request: AnyRequest, runtime: Runtime, data: BatchInput) -> None:
    most = runtime.settings.max_batch_queries
    if len(data.queries) > most:
        message = f"A batch has at most {most} queries, not {len(data.queries)}; send several batches."
        problem = Problem(("body", "queries"), "too_many_queries", message)
        raise InvalidRequest([problem], limits={"max_queries": most})
    problems = Problems()
    await check_size(request, runtime, {"queries": [query.inputs for query in data.queries]}, problems)
    problems.refuse()


async def _one(runtime: Runtime, place: tuple[str, str], n: int, wanted: Execution) -> dict[str, Any]:
    timings = Timings()
    try:
        with timings("total"):
            outcome = await execution.run(runtime, *place, wanted, timings)
    except (PgretrieveError, psycopg.Error, SQLAlchemyError) as error:
        told = error_of(error, ("queries", n))
        return {"query_index": n, "status": "failed", "documents": [], "error": told}
    return {"query_index": n, **answer(outcome, wanted, timings), "error": None}


def _answer(results: list[dict[str, Any]], asked: int, used: int, timings: Timings) -> dict[str, Any]:
    failed = sum(result["status"] == "failed" for result in results)
    body: dict[str, Any] = {
        "results": results,
        "total_queries": len(results),
        "completed": len(results) - failed,
        "failed": failed,
        "total_time_ms": round(timings.phases["total"], 3),
    }
    if used < asked:
        body["limits"] = [{"name": "concurrency", "requested": asked, "applied": used, "ceiling": used, "stage": None}]
    return body


router = Router("/", route_handlers=[execute_batch], tags=["Retrievers"])
