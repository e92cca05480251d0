"""What an inference service is. `registry.Inference` stands before each: callers embed through it alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceUnavailable

Task = Literal["query", "document", "raw"]
"""What a text is for; models that embed questions and answers differently need to know. `raw` is without the prefix of
either, where the service sets them itself; else it is like `document`."""

Vectors = NDArray[np.float32]
"""Shape (n, dimension), one row a text or image."""


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """The published facts of a service.

    `modalities` is a subset of `("text", "image")`; `normalized` says whether every vector has length 1, so
    that cosine similarity and inner product agree; `licence` is that of the weights; `max_batch` is the most
    inputs that the service wants in one call, where that is less than the setting `inference_batch`.

    `remote`: calls go to another server, take time and may cost money, so they are limited, and what they answer
    is kept in the database. `stored`: it was made over the API. `fingerprint` stands for everything that its vectors
    depend on beside the model's name. `sample`: it knows little and is there to try things out, so nobody is advised to
    use it.
    """

    name: str
    provider: str
    model: str
    dimension: int
    modalities: tuple[str, ...]
    normalized: bool
    description: str
    licence: str
    max_batch: int = 2048
    remote: bool = False
    stored: bool = False
    fingerprint: str = ""
    sample: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service made of texts or images, and how many tokens its provider counted, where it says so."""

    vectors: Vectors
    tokens: int | None = None


class PassingFailure(Exception):
    """A remote service failed for a reason that may pass: it is tried again within limits, then `error` is told.

    `retry_after` are the seconds that the provider asks to wait.
    """

    def __init__(self, error: InferenceUnavailable, retry_after: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after = retry_after


class Service(Protocol):
    """One model behind one name. Building it is cheap and does no I/O; the first call loads what it needs."""

    @property
    def info(self) -> ServiceInfo:
        """The facts; they do not change."""
        ...

    def unavailable(self) -> str | None:
        """None when the service can be used on this server, else a plain reason that says what to do.

        Cheap: looks for packages, files and settings, and calls nobody.
        """
        ...

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        """One vector for each text, in order: float32 of shape (n, dimension), n at least 1.

        One try: repeating it is the caller's. Raises `PassingFailure`, `InferenceUnavailable` when the service is
        down or cannot be loaded, and `InvalidRequest` (`inference_refused`) when the model refuses a text. Must not
        block the event loop.
        """
        ...

    async def close(self) -> None:
        """Give back connections and threads. Called once; no call comes after it."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A service that knows its model's tokens, without calling anybody."""

    async def count_tokens(self, texts: Sequence[str]) -> int | None:
        """How many the model reads of these texts, as documents; None where its tokenizer is not at hand."""
        ...


class ImageService(Service, Protocol):
    """A service whose modalities hold `image`: images and texts in one space."""

    async def embed_images(self, images: Sequence[bytes]) -> Answer:
        """One vector for each file's content, as `embed_texts` does.

        Raises `InvalidRequest` with every image that cannot be used, at `("images", n)`.
        """
        ...
