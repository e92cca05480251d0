"""Services of any endpoint that speaks OpenAI's embeddings protocol. The key never enters a message."""

import asyncio
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Annotated

import msgspec
import numpy as np

from app.errors import InferenceUnavailable
from app.inference import definition as definitions
from app.inference.base import Answer, ServiceInfo, Task
from app.inference.definition import Definition
from app.inference.endpoint import OPENAI_URL, Endpoint, bad_url, is_header
from app.inference.references import OPENAI, bad_reference, resolve
from app.settings import Settings

# Those that read cl100k_base.
OPENAI_MODELS = ("text-embedding-3-", "text-embedding-ada-002")

Prefix = Annotated[str, msgspec.Meta(max_length=1000)]


class Options(definitions.Options, frozen=True, kw_only=True):
    """An endpoint that speaks OpenAI's embeddings protocol.

    The server calls `base_url` (http or https), so that making services needs an administrator's key. `api_key_ref`
    is the name of an environment variable of the server that holds the key, beginning with
    `PGRETRIEVE_SECRET_PREFIX`; without it none is sent. `send_dimensions` asks for vectors of the service's dimension,
    for models that can shorten theirs. `normalized` says that all vectors have length 1. The prefixes stand before
    each text, as models of E5's kind want them.
    """

    base_url: Annotated[str, msgspec.Meta(max_length=2000)] = OPENAI_URL
    api_key_ref: str | None = None
    send_dimensions: bool = False
    normalized: bool = False
    query_prefix: Prefix = ""
    document_prefix: Prefix = ""


def check(options: Options, settings: Settings) -> Iterable[tuple[str, str]]:
    if reason := bad_url(options.base_url):
        yield "base_url", reason
    if options.api_key_ref is not None and (reason := bad_reference(options.api_key_ref, settings)):
        yield "api_key_ref", reason


def build(definition: Definition, options: Options, settings: Settings) -> "OpenAIText":
    info = ServiceInfo(
        name=definition.name,
        provider=definition.provider,
        model=definition.model,
        dimension=definition.dimension,
        modalities=("text",),
        normalized=options.normalized,
        description=definition.description,
        licence="that of the provider",
        remote=True,
        stored=True,
        fingerprint=definition.fingerprint,
    )
    return OpenAIText(info, options, settings, url_setting="its base_url")


class OpenAIText:
    """One model of one endpoint. `url_setting` is what to check when the endpoint does not answer as it should."""

    def __init__(self, info: ServiceInfo, options: Options, settings: Settings, *, url_setting: str) -> None:
        self.info = info
        self._options = options
        self._settings = settings
        self._reference = options.api_key_ref
        self._key = resolve(self._reference, settings) if self._reference else None
        self._endpoint = Endpoint(
            info.name,
            options.base_url,
            self._key,
            key_setting=self._reference or "api_key_ref, which is not set",
            url_setting=url_setting,
            timeout=settings.inference_timeout_s,
            tries=1 + settings.inference_retries,
        )

    def unavailable(self) -> str | None:
        if self._key == "":
            reason = f"No API key: set {self._reference} and restart."
            if self._reference == OPENAI and self._settings.openai_base_url:
                reason += " The endpoint at OPENAI_BASE_URL is sent one too: any text, if it asks for none."
            return reason
        if self._key and not is_header(self._key):
            return f"{self._reference} holds characters that cannot stand in a header: set it anew and restart."
        return None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        client = await self._endpoint.client()
        import openai

        prefix = {"query": self._options.query_prefix, "document": self._options.document_prefix}.get(task, "")
        try:
            answer = await client.embeddings.create(
                model=self.info.model,
                # OpenAI refuses an empty string; a space is the nearest text that it takes.
                input=[prefix + text or " " for text in texts],
                dimensions=self.info.dimension if self._options.send_dimensions else openai.omit,
                extra_headers=None if self._reference else {"Authorization": openai.omit},
            )
            rows = sorted(answer.data, key=lambda row: row.index)
            if [row.index for row in rows] != list(range(len(rows))):
                raise ValueError("the indexes of the vectors are not 0, 1, 2, …")
            return Answer(np.array([row.embedding for row in rows], np.float32), _tokens(answer.usage))
        # `from None` throughout: the client's errors carry the request, whose headers hold the key.
        except openai.OpenAIError as error:
            raise self._endpoint.failure(error, self.info.model) from None
        except (ValueError, TypeError, AttributeError) as error:  # not JSON, no `data`, ragged vectors
            raise InferenceUnavailable(
                f"{self.info.name} answered something other than embeddings ({self._endpoint.safe(str(error))}).",
                code="inference_bad_answer",
                service=self.info.name,
            ) from None

    async def count_tokens(self, texts: Sequence[str]) -> int | None:
        """By the vocabulary of OpenAI's own models, which comes in a package; of other models nobody here has one."""
        if not self.info.model.startswith(OPENAI_MODELS) or find_spec("bpe_openai") is None:
            return None
        return await asyncio.to_thread(_count, [self._options.document_prefix + text for text in texts])

    async def close(self) -> None:
        await self._endpoint.close()


def _count(texts: Sequence[str]) -> int:
    import bpe_openai

    encoding = bpe_openai.get_encoding("cl100k_base")
    return sum(len(encoding.encode_ordinary(text)) for text in texts)


def _tokens(usage: object) -> int | None:
    # Some endpoints leave it out, and the client does not check what they send.
    total = getattr(usage, "total_tokens", None)
    return total if isinstance(total, int) else None
