"""The OpenAI services against a local endpoint: the wire, every failure, and that the key stays secret."""

import logging
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from app.errors import InferenceUnavailable, InvalidRequest, PgretrieveError
from app.inference.definition import Definition
from app.inference.endpoint import retry_after
from app.inference.registry import Inference, discover
from tests.fakes import settings_of
from tests.openai_server import Answer, OpenAIServer

SMALL, LARGE = "openai_text_3_small", "openai_text_3_large"


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> Iterator[OpenAIServer]:
    running.requests.clear()
    yield running
    running.statuses, running.answer, running.hold, running.quote_key = [], "right", None, False
    running.came.clear()


def inference_of(server: OpenAIServer, **changed: Any) -> Inference:
    chosen = {"openai_api_key": server.key, "openai_base_url": server.base_url, "inference_retries": 0}
    settings = settings_of(**(chosen | changed))
    return Inference(discover(settings), settings)


@pytest.fixture
async def inference(server: OpenAIServer) -> AsyncIterator[Inference]:
    inference = inference_of(server)
    yield inference
    await inference.close()


@pytest.mark.parametrize(("name", "dimension"), [(SMALL, 1536), (LARGE, 3072)])
async def test_vectors_of_the_model(server: OpenAIServer, inference: Inference, name: str, dimension: int) -> None:
    texts = ["wireless headphones", "headphones without wires", "tomato soup"]
    vectors = await inference.embed(name, texts)
    assert vectors.shape == (3, dimension)
    assert vectors[0] @ vectors[1] > 0.3 > vectors[0] @ vectors[2]
    (request,) = server.requests
    assert request["input"] == texts
    assert request["dimensions"] == dimension
    assert request["encoding_format"] == "base64"


async def test_vectors_are_put_in_the_order_of_their_indexes(server: OpenAIServer, inference: Inference) -> None:
    right = await inference.embed(SMALL, ["one", "two", "three"])
    server.answer = "reversed"
    assert np.array_equal(await inference.embed(SMALL, ["one", "two", "three"]), right)


async def test_an_empty_text_is_sent_as_a_space(server: OpenAIServer, inference: Inference) -> None:
    assert (await inference.embed(SMALL, ["", "x"])).shape == (2, 1536)
    assert server.requests[0]["input"] == [" ", "x"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "HTTP 401.*Check OPENAI_API_KEY"),
        (403, "HTTP 403.*Check OPENAI_API_KEY"),
        (404, "HTTP 404.*no text-embedding-3-small.*OPENAI_BASE_URL"),
        (429, "HTTP 429.*rate limit or quota"),
        (500, "HTTP 500.*failed"),
        (503, "HTTP 503.*failed"),
    ],
)
async def test_an_endpoint_that_fails(server: OpenAIServer, inference: Inference, status: int, message: str) -> None:
    server.statuses = [status]
    with pytest.raises(InferenceUnavailable, match=message) as failed:
        await inference.embed(SMALL, ["x"])
    assert failed.value.error_code == "inference_unavailable"
    passing = {"retryable": True, "retry_after_seconds": 1} if status in (429, 500, 503) else {}
    assert failed.value.details == {"service": SMALL, "status": status, **passing}
    assert len(server.requests) == 1


async def test_a_text_that_the_model_refuses(inference: Inference) -> None:
    with pytest.raises(InvalidRequest, match=r"HTTP 400.*maximum context length is 8192") as refused:
        await inference.embed(SMALL, ["word " * 9_000])
    assert refused.value.error_code == "inference_refused"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("wrong_length", r"shape \(2, 1535\).*expected shape \(2, 1536\)"),
        ("too_few", r"shape \(1, 1536\).*expected shape \(2, 1536\)"),
        ("nan", "NaN or infinity in 1 of 2"),
        ("ragged", "other than embeddings"),
        ("same_index", "the indexes of the vectors are not 0, 1, 2"),
        ("empty", "other than embeddings"),
        ("not_json", "other than embeddings"),
    ],
)
async def test_a_wrong_answer(server: OpenAIServer, inference: Inference, answer: Answer, message: str) -> None:
    server.answer = answer
    with pytest.raises(InferenceUnavailable, match=message) as failed:
        await inference.embed(SMALL, ["one", "two"])
    assert failed.value.error_code == "inference_bad_answer"


async def test_passing_failures_are_retried(server: OpenAIServer) -> None:
    inference = inference_of(server, inference_retries=2)
    server.statuses = [500, 429, 200]
    assert (await inference.embed(SMALL, ["x"])).shape == (1, 1536)
    assert len(server.requests) == 3
    await inference.close()


async def test_an_endpoint_that_is_slow(server: OpenAIServer) -> None:
    server.hold = threading.Event()
    inference = inference_of(server, inference_timeout_s=0.2)
    with pytest.raises(InferenceUnavailable, match=r"did not answer within|cannot be reached"):
        await inference.embed(SMALL, ["x"])
    server.hold.set()
    await inference.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "no url", "http://user:pass word@/v1"])
async def test_an_endpoint_that_is_not_there(server: OpenAIServer, url: str) -> None:
    inference = inference_of(server, openai_base_url=url)
    with pytest.raises(InferenceUnavailable, match="OPENAI_BASE_URL") as failed:
        await inference.embed(SMALL, ["x"])
    assert "pass word" not in failed.value.message
    await inference.close()


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_without_a_key(server: OpenAIServer, key: str | None) -> None:
    inference = inference_of(server, openai_api_key=key)
    with pytest.raises(InferenceUnavailable, match=r"set OPENAI_API_KEY and restart.*OPENAI_BASE_URL"):
        await inference.embed(SMALL, ["x"])
    elsewhere = inference_of(server, openai_api_key=key, openai_base_url=None)
    with pytest.raises(InferenceUnavailable, match=r"set OPENAI_API_KEY and restart\.$"):
        await elsewhere.embed(SMALL, ["x"])
    assert server.requests == []


@pytest.mark.parametrize("key", ["sk-line\nbreak", "sk-schlüssel"])
async def test_a_key_that_no_header_can_hold(server: OpenAIServer, key: str) -> None:
    inference = inference_of(server, openai_api_key=key)
    with pytest.raises(InferenceUnavailable, match="OPENAI_API_KEY holds characters") as failed:
        await inference.embed(SMALL, ["x"])
    assert key not in failed.value.message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500])
async def test_the_key_is_in_no_message_traceback_or_log(
    server: OpenAIServer, inference: Inference, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.statuses, server.quote_key = [status], True
    with pytest.raises(PgretrieveError) as failed:
        await inference.embed(SMALL, ["x"])
    told = [*traceback.format_exception(failed.value), repr(failed.value.details), caplog.text]
    assert not [text for text in told if server.key in text]
    assert server.key not in repr(inference.infos())


async def test_a_stored_service_with_prefixes_and_without_a_key_sends_none() -> None:
    with OpenAIServer(key="") as server:
        prefixes = {"query_prefix": "query: ", "document_prefix": "passage: "}
        settings = {"base_url": server.base_url, **prefixes}
        inference = Inference({}, settings_of())
        inference.keep_stored([Definition("own", "openai", "text-embedding-3-small", 1536, settings)])
        assert (await inference.answer("own", ["a b", ""], "query")).tokens == 4
        await inference.embed("own", ["c"], "document")
        assert [request["input"] for request in server.requests] == [["query: a b", "query: "], ["passage: c"]]
        assert "dimensions" not in server.requests[0]
        await inference.close()


async def test_a_model_can_be_asked_for_shorter_vectors(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRETRIEVE_SECRET_X", server.key)
    settings = {"base_url": server.base_url, "api_key_ref": "PGRETRIEVE_SECRET_X", "send_dimensions": True}
    inference = Inference({}, settings_of())
    inference.keep_stored([Definition("short", "openai", "text-embedding-3-small", 256, settings)])
    assert (await inference.embed("short", ["a"])).shape == (1, 256)
    await inference.close()


async def test_redirects_are_not_followed(server: OpenAIServer) -> None:
    inference = inference_of(server)
    server.statuses = [307]
    with pytest.raises(InferenceUnavailable, match=r"HTTP 307.*redirects, which is not followed"):
        await inference.embed(SMALL, ["x"])
    assert len(server.requests) == 1
    await inference.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "-5"}, 0),
    ],
)
def test_how_long_a_provider_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
