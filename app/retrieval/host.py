"""What runs on the host sees: the rows between two statements, and what a stage may ask the service for. Pure."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from app.retrieval.vectors import Vector

T = TypeVar("T")
R = TypeVar("R")

TOKENIZERS = ("cl100k_base", "o200k_base", "minilm_l6_v2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a language model is asked.

    `schema` asks for JSON that fits it; an empty one for any JSON object. `images` are URLs or data URIs.
    `model` is the server's own where it is None, and `api_key` is sent instead of the server's.
    """

    text: str
    system: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    schema: Mapping[str, Any] | None = None
    images: tuple[str, ...] = ()
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What it answered, and the tokens that were counted (0 where the endpoint counts none).

    `value` is the JSON where some was asked for. `cut` says that the answer ended at `max_tokens`.
    """

    text: str
    value: Any
    model: str
    input_tokens: int
    output_tokens: int
    cut: bool


@dataclass(slots=True)
class Row:
    """A document on its way through host stages.

    `fields` are its fields as they are now, JSON. `stored` is what the statement answered beside them (collection_id,
    payload, metadata, created_at, updated_at, vectors…), which no stage changes; None for one that a stage made.
    """

    document_id: str
    score: float | None
    fields: dict[str, Any] = field(default_factory=dict)
    stored: tuple[Any, ...] | None = None

    def get(self, path: str) -> Any:
        """The value of a field by its dotted path, also of `document_id` and `score`; None where it is missing."""
        found: Any = self.fields
        for step in path.split("."):
            if isinstance(found, dict) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                return {"document_id": self.document_id, "score": self.score}.get(path)
        return found

    def put(self, path: str, value: Any) -> None:
        """Set a field; the objects on its path are made where they are missing. No object is changed in place."""
        *above, last = path.split(".")
        self.fields = inner = dict(self.fields)
        for step in above:
            found = inner.get(step)
            inner[step] = dict(found) if isinstance(found, dict) else {}
            inner = inner[step]
        inner[last] = value

    def text(self, path: str) -> str:
        """The same as a text, JSON where it is none; empty where it is missing."""
        value = self.get(path)
        if value is None or isinstance(value, str):
            return value or ""
        return json.dumps(value, ensure_ascii=False)


class Host(Protocol):
    """What a stage may ask for. Every call ends within the time that is left, or raises."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def first(self) -> bool:
        """Whether no stage has run before this one."""
        ...

    @property
    def left_s(self) -> float:
        """Seconds that are left to this execution."""
        ...

    def fill(self, value: Any, row: Row | None = None, **names: Any) -> Any:
        """A parameter with its templates filled in: from the inputs, the row (`DOC`) and further names, lower case.

        Raises `InvalidRequest` where something is missing or does not fit.
        """
        ...

    def tell(self, key: str, value: Any) -> None:
        """What the stage answers beside its rows: shown in its statistics' `metadata`."""
        ...

    def warn(self, message: str) -> None:
        """A line of the answer's `warnings`."""
        ...

    async def each(
        self, work: Callable[[T], Awaitable[R]], items: Sequence[T], *, concurrency: int
    ) -> list[R | Exception]:
        """The results in the order of the items, so many at a time; what one raises stands in its place."""
        ...

    async def embed(self, service: str, text: str, task: Literal["query", "document"]) -> Vector: ...

    async def rerank(self, name: str | None, query: str, texts: Sequence[str], limit_s: float) -> list[float]:
        """A score for each text by the reranker of that name; None is the one that is built in."""
        ...

    async def chat(self, prompt: Prompt, limit_s: float | None = None) -> Completion:
        """One answer of a language model; what it cost is told under `llm`. Bounded by the budget of a stage."""
        ...

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any = None,
        limit_s: float,
        max_bytes: int | None,
        domains: Sequence[str],
        secret: bool,
        per_minute: int | None = None,
    ) -> tuple[int, bytes]:
        """Status and content of the answer of a public server in these domains; `secret`: the request holds one."""
        ...

    async def cut(self, tokenizer: str, text: str, most: int | None = None) -> tuple[str, int]:
        """The text, or the beginning of it that has at most so many tokens, and how many it has."""
        ...

    async def lookup(
        self, name: str, values: Sequence[Mapping[str, Any]], limit_s: float
    ) -> list[list[dict[str, Any]]]:
        """The rows that a stored look-up finds for each of these values, in one statement."""
        ...

    async def matching(self, condition: Any, rows: Sequence[Row]) -> list[bool]:
        """Which of the rows a filter keeps, in either filter language, decided by the database."""
        ...

    async def run(self, stages: Sequence[Any], rows: Sequence[Row] | None, inputs: Mapping[str, Any]) -> list[Row]:
        """The rows that SQL stages (`SqlStage`) answer, from these rows or from the whole namespace."""
        ...
