"""Ends a request whose client has gone away or whose time is up; cancelling it cancels its statement in PostgreSQL.

Most requests are over before anybody would look: only one that is still running after a moment is watched.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from litestar.types.asgi_types import HTTPRequestEvent, ReceiveMessage

from app.errors import Unavailable

# A request that is answered sooner costs one timer that never fires.
UNWATCHED_S = 0.05
PREFIX = "/v1/"
NO_BODY: HTTPRequestEvent = {"type": "http.request", "body": b"", "more_body": False}


class Watch:
    """The middleware around every route under /v1."""

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        watched = Watched(task, receive, send, self._timeout_s, _brings_body(scope))
        _current.set(watched)
        try:
            await self._app(scope, watched.receive, watched.send)
        except asyncio.CancelledError:
            if watched.ended is None:
                raise
            task.uncancel()
            if watched.ended is TIME:
                message = (
                    f"The request took longer than {self._timeout_s:g} s (PGRETRIEVE_REQUEST_TIMEOUT_S); narrow it."
                )
                raise Unavailable(message, code="request_timeout", retryable=False) from None
        finally:
            watched.release()


GONE, TIME = "gone", "time"
_current: ContextVar["Watched"] = ContextVar("watched")


def renew() -> None:
    """The time of this request begins anew: what it asks for is long, and a part of it is done and committed."""
    _current.get().renew()


class Watched:
    """One request. Its time begins when its body has come, so that a slow upload is nobody's fault here."""

    __slots__ = (
        "_empty",
        "_handle",
        "_limit",
        "_receive",
        "_send",
        "_started",
        "_task",
        "_timeout_s",
        "_watcher",
        "ended",
    )

    def __init__(
        self, task: asyncio.Task[Any], receive: Receive, send: Send, timeout_s: float, brings_body: bool
    ) -> None:
        self.ended: str | None = None
        self._task = task
        self._receive = receive
        self._send = send
        self._timeout_s = timeout_s
        self._empty = not brings_body
        self._started = False
        self._handle: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None
        if self._empty:
            self._arm()

    async def receive(self) -> ReceiveMessage:
        if self._empty:
            # Not the server's own: whoever watches may have taken that already.
            self._empty = False
            return NO_BODY
        message = await self._receive()
        if not (message["type"] == "http.request" and message.get("more_body")):
            self._arm()
        return message

    async def send(self, message: Message) -> None:
        if not self._started:
            self._started = True
            self.release()
        await self._send(message)

    def release(self) -> None:
        """No more of this: the answer has begun, or there is none to come."""
        if self._handle is not None:
            self._handle.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def renew(self) -> None:
        """Give it its whole time once more, unless that is over."""
        if self._limit is not None and self.ended is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s)

    def _arm(self) -> None:
        if self._handle is None and not self._started:
            delay = min(UNWATCHED_S, self._timeout_s)
            self._handle = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch(self._timeout_s - UNWATCHED_S), name="watch")

    async def _watch(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)) as self._limit:
                await self._closed()
            self.ended = GONE
        except TimeoutError:
            self.ended = TIME
        self._task.cancel()

    async def _closed(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return


def _brings_body(scope: Scope) -> bool:
    """Whether the request says that it has a body; what has none is complete at once."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
