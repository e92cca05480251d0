"""Dynamic batches before a model on this server: what waits while it runs is its next run, whoever asked."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from app.errors import InferenceUnavailable
from app.inference.base import Vectors

T = TypeVar("T")


class Batches(Generic[T]):
    """A run takes calls in the order of their coming, whole ones, `size` items at most; nobody waits for a run to fill.

    A call of more than `size` items is a run of its own. A call that is given up before its run is not run. Where more
    than `most` items would wait the call is refused at once (`inference_busy`): a queue that grows serves nobody.
    """

    def __init__(self, name: str, run: Callable[[list[T]], Awaitable[Vectors]], size: int, most: int) -> None:
        self._name = name
        self._run = run
        self._size = size
        self._most = most
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[Vectors]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def embed(self, items: Sequence[T]) -> Vectors:
        """A vector for each item. Raises what the run raises."""
        waiting = sum(len(others) for others, _ in self._waiting)
        if waiting and waiting + len(items) > self._most:
            raise InferenceUnavailable(
                f"{self._name} is busy: as many inputs wait as PGRETRIEVE_INFERENCE_QUEUE allows. Try again.",
                code="inference_busy",
                service=self._name,
                retryable=True,
                retry_after_seconds=1,
            )
        answer: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while calls := self._next():
            items = [item for its_items, _ in calls for item in its_items]
            try:
                vectors = await self._run(items)
                parts = np.split(vectors, np.cumsum([len(its_items) for its_items, _ in calls])[:-1])
            except Exception as error:  # each of them learns it
                for _, answer in calls:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), part in zip(calls, parts, strict=True):
                if not answer.done():
                    answer.set_result(part)
        self._runner = None

    def _next(self) -> list[tuple[Sequence[T], "asyncio.Future[Vectors]"]]:
        calls = list[tuple[Sequence[T], "asyncio.Future[Vectors]"]]()
        total = 0
        while self._waiting and (not calls or total + len(self._waiting[0][0]) <= self._size):
            items, answer = self._waiting.popleft()
            if not answer.done():
                calls.append((items, answer))
                total += len(items)
        return calls
