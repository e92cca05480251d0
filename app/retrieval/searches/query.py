"""What is searched for: the query of a search in each of its modes, checked, and read when the inputs are there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from app.errors import Problem
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.templates import is_templated
from app.retrieval.vectors import Value, Vector, as_query, mean_of, random_query

if TYPE_CHECKING:  # else a circle: stages are made of searches
    from app.retrieval.stages.base import Check, Limits

Mode = Literal["text", "vector", "content", "document", "multi_content"]
OnEmpty = Literal["error", "skip", "random"]

# The parameters that a query of each mode may hold, of which it takes one; the later ones are older names.
CARRIERS: dict[Mode, tuple[str, ...]] = {
    "text": ("value", "text"),
    "vector": ("value", "vector"),
    "content": ("value", "content"),
    "document": ("document_ref",),
    "multi_content": ("values",),
}
ADDRESS = re.compile(r"(https?|s3)://|data:[\w/+.;=-]*,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Content:
    """What a service embeds that is no text: a URL, a data URI, or base64."""

    given: str


class DocumentRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stored document whose vector is the query."""

    document_id: Any = None
    collection_id: Any = None


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is searched for. `vector`: a list of numbers, `{indices, values}`, a list of vectors, or a template of one;
    `text`: words that the index's inference service embeds; `content`: an image that it embeds, by a URL, a data URI or
    base64 (or a list of numbers); `multi_content`: several texts, URLs, data URIs or vectors, whose mean is searched
    for; `document`: a stored document's vector."""

    input_mode: Mode = "text"
    value: Any = None
    text: Any = None
    vector: Any = None
    values: Any = None
    content: Any = None
    document_ref: DocumentRef | None = None
    embedding_task: Literal[
        "retrieval_query", "retrieval_document", "semantic_similarity", "classification", "none"
    ] = "retrieval_query"

    def given(self) -> Any:
        """What is searched for, by its present name or the older one; of a document its id."""
        if self.input_mode == "document":
            return self.document_ref.document_id if self.document_ref is not None else None
        carriers = [getattr(self, name) for name in CARRIERS[self.input_mode]]
        given = next((value for value in carriers if value is not None), None)
        if self.input_mode == "content" and isinstance(given, dict) and len(given) == 1:
            return given.get("url") or given.get("base64")  # an older form
        return given

    @property
    def embeds(self) -> bool:
        """Whether texts or contents in it are embedded."""
        return self.input_mode in ("text", "content", "multi_content")


def query_of(raw: Any) -> Query:
    """The query; a bare string is text, a bare list or `{indices, values}` a vector; `msgspec.ValidationError`."""
    if isinstance(raw, dict) and raw.keys() != {"indices", "values"}:
        return msgspec.convert(raw, Query)
    return Query(input_mode="vector" if isinstance(raw, list | dict) else "text", value=raw)


def is_empty(raw: Any) -> bool:
    """Whether there is nothing to search for: null, an empty list, or a text without a letter."""
    if isinstance(raw, str):
        return not raw.strip()
    return raw is None or (isinstance(raw, list | dict) and (not raw or raw == {"indices": [], "values": []}))


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns a query that is filled in into what the statement takes: None is a search that is skipped."""

    mode: Mode
    config: VectorConfig | None  # None: the text or the id itself is what the statement takes
    on_empty: OnEmpty
    most: int  # vectors or texts in one query

    def __call__(self, raw: Any) -> Value | str | None:
        if self.mode == "multi_content" and isinstance(raw, list):
            raw = [item for item in raw if not is_empty(item)]
        if is_empty(raw):
            if self.on_empty == "error":
                raise ValueError("the query is empty; `on_empty` says what is done without one")
            return random_query(self.config) if self.on_empty == "random" and self.config is not None else None
        if self.config is None:
            return _text(raw, self.mode)
        if self.mode == "content" and isinstance(raw, str | dict):
            raise ValueError(f"the index {self.config.name!r} is mapped to no inference service: send a vector")
        if self.mode == "multi_content":
            raw = self._mean(raw, self.config)
        if isinstance(raw, list) and isinstance(raw[0], list) and len(raw) > self.most:
            raise ValueError(f"it has {len(raw)} vectors, and {self.most} are the most of a query")
        return as_query(raw, self.config)

    def _mean(self, raw: Any, config: VectorConfig) -> Any:
        if not isinstance(raw, list) or len(raw) > self.most:
            raise ValueError(f"`values` is a list of 1 to {self.most} texts or vectors")
        if any(isinstance(item, str) for item in raw):
            raise ValueError(f"the index {config.name!r} is mapped to no inference service, so its values are vectors")
        return mean_of(raw, config)


def reader(query: Query, config: VectorConfig | None, on_empty: OnEmpty, limits: "Limits") -> Reader:
    """Of a query in this index, or (None) in the words of documents."""
    most = limits.contents if query.input_mode == "multi_content" else limits.query_vectors
    return Reader(query.input_mode, None if query.input_mode == "document" else config, on_empty, most)


def _text(raw: Any, mode: Mode) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{'a document_id' if mode == 'document' else 'a text query'} is a string")
    if mode == "document" and "\0" in raw:
        raise ValueError("no document_id holds \\0")
    return raw


# Embedding


def to_embed(filled: Any, mode: Mode, several: int) -> dict[str, str | Content]:
    """What is to be embedded of a query, each once: of a list of `several` items at most, or (0) the text or content
    itself. ValueError where it holds what cannot be."""
    if is_empty(filled) or (mode == "content" and isinstance(filled, list)):
        return {}
    if mode == "content":
        return {filled: _content(filled)}
    if not several:
        return {filled: _text(filled, "text")}
    if not isinstance(filled, list) or len(filled) > several:
        raise ValueError(f"`values` is a list of 1 to {several} texts or vectors")
    texts = [item for item in filled if isinstance(item, str) and item.strip()]
    return {text: Content(text) if ADDRESS.match(text) else text for text in texts}


def with_vectors(filled: Any, vectors: Mapping[str, Vector]) -> Any:
    """The query with vectors in the place of its texts and contents."""
    if isinstance(filled, list):
        return [vectors.get(item, item) if isinstance(item, str) else item for item in filled]
    return vectors.get(filled, filled) if isinstance(filled, str) else filled


def _content(raw: Any) -> Content:
    if not isinstance(raw, str):
        raise ValueError("content is a URL, a data URI or base64, or a list of numbers")
    return Content(raw)


# Checking


def check_query(
    check: "Check", query: Query, config: VectorConfig | None, on_empty: OnEmpty, path: tuple[str | int, ...]
) -> None:
    """Add what is wrong with a query as it is written; `config` is None where no vectors are searched."""
    mode = query.input_mode
    carriers = CARRIERS[mode]
    for name in ("value", "text", "vector", "values", "content", "document_ref"):
        if getattr(query, name) is not None and name not in carriers:
            check.add("bad_query", f"A query of input_mode {mode!r} takes no `{name}`.", *path, name)
    if config is None and mode != "text":
        check.add("bad_query", "A lexical search takes a query of input_mode 'text'.", *path, "input_mode")
        return
    if mode == "document" and on_empty == "random":
        message = "`on_empty: random` is not offered for documents; use skip or error."
        check.add("not_offered", message, *path[:-1], "on_empty")
    raw = query.given()
    if raw is None and on_empty == "error":
        needed = "`document_ref: {document_id}`" if mode == "document" else f"a `{carriers[0]}`"
        check.add("bad_query", f"A query of input_mode {mode!r} needs {needed}.", *path, carriers[0])
        return
    if query.embeds and config is not None and (problem := _unembeddable(check.catalog, config, raw, mode)):
        check.add(problem.code, problem.message, *path, "input_mode")
    elif not is_templated(raw):
        _check_literal(check, query, reader(query, config, on_empty, check.limits), path)


def _check_literal(check: "Check", query: Query, read: Reader, path: tuple[str | int, ...]) -> None:
    raw, place = query.given(), (*path, CARRIERS[query.input_mode][0])
    try:
        if query.embeds and read.config is not None:
            raw = _embedded_as_ones(raw, query.input_mode, read.config)
        read(raw)
    except ValueError as error:
        vector = query.input_mode == "vector" or (query.input_mode == "content" and isinstance(query.given(), list))
        code = "bad_vector" if vector else "bad_query"
        check.add(code, f"The query {'vector ' if code == 'bad_vector' else ''}does not fit: {error}.", *place)


def _embedded_as_ones(raw: Any, mode: Mode, config: VectorConfig) -> Any:
    """The texts and contents of a query as vectors that fit, so that what stands beside them is checked."""
    ones = np.ones(config.dimension, np.float32)
    if mode == "content":
        return ones if not isinstance(raw, list) and _content(raw) else raw
    if mode == "multi_content" and isinstance(raw, list):
        return [ones if isinstance(item, str) and item.strip() else item for item in raw]
    return ones if isinstance(raw, str) and raw.strip() else _text(raw, mode)


def _unembeddable(catalog: Catalog, config: VectorConfig, raw: Any, mode: Mode) -> Problem | None:
    """Why the texts or contents of a query cannot be embedded; a template in a list, or of content, may be a vector."""
    if mode == "content" and (isinstance(raw, list) or is_templated(raw)):
        return None
    if mode == "multi_content" and not (isinstance(raw, list) and any(isinstance(item, str) for item in raw)):
        return None
    return text_refusal(catalog, config)


def text_refusal(catalog: Catalog, config: VectorConfig) -> Problem | None:
    """Why text or content cannot be a query of this index yet, with the remedy; None where it can."""
    if config.name in catalog.inference_map:
        return None
    if catalog.mode == "standalone":
        message = (
            f"Neither text nor content can be searched for in the standalone namespace {catalog.namespace_id!r}: "
            f"query with vectors, or promote it (POST /v1/namespaces/{catalog.namespace_id}/promote) with a "
            f"vector_mappings entry for {config.name!r}."
        )
        return Problem((), "text_needs_promotion", message)
    mapped = ", ".join(repr(name) for name in catalog.inference_map) or "none"
    message = (
        f"The index {config.name!r} is mapped to no inference service, so neither text nor content can be its query: "
        f"query it with a vector, or search a mapped index ({mapped})."
    )
    return Problem((), "text_needs_service", message)
