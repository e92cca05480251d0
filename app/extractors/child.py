"""The process that `isolated` starts: reads jobs, runs extractors, writes what they make, as lengths and JSON."""

import os
import resource
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from app.errors import ExtractionFailed
from app.extractors.base import Extracted, Item, Limits, Rejected, Source

LENGTH = 8
NICE = 5  # queries come first


class Job(msgspec.Struct, frozen=True):
    """What the process is sent."""

    extractor_id: str
    parameters: dict[str, Any]
    source: Source
    limits: Limits
    seconds: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`ExtractionFailed`, on its way back."""

    code: str
    message: str
    retryable: bool = False


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The object is done; also what the process says first, when it has started."""


Frame = Extracted | Rejected | Failed | Done
FRAME: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)
JOB = msgspec.json.Decoder(Job)


def main() -> None:
    from app.extractors import REGISTRY  # the registry imports this module

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the frames
    warnings.simplefilter("ignore")  # libraries warn of broken files, which are everyday
    _confine(int(sys.argv[1]))
    _write(answers, Done())
    while (length := sys.stdin.buffer.read(LENGTH)) and len(length) == LENGTH:
        job = JOB.decode(sys.stdin.buffer.read(int.from_bytes(length)))
        _allow(job.seconds)
        for frame in _frames(job, REGISTRY):
            _write(answers, frame)


def _frames(job: Job, registry: dict[str, Any]) -> Iterator[Frame]:
    from app.extractors.running import run

    try:
        extractor = msgspec.convert(job.parameters, registry[job.extractor_id])
        yield from run(extractor, job.source, job.limits)
    except ExtractionFailed as error:
        yield Failed(error.error_code, error.message, error.retryable)
    except Exception as error:  # a fault of ours, or of a parser that nobody expected
        traceback.print_exc()
        yield Failed("extraction_failed", f"The content makes its extractor fail: {type(error).__name__}.")
    else:
        yield Done()


def _write(to: BinaryIO, frame: Frame | Item) -> None:
    content = msgspec.json.encode(frame)
    to.write(len(content).to_bytes(LENGTH))
    to.write(content)
    to.flush()


def _confine(memory_mb: int) -> None:
    """No files are written, no cores dumped, and memory ends; macOS keeps the last to itself."""
    os.nice(NICE)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_DATA, memory_mb << 20),
    ):
        resource.setrlimit(limit, (value, value))


def _allow(seconds: float) -> None:
    """Processor time for this job, twice what it may take: where the service is gone, nobody else would end it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
