"""An endpoint that speaks OpenAI's protocol: its client, and its failures as our errors. No key enters a message."""

import asyncio
import email.utils
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from app.errors import InferenceUnavailable, InvalidRequest, PgretrieveError, Problem
from app.inference.base import PassingFailure

if TYPE_CHECKING:
    import openai

OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_PROVIDER_MESSAGE: Final = 300  # characters of a provider's own message that are passed on
PASSING: Final = (408, 409, 429)


def bad_url(url: str) -> str | None:
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


def is_header(key: str) -> bool:
    """Whether a key can stand in a header."""
    return key.isascii() and key.isprintable()


class Endpoint:
    """One base URL. `name` is whom errors blame; `key_setting` and `url_setting` are what they say to check."""

    def __init__(
        self,
        name: str,
        base_url: str,
        key: str | None,
        *,
        key_setting: str,
        url_setting: str,
        timeout: float,
        tries: int,
    ) -> None:
        self._name = name
        self._base_url = base_url
        # The client wants to have a key; where there is none, its header is left out.
        self._key = key
        self._key_setting = key_setting
        self._url_setting = url_setting
        self._timeout = timeout
        self._tries = tries
        self._client: openai.AsyncOpenAI | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> "openai.AsyncOpenAI":
        async with self._connecting:
            if self._client is None:
                # In a thread, as the import alone takes 0.6 s and more.
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def failure(
        self, error: "openai.OpenAIError", model: str, at: str = "texts", key: str | None = None
    ) -> PgretrieveError | PassingFailure:
        """Our error for the client's; `at` is what the endpoint was sent, `key` the one that came with the call."""
        status = getattr(error, "status_code", None)
        told = self._mapped(error, status, model, at, key)
        if isinstance(told, InferenceUnavailable) and (status is None or status in PASSING or status >= 500):
            response = getattr(error, "response", None)
            return PassingFailure(told, retry_after(response.headers) if response is not None else None)
        return told

    def safe(self, text: str, key: str | None = None) -> str:
        for secret in filter(None, (self._key, key)):
            text = text.replace(secret, "***")
        return text[:MAX_PROVIDER_MESSAGE]

    def _connect(self) -> "openai.AsyncOpenAI":
        import openai

        # An answer may take the whole limit; a connection gets a share, so that an address which swallows
        # packets is tried again within it.
        timeout = openai.Timeout(self._timeout, connect=self._timeout / self._tries)
        try:
            # Redirects are not followed: texts go to the host that an administrator named, and nowhere else.
            http = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout)
            return openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self._base_url,
                timeout=timeout,
                max_retries=0,
                http_client=http,
            )
        except Exception as error:
            # Not the error's own text: the address may hold a password.
            reason = f"The OpenAI client does not start ({type(error).__name__}): check {self._url_setting}."
            raise InferenceUnavailable(reason, service=self._name) from None

    def _mapped(
        self, error: "openai.OpenAIError", status: int | None, model: str, at: str, key: str | None
    ) -> InvalidRequest | InferenceUnavailable:
        name = self._name
        said = self.safe(str(getattr(error, "message", error)), key)
        match status:
            case 400 | 413 | 422:
                message = f"{name} refused the input (HTTP {status}): {said}"
                return InvalidRequest([Problem((at,), "inference_refused", message)], service=name)
            case 401 | 403:
                # Not what the endpoint said: it may quote a part of the key.
                reason = f"the key is refused. Check {self._key_setting}, and that it may use {model}"
            case 404:
                reason = f"there is no {model}. Check {self._url_setting}, which mostly ends with /v1"
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


def retry_after(headers: Mapping[str, str]) -> float | None:
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
