"""The one way to a service: by its name, through its `Caller`. Services are the installation's and stored ones."""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence

from app.errors import NotFound, Problems
from app.inference import providers
from app.inference import services as services_package
from app.inference.base import Answer, CountsTokens, Service, ServiceInfo, Task, Vectors
from app.inference.cache import VectorCache
from app.inference.calling import Caller
from app.inference.chat import Chat
from app.inference.definition import Definition
from app.inference.fetching import Fetcher
from app.inference.rerankers.registry import Rerankers
from app.settings import Settings


class Inference:
    """The services of this process by name. Tests hand it fakes; everyone else uses `from_settings`."""

    def __init__(self, services: Mapping[str, Service], settings: Settings) -> None:
        self._settings = settings
        self._built_in = {name: Caller(service, settings) for name, service in services.items()}
        self._stored: dict[str, tuple[Definition, Caller]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.cache = VectorCache(settings.inference_cache_mb)
        self.chat = Chat(settings)
        self.rerankers = Rerankers(settings, services.values())
        self.fetcher = Fetcher(settings)
        self.refreshing = asyncio.Lock()
        """Held from reading the stored definitions until `keep_stored`, so that the last read is the last kept."""

    @classmethod
    def from_settings(cls, settings: Settings) -> "Inference":
        """Every service of `app.inference.services`; loads no model and calls nobody."""
        return cls(discover(settings), settings)

    def keep_stored(self, definitions: Iterable[Definition]) -> None:
        """From now on these are the stored services. Those that are gone end when their calls have ended.

        A stored service wins over one of the installation: a newer version may bring a name that vectors of a
        stored one already stand under.
        """
        before, self._stored = self._stored, {}
        for definition in definitions:
            kept = before.get(definition.name)
            if kept is None or kept[0] != definition:
                kept = definition, Caller(providers.build(definition, self._settings), self._settings)
            else:
                del before[definition.name]
            self._stored[definition.name] = kept
        for _, caller in before.values():
            task = asyncio.create_task(caller.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def names(self) -> list[str]:
        return sorted(self._built_in.keys() | self._stored)

    def infos(self) -> list[ServiceInfo]:
        """All registered services, by name, whether or not they can be used here."""
        return [caller.service.info for name in self.names() if (caller := self._caller(name))]

    def get(self, name: str) -> Service | None:
        """For `info` and `unavailable()`; to embed, use `embed`."""
        caller = self._caller(name)
        return caller.service if caller else None

    def info(self, name: str) -> ServiceInfo:
        """Raises `NotFound`."""
        return self._known(name).service.info

    def is_built_in(self, name: str) -> bool:
        """Whether the name is the installation's, so that no other process can have changed what it means."""
        return name in self._built_in and name not in self._stored

    async def embed(self, name: str, texts: Sequence[str], task: Task = "query") -> Vectors:
        """One vector for each text, in order: float32 of shape (n, dimension), every component finite.

        An empty string is a text like another; an empty list answers shape (0, dimension) and calls nobody.
        Texts go in calls of at most `inference_batch` texts (fewer where the service says so) and
        `MAX_CALL_BYTES`, one after the other, each with `inference_timeout_s` for itself and its retries; one
        failure fails the whole.

        Raises `NotFound` (no such service), `InvalidRequest` (`text_too_long`, `invalid_text`;
        `inference_refused` by the model), `InferenceUnavailable` (not usable here, down, too slow;
        `inference_bad_answer`, `inference_busy`).
        """
        return (await self.answer(name, texts, task)).vectors

    async def answer(self, name: str, texts: Sequence[str], task: Task = "query") -> Answer:
        """The same with what the provider counted. Past every cache: see `app.domain.inference.embedding`."""
        return await self._known(name).embed(texts, self.sizes(texts), task)

    async def answer_images(self, name: str, images: Sequence[bytes]) -> Answer:
        """The same for images, each the content of a file. Raises also `InvalidRequest` (`image_too_large`,
        `bad_image`, `service_without_images`)."""
        caller = self._known(name)
        self.check_images(name, images)
        return await caller.embed_images(images)

    def check_images(self, name: str, images: Sequence[bytes]) -> None:
        """Raises `InvalidRequest` where this service embeds no images, or with every one that is too large."""
        info, problems, most = self._known(name).service.info, Problems(), self._settings.max_image_bytes
        if "image" not in info.modalities:
            able = ", ".join(other.name for other in self.infos() if "image" in other.modalities) or "none here"
            message = (
                f"{name} embeds texts only: query with a text or a vector, or use an index that is mapped to a service "
                f"with images ({able})."
            )
            problems.add((), "service_without_images", message)
            problems.refuse()
        for i, image in enumerate(images):
            if len(image) > most:
                message = f"Image {i} has {len(image):,} bytes; the limit is {most:,} (PGRETRIEVE_MAX_IMAGE_BYTES)."
                problems.add(("images", i), "image_too_large", message)
        problems.refuse()

    async def count_tokens(self, name: str, texts: Sequence[str]) -> int | None:
        """How many tokens the service's model reads of these texts; None where nobody here knows its tokenizer."""
        service = self.get(name)
        return await service.count_tokens(texts) if isinstance(service, CountsTokens) else None

    def sizes(self, texts: Sequence[str]) -> list[int]:
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

    async def close(self) -> None:
        """Close every service, also when one of them fails to."""
        callers = [*self._built_in.values(), *(caller for _, caller in self._stored.values())]
        beside = (self.chat, self.rerankers, self.fetcher)
        closing = [*(caller.close() for caller in callers), *(each.close() for each in beside), *self._closing]
        results = await asyncio.gather(*closing, return_exceptions=True)
        if errors := [result for result in results if isinstance(result, BaseException)]:
            raise errors[0]

    def _known(self, name: str) -> Caller:
        caller = self._caller(name)
        if caller is None:
            raise NotFound("inference service", name, f"This server has: {', '.join(self.names()) or 'none'}.")
        return caller

    def _caller(self, name: str) -> Caller | None:
        stored = self._stored.get(name)
        return stored[1] if stored else self._built_in.get(name)


def discover(settings: Settings) -> dict[str, Service]:
    """The services of every module in `app.inference.services`. Two of one name are a `ValueError`."""
    found: dict[str, Service] = {}
    for module in pkgutil.iter_modules(services_package.__path__, f"{services_package.__name__}."):
        for service in importlib.import_module(module.name).services(settings):
            if service.info.name in found:
                raise ValueError(f"two inference services are called {service.info.name!r}")
            found[service.info.name] = service
    return found
