"""/v1/lookups: queries that an administrator stores, for the stage sql_lookup. An extension of the public API."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Router, delete, get, put
from litestar.params import FromPath, JSONBody

from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.retrieving import lookups
from app.domain.retrieving.lookups import Lookup


class LookupInput(Input, frozen=True):
    """A look-up: a SELECT that reads its parameters as `given.<name>`, and their SQL types by their names.

    It is run for all documents in one statement, which ends after `timeout_ms` and answers `row_limit` rows.
    """

    query: str
    parameters: dict[str, str]
    timeout_ms: int = 1_000
    row_limit: int = 1_000
    description: str = ""


class LookupShown(msgspec.Struct, kw_only=True):
    """A stored look-up."""

    name: str
    query: str
    parameters: dict[str, str]
    timeout_ms: int
    row_limit: int
    description: str
    created_by: str | None
    created_at: datetime | None


class LookupList(msgspec.Struct, kw_only=True):
    """All look-ups, by name."""

    results: list[LookupShown]
    total_count: int


@put("/{name:str}", dto=Json[LookupInput], return_dto=None, status_code=200, scope="admin", operation_id="put_lookup")
async def put_lookup(name: FromPath[str], data: JSONBody[LookupInput], runtime: RuntimeDep) -> LookupShown:
    """Store a look-up, or replace the one of that name. It is tried out first: what PostgreSQL refuses is a 422."""
    wanted = Lookup(name, **msgspec.structs.asdict(data))
    lookups.check(wanted)
    await lookups.try_out(runtime, wanted)
    async with transaction(runtime.engine, runtime.settings) as conn:
        return _shown(await lookups.put(conn, wanted))


@get("/", scope="admin", operation_id="list_lookups")
async def list_lookups(runtime: RuntimeDep) -> LookupList:
    """All look-ups."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        found = await lookups.find_all(conn)
    return LookupList(results=[_shown(one) for one in found], total_count=len(found))


@get("/{name:str}", scope="admin", operation_id="get_lookup")
async def get_lookup(name: FromPath[str], runtime: RuntimeDep) -> LookupShown:
    """A look-up."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return _shown(await lookups.find(conn, name))


@delete("/{name:str}", status_code=200, scope="admin", operation_id="delete_lookup")
async def delete_lookup(name: FromPath[str], runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a look-up; stages that name it fail from then on."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        await lookups.delete(conn, name)
    return {"success": True, "message": f"The look-up {name!r} is deleted."}


def _shown(found: Lookup) -> LookupShown:
    return msgspec.convert(found, LookupShown, from_attributes=True)


router = Router("/lookups", route_handlers=[put_lookup, list_lookups, get_lookup, delete_lookup], tags=["Look-ups"])
