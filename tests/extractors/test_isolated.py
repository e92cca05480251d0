"""The process of its own: same documents, and no hostile file gets out of it."""

import asyncio
import os
import signal
import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Item, Source
from app.extractors.isolated import Isolated
from app.settings import Settings
from tests.extractors.extracting import assembled, extractor, items, laughing_pdf, pdf, stream

WORDS = extractor("text_extractor", split_by="words", chunk_size=2)


@pytest.fixture
async def isolated() -> AsyncIterator[Isolated]:
    made = Isolated(Settings(extract_timeout_s=30, extract_memory_mb=400))
    yield made
    await made.close()


async def all_of(isolated: Isolated, blob: Blob, **fields: Any) -> list[Item]:
    async with aclosing(isolated.extract(WORDS, Source(inputs={"text": (blob,)}, fields=fields))) as found:
        return [item async for item in found]


async def failure(isolated: Isolated, blob: Blob) -> tuple[str, bool]:
    with pytest.raises(ExtractionFailed) as failed:
        await all_of(isolated, blob)
    return failed.value.error_code, failed.value.retryable


def process_of(isolated: Isolated) -> int:
    assert isolated._process is not None
    return isolated._process.pid


async def test_it_makes_the_same_documents_in_one_process(isolated: Isolated) -> None:
    for blob in (Blob.of("one two three"), Blob(content=pdf("four five six", "seven"))):
        assert await all_of(isolated, blob) == items(WORDS, blob)
    first = process_of(isolated)
    assert await failure(isolated, Blob.of(" ")) == ("no_text", False)
    assert len(await all_of(isolated, Blob.of("word " * 4_000))) == 2_000
    assert process_of(isolated) == first


async def test_images_and_numbers_come_through_whole(isolated: Isolated) -> None:
    fields = {"big": 12345678901234567890123, "small": 0.1, "text": "\u2028é\\u0000"}
    passed = extractor("passthrough_extractor")
    async with aclosing(isolated.extract(passed, Source(fields=fields))) as found:
        assert [item async for item in found] == items(passed, None, fields)


async def test_several_callers_take_turns(isolated: Isolated) -> None:
    found = await asyncio.gather(*(all_of(isolated, Blob.of(f"a{n} b c")) for n in range(5)))
    assert found == [items(WORDS, Blob.of(f"a{n} b c")) for n in range(5)]


async def test_a_file_that_takes_all_memory_is_refused_and_the_next_is_read(isolated: Isolated) -> None:
    zeros = zlib.compress(b"0" * (900 << 20), 9)
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>"
    bodies = ["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>", page]
    for bomb in (laughing_pdf(), assembled([*bodies, stream("/Filter/FlateDecode", zeros)])):
        assert await failure(isolated, Blob(content=bomb)) == ("extraction_crashed", False)
        assert len(await all_of(isolated, Blob.of("still here"))) == 1


async def test_what_takes_too_long_is_ended() -> None:
    isolated = Isolated(Settings(extract_timeout_s=0.5))
    nested = "".join(
        " " * n + "- a\n" for n in range(6_000)
    )  # CommonMark's lists in lists: 18 MB that are read again and again
    try:
        assert await failure(isolated, Blob.of(nested, "text/markdown")) == ("extraction_timeout", False)
        assert len(await all_of(isolated, Blob.of("still here"))) == 1
    finally:
        await isolated.close()


async def test_a_process_that_was_ended_from_outside_may_be_asked_again(isolated: Isolated) -> None:
    await all_of(isolated, Blob.of("one"))
    async with aclosing(isolated.extract(WORDS, Source(inputs={"text": (Blob.of("word " * 150_000),)}))) as found:
        await anext(found)
        os.kill(process_of(isolated), signal.SIGKILL)
        with pytest.raises(ExtractionFailed) as failed:
            async for _ in found:
                pass
    assert (failed.value.error_code, failed.value.retryable) == ("extractor_unavailable", True)
    assert len(await all_of(isolated, Blob.of("still here"))) == 1


async def test_whoever_leaves_early_leaves_nothing_to_the_next(isolated: Isolated) -> None:
    async with aclosing(isolated.extract(WORDS, Source(inputs={"text": (Blob.of("old " * 50_000),)}))) as found:
        await anext(found)
    assert await all_of(isolated, Blob.of("new")) == items(WORDS, Blob.of("new"))
    waiting = asyncio.create_task(all_of(isolated, Blob.of("old " * 50_000)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await all_of(isolated, Blob.of("new")) == items(WORDS, Blob.of("new"))


async def test_it_knows_no_secrets(isolated: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    await all_of(isolated, Blob.of("one"))
    ours = await asyncio.create_subprocess_exec(
        *("ps", "eww", "-o", "command=", "-p", str(process_of(isolated))), stdout=asyncio.subprocess.PIPE
    )
    shown, _ = await ours.communicate()
    assert b"extractors.child" in shown
    assert b"sk-secret" not in shown


async def test_it_ends_with_the_service() -> None:
    isolated = Isolated(Settings())
    await all_of(isolated, Blob.of("one"))
    process = isolated._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # as when the service is gone
    assert await asyncio.wait_for(process.wait(), 30) == 0
    await isolated.close()
