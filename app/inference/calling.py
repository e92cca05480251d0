"""One service and what stands before it: batches, turns, one time limit for a call with its retries, the check."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from app import metrics
from app.errors import InferenceUnavailable, InvalidRequest, PgretrieveError, Problem
from app.inference.base import Answer, ImageService, PassingFailure, Service, ServiceInfo, Task
from app.inference.gate import Gate
from app.settings import Settings

# UTF-8 bytes in one call. OpenAI takes 300,000 tokens in a request, and no token is shorter than a byte.
MAX_CALL_BYTES = 300_000
BACKOFF = wait_exponential_jitter(multiplier=0.2, max=4, jitter=0.2)

T = TypeVar("T")


class Caller:
    """The only one who calls its service. `close` lets the calls end that have begun."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self._settings = settings
        limits = settings.inference_concurrency, settings.inference_requests_per_minute
        self._gate = Gate(service.info.name, *limits) if service.info.remote else None
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def embed(self, texts: Sequence[str], sizes: Sequence[int], task: Task) -> Answer:
        """All texts, in calls one after the other; `sizes` are their UTF-8 bytes. One failure fails the whole."""
        return await self._embed(sizes, lambda rows: self.service.embed_texts(texts[rows], task))

    async def embed_images(self, images: Sequence[bytes]) -> Answer:
        """All images, likewise; the service must have the modality."""
        service = cast(ImageService, self.service)

        async def embed(rows: slice) -> Answer:
            try:
                return await service.embed_images(images[rows])
            except InvalidRequest as error:  # which counts from this call's first
                raise InvalidRequest([_moved(problem, rows.start) for problem in error.problems]) from None

        return await self._embed([0] * len(images), embed)

    async def close(self) -> None:
        await self._idle.wait()
        await self.service.close()

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _embed(self, sizes: Sequence[int], embed: Callable[[slice], Awaitable[Answer]]) -> Answer:
        info, settings = self.service.info, self._settings
        if reason := self.service.unavailable():
            raise InferenceUnavailable(f"{info.name} cannot be used on this server. {reason}", service=info.name)
        vectors = np.empty((len(sizes), info.dimension), np.float32)
        tokens: int | None = 0
        async with self._counted():
            for rows in calls(sizes, min(settings.inference_batch, info.max_batch)):

                async def once(rows: slice = rows) -> Answer:
                    answer = await embed(rows)
                    check_answer(info, answer, rows.stop - rows.start)
                    return answer

                limit, retries = settings.inference_timeout_s, settings.inference_retries
                answer = await answered(info.name, once, self._gate, limit, retries)
                vectors[rows] = answer.vectors
                tokens = None if tokens is None or answer.tokens is None else tokens + answer.tokens
        return Answer(vectors, tokens)


def _moved(problem: Problem, start: int) -> Problem:
    match problem.location:
        case ("images", int(n)):
            return replace(problem, location=("images", start + n))
    return problem


async def answered(
    name: str,
    once: Callable[[], Awaitable[T]],
    gate: Gate | None,
    limit: float,
    retries: int,
    setting: str = "PGRETRIEVE_INFERENCE_TIMEOUT_S",
) -> T:
    """What `once` answers, tried again where its failure may pass; `limit` seconds for all of it: waiting for a turn,
    trying, backing off. `setting` is what bounds it. Counted by the name."""
    outcome = "failed"
    try:
        with metrics.service_seconds.labels(name).time():
            found = await _answered(name, once, gate, limit, retries, setting)
        outcome = "ok"
        return found
    except InvalidRequest:  # what was sent is at fault
        outcome = "refused"
        raise
    finally:
        metrics.service_calls.labels(name, outcome).inc()


async def _answered(
    name: str, once: Callable[[], Awaitable[T]], gate: Gate | None, limit: float, retries: int, setting: str
) -> T:
    deadline = asyncio.get_running_loop().time() + limit

    async def timed() -> T:
        try:
            async with asyncio.timeout_at(deadline):
                return await once()
        except (PgretrieveError, PassingFailure):
            raise
        except TimeoutError:
            message = f"{name} did not answer within {limit:g} s ({setting})."
            raise InferenceUnavailable(message, service=name) from None
        except Exception as error:  # a service is a plug-in: whatever breaks in it, the caller learns which one it was
            raise InferenceUnavailable(f"{name} failed ({type(error).__name__}).", service=name) from error

    if gate is None:  # a model on this server: nothing to wait for, nothing that passes
        return await timed()
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(PassingFailure),
        stop=stop_after_attempt(1 + retries) | stop_before_delay(limit),
        wait=_wait,
        reraise=True,
    )
    try:
        async for attempt in attempts:
            with attempt:
                async with gate.turn(deadline):
                    return await timed()
    except PassingFailure as failure:
        if failure.retry_after is not None:
            failure.error.details |= {"retryable": True, "retry_after_seconds": math.ceil(failure.retry_after)}
        raise failure.error from None
    raise AssertionError("a last attempt answers or raises")


def _wait(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after if isinstance(failure, PassingFailure) else None
    return BACKOFF(state) if asked is None else asked


def calls(sizes: Sequence[int], count: int) -> Iterator[slice]:
    """Cut rows of so many bytes into consecutive calls; a row above `MAX_CALL_BYTES` is a call of its own."""
    start = total = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start >= count or total + size > MAX_CALL_BYTES):
            yield slice(start, row)
            start, total = row, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


def check_answer(info: ServiceInfo, answer: Answer, count: int) -> None:
    """Raise `inference_bad_answer` unless these are `count` finite float32 vectors of the dimension."""
    vectors = answer.vectors
    shape, dtype = getattr(vectors, "shape", None), getattr(vectors, "dtype", type(vectors).__name__)
    if shape != (count, info.dimension) or dtype != np.float32:
        came = f"an answer of shape {shape} and type {dtype}"
    elif not (finite := np.isfinite(vectors).all(axis=1)).all():
        came = f"NaN or infinity in {count - int(finite.sum())} of {count} vectors"
    else:
        return
    raise InferenceUnavailable(
        f"{info.name} gave {came}; expected shape {(count, info.dimension)}, float32, all finite.",
        code="inference_bad_answer",
        service=info.name,
    )
