"""Extracting in a process of its own, which has no secrets, little memory and a time limit: no file gets out of it.

Parsers are large programs in C. A hostile file may make one run for hours, ask for all memory, or crash it; in a thread
that would be the whole service. The process (`child`) reads jobs and writes documents as frames of JSON, and nothing
that it answers is executed. It serves one object after the other, so that its start, half a second, is paid once.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from app.errors import ExtractionFailed
from app.extractors.base import Extractor, Item, Limits, Source
from app.extractors.child import FRAME, LENGTH, Done, Failed, Job
from app.settings import Settings

START_S = 60.0
CHILD = "from app.extractors.child import main; main()"
# What Python needs to start; the rest of the environment holds the database's password and keys.
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


class Isolated:
    """One process; callers wait for their turn. It starts with the first object, and anew after one that ended it."""

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits.of(settings)
        self._seconds = settings.extract_timeout_s
        self._memory_mb = settings.extract_memory_mb
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def extract(self, extractor: Extractor, source: Source) -> AsyncGenerator[Item, None]:
        """The documents of one object, as `running.run` yields them. The time that the caller takes does not count.

        Raises `ExtractionFailed`. Whoever may leave before the end does so by `contextlib.aclosing`, which ends the
        process: what it has still to say belongs to no other object.
        """
        frame = self._frame(extractor, source)
        async with self._turn:
            sound = False  # whether the process waits for the next job
            try:
                async with aclosing(self._answers(frame)) as answers:
                    async for answer in answers:
                        if isinstance(answer, Done | Failed):
                            sound = not isinstance(answer, Failed) or answer.code != "extraction_exhausted"
                            if isinstance(answer, Failed):
                                raise ExtractionFailed(answer.message, code=answer.code, retryable=answer.retryable)
                            return
                        yield answer
            finally:
                if not sound:
                    await self._end()

    async def close(self) -> None:
        """End the process, once whoever has its turn is done."""
        async with self._turn:
            await self._end()

    def _frame(self, extractor: Extractor, source: Source) -> bytes:
        parameters = msgspec.to_builtins(extractor)
        job = Job(extractor.extractor_id(), parameters, source, self._limits, self._seconds)
        try:
            frame = msgspec.json.encode(job)
        except UnicodeEncodeError as error:
            raise ExtractionFailed("A field holds half a surrogate pair.", code="bad_unicode") from error
        return len(frame).to_bytes(LENGTH) + frame

    async def _answers(self, frame: bytes) -> AsyncGenerator[Item | Failed | Done, None]:
        """All that the process says to a job."""
        process = await self._started()
        left = self._seconds
        try:
            work: Coroutine[Any, Any, Item | Failed | Done] = _ask(process, frame)
            while True:
                began = time.monotonic()
                async with asyncio.timeout(max(left, 0)):
                    answer = await work
                left -= time.monotonic() - began
                yield answer
                work = _answer(process)
        except TimeoutError as error:
            raise self._too_slow() from error
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            raise await self._crashed(process) from error

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CHILD, str(self._memory_mb)), stdin=pipe, stdout=pipe, env=environment
            )
            try:
                async with asyncio.timeout(START_S):
                    await _answer(self._process)
            except (TimeoutError, asyncio.IncompleteReadError) as error:
                message = "The process that reads files does not start: see the log."
                raise ExtractionFailed(message, code="extractor_unavailable", retryable=True) from error
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def _crashed(self, process: asyncio.subprocess.Process) -> ExtractionFailed:
        async with asyncio.timeout(START_S):
            code = await process.wait()
        if code == -signal.SIGXCPU:
            return self._too_slow()
        if code == -signal.SIGKILL:  # not by us: the machine was short of memory, or somebody ended it
            message = "The process that reads files was ended from outside."
            return ExtractionFailed(message, code="extractor_unavailable", retryable=True)
        message = f"The content makes its parser fail (exit code {code})."
        return ExtractionFailed(message, code="extraction_crashed")

    def _too_slow(self) -> ExtractionFailed:
        message = f"The content takes longer than {self._seconds:g} s to read (PGRETRIEVE_EXTRACT_TIMEOUT_S)."
        return ExtractionFailed(message, code="extraction_timeout")


class Pool:
    """Some such processes: whoever comes takes one that is free, so that a slow file holds up no other."""

    def __init__(self, settings: Settings) -> None:
        self._all = [Isolated(settings) for _ in range(settings.extract_processes)]
        self._free = list(self._all)
        self._turns = asyncio.Semaphore(len(self._all))

    async def extract(self, extractor: Extractor, source: Source) -> AsyncGenerator[Item, None]:
        """As `Isolated.extract`."""
        async with self._turns:
            one = self._free.pop()  # the last that was given back: it is started
            try:
                async with aclosing(one.extract(extractor, source)) as items:
                    async for item in items:
                        yield item
            finally:
                self._free.append(one)

    async def close(self) -> None:
        for one in self._all:
            await one.close()


async def _ask(process: asyncio.subprocess.Process, frame: bytes) -> Item | Failed | Done:
    assert process.stdin is not None
    process.stdin.write(frame)
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process: asyncio.subprocess.Process) -> Item | Failed | Done:
    assert process.stdout is not None
    length = int.from_bytes(await process.stdout.readexactly(LENGTH))
    return FRAME.decode(await process.stdout.readexactly(length))
