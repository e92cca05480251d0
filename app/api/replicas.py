"""Reads may come from a replica; `X-Write-Token`, which writes answer, makes a read see that write."""

import logging

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.db import replica
from app.db.replica import FAILURES, Reading, reading
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem

HEADER = "X-Write-Token"
log = logging.getLogger(__name__)


class Replicas:
    """The middleware around every route, where there is a replica."""

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        right = scope["route_handler"].opt.get("scope") if scope["type"] == ScopeType.HTTP else None
        if right == "read":
            reading.set(Reading(_after(scope)))
            await self._app(scope, receive, send)
            return

        async def with_token(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                try:
                    MutableScopeHeaders.from_message(message)[HEADER] = await replica.position(self._runtime.engine)
                except FAILURES as error:
                    log.warning("a write has no token: %s", error)
            await send(message)

        # What takes no key neither reads nor writes.
        await self._app(scope, receive, send if right in (None, "open") else with_token)


def _after(scope: Scope) -> int | None:
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-write-token"), None)
    if given is None:
        return None
    place = replica.parse(given)
    if place is None:
        message = f"{HEADER} is what a write answered, as 0/16B3748."
        raise InvalidRequest([Problem(("header", HEADER), "bad_write_token", message)])
    return place
