"""/v1/keys: API keys made, listed and revoked. A key is shown once, by the answer that makes it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from app.api.paging import PAGED, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.security import keys
from app.domain.security.keys import Key, Wanted
from app.errors import InvalidRequest, Problem

CENTURY_S = 100 * 365 * 86_400
PerMinute = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class KeyInput(Input, frozen=True):
    """A key: what it may do (`scopes`), where (`namespaces`: ids or names; all by default), until when,
    and how many requests it may send in a minute (by default what the server's settings say).

    With a `principal_id` it reads only documents whose access list names that principal, and those that are public.
    """

    name: str
    scopes: list[str]
    namespaces: list[str] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    ttl_seconds: Annotated[int, msgspec.Meta(ge=1, le=CENTURY_S)] | None = None
    rate_limit_override: PerMinute | None = None
    principal_id: str | None = None

    def wanted(self, now: datetime) -> Wanted:
        expires_at = self.expires_at
        if self.ttl_seconds is not None:
            if expires_at is not None:
                message = "Give expires_at or ttl_seconds, not both."
                raise InvalidRequest([Problem(("body", "ttl_seconds"), "both_expiries", message)])
            expires_at = now + timedelta(seconds=self.ttl_seconds)
        return Wanted(self.name, self.scopes, self.namespaces, expires_at, self.rate_limit_override, self.principal_id)


class KeyPatch(Input, frozen=True):
    """Another name, or another limit of requests in a minute; null is the limit of the server's settings."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    rate_limit_override: PerMinute | msgspec.UnsetType | None = msgspec.UNSET

    def changes(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in given.items() if value is not msgspec.UNSET}


class KeyShown(msgspec.Struct, kw_only=True):
    """A key without itself; `status` is `active`, `expired` or `revoked`. After a rotation, the key before works
    until `previous_until`."""

    key_id: str
    name: str
    scopes: list[str]
    namespaces: list[str] | None
    status: str
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    previous_until: datetime | None
    rate_limit_override: int | None
    principal_id: str | None


class KeyMade(KeyShown, kw_only=True):
    """A new key. `key` is what its bearer sends; it cannot be read again."""

    key: str
    warnings: list[str]


class KeyList(msgspec.Struct, kw_only=True):
    """A page of keys."""

    results: list[KeyShown]
    pagination: Pagination
    total_count: int


def _fields(key: Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in KeyShown.__struct_fields__}


@post("/", scope="admin", dto=Json[KeyInput], return_dto=None, status_code=200, operation_id="create_key")
async def create_key(
    data: JSONBody[KeyInput], request: Request[Any, Any, Any], runtime: RuntimeDep
) -> Response[KeyMade]:
    """Make a key. It has no scope that the key that makes it lacks, and does not outlast it."""
    maker = request.state.principal
    now = datetime.now(UTC)
    wanted = data.wanted(now)
    keys.check(wanted, now)
    async with transaction(runtime.engine, runtime.settings) as conn:
        key, stored, absent = await keys.create(conn, keys.bounded(wanted, maker), maker.key_id)
    warnings = [f"No namespace {name!r} exists; the key will see it once it is created." for name in absent]
    made = KeyMade(**_fields(stored), key=key, warnings=warnings)
    return Response(made, headers={"Cache-Control": "no-store"}, status_code=200)


@get("/", scope="admin", operation_id="list_keys", **PAGED)
async def list_keys(runtime: RuntimeDep, paging: PageQuery) -> KeyList:
    """A page of keys in the order of their ids, those that have ended too."""
    page = page_of(None, paging, runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        found, total = await keys.list_page(conn, after=page.after, limit=page.size + 1)
    return KeyList(
        results=[KeyShown(**_fields(key)) for key in found[: page.size]],
        pagination=pagination(page, [key.key_id for key in found], total),
        total_count=total,
    )


@get("/{key_id:str}", scope="admin", operation_id="get_key")
async def get_key(key_id: FromPath[str], runtime: RuntimeDep) -> KeyShown:
    """A key by its id."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return KeyShown(**_fields(await keys.get(conn, key_id)))


@patch("/{key_id:str}", scope="admin", dto=Json[KeyPatch], return_dto=None, operation_id="update_key")
async def update_key(
    key_id: FromPath[str], data: JSONBody[KeyPatch], request: Request[Any, Any, Any], runtime: RuntimeDep
) -> KeyShown:
    """Change a key's name or limit; what is not given stays. What it may do is changed by making another one."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        changed = await keys.change(conn, key_id, data.changes())
    request.app.state.keyring.forget_all()
    return KeyShown(**_fields(changed))


@delete("/{key_id:str}", scope="admin", status_code=200, operation_id="revoke_key")
async def revoke_key(key_id: FromPath[str], request: Request[Any, Any, Any], runtime: RuntimeDep) -> KeyShown:
    """Revoke a key: at once in this process, within `PGRETRIEVE_KEY_CACHE_S` in others. Keys that it made live on."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        revoked = await keys.revoke(conn, key_id)
    request.app.state.keyring.forget_all()
    return KeyShown(**_fields(revoked))


class RotateInput(Input, frozen=True):
    """For how many seconds the key before works on; a day by default, 0: it ends at once."""

    grace_seconds: int = 86_400


@post(
    "/{key_id:str}/rotate",
    scope="admin",
    dto=Json[RotateInput],
    return_dto=None,
    status_code=200,
    operation_id="rotate_key",
)
async def rotate_key(
    key_id: FromPath[str], data: JSONBody[RotateInput], request: Request[Any, Any, Any], runtime: RuntimeDep
) -> Response[KeyMade]:
    """Give a key another secret under the same id, scopes and namespaces; the one before works on for a while."""
    grace = timedelta(seconds=min(max(data.grace_seconds, -1), CENTURY_S))
    async with transaction(runtime.engine, runtime.settings) as conn:
        key, stored = await keys.rotate(conn, key_id, grace, request.state.principal)
    request.app.state.keyring.forget_all()
    made = KeyMade(**_fields(stored), key=key, warnings=[])
    return Response(made, headers={"Cache-Control": "no-store"}, status_code=200)


router = Router(
    "/keys", route_handlers=[create_key, list_keys, get_key, update_key, revoke_key, rotate_key], tags=["Keys"]
)
