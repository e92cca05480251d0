"""An endpoint on 127.0.0.1 that speaks OpenAI's protocol: embeddings (texts that share words get near vectors) and
chat; and two protocols of rerankers.

with OpenAIServer() as server:
    settings = settings_of(openai_api_key=server.key, openai_base_url=server.base_url)
"""

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
import uvicorn
from numpy.typing import NDArray

Answer = Literal["right", "reversed", "same_index", "wrong_length", "ragged", "nan", "too_few", "empty", "not_json"]
Message = MutableMapping[str, Any]
Vector = NDArray[np.float32]

DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
CHAT_MODELS = ("gpt-4o-mini", "gpt-4o")
OTHER_KEY = "sk-brought-0123456789"
MAX_INPUTS = 2048
MAX_TOKENS = 8192  # words here


class OpenAIServer:
    """A context manager. What is set on it applies to later requests; `requests` are the bodies that came."""

    def __init__(self, key: str = "sk-test-0123456789abcdef") -> None:
        self.key = key
        self.requests: list[dict[str, Any]] = []
        self.answered: list[str] = []
        """The texts of embeddings that were answered rightly, and at once."""
        self.statuses: list[int] = []
        """A status for each of the next requests; then the last one stays. Empty: all is well."""
        self.quote_key = False
        """Whether an error of `statuses` quotes the key that came."""
        self.answer: Answer = "right"
        self.model_number = 0
        """Another number is another model, under the same name."""
        self.keys: list[str] = []
        """The keys that came."""
        self.chat: Callable[[str, dict[str, Any]], Any] = echo
        """What a model answers to a prompt and the whole request: a text, or JSON."""
        self.retry_after_ms: int | None = 1
        """What errors ask clients to wait; short, so that retries are."""
        self.hold: threading.Event | None = None
        """Each request waits for it; set when the server stops."""
        self.came = threading.Event()
        """Set when a request has come, before it waits for `hold`."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            ws="none",
            interface="asgi3",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        # The socket listens already: a request that comes before the thread runs waits in its queue.
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _app(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        hold = self.hold
        if hold is not None:
            self.came.set()
            await asyncio.to_thread(hold.wait)
        key = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        status, content = self._respond(f"{scope['method']} {scope['path']}", key, body)
        if status == 200 and self.answer == "right" and scope["path"] == "/v1/embeddings" and hold is None:
            self.answered += json.loads(body)["input"]
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_ms is not None:
            headers.append((b"retry-after-ms", str(self.retry_after_ms).encode()))
        if self.answer == "not_json":
            content, headers = b"<html>A proxy's page</html>", [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _respond(self, route: str, key: str, body: bytes) -> tuple[int, bytes]:
        if route not in ("POST /v1/embeddings", "POST /v1/chat/completions", "POST /v1/rerank", "POST /tei/rerank"):
            return _error(404, f"Invalid URL ({route})")
        request = json.loads(body)
        self.requests.append(request)
        if self.statuses:
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            if status >= 300:
                return _error(status, f"Told to fail. Key: {key}" if self.quote_key else "Told to fail.")
        self.keys.append(key)
        if key not in (self.key, OTHER_KEY):
            return _error(401, f"Incorrect API key provided: {key}.")
        if route == "POST /v1/chat/completions":
            return self._chat(request)
        if route.endswith("/rerank"):
            return self._rerank(request)
        if request.get("model") not in DIMENSIONS:
            return _error(404, f"The model `{request.get('model')}` does not exist.")
        texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
        if problem := _problem(texts):
            return _error(400, problem)
        return 200, json.dumps(self._embeddings(texts, request)).encode()

    def _chat(self, request: dict[str, Any]) -> tuple[int, bytes]:
        if request.get("model") not in CHAT_MODELS:
            return _error(404, f"The model `{request.get('model')}` does not exist.")
        said = request["messages"][-1]["content"]
        prompt = said if isinstance(said, str) else said[0]["text"]
        answer = self.chat(prompt, request)
        content = answer if isinstance(answer, str) else json.dumps(answer)
        most = request.get("max_tokens") or request.get("max_completion_tokens") or 10_000
        words = content.split(" ")
        choice = {
            "index": 0,
            "finish_reason": "length" if len(words) > most else "stop",
            "message": {"role": "assistant", "content": " ".join(words[:most])},
        }
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": min(len(words), most)}
        return 200, json.dumps({"model": request["model"], "choices": [choice], "usage": usage}).encode()

    def _rerank(self, request: dict[str, Any]) -> tuple[int, bytes]:
        """More of the query's words is better; in the order of the scores, as servers answer."""
        words = set(request["query"].lower().split())
        texts = request.get("documents") or request["texts"]
        scores = [len(words & set(text.lower().split())) / (1 + len(words)) for text in texts]
        places = sorted(range(len(texts)), key=lambda place: -scores[place])
        if self.answer == "too_few":
            places = places[1:]
        if "texts" in request:
            return 200, json.dumps([{"index": n, "score": scores[n]} for n in places]).encode()
        results = [{"index": n, "relevance_score": scores[n]} for n in places]
        return 200, json.dumps({"results": results}).encode()

    def _embeddings(self, texts: list[str], request: dict[str, Any]) -> dict[str, Any]:
        dimension = request.get("dimensions") or DIMENSIONS[request["model"]]
        texts = [f"{text}{f' {self.model_number}' * 9 * self.model_number}" for text in texts]
        vectors = [embedded(text, DIMENSIONS[request["model"]], dimension) for text in texts]
        match self.answer:
            case "wrong_length":
                vectors = [vector[:-1] for vector in vectors]
            case "ragged":
                vectors[-1] = vectors[-1][:-1]
            case "nan":
                vectors[-1] = vectors[-1] * np.float32("nan")
            case "too_few":
                vectors = vectors[:-1]
            case "empty":
                vectors = []
        as_text = request.get("encoding_format") == "base64"
        data: list[dict[str, Any]] = [
            {
                "object": "embedding",
                "index": 0 if self.answer == "same_index" else index,
                "embedding": base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        if self.answer == "reversed":
            data.reverse()
        words = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": words, "total_tokens": words}
        return {"object": "list", "data": data, "model": request["model"], "usage": usage}


def echo(prompt: str, request: dict[str, Any]) -> Any:
    """The prompt's first 20 words, in an object where JSON is asked for."""
    said = " ".join(prompt.split()[:20])
    return {"said": said} if "response_format" in request else said


def embedded(text: str, full: int, dimension: int) -> Vector:
    """A hashed bag of words, projected: shape (dimension,), length 1. Words of three letters count little."""
    words = re.findall(r"\w+", text.lower()) or [""]
    total = np.sum([_word(word, full) * (1.0 if len(word) > 3 else 0.1) for word in words], axis=0)
    cut: Vector = total[:dimension].astype(np.float32)
    unit: Vector = cut / np.linalg.norm(cut)
    return unit


@lru_cache(maxsize=4096)
def _word(word: str, dimension: int) -> Vector:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)


def _problem(texts: list[str]) -> str | None:
    if not texts or len(texts) > MAX_INPUTS or not all(isinstance(text, str) and text for text in texts):
        return "'$.input' is invalid."
    if any(len(text.split()) > MAX_TOKENS for text in texts):
        return f"This model's maximum context length is {MAX_TOKENS} tokens. Please reduce your prompt."
    return None


def _error(status: int, message: str) -> tuple[int, bytes]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return status, json.dumps({"error": error}).encode()
