"""Services of any endpoint that speaks OpenAI's embeddings protocol. The key never enters a message."""

import asyncio
import email.utils
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from app.errors import InferenceUnavailable, InvalidRequest, PgretrieveError, Problem
from app.inference import definition as definitions
from app.inference.base import Answer, PassingFailure, ServiceInfo, Task
from app.inference.definition import Definition
from app.inference.references import OPENAI, bad_reference, resolve
from app.settings import Settings

if TYPE_CHECKING:
    import openai

OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_PROVIDER_MESSAGE: Final = 300  # characters of a provider's own message that are passed on
PASSING: Final = (408, 409, 429)

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
    if reason := _bad_url(options.base_url):
        yield "base_url", reason
    if options.api_key_ref is not None and (reason := bad_reference(options.api_key_ref, settings)):
        yield "api_key_ref", reason


def _bad_url(url: str) -> str | None:
    """What is wrong; the address is not repeated, since it may hold a password."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isascii() or not url.isprintable() or " " in url:
        return "A base_url begins with http:// or https:// and a host, and mostly ends with /v1."
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "A base_url has no user, password, query or fragment: keys belong behind api_key_ref."
    return None


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
        self._url_setting = url_setting
        self._reference = options.api_key_ref
        # The client wants to have a key; where there is none, its header is left out.
        self._key = resolve(self._reference, settings) if self._reference else "none"
        self._client: openai.AsyncOpenAI | None = None
        self._connecting = asyncio.Lock()

    def unavailable(self) -> str | None:
        if not self._key:
            reason = f"No API key: set {self._reference} and restart."
            if self._reference == OPENAI and self._settings.openai_base_url:
                reason += " The endpoint at OPENAI_BASE_URL is sent one too: any text, if it asks for none."
            return reason
        if not (self._key.isascii() and self._key.isprintable()):
            return f"{self._reference} holds characters that cannot stand in a header: set it anew and restart."
        return None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        client = await self._connected()
        import openai

        prefix = self._options.query_prefix if task == "query" else self._options.document_prefix
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
            raise self._failure(error) from None
        except (ValueError, TypeError, AttributeError) as error:  # not JSON, no `data`, ragged vectors
            raise InferenceUnavailable(
                f"{self.info.name} answered something other than embeddings ({self._safe(str(error))}).",
                code="inference_bad_answer",
                service=self.info.name,
            ) from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> "openai.AsyncOpenAI":
        async with self._connecting:
            if self._client is None:
                # In a thread, as the import alone takes 0.6 s and more.
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    def _connect(self) -> "openai.AsyncOpenAI":
        import openai

        limit, tries = self._settings.inference_timeout_s, 1 + self._settings.inference_retries
        # An answer may take the whole limit; a connection gets a share, so that an address which swallows
        # packets is tried again within it.
        timeout = openai.Timeout(limit, connect=limit / tries)
        try:
            # Redirects are not followed: texts go to the host that an administrator named, and nowhere else.
            http = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout)
            return openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._options.base_url,
                timeout=timeout,
                max_retries=0,
                http_client=http,
            )
        except Exception as error:
            # Not the error's own text: the address may hold a password.
            reason = f"The OpenAI client does not start ({type(error).__name__}): check {self._url_setting}."
            raise InferenceUnavailable(reason, service=self.info.name) from None

    def _failure(self, error: "openai.OpenAIError") -> PgretrieveError | PassingFailure:
        status = getattr(error, "status_code", None)
        told = self._mapped(error, status)
        if isinstance(told, InferenceUnavailable) and (status is None or status in PASSING or status >= 500):
            response = getattr(error, "response", None)
            return PassingFailure(told, _retry_after(response.headers) if response is not None else None)
        return told

    def _mapped(self, error: "openai.OpenAIError", status: int | None) -> InvalidRequest | InferenceUnavailable:
        name = self.info.name
        said = self._safe(str(getattr(error, "message", error)))
        match status:
            case 400 | 413 | 422:
                message = f"{name} refused the input (HTTP {status}): {said}"
                return InvalidRequest([Problem(("texts",), "inference_refused", message)], service=name)
            case 401 | 403:
                # Not what the endpoint said: it may quote a part of the key.
                key = self._reference or "api_key_ref, which is not set"
                reason = f"the key is refused. Check {key}, and that it may use {self.info.model}"
            case 404:
                reason = f"there is no {self.info.model}. Check {self._url_setting}, which mostly ends with /v1"
            case 429:
                reason = f"rate limit or quota reached: {said}"
            case None:
                cause = type(error).__name__
                reason = f"the endpoint cannot be reached ({cause}). Check the network and {self._url_setting}"
            case _ if status < 400:
                reason = f"the endpoint redirects, which is not followed. Check {self._url_setting}"
            case _:
                reason = "the endpoint failed; try again later"
        answered = f" (HTTP {status})" if status else ""
        return InferenceUnavailable(f"{name}{answered}: {reason}.", service=name, status=status)

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "***")[:MAX_PROVIDER_MESSAGE] if self._reference else text[:MAX_PROVIDER_MESSAGE]


def _tokens(usage: object) -> int | None:
    # Some endpoints leave it out, and the client does not check what they send.
    total = getattr(usage, "total_tokens", None)
    return total if isinstance(total, int) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a provider asks to wait: in milliseconds, in seconds, or until a date."""
    try:
        if given := headers.get("retry-after-ms"):
            return max(0.0, float(given) / 1000)
        if not (given := headers.get("retry-after")):
            return None
        if given.strip().isdigit():
            return float(given)
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
