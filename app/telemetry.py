"""How long the phases of a request took (`Server-Timing`), and the log."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Milliseconds by phase, in the order in which the phases began."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + (time.perf_counter() - started) * 1000

    def header(self) -> str:
        """The value of a `Server-Timing` header."""
        return ", ".join(f"{phase};dur={ms:.3f}" for phase, ms in self.phases.items())


def configure_logging(level: str) -> None:
    """Lines on stderr; a library's chatter only where it warns."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True)
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "procrastinate", "openai", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
