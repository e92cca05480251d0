"""/v1/retrievers/{id}/sql: a retriever's statement, to be pasted into psql."""

from typing import Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.execution import VersionNumber, check_size
from app.api.wire import Input, Json, RuntimeDep, decode, namespace_of
from app.domain.retrieving import psql
from app.domain.retrieving.execution import Execution
from app.domain.retrieving.psql import Text
from app.domain.retrieving.windows import Window
from app.domain.runtime import Runtime
from app.errors import Conflict, InvalidRequest, Problem, Problems

AnyRequest = Request[Any, Any, State]
TEXT = "text/plain"


class SqlInput(Input, frozen=True):
    """What the statement is for, as for executing. Without `inputs` it has variables of psql in their place."""

    inputs: dict[str, Any] | None = None
    filters: Any = None
    version: VersionNumber = None
    limit: int | None = None


class SqlVariable(msgspec.Struct, kw_only=True):
    """A variable that must be set before the statement: its type, and what a request would put there."""

    name: str
    type: str
    value: Any


class SqlText(msgspec.Struct, kw_only=True):
    """`sql` is the text for psql. Where it is not `complete`, `reason` says which stages it leaves out, from
    `stops_before` on; null where none of them is SQL."""

    sql: str | None
    complete: bool
    stops_before: str | None
    reason: str | None
    variables: list[SqlVariable]


@get("/", scope="read", operation_id="get_retriever_sql")
async def get_sql(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    inputs: FromQuery[str | None] = None,
    filters: FromQuery[str | None] = None,
    version: FromQuery[int | None] = None,
    limit: FromQuery[int | None] = None,
) -> Response[SqlText]:
    """The statement of a retriever, for psql: the same rows as executing. `inputs` and `filters` are JSON.

    With `Accept: text/plain` the answer is the text alone, so that `curl … | psql` runs it.
    """
    given = SqlInput(
        inputs=_json("inputs", inputs, dict[str, Any]), filters=_json("filters", filters, Any), limit=limit
    )
    return await _answered(request, runtime, retriever_id, given, version, "query")


@post("/", dto=Json[SqlInput], return_dto=None, status_code=200, scope="read", operation_id="get_retriever_sql_by_post")
async def post_sql(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[SqlInput | None] = None,
) -> Response[SqlText]:
    """The same, for inputs that are too long for a query."""
    given = data or SqlInput()
    return await _answered(request, runtime, retriever_id, given, given.version, "body")


def _json(name: str, text: str | None, type_: Any) -> Any:
    if text is None:
        return None
    try:
        found, problems = decode(text.encode(), type_)
    except InvalidRequest as error:
        problems = list(error.problems)
    if problems:
        raise InvalidRequest([Problem(("query", name), each.code, each.message) for each in problems])
    return found


async def _answered(
    request: AnyRequest, runtime: Runtime, retriever: str, given: SqlInput, version: int | None, source: str
) -> Response[Any]:
    problems = Problems()
    if given.limit is not None and given.limit < 1:
        problems.add((source, "limit"), "out_of_range", f"limit is 1 or more, not {given.limit}.")
    await check_size(request, runtime, {"inputs": given.inputs}, problems)
    problems.refuse()
    window = Window(size=given.limit, most=runtime.settings.max_result_page)
    wanted = Execution(given.inputs or {}, given.filters, window, version=version)
    text = await psql.text_of(runtime, namespace_of(request), retriever, wanted, variables=given.inputs is None)
    if request.accept.best_match(["application/json", TEXT]) == TEXT:
        return Response(_plain(text), media_type=TEXT, status_code=200)
    return Response(msgspec.convert(text, SqlText, from_attributes=True), status_code=200)


def _plain(text: Text) -> str:
    if text.sql is None:
        raise Conflict(str(text.reason), code="runs_on_host")
    return text.sql


router = Router("/retrievers/{retriever_id:str}/sql", route_handlers=[get_sql, post_sql], tags=["Retrievers"])
