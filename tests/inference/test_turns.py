"""Who goes first at a service: queries, then what is written now, back-fills last; nobody is lost who gives up."""

import asyncio
import threading

import pytest

from app.errors import InferenceUnavailable
from app.inference.gate import Gate
from app.inference.registry import Inference
from app.inference.thread import ModelThread
from app.inference.turns import Turns, Urgency, urgency
from tests.fakes import FakeService, settings_of


async def test_a_query_waits_for_the_batch_that_runs_and_for_no_other_of_a_back_fill() -> None:
    thread, hold, ran = ModelThread("model"), threading.Event(), list[str]()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.call_soon_threadsafe(began.set)
        hold.wait(10)

    async def run(level: Urgency, name: str) -> None:
        with urgency(level):
            await thread.run(ran.append, name)

    with urgency(Urgency.BACKFILL):
        running = asyncio.create_task(thread.run(first))
    await began.wait()
    waiting = [
        (Urgency.BACKFILL, "fill 1"),
        (Urgency.BACKFILL, "fill 2"),
        (Urgency.WRITE, "write"),
        (Urgency.QUERY, "q"),
    ]
    tasks = [asyncio.create_task(run(*each)) for each in waiting]
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(running, *tasks)
    assert ran == ["q", "write", "fill 1", "fill 2"]
    await thread.close()


async def test_who_gives_up_takes_no_turn_with_him() -> None:
    turns = Turns(1)
    await turns.acquire()
    waiting = [asyncio.create_task(turns.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    turns.release()  # to the second, as the first is gone
    waiting[1].cancel()  # in the very moment in which the turn is given
    async with asyncio.timeout(1):
        await waiting[2]
    turns.release()
    async with asyncio.timeout(1):
        await turns.acquire()


async def test_closing_lets_those_run_who_wait() -> None:
    thread, ran = ModelThread("model"), list[int]()
    running = [asyncio.create_task(thread.run(ran.append, n)) for n in range(3)]
    await asyncio.sleep(0)
    await thread.close()
    await asyncio.gather(*running)
    assert ran == [0, 1, 2]


async def test_back_fills_leave_calls_of_a_minute_to_others() -> None:
    gate, now = Gate("far", 8, 4), asyncio.get_running_loop().time
    for _ in range(3):
        with urgency(Urgency.BACKFILL):
            async with gate.turn(now() + 1):
                pass
    with urgency(Urgency.BACKFILL), pytest.raises(InferenceUnavailable, match="REQUESTS_PER_MINUTE"):
        async with gate.turn(now() + 1):
            raise AssertionError("a back-fill took the last call")
    async with asyncio.timeout(1), gate.turn(now() + 1):
        pass


async def test_a_remote_service_answers_a_query_before_the_back_fills_that_wait() -> None:
    service = FakeService("far", remote=True)
    service.hold = asyncio.Event()
    inference = Inference({"far": service}, settings_of(inference_concurrency=1))
    with urgency(Urgency.BACKFILL):
        fills = [asyncio.create_task(inference.embed("far", [f"fill {n}"])) for n in range(3)]
    await service.called.wait()
    query = asyncio.create_task(inference.embed("far", ["query"]))
    await asyncio.sleep(0)
    service.hold.set()
    await asyncio.gather(query, *fills)
    assert [texts for texts, _ in service.calls][:2] == [["fill 0"], ["query"]]
