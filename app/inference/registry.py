"""The one way to a service: the registry decides batches and the time limit, and checks every answer."""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from app.errors import InferenceUnavailable, NotFound, PgretrieveError, Problems
from app.inference import services as services_package
from app.inference.base import Service, ServiceInfo, Task, Vectors
from app.settings import Settings

# UTF-8 bytes in one call. OpenAI takes 300,000 tokens in a request, and no token is shorter than a byte.
MAX_CALL_BYTES = 300_000


class Inference:
    """The services of this server by name. Tests hand it fakes; everyone else uses `from_settings`."""

    def __init__(self, services: Mapping[str, Service], settings: Settings) -> None:
        self._services = dict(services)
        self._settings = settings

    @classmethod
    def from_settings(cls, settings: Settings) -> "Inference":
        """Every service of `app.inference.services`; loads no model and calls nobody."""
        return cls(discover(settings), settings)

    def names(self) -> list[str]:
        return sorted(self._services)

    def infos(self) -> list[ServiceInfo]:
        """All registered services, by name, whether or not they can be used here."""
        return [self._services[name].info for name in self.names()]

    def get(self, name: str) -> Service | None:
        """For `info` and `unavailable()`; to embed, use `embed`."""
        return self._services.get(name)

    async def embed(self, name: str, texts: Sequence[str], task: Task = "query") -> Vectors:
        """One vector for each text, in order: float32 of shape (n, dimension), every component finite.

        An empty string is a text like another; an empty list answers shape (0, dimension) and calls nobody.
        Texts go in calls of at most `inference_batch` texts (fewer where the service says so) and
        `MAX_CALL_BYTES`, one after the other, each with `inference_timeout_s` for itself and its retries; one
        failure fails the whole.

        Raises `NotFound` (no such service), `InvalidRequest` (`text_too_long`, `invalid_text`;
        `inference_refused` by the model), `InferenceUnavailable` (not usable here, down, too slow;
        `inference_bad_answer`).
        """
        service = self._usable(name)
        sizes = self._sizes(texts)
        vectors = np.empty((len(texts), service.info.dimension), np.float32)
        for rows in calls(sizes, min(self._settings.inference_batch, service.info.max_batch)):
            vectors[rows] = await self._call(service, texts[rows], task)
        return vectors

    async def close(self) -> None:
        """Close every service, also when one of them fails to."""
        results = await asyncio.gather(*(s.close() for s in self._services.values()), return_exceptions=True)
        if errors := [result for result in results if isinstance(result, BaseException)]:
            raise errors[0]

    def _usable(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            raise NotFound("inference service", name, f"This server has: {', '.join(self.names()) or 'none'}.")
        if reason := service.unavailable():
            raise InferenceUnavailable(f"{name} cannot be used on this server. {reason}", service=name)
        return service

    def _sizes(self, texts: Sequence[str]) -> list[int]:
        """UTF-8 bytes of each text. Raises `InvalidRequest` with every text that cannot be embedded."""
        if isinstance(texts, str):
            raise TypeError("texts is a list of texts, not one text")
        problems, sizes, limit = Problems(), [], self._settings.max_text_chars
        for i, text in enumerate(texts):
            if len(text) > limit:
                message = f"Text {i} has {len(text)} characters; the limit is {limit} (PGRETRIEVE_MAX_TEXT_CHARS)."
                problems.add(("texts", i), "text_too_long", message)
            try:
                sizes.append(len(text.encode()))
            except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair; no model takes it
                message = f"Text {i} is not valid Unicode: a lone surrogate at character {error.start}."
                problems.add(("texts", i), "invalid_text", message)
        problems.refuse()
        return sizes

    async def _call(self, service: Service, texts: Sequence[str], task: Task) -> Vectors:
        name, limit = service.info.name, self._settings.inference_timeout_s
        try:
            async with asyncio.timeout(limit):
                vectors = await service.embed_texts(texts, task)
        except PgretrieveError:
            raise
        except TimeoutError:
            raise InferenceUnavailable(
                f"{name} did not answer within {limit:g} s (PGRETRIEVE_INFERENCE_TIMEOUT_S).", service=name
            ) from None
        except Exception as error:  # a service is a plug-in: whatever breaks in it, the caller learns which one it was
            raise InferenceUnavailable(f"{name} failed ({type(error).__name__}).", service=name) from error
        check_answer(service.info, vectors, len(texts))
        return vectors


def discover(settings: Settings) -> dict[str, Service]:
    """The services of every module in `app.inference.services`. Two of one name are a `ValueError`."""
    found: dict[str, Service] = {}
    for module in pkgutil.iter_modules(services_package.__path__, f"{services_package.__name__}."):
        for service in importlib.import_module(module.name).services(settings):
            if service.info.name in found:
                raise ValueError(f"two inference services are called {service.info.name!r}")
            found[service.info.name] = service
    return found


def calls(sizes: Sequence[int], count: int) -> Iterator[slice]:
    """Cut rows of so many bytes into consecutive calls; a row above `MAX_CALL_BYTES` is a call of its own."""
    start = total = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start >= count or total + size > MAX_CALL_BYTES):
            yield slice(start, row)
            start, total = row, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


def check_answer(info: ServiceInfo, vectors: Vectors, count: int) -> None:
    """Raise `inference_bad_answer` unless these are `count` finite float32 vectors of the dimension."""
    shape, dtype = getattr(vectors, "shape", None), getattr(vectors, "dtype", type(vectors).__name__)
    if shape != (count, info.dimension) or dtype != np.float32:
        came = f"an answer of shape {shape} and type {dtype}"
    elif not (finite := np.isfinite(vectors).all(axis=1)).all():
        came = f"NaN or infinity in {count - int(finite.sum())} of {count} vectors"
    else:
        return
    raise InferenceUnavailable(
        f"{info.name} gave {came}; expected shape {(count, info.dimension)}, float32, all finite.",
        code="inference_bad_answer",
        service=info.name,
    )
