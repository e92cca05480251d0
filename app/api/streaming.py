"""Executions as they go: server-sent events, one for each stage that begins or ends, and the answer as the last one.

What is wrong before the first stage begins is answered as without streaming, with its status.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar.response import Stream

from app.api.answers import new_execution_id, statistics
from app.api.problems import any_error_of
from app.domain.retrieving.planning import Observer
from app.errors import Unavailable

MEDIA_TYPE = "text/event-stream"
# No proxy may keep events back until there are enough of them.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_encode = msgspec.json.Encoder().encode

Execute = Callable[[Observer, str], Awaitable[Mapping[str, Any]]]
"""Executes with an observer, under an execution's id, and answers the body."""


@dataclass(slots=True)
class _Events:
    """Turns what an execution tells into events. One that began anew, as its plan was out of date, tells things twice:
    only the first time counts."""

    execution_id: str
    queue: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    told: set[tuple[str, int]] = field(default_factory=set)
    held: list[Mapping[str, Any]] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    spent_ms: float = 0.0

    def observe(self, event: str, about: Mapping[str, Any]) -> None:
        """A stage of a statement begins when that is sent: until then its values may still be refused."""
        if event == "stage_start" and about["runs_on"] == "database":
            self.held.append(about)
            return
        begun, self.held = self.held, []
        for each in begun:
            self._tell("stage_start", each)
        self._tell(event, about)

    def _tell(self, event: str, about: Mapping[str, Any]) -> None:
        index = about.get("stage_index")
        if index is None or (event, index) in self.told:
            return
        self.told.add((event, index))
        body = {name: value for name, value in about.items() if name not in ("run", "documents")}
        if (run := about.get("run")) is not None:
            self.counts[index] = run.count
            self.spent_ms += run.duration_ms
            documents = [{"document_id": document_id, "score": score} for document_id, score in about["documents"]]
            used = {"credits_used": 0, "time_used_ms": round(self.spent_ms, 3)}
            before = self.counts.get(index - 1, 0)
            body |= {"documents": documents, "statistics": statistics(run, before), "budget_used": used}
        self.put(event, body)

    def put(self, event: str, body: Mapping[str, Any]) -> None:
        told = {"event_type": event, "execution_id": self.execution_id, **body}
        self.queue.put_nowait(b"data: " + _encode(told) + b"\n\n")


async def streamed(execute: Execute, timeout_s: float, **headers: str) -> Stream:
    """The events of an execution. Whoever stops reading stops it, and with it its statement."""
    events = _Events(new_execution_id())
    task = asyncio.create_task(_run(execute, events, timeout_s), name=events.execution_id)
    try:
        first = await events.queue.get()
        if first is None:
            await task  # raises what was wrong
    except BaseException:
        await _stop(task)
        raise
    return Stream(_lines(first, events, task), media_type=MEDIA_TYPE, headers={**HEADERS, **headers}, status_code=200)


async def _run(execute: Execute, events: _Events, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            answer = await execute(events.observe, events.execution_id)
        events.put("execution_complete", answer)
    except TimeoutError:
        message = f"The request took longer than {timeout_s:g} s (PGRETRIEVE_REQUEST_TIMEOUT_S); narrow it."
        _fail(events, Unavailable(message, code="request_timeout", retryable=False))
    except Exception as error:
        _fail(events, error)
    finally:
        events.queue.put_nowait(None)


def _fail(events: _Events, error: Exception) -> None:
    """Once a stage has begun the status is sent, and an event has to say what went wrong."""
    if not events.told:
        raise error
    events.put("execution_error", {"status": "failed", "error": any_error_of(error)})


async def _lines(first: bytes | None, events: _Events, task: asyncio.Task[None]) -> AsyncIterator[bytes]:
    try:
        line = first
        while line is not None:
            yield line
            line = await events.queue.get()
    finally:
        await _stop(task)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
