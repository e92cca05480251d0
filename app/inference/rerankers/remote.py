"""Endpoints that rerank, of the two protocols that there are. Redirects are not followed; no message holds a key."""

from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from app.errors import InferenceUnavailable
from app.inference.base import PassingFailure
from app.inference.endpoint import PASSING, is_header, retry_after
from app.inference.references import resolve
from app.settings import Settings


class TeiOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tei", tag_field="kind"):
    """`POST base_url/rerank` with `{query, texts}`, as Text Embeddings Inference has it."""

    base_url: str
    api_key_ref: str | None = None


class CohereOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cohere", tag_field="kind"):
    """`POST base_url/rerank` with `{model, query, documents}`, as Cohere, Jina, vLLM and others have it."""

    base_url: str
    model: str
    api_key_ref: str | None = None


class Remote:
    """An endpoint that reranks. Redirects are not followed; no message holds its key."""

    remote = True

    def __init__(self, name: str, options: TeiOptions | CohereOptions, settings: Settings) -> None:
        self._name = name
        self._options = options
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        options = self._options
        try:
            answer = await self._connected().post(
                f"{options.base_url.rstrip('/')}/rerank", json=self._body(query, texts)
            )
        except httpx.HTTPError as error:
            message = f"{self._name}: the endpoint cannot be reached ({type(error).__name__})."
            raise PassingFailure(InferenceUnavailable(message, service=self._name)) from None
        if answer.status_code != 200:
            failed = InferenceUnavailable(f"{self._name}: HTTP {answer.status_code}.", service=self._name)
            if answer.status_code in PASSING or answer.status_code >= 500:
                raise PassingFailure(failed, retry_after(answer.headers))
            raise failed
        try:
            return _in_order(answer.json(), len(texts))
        except (ValueError, TypeError, LookupError):
            message = f"{self._name} answered something other than a score for each text."
            raise InferenceUnavailable(message, code="inference_bad_answer", service=self._name) from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _body(self, query: str, texts: Sequence[str]) -> dict[str, Any]:
        if isinstance(self._options, TeiOptions):
            return {"query": query, "texts": list(texts), "truncate": True}
        return {"model": self._options.model, "query": query, "documents": list(texts), "top_n": len(texts)}

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            reference = self._options.api_key_ref
            key = resolve(reference, self._settings) if reference else None
            if key is not None and (not key or not is_header(key)):
                message = f"{self._name}: {reference} is not set, or cannot stand in a header."
                raise InferenceUnavailable(message, service=self._name)
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            # The time limit is that of the call with its retries.
            self._client = httpx.AsyncClient(headers=headers, timeout=self._settings.inference_timeout_s)
        return self._client


def _in_order(answer: Any, count: int) -> list[float]:
    """The scores by their texts' places: of `[{index, score}]` or `{results: [{index, relevance_score}]}`."""
    rows = answer["results"] if isinstance(answer, dict) else answer
    scores = {row["index"]: row["relevance_score"] if "relevance_score" in row else row["score"] for row in rows}
    return [float(scores[place]) for place in range(count)]
