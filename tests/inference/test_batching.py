"""Dynamic batches: calls that wait together run together, in their order, within a limit."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from app.errors import InferenceUnavailable
from app.inference.base import Vectors
from app.inference.batching import Batches


class Model:
    """Each run waits for `go`; an item's vector is the item."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, items: list[int]) -> Vectors:
        self.runs.append(items)
        await self.go.wait()
        if self.error:
            raise self.error
        return np.array([[item] for item in items], np.float32)


async def started(batches: Batches[int], *calls: Sequence[int]) -> list["asyncio.Task[Vectors]"]:
    tasks = [asyncio.create_task(batches.embed(call)) for call in calls]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_waits_while_a_run_goes_on_is_the_next_run() -> None:
    model = Model()
    batches = Batches[int]("test", model.run, 4, 100)
    tasks = await started(batches, [1])
    tasks += await started(batches, [2, 3], [4], [5, 6], [7])
    model.go.set()
    answers = await asyncio.gather(*tasks)
    assert model.runs == [[1], [2, 3, 4], [5, 6, 7]]
    assert [answer.ravel().tolist() for answer in answers] == [[1], [2, 3], [4], [5, 6], [7]]
    assert (await batches.embed(list(range(9)))).ravel().tolist() == list(range(9)), "more than a run: one of its own"


async def test_a_call_beyond_the_queue_is_refused_at_once_and_the_others_are_answered() -> None:
    model = Model()
    batches = Batches[int]("test", model.run, 2, 3)
    tasks = await started(batches, [1])
    tasks += await started(batches, [2, 3], [4])
    with pytest.raises(InferenceUnavailable, match="PGRETRIEVE_INFERENCE_QUEUE") as refused:
        await batches.embed([5])
    assert (refused.value.error_code, refused.value.details["retryable"]) == ("inference_busy", True)
    model.go.set()
    assert [answer.ravel().tolist() for answer in await asyncio.gather(*tasks)] == [[1], [2, 3], [4]]
    assert (await batches.embed([5])).tolist() == [[5]]


async def test_a_call_that_was_given_up_is_not_run() -> None:
    model = Model()
    batches = Batches[int]("test", model.run, 2, 100)
    (first,) = await started(batches, [1])
    given_up, last = await started(batches, [2], [3])
    given_up.cancel()
    await asyncio.sleep(0)
    model.go.set()
    assert [(await first).tolist(), (await last).tolist()] == [[[1]], [[3]]]
    assert model.runs == [[1], [3]]


async def test_a_run_that_fails_fails_its_calls_and_no_others() -> None:
    model = Model()
    batches = Batches[int]("test", model.run, 2, 100)
    model.error = ValueError("broken")
    tasks = await started(batches, [1], [2])
    model.go.set()
    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [ValueError, ValueError]
    model.error = None
    assert (await batches.embed([3])).tolist() == [[3]]
