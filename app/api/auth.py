"""API keys: `Authorization: Bearer …`, looked up by hash, and trusted for a few seconds without another look."""

import time
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from app.db.engine import transaction
from app.domain import keys
from app.domain.runtime import Bounded, Runtime
from app.errors import Unauthorized

REMEDY = (
    "Send a key of this server as `Authorization: Bearer <key>`; `pgretrieve serve` names the file of its root key."
)


class Keyring:
    """Checks keys; remembers only those that were found, by their hashes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: Bounded[bytes, tuple[keys.Principal, float]] = Bounded(10_000)

    async def principal(self, key: str) -> keys.Principal:
        hashed = keys.hash_key(key)
        known = self._known.get(hashed)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        async with transaction(self._runtime.engine, self._runtime.settings) as conn:
            found = await keys.find(conn, hashed)
        if found is None:
            self._known.forget(hashed)
            raise Unauthorized(f"This API key is not known, or has ended. {REMEDY}")
        self._known.put(hashed, (found, time.monotonic() + self._runtime.settings.key_cache_s))
        return found


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Guard of every route under /v1: 401 without a known key; the principal goes to `request.state`."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized(f"This needs an API key. {REMEDY}")
    connection.state.principal = await connection.app.state.keyring.principal(key.strip())
