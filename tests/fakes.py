"""Stand-ins for inference, and for nothing else: deterministic vectors, and every way to misbehave."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from app.errors import InvalidRequest, Problem
from app.inference import base
from app.inference.base import ServiceInfo, Task, Vectors
from app.settings import Settings

Answer = Literal["right", "nan", "short_rows", "too_few", "float64"]


def settings_of(**chosen: Any) -> Settings:
    """The defaults but for what a test chooses, by field name; types are checked as in the environment."""
    return Settings(**chosen)


def fake_vector(text: str, dimension: int) -> Vectors:
    """The unit vector of a text from a `FakeService`: shape (dimension,), unrelated to any other text's."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    unit: Vectors = vector / np.linalg.norm(vector)
    return unit


class FakeService:
    """Set `error`, `answer`, `hold` or `reason` to make it fail; `calls` has texts and task of each call."""

    def __init__(
        self, name: str = "fake", dimension: int = 8, max_batch: int = 2048, *, remote: bool = False, space: str = ""
    ) -> None:
        self.info = ServiceInfo(
            name=name,
            provider="test",
            model=name,
            dimension=dimension,
            modalities=("text",),
            normalized=True,
            description="Hashes.",
            licence="none",
            max_batch=max_batch,
            remote=remote,
        )
        self.space = space
        """Services of different spaces make unrelated vectors of one text."""
        self.calls: list[tuple[list[str], Task]] = []
        self.reason: str | None = None
        """What `unavailable()` answers."""
        self.error: BaseException | None = None
        """Raised by each call."""
        self.refused: str | None = None
        """A text that the model refuses."""
        self.answer: Answer = "right"
        self.hold: asyncio.Event | None = None
        """Each call waits for it."""
        self.called = asyncio.Event()
        """Set when a call has come, before it waits for `hold`."""
        self.closed = False

    def unavailable(self) -> str | None:
        return self.reason

    async def embed_texts(self, texts: Sequence[str], task: Task) -> base.Answer:
        self.calls.append((list(texts), task))
        self.called.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        if self.refused is not None and self.refused in texts:
            at = ("texts", list(texts).index(self.refused))
            raise InvalidRequest([Problem(at, "inference_refused", "The model refuses this text.")])
        return base.Answer(
            self._answered(np.stack([fake_vector(self.space + text, self.info.dimension) for text in texts]))
        )

    async def close(self) -> None:
        self.closed = True

    def _answered(self, vectors: Vectors) -> Vectors:
        match self.answer:
            case "nan":
                vectors[-1, 0] = np.nan
            case "short_rows":
                return vectors[:, :-1]
            case "too_few":
                return vectors[:-1]
            case "float64":
                return vectors.astype(np.float64)
        return vectors
