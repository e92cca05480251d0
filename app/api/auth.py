"""API keys: `Authorization: Bearer …`, looked up by hash, and trusted for a few seconds without another look.

Every route under /v1 declares one scope, which the key must have. Which namespaces it sees is `domain.access`' matter.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler
from litestar.routes import HTTPRoute
from sqlalchemy.exc import SQLAlchemyError

from app.api import audit
from app.api.rate_limits import RateLimits
from app.db.engine import transaction
from app.domain.runtime import Bounded, Runtime
from app.domain.security import access, keys
from app.domain.security.access import SCOPES, Principal
from app.errors import Forbidden, PgretrieveError, Unauthorized

REMEDY = (
    "Send a key of this server as `Authorization: Bearer <key>`; `pgretrieve serve` names the file of its root key."
)
# All that a key with a principal may call. What is here reads documents by the catalog's `documents` alone.
FOR_PRINCIPALS = frozenset(
    {
        "aggregate_documents",
        "batch_get_documents",
        "count_documents",
        "distinct_values",
        "execute_adhoc_retriever",
        "execute_retriever",
        "execute_retriever_batch",
        "feature_search",
        "get_collection_document",
        "get_document",
        "get_namespace_document",
        "list_collection_documents",
        "list_collection_documents_by_post",
        "list_documents",
        "list_documents_batch",
        "search_documents",
    }
)
OPEN = "open"  # what a route outside /v1 declares: it takes no key
DOCS = "/docs"
NOTE_USES_S = 60
log = logging.getLogger(__name__)


class Keyring:
    """Checks keys; remembers only those that were found, by their hashes, and when they were used."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: Bounded[bytes, tuple[Principal, float]] = Bounded(10_000)
        self._revocations = 0
        self._uses: dict[str, datetime] = {}

    async def principal(self, key: str) -> Principal:
        hashed = keys.hash_key(key)
        known = self._known.get(hashed)
        principal = known[0] if known and known[1] > time.monotonic() else await self._look_up(hashed)
        self._uses[principal.key_id] = datetime.now(UTC)
        return principal

    async def _look_up(self, hashed: bytes) -> Principal:
        self._known.forget(hashed)
        revocations = self._revocations
        async with transaction(self._runtime.engine, self._runtime.settings) as conn:
            found = await keys.find(conn, hashed)
        if found is None:
            raise Unauthorized(f"This API key is not known. {REMEDY}")
        trusted = self._runtime.settings.key_cache_s
        if found.seconds_left is not None:
            trusted = min(trusted, found.seconds_left)
        if revocations == self._revocations:  # else it may have been read just before it was revoked
            self._known.put(hashed, (found.principal, time.monotonic() + trusted))
        return found.principal

    def forget_all(self) -> None:
        """After a revocation: every key is looked up again."""
        self._revocations += 1
        self._known = Bounded(10_000)

    @asynccontextmanager
    async def noting_uses(self) -> AsyncIterator[None]:
        """Writes once a minute, beside the requests, when keys were last used; and at the end."""
        task = asyncio.create_task(self._note_uses_forever(), name="key-uses")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._note_uses()

    async def _note_uses_forever(self) -> None:
        while True:
            await asyncio.sleep(NOTE_USES_S)
            await self._note_uses()

    async def _note_uses(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            async with transaction(self._runtime.engine, self._runtime.settings) as conn:
                await keys.note_uses(conn, uses)
        except (SQLAlchemyError, PgretrieveError, OSError) as error:
            log.warning("the last uses of %d keys are not noted: %s", len(uses), error)


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard of every route under /v1: 401 without a key in force, 429 above its limit, 403 without the scope.

    The principal goes to `request.state`, and what it sees to the rest of this request.
    """
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized(f"This needs an API key. {REMEDY}")
    principal = await connection.app.state.keyring.principal(key.strip())
    limits: RateLimits = connection.app.state.rate_limits
    limits.take(principal, handler.opt["scope"], connection.scope["state"])
    principal.require(handler.opt["scope"])
    if principal.principal_id is not None and operation_of(handler) not in FOR_PRINCIPALS:
        message = "A key with a principal_id only reads documents and executes retrievers; this needs another key."
        raise Forbidden(message, code="not_for_principals")
    access.enter(principal)
    audit.note(connection, handler)
    connection.state.principal = principal


def operation_of(handler: BaseRouteHandler) -> str | None:
    return (
        handler.operation_id
        if isinstance(handler, HTTPRouteHandler) and isinstance(handler.operation_id, str)
        else None
    )


def routes(app: Litestar) -> list[tuple[str, str, HTTPRouteHandler]]:
    """Every route of ours, as path, method and handler; not those that answer OPTIONS or show the documentation."""
    return [
        (route.path, method, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute) and not f"{route.path}/".startswith(f"{DOCS}/")
        for handler in route.route_handlers
        for method in sorted(handler.http_methods - {"OPTIONS"})
    ]


def check_scopes(app: Litestar) -> Litestar:
    """Refuse to start with a route that does not say who may use it."""
    for path, method, handler in routes(app):
        scope = handler.opt.get("scope")
        allowed = SCOPES if path.startswith("/v1/") else (OPEN,)
        if scope not in allowed:
            raise TypeError(f"{method} {path} must declare one scope of {', '.join(allowed)}, not {scope!r}")
    return app
