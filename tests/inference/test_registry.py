"""The registry: names, batches, limits, and that no wrong answer of a service gets past it."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InferenceUnavailable, InvalidRequest, NotFound
from app.inference import services
from app.inference.base import Service
from app.inference.calling import MAX_CALL_BYTES, calls
from app.inference.registry import Inference, discover
from tests.fakes import Answer, FakeService, fake_vector, settings_of


def inference_of(*fakes: FakeService, **settings: Any) -> Inference:
    named: dict[str, Service] = {fake.info.name: fake for fake in fakes}
    return Inference(named, settings_of(**settings))


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    service = FakeService(dimension=5)
    texts = [f"text {i}" for i in range(7)]
    vectors = await inference_of(service, inference_batch=3).embed("fake", texts, "document")
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.stack([fake_vector(text, 5) for text in texts]))
    assert service.calls == [(texts[:3], "document"), (texts[3:6], "document"), (texts[6:], "document")]


async def test_a_service_may_want_smaller_calls() -> None:
    service = FakeService(max_batch=2)
    await inference_of(service).embed("fake", ["a", "b", "c"])
    assert [len(texts) for texts, _ in service.calls] == [2, 1]


async def test_no_texts_are_no_call_and_an_empty_text_is_one() -> None:
    service = FakeService(dimension=5)
    inference = inference_of(service)
    assert (await inference.embed("fake", [])).shape == (0, 5)
    assert service.calls == []
    assert (await inference.embed("fake", [""])).shape == (1, 5)
    assert service.calls == [([""], "query")]


def test_calls_are_cut_by_count_and_by_bytes() -> None:
    def cut(sizes: list[int], count: int) -> list[tuple[int, int]]:
        return [(part.start, part.stop) for part in calls(sizes, count)]

    half = MAX_CALL_BYTES // 2
    assert cut([], 3) == []
    assert cut([0, 0, 0, 0], 3) == [(0, 3), (3, 4)]
    assert cut([half, half, 1, 1], 9) == [(0, 2), (2, 4)]
    assert cut([1, MAX_CALL_BYTES + 1, 1], 9) == [(0, 1), (1, 2), (2, 3)]


async def test_an_unknown_service_is_not_found_and_the_known_are_named() -> None:
    inference = inference_of(FakeService("b"), FakeService("a"))
    with pytest.raises(NotFound, match=r"No inference service 'c'. This server has: a, b\."):
        await inference.embed("c", ["x"])
    assert inference.names() == ["a", "b"]
    assert [info.name for info in inference.infos()] == ["a", "b"]
    assert inference.get("c") is None


async def test_an_unavailable_service_says_why_and_is_not_called() -> None:
    service = FakeService()
    service.reason = "Set FAKE_KEY."
    with pytest.raises(InferenceUnavailable, match=r"fake cannot be used on this server. Set FAKE_KEY\."):
        await inference_of(service).embed("fake", ["x"])
    assert service.calls == []


async def test_every_text_that_cannot_be_embedded_is_told_at_once() -> None:
    service = FakeService()
    with pytest.raises(InvalidRequest) as refused:
        await inference_of(service, max_text_chars=5).embed("fake", ["12345", "123456", "a\ud800"])
    found = [(problem.location, problem.code) for problem in refused.value.problems]
    assert found == [(("texts", 1), "text_too_long"), (("texts", 2), "invalid_text")]
    assert "6 characters; the limit is 5 (PGRETRIEVE_MAX_TEXT_CHARS)" in refused.value.message
    assert service.calls == []


async def test_one_text_in_place_of_a_list_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(TypeError, match="list of texts"):
        await inference_of(FakeService()).embed("fake", "hello")


@pytest.mark.parametrize(
    ("answer", "came"),
    [
        ("nan", "NaN or infinity in 1 of 2 vectors"),
        ("short_rows", r"shape \(2, 7\) and type float32"),
        ("too_few", r"shape \(1, 8\) and type float32"),
        ("float64", r"shape \(2, 8\) and type float64"),
    ],
)
async def test_a_wrong_answer_is_refused(answer: Answer, came: str) -> None:
    service = FakeService()
    service.answer = answer
    with pytest.raises(InferenceUnavailable, match=rf"{came}; expected shape \(2, 8\)") as refused:
        await inference_of(service).embed("fake", ["a", "b"])
    assert refused.value.error_code == "inference_bad_answer"


async def test_a_service_that_hangs_is_given_up() -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    with pytest.raises(InferenceUnavailable, match=r"fake did not answer within 0\.01 s"):
        await inference_of(service, inference_timeout_s=0.01).embed("fake", ["a"])


async def test_a_caller_that_gives_up_cancels_the_call() -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    task = asyncio.create_task(inference_of(service).embed("fake", ["a"]))
    await service.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_whatever_breaks_in_a_service_names_the_service() -> None:
    service = FakeService()
    service.error = ZeroDivisionError("internal")
    with pytest.raises(InferenceUnavailable, match=r"fake failed \(ZeroDivisionError\)\."):
        await inference_of(service).embed("fake", ["a"])
    service.error = InferenceUnavailable("down for today")
    with pytest.raises(InferenceUnavailable, match=r"^down for today$"):
        await inference_of(service).embed("fake", ["a"])


async def test_close_closes_all_though_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = FakeService("a"), FakeService("b")

    async def fail() -> None:
        raise OSError("stuck")

    monkeypatch.setattr(bad, "close", fail)
    with pytest.raises(OSError, match="stuck"):
        await inference_of(bad, good).close()
    assert good.closed


async def test_the_services_of_this_server() -> None:
    inference = Inference.from_settings(settings_of())
    facts = {info.name: (info.dimension, info.modalities, info.normalized) for info in inference.infos()}
    assert facts == {
        "clip_micro": (128, ("text", "image"), True),
        "clip_vit_b32": (512, ("text", "image"), True),
        "emoji_minilm": (384, ("text", "image"), True),
        "minilm_l6_v2": (384, ("text",), True),
        "multilingual_e5_small": (384, ("text",), True),
        "openai_text_3_large": (3072, ("text",), True),
        "openai_text_3_small": (1536, ("text",), True),
        "wordllama_256": (256, ("text",), True),
    }
    await inference.close()


def test_a_new_file_is_a_new_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_module(tmp_path, monkeypatch, "[FakeService('new')]")
    assert "new" in discover(settings_of())


def test_two_services_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_module(tmp_path, monkeypatch, "[FakeService('twin'), FakeService('twin')]")
    with pytest.raises(ValueError, match="two inference services are called 'twin'"):
        discover(settings_of())


def add_module(folder: Path, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    name = f"module_{folder.name}"
    code = f"from tests.fakes import FakeService\ndef services(settings):\n    return {found}\n"
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setattr(services, "__path__", [*services.__path__, str(folder)])
