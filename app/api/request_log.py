"""Each request has an id: the caller's `X-Request-Id`, or one of ours.

It is in the answer, in each line of the log, and in `application_name` while the request's transactions run.
"""

import logging
import re
import secrets
import time

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.api import rate_limits
from app.telemetry import origin, request_id

HEADER = "X-Request-Id"
# What may stand in a log and in application_name, whose 63 bytes it has to share.
GIVEN = re.compile(rb"[A-Za-z0-9._:-]{1,48}")
STATE = "request_id"
log = logging.getLogger("pgretrieve.access")


class RequestLog:
    """The middleware around every route; `answered` adds the header, to answers without a route, too."""

    def __init__(self, app: ASGIApp, *, access_log: bool) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        identifier = given.decode() if GIVEN.fullmatch(given) else secrets.token_hex(8)
        scope["state"][STATE] = identifier
        request_id.set(identifier)
        origin.set(f"pgretrieve-api {identifier}")
        if not self._access_log:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route, took = scope["path_template"], round((time.perf_counter() - started) * 1000, 3)
            about = {"method": scope["method"], "route": route, "status": status, "ms": took}
            log.info("%s %s %d %.3f ms", scope["method"], route, status, took, extra=about)


async def answered(message: Message, scope: Scope) -> None:
    """Adds the id, and what is left of the key's limit, to an answer as it begins."""
    if message["type"] == "http.response.start":
        identifier = scope.get("state", {}).get(STATE) or secrets.token_hex(8)
        headers = MutableScopeHeaders.from_message(message)
        headers[HEADER] = identifier
        headers.update(scope.get("state", {}).get(rate_limits.STATE, {}))
