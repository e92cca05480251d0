"""The limits before remote services, and retries: never more calls than allowed, never longer than the time limit."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from app.errors import InferenceUnavailable
from app.inference.base import Answer, PassingFailure, Task
from app.inference.gate import Gate
from app.inference.registry import Inference
from tests.fakes import FakeService, settings_of


class Counted(FakeService):
    """Knows how many of its calls ran at once; fails passingly so often, asking for this pause."""

    def __init__(self, *, failures: int = 0, retry_after: float | None = None, remote: bool = True) -> None:
        super().__init__("far", remote=remote)
        self.running = self.most = 0
        self.failures, self.retry_after = failures, retry_after

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.005)
            if len(self.calls) < self.failures:
                self.calls.append((list(texts), task))
                raise PassingFailure(InferenceUnavailable("far is down", service="far"), self.retry_after)
            return await super().embed_texts(texts, task)
        finally:
            self.running -= 1


async def test_no_more_calls_at_once_than_the_setting_says() -> None:
    service = Counted()
    inference = Inference({"far": service}, settings_of(inference_concurrency=3))
    await asyncio.gather(*(inference.embed("far", [str(n)]) for n in range(12)))
    assert service.most == 3
    assert len(service.calls) == 12


async def test_local_services_are_not_limited() -> None:
    service = Counted(remote=False)
    inference = Inference({"far": service}, settings_of(inference_concurrency=1, inference_requests_per_minute=1))
    await asyncio.gather(*(inference.embed("far", [str(n)]) for n in range(5)))
    assert service.most == 5


async def test_who_gets_no_turn_in_time_is_told_that_it_is_busy_and_others_go_on() -> None:
    gate, now = Gate("far", 1, 0), asyncio.get_running_loop().time
    async with gate.turn(now() + 1):
        with pytest.raises(InferenceUnavailable, match=r"far is busy.*PGRETRIEVE_INFERENCE_CONCURRENCY") as busy:
            async with gate.turn(now() + 0.02):
                raise AssertionError("there was no turn")
    assert busy.value.error_code == "inference_busy"
    assert busy.value.details == {"service": "far", "retryable": True, "retry_after_seconds": 1}
    async with asyncio.timeout(1), gate.turn(now() + 1):
        pass


async def test_a_caller_that_gives_up_leaves_its_turn_to_others() -> None:
    service = Counted()
    service.hold = asyncio.Event()
    inference = Inference({"far": service}, settings_of(inference_concurrency=1))
    callers = [asyncio.create_task(inference.embed("far", [str(n)])) for n in range(3)]
    await service.called.wait()
    callers[0].cancel()  # has the turn
    callers[1].cancel()  # waits for it
    service.hold.set()
    assert (await callers[2]).shape == (1, 8)
    assert [texts for texts, _ in service.calls] == [["0"], ["2"]]


async def test_no_more_calls_in_a_minute_than_the_setting_says_and_nobody_waits_in_vain() -> None:
    service = Counted()
    inference = Inference({"far": service}, settings_of(inference_requests_per_minute=3, inference_timeout_s=5))
    for n in range(3):
        await inference.embed("far", [str(n)])
    began = time.monotonic()
    with pytest.raises(InferenceUnavailable, match="PGRETRIEVE_INFERENCE_REQUESTS_PER_MINUTE") as busy:
        await inference.embed("far", ["too many"])
    assert time.monotonic() - began < 1
    assert 50 < busy.value.details["retry_after_seconds"] <= 60
    assert len(service.calls) == 3


async def test_a_full_minute_is_waited_for_when_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.inference.gate.MINUTE", 0.1)
    service = Counted()
    inference = Inference({"far": service}, settings_of(inference_requests_per_minute=2))
    began = time.monotonic()
    await asyncio.gather(*(inference.embed("far", [str(n)]) for n in range(5)))
    assert time.monotonic() - began >= 0.2
    assert len(service.calls) == 5


async def test_passing_failures_are_tried_again_as_often_as_the_setting_says() -> None:
    service = Counted(failures=2, retry_after=0.001)
    vectors = await Inference({"far": service}, settings_of(inference_retries=2)).embed("far", ["a"])
    assert np.isfinite(vectors).all()
    assert len(service.calls) == 3
    service = Counted(failures=9, retry_after=0.001)
    with pytest.raises(InferenceUnavailable, match="far is down"):
        await Inference({"far": service}, settings_of(inference_retries=2)).embed("far", ["a"])
    assert len(service.calls) == 3


async def test_a_pause_that_the_provider_asks_for_is_kept() -> None:
    service = Counted(failures=1, retry_after=0.15)
    began = time.monotonic()
    await Inference({"far": service}, settings_of()).embed("far", ["a"])
    assert time.monotonic() - began >= 0.15


async def test_a_pause_beyond_the_time_limit_is_told_to_the_caller_instead() -> None:
    service = Counted(failures=9, retry_after=20.5)
    began = time.monotonic()
    with pytest.raises(InferenceUnavailable, match="far is down") as failed:
        await Inference({"far": service}, settings_of(inference_timeout_s=2)).embed("far", ["a"])
    assert time.monotonic() - began < 1
    assert failed.value.details == {"service": "far", "retryable": True, "retry_after_seconds": 21}
    assert len(service.calls) == 1


async def test_retries_end_with_the_time_limit() -> None:
    service = Counted(failures=99)
    began = time.monotonic()
    with pytest.raises(InferenceUnavailable, match="far is down"):
        await Inference({"far": service}, settings_of(inference_timeout_s=0.5, inference_retries=10)).embed(
            "far", ["a"]
        )
    assert time.monotonic() - began < 1
    assert 1 < len(service.calls) < 6
