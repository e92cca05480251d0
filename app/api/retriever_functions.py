"""/v1/retrievers/{id}/function: a retriever as a SQL function in its namespace's schema."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, put
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from app.api.wire import Input, Json, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.background import requested
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.retrieving import functions, retrievers
from app.domain.retrieving.functions import Deployed, Function
from app.domain.security import audit
from app.errors import InvalidRequest, Problem

AnyRequest = Request[Any, Any, State]


class FunctionInput(Input, frozen=True):
    """The function's name, where it is not to be named as the retriever."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class FunctionParameter(msgspec.Struct, kw_only=True):
    """A parameter, its SQL type, and the input that it is."""

    name: str
    type: str
    input: str
    required: bool
    default: Any
    description: str | None


class FunctionShown(msgspec.Struct, kw_only=True):
    """A retriever's function: `SELECT * FROM "<schema_name>"."<function_name>"(name => value, …)`.

    `broken` says why it raises an error instead of answering, since its namespace no longer fits the retriever.
    """

    retriever_id: str
    retriever_name: str
    schema_name: str
    function_name: str
    signature: str
    parameters: list[FunctionParameter]
    retriever_version: int
    broken: str | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime


@put(
    "/", dto=Json[FunctionInput], return_dto=None, status_code=200, scope="manage", operation_id="publish_sql_function"
)
async def publish(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[FunctionInput | None] = None,
) -> FunctionShown:
    """Make a retriever a SQL function, which follows each change of the retriever and of its namespace.

    A pipeline with stages on the host is none: a 409 names the stage, or what else cannot be said in SQL.
    """
    name = data.name if data else None
    if name is not None and "\0" in name:
        raise InvalidRequest([Problem(("body", "name"), "bad_name", "PostgreSQL has no U+0000 in names.")])
    deployed = Deployed(runtime.limits, runtime.settings.hnsw_ef_search)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False, adopted_too=True)
        found = await retrievers.find(conn, catalog.namespace_id, retriever_id)
        await requested.note_services(conn, runtime)
        return _shown(await functions.publish(conn, catalog, found.retriever_id, name, deployed), catalog.schema)


@get("/", scope="read", operation_id="get_sql_function")
async def get_function(retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> FunctionShown:
    """A retriever's function."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        found = await retrievers.find(conn, catalog.namespace_id, retriever_id)
        return _shown(await functions.find(conn, found.retriever_id, retriever_id), catalog.schema)


@delete("/", status_code=200, scope="manage", operation_id="unpublish_sql_function")
async def unpublish(retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Drop a retriever's function. A 409 names what of the database depends on it."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        found = await retrievers.find(conn, catalog.namespace_id, retriever_id)
        function = await functions.find(conn, found.retriever_id, retriever_id)
        await functions.unpublish(conn, catalog.namespace_id, found.retriever_id)
        about = {"retriever_id": found.retriever_id}
        await audit.record(conn, "sql_function", "dropped", function.function_name, catalog.namespace_id, **about)
    message = f"The function {function.function_name!r} is dropped."
    return {"success": True, "message": message, "retriever_id": found.retriever_id}


def _shown(function: Function, schema: str) -> FunctionShown:
    about = {name: getattr(function, name) for name in FunctionShown.__struct_fields__ if hasattr(function, name)}
    about["parameters"] = msgspec.convert(function.parameters, list[FunctionParameter])
    return FunctionShown(**about, schema_name=schema, retriever_version=function.version)


router = Router(
    "/retrievers/{retriever_id:str}/function", route_handlers=[publish, get_function, unpublish], tags=["Retrievers"]
)
