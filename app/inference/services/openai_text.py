"""`openai_text_3_small` and `openai_text_3_large`, from OpenAI or an endpoint that speaks its protocol."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from app.errors import InferenceUnavailable, InvalidRequest, PgretrieveError, Problem
from app.inference.base import Service, ServiceInfo, Task, Vectors
from app.settings import Settings

if TYPE_CHECKING:
    import openai

OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_PROVIDER_MESSAGE: Final = 300  # characters of a provider's own message that are passed on


def services(settings: Settings) -> list[Service]:
    return [
        OpenAIText("openai_text_3_small", "text-embedding-3-small", 1536, settings),
        OpenAIText("openai_text_3_large", "text-embedding-3-large", 3072, settings),
    ]


class OpenAIText:
    """One model of the embeddings endpoint. Retries are the client's own; the key never enters a message."""

    def __init__(self, name: str, model: str, dimension: int, settings: Settings) -> None:
        self.info = ServiceInfo(
            name=name,
            provider="openai",
            model=model,
            dimension=dimension,
            modalities=("text",),
            normalized=True,
            description="Many languages; texts above 8,192 tokens are refused. Texts leave this server.",
            licence="proprietary (OpenAI's terms)",
        )
        self._settings = settings
        self._key = settings.openai_api_key.get_secret_value().strip() if settings.openai_api_key else ""
        self._client: openai.AsyncOpenAI | None = None
        self._connecting = asyncio.Lock()

    def unavailable(self) -> str | None:
        if not self._key:
            reason = "No API key: set OPENAI_API_KEY and restart."
            if self._settings.openai_base_url:
                reason += " The endpoint at OPENAI_BASE_URL is sent one too: any text, if it asks for none."
            return reason
        if not (self._key.isascii() and self._key.isprintable()):
            return "OPENAI_API_KEY holds characters that cannot stand in a header: set it anew and restart."
        return None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Vectors:  # noqa: ARG002 - one embedding for both
        client = await self._connected()
        import openai

        try:
            answer = await client.embeddings.create(
                model=self.info.model,
                # OpenAI refuses an empty string; a space is the nearest text that it takes.
                input=[text or " " for text in texts],
                # The models' own default, sent so that a server which ignores it is found out by the length.
                dimensions=self.info.dimension,
            )
            rows = sorted(answer.data, key=lambda row: row.index)
            if [row.index for row in rows] != list(range(len(rows))):
                raise ValueError("the indexes of the vectors are not 0, 1, 2, …")
            return np.array([row.embedding for row in rows], np.float32)
        # `from None` throughout: the client's errors carry the request, whose headers hold the key.
        except openai.OpenAIError as error:
            raise self._mapped(error) from None
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

        limit, retries = self._settings.inference_timeout_s, self._settings.inference_retries
        # An answer may take the whole limit; a connection gets a share, so that an address which swallows
        # packets is tried again within it.
        timeout = openai.Timeout(limit, connect=limit / (1 + retries))
        url = self._settings.openai_base_url or OPENAI_URL
        try:
            return openai.AsyncOpenAI(api_key=self._key, base_url=url, timeout=timeout, max_retries=retries)
        except Exception as error:
            # Not the error's own text: the address may hold a password.
            reason = f"The OpenAI client does not start ({type(error).__name__}): check OPENAI_BASE_URL."
            raise InferenceUnavailable(reason, service=self.info.name) from None

    def _mapped(self, error: "openai.OpenAIError") -> PgretrieveError:
        name, status = self.info.name, getattr(error, "status_code", None)
        said = self._safe(str(getattr(error, "message", error)))
        match status:
            case 400 | 413 | 422:
                message = f"{name} refused the input (HTTP {status}): {said}"
                return InvalidRequest([Problem(("texts",), "inference_refused", message)], service=name)
            case 401 | 403:
                # Not what the endpoint said: it may quote a part of the key.
                reason = f"the key is refused. Check OPENAI_API_KEY, and that it may use {self.info.model}"
            case 404:
                reason = f"there is no {self.info.model}. Check OPENAI_BASE_URL, which ends with /v1"
            case 429:
                reason = f"rate limit or quota reached: {said}"
            case None:
                cause = type(error).__name__
                reason = f"the endpoint cannot be reached ({cause}). Check the network and OPENAI_BASE_URL"
            case _:
                reason = "the endpoint failed; try again later"
        answered = f" (HTTP {status})" if status else ""
        return InferenceUnavailable(f"{name}{answered}: {reason}.", service=name, status=status)

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "***")[:MAX_PROVIDER_MESSAGE]
