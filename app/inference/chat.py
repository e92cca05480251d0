"""Language models of one endpoint that speaks OpenAI's chat protocol: a prompt in, a text or JSON out."""

from typing import Any, Final

import msgspec

from app.errors import InferenceUnavailable, InvalidRequest, Problem
from app.inference.calling import answered
from app.inference.endpoint import OPENAI_URL, Endpoint, is_header
from app.inference.gate import Gate
from app.retrieval.host import Completion, Prompt
from app.settings import Settings

NAME: Final = "chat"


class Chat:
    """The one way to the endpoint: so many calls at a time, retried, each within `chat_timeout_s`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        own = settings.chat_base_url is not None
        # The key of the `openai_*` services goes to their endpoint and to no other.
        secret = settings.chat_api_key or (None if own else settings.openai_api_key)
        self._key = secret.get_secret_value().strip() if secret else None
        self._base_url = settings.chat_base_url or settings.openai_base_url or OPENAI_URL
        self._gate = Gate(NAME, settings.chat_concurrency, 0, "PGRETRIEVE_CHAT")
        self._endpoint = Endpoint(
            NAME,
            self._base_url,
            self._key,
            key_setting="PGRETRIEVE_CHAT_API_KEY",
            url_setting="PGRETRIEVE_CHAT_BASE_URL",
            timeout=settings.chat_timeout_s,
            tries=1 + settings.inference_retries,
        )

    def unavailable(self) -> str | None:
        if not self._key and self._base_url == OPENAI_URL:
            return "No language model: set PGRETRIEVE_CHAT_BASE_URL, or OPENAI_API_KEY, and restart."
        if self._key and not is_header(self._key):
            return "PGRETRIEVE_CHAT_API_KEY holds characters that cannot stand in a header: set it anew and restart."
        return None

    async def complete(self, prompt: Prompt, limit_s: float) -> Completion:
        """One answer within so many seconds, `chat_timeout_s` at most.

        Raises `InvalidRequest` (`prompt_too_long`; `inference_refused` by the model), `InferenceUnavailable` (not
        set up, down, too slow; `inference_bad_answer`, `inference_busy`).
        """
        reason = self.unavailable()
        if reason and not prompt.api_key:
            raise InferenceUnavailable(reason, service=NAME)
        length, most = len(prompt.text), self._settings.chat_max_prompt_chars
        if length > most:
            message = f"A prompt has {length:,} characters; the limit is {most:,} (PGRETRIEVE_CHAT_MAX_PROMPT_CHARS)."
            raise InvalidRequest([Problem(("prompt",), "prompt_too_long", message)])

        async def once() -> Completion:
            return await self._ask(prompt)

        own = self._settings.chat_timeout_s
        setting = "PGRETRIEVE_CHAT_TIMEOUT_S" if own <= limit_s else "the time that was left"
        return await answered(NAME, once, self._gate, min(own, limit_s), self._settings.inference_retries, setting)

    async def close(self) -> None:
        await self._endpoint.close()

    async def _ask(self, prompt: Prompt) -> Completion:
        client = await self._endpoint.client()
        import openai

        model = prompt.model or self._settings.chat_model
        if prompt.api_key:
            client = client.with_options(api_key=prompt.api_key)
        try:
            answer: Any = await client.post(
                "/chat/completions",
                body=self._body(prompt, model),
                cast_to=object,
                options={} if self._key or prompt.api_key else {"headers": {"Authorization": openai.omit}},
            )
            return _completion(answer, model, as_json=prompt.schema is not None)
        # `from None` throughout: the client's errors carry the request, whose headers hold the key.
        except openai.OpenAIError as error:
            raise self._endpoint.failure(error, model, "prompt", prompt.api_key) from None
        except (ValueError, TypeError, LookupError) as error:
            said = self._endpoint.safe(str(error), prompt.api_key)
            message = f"{model} answered something other than was asked for ({said})."
            raise InferenceUnavailable(message, code="inference_bad_answer", service=NAME) from None

    def _body(self, prompt: Prompt, model: str) -> dict[str, Any]:
        content: Any = prompt.text
        if prompt.images:
            shown = [{"type": "image_url", "image_url": {"url": image}} for image in prompt.images]
            content = [{"type": "text", "text": prompt.text}, *shown]
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        body: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "user", "content": content}]}
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        if prompt.max_tokens is not None:
            # OpenAI's newer models refuse the old name; other servers know no other.
            name = "max_completion_tokens" if self._base_url == OPENAI_URL else "max_tokens"
            body[name] = prompt.max_tokens
        if prompt.schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(prompt.schema)},
            }
        elif prompt.schema is not None:
            body["response_format"] = {"type": "json_object"}
        return body


def _completion(answer: Any, model: str, *, as_json: bool) -> Completion:
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError("there is no text in it")
    cut = choice.get("finish_reason") == "length"
    if as_json and cut:
        raise ValueError("its JSON ended at the limit of tokens")
    usage = answer.get("usage") or {}
    read, written = (
        count if isinstance(count := usage.get(name), int) else 0 for name in ("prompt_tokens", "completion_tokens")
    )
    named = answer.get("model")
    value = _json(text) if as_json else None
    return Completion(text, value, named if isinstance(named, str) else model, read, written, cut)


def _json(text: str) -> Any:
    """The JSON of an answer; some models put it between fences."""
    inner = text.strip()
    if inner.startswith("```"):
        inner = inner.partition("\n")[2].rpartition("```")[0]
    try:
        return msgspec.json.decode(inner)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(f"not JSON: {text[:100]!r}") from None
