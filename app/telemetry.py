"""How long the phases of a request took (`Server-Timing`, spans), and the log, each line with what it belongs to."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request, or of the job, that this runs for."""

origin: ContextVar[str] = ContextVar("origin", default="")
"""What PostgreSQL shows as the application of this request's or job's transactions: part and id."""

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_span: Callable[[str], AbstractContextManager[Any]] = nullcontext


def spans_by(start: Callable[[str], AbstractContextManager[Any]]) -> None:
    """From now on each phase is a span of what `start` opens by its name; `app.tracing` says it."""
    global _span  # noqa: PLW0603 - set once, as a process starts
    _span = start


class Timings:
    """Milliseconds by phase, in the order in which the phases began."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with _span(phase):
                yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + (time.perf_counter() - started) * 1000

    def header(self) -> str:
        """The value of a `Server-Timing` header."""
        return ", ".join(f"{phase};dur={ms:.3f}" for phase, ms in self.phases.items())


class Identified(logging.Filter):
    """Gives each line the id of the request or job that it was written for."""

    def filter(self, record: logging.LogRecord) -> bool:
        if identifier := request_id.get():
            record.request_id = identifier
        return True


class Text(logging.Formatter):
    """A line for people; the id stands at its end, and so does what programs would read as fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        identifier = getattr(record, "request_id", "")
        return f"{line} [{identifier}]" if identifier else line


def configure_logging(level: str, form: str = "text") -> None:
    """Lines on stderr, or JSON, an object a line; a library's chatter only where it warns."""
    handler = logging.StreamHandler()
    handler.addFilter(Identified())
    renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
    json = JsonFormatter(TEXT, rename_fields=renamed, json_ensure_ascii=False)
    handler.setFormatter(json if form == "json" else Text(TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "procrastinate", "openai", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
