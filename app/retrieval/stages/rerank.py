"""Puts the first rows into the order of a reranker, which reads query and document together."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import msgspec

from app.errors import InferenceUnavailable, InvalidRequest, Problem
from app.retrieval.host import Host, Row
from app.retrieval.stages.base import Check, HostStage, StageType
from app.retrieval.stages.hosted import check_text, given

HARD_LIMIT_MS = 10_000


class Rerank(HostStage, frozen=True, kw_only=True):
    """Score the first `max_candidates` documents (null: all) for `query` with a reranker, and order them by it.

    `inference_name` is a reranker of this server; the default, `late_interaction`, compares MiniLM's token vectors of
    query and document, and needs no further model. Others are cross-encoders in ONNX and HTTP endpoints, named by
    `PGRETRIEVE_RERANKERS`. Read is `document_field`, its first `max_document_chars` characters. The score stands in
    `score_field` and becomes the document's score. Documents past `max_candidates`, and those without a text, follow
    in their order, without a score; `top_k` cuts the whole. What is not done within `hard_timeout_ms` (10 s at most)
    leaves the order as it came, with a warning.
    """

    stage_id: ClassVar[str] = "rerank"
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "arrow-up-narrow-wide"
    use_cases: ClassVar[tuple[str, ...]] = ("A better first hit", "Precision after a wide search")
    example: ClassVar[dict[str, Any]] = {"query": "{{INPUT.query}}", "document_field": "title", "top_k": 10}
    aliases: ClassVar[dict[str, str]] = {"model": "inference_name", "top_n": "top_k"}
    defaults: ClassVar[dict[str, Any]] = {"query": "{{INPUT.query}}"}
    not_offered: ClassVar[frozenset[str]] = frozenset(
        {"feature_uri", "decision_model", "relevance_criteria", "learning_config"}
    )

    inference_name: str | None = None
    query: Any = None
    document_field: str = "content"
    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_candidates: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = 10
    score_field: str = "scores.rerank"
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 32
    max_document_chars: Annotated[int, msgspec.Meta(ge=100, le=50_000)] = 2_000
    max_concurrent_batches: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    hard_timeout_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def check(self, check: Check) -> None:
        check_text(check, "query", self.query)
        check.field("document_field", self.document_field)
        check.output("score_field", self.score_field)

    def most_rows(self) -> int | None:
        return self.top_k

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        query = host.fill(self.query)
        if not isinstance(query, str):
            raise InvalidRequest([Problem(("body", "inputs"), "bad_input", "The query of rerank is a text.")])
        texts = [row.text(self.document_field)[: self.max_document_chars] for row in rows[: self.max_candidates]]
        read = [row for row, text in zip(rows, texts, strict=False) if text.strip()]
        scores = await self._scores(query, [text for text in texts if text.strip()], host)
        if scores is None:
            return rows[: self.top_k]
        for row, score in zip(read, scores, strict=True):
            row.score = score
            row.put(self.score_field, score)
        ranked = sorted(read, key=lambda row: -(row.score or 0.0))
        scored = {id(row) for row in read}
        rest = [row for row in rows if id(row) not in scored]
        for row in rest:
            row.score = None  # of another scale
        host.tell("reranked", len(ranked))
        return [*ranked, *rest][: self.top_k]

    async def _scores(self, query: str, texts: Sequence[str], host: Host) -> list[float] | None:
        """A score for each text, or None when the time is over."""
        limit_s = min(self.hard_timeout_ms or HARD_LIMIT_MS, HARD_LIMIT_MS) / 1000
        until = host.left_s - limit_s

        async def scored(batch: Sequence[str]) -> list[float]:
            return await host.rerank(given(self.inference_name), query, batch, max(host.left_s - until, 0.001))

        batches = [texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)]
        results = await host.each(scored, batches, concurrency=self.max_concurrent_batches)
        for result in results:
            if isinstance(result, Exception):
                if isinstance(result, InferenceUnavailable) and host.left_s <= until:
                    host.tell("timed_out", True)
                    host.warn(f"rerank did not end within {limit_s:g} s: the order is the one before it.")
                    return None
                raise result
        return [score for batch in results if not isinstance(batch, Exception) for score in batch]
