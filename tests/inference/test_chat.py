"""The chat endpoint: what is sent, what comes of each answer and failure, and that keys stay where they belong."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from app.errors import InferenceUnavailable, InvalidRequest
from app.inference.chat import Chat
from app.retrieval.host import Prompt
from tests.fakes import settings_of
from tests.openai_server import OTHER_KEY, OpenAIServer, echo


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> Iterator[OpenAIServer]:
    running.requests.clear()
    running.keys.clear()
    yield running
    running.statuses, running.answer, running.hold, running.quote_key, running.chat = [], "right", None, False, echo


def chat_of(server: OpenAIServer, **changed: Any) -> Chat:
    chosen = {"chat_api_key": server.key, "chat_base_url": server.base_url, "inference_retries": 0}
    return Chat(settings_of(**(chosen | changed)))


@pytest.fixture
async def chat(server: OpenAIServer) -> AsyncIterator[Chat]:
    chat = chat_of(server)
    yield chat
    await chat.close()


async def test_a_text_and_what_it_cost(server: OpenAIServer, chat: Chat) -> None:
    prompt = Prompt(text="say this back", system="Be short.", temperature=0.0, max_tokens=2, images=("data:,x",))
    answer = await chat.complete(prompt, 5)
    assert (answer.text, answer.model, answer.input_tokens, answer.output_tokens) == ("say this", "gpt-4o-mini", 3, 2)
    assert answer.cut
    (request,) = server.requests
    assert request["messages"][0] == {"role": "system", "content": "Be short."}
    assert request["messages"][1]["content"][1] == {"type": "image_url", "image_url": {"url": "data:,x"}}
    assert (request["temperature"], request["max_tokens"]) == (0.0, 2)


async def test_json_that_fits_a_schema(server: OpenAIServer, chat: Chat) -> None:
    schema = {"type": "object", "properties": {"said": {"type": "string"}}}
    assert (await chat.complete(Prompt(text="hello", schema=schema), 5)).value == {"said": "hello"}
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == schema
    server.chat = lambda prompt, request: '```json\n{"a": 1}\n```'
    assert (await chat.complete(Prompt(text="hello", schema={}), 5)).value == {"a": 1}
    assert server.requests[1]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("answer", ["no json", "", '{"a": ', "[" * 2_000])
async def test_what_is_no_json(server: OpenAIServer, chat: Chat, answer: str) -> None:
    server.chat = lambda prompt, request: answer
    with pytest.raises(InferenceUnavailable, match="not JSON") as failed:
        await chat.complete(Prompt(text="x", schema={}), 5)
    assert failed.value.error_code == "inference_bad_answer"


async def test_json_that_was_cut_is_refused(server: OpenAIServer, chat: Chat) -> None:
    with pytest.raises(InferenceUnavailable, match="ended at the limit of tokens"):
        await chat.complete(Prompt(text="one two three", schema={}, max_tokens=1), 5)


async def test_what_is_no_completion(server: OpenAIServer, chat: Chat) -> None:
    server.answer = "not_json"
    with pytest.raises(InferenceUnavailable) as failed:
        await chat.complete(Prompt(text="x"), 5)
    assert failed.value.error_code == "inference_bad_answer"


async def test_failures_pass_or_are_told_without_the_key(server: OpenAIServer) -> None:
    chat = chat_of(server, inference_retries=2)
    server.statuses, server.quote_key = [500, 429, 200], True
    assert (await chat.complete(Prompt(text="x"), 5)).text == "x"
    assert len(server.requests) == 3
    for status, error in ((400, InvalidRequest), (401, InferenceUnavailable), (500, InferenceUnavailable)):
        server.statuses = [status]
        with pytest.raises(error) as failed:
            await chat.complete(Prompt(text="x", api_key=OTHER_KEY), 5)
        assert OTHER_KEY not in failed.value.message
    server.statuses = []
    with pytest.raises(InferenceUnavailable, match="there is no gpt-9"):
        await chat.complete(Prompt(text="x", model="gpt-9"), 5)
    await chat.close()


async def test_a_key_that_is_brought_is_sent_instead(server: OpenAIServer, chat: Chat) -> None:
    await chat.complete(Prompt(text="x", api_key=OTHER_KEY), 5)
    await chat.complete(Prompt(text="x"), 5)
    assert server.keys == [OTHER_KEY, server.key]


async def test_the_key_of_openai_is_sent_to_no_other_endpoint(server: OpenAIServer) -> None:
    chat = chat_of(server, chat_api_key=None, openai_api_key=server.key)
    with pytest.raises(InferenceUnavailable, match="the key is refused"):
        await chat.complete(Prompt(text="x"), 5)
    assert server.keys == [""]
    await chat.close()
    shared = chat_of(
        server, chat_api_key=None, chat_base_url=None, openai_api_key=server.key, openai_base_url=server.base_url
    )
    assert (await shared.complete(Prompt(text="x"), 5)).text == "x"
    await shared.close()


async def test_limits(server: OpenAIServer) -> None:
    chat = chat_of(server, chat_concurrency=1, chat_max_prompt_chars=100)
    with pytest.raises(InvalidRequest, match="101 characters; the limit is 100"):
        await chat.complete(Prompt(text="x" * 101), 5)
    server.hold = threading.Event()
    first = asyncio.create_task(chat.complete(Prompt(text="x"), 5))
    await asyncio.to_thread(server.came.wait)
    with pytest.raises(InferenceUnavailable, match="CHAT_CONCURRENCY") as busy:
        await chat.complete(Prompt(text="x"), 0.05)
    assert busy.value.error_code == "inference_busy"
    server.hold.set()
    await first
    server.hold = threading.Event()
    with pytest.raises(InferenceUnavailable, match=r"did not answer within 0\.05 s \(the time that was left\)"):
        await chat.complete(Prompt(text="x"), 0.05)
    server.hold.set()
    await chat.close()


async def test_without_an_endpoint() -> None:
    chat = Chat(settings_of())
    with pytest.raises(InferenceUnavailable, match="set PGRETRIEVE_CHAT_BASE_URL"):
        await chat.complete(Prompt(text="x"), 5)
    await chat.close()
