"""Keeps documents by their score."""

from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval import in_sql
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType
from app.retrieval.stages.scored import score_at
from app.retrieval.templates import is_templated


class ScoreThreshold(SqlStage, frozen=True, kw_only=True):
    """Keep the documents whose score, or number at `score_field`, is at least `min_score` (above it: `gt`).

    `min_score` may be a template. A document has no score there where the field is missing, null or no number (an
    array is none); such ones go, unless `missing_score` is `keep`. Order, scores and fields stay. The stage's metadata
    has `all_below_threshold`: documents came, and none of them has a score that is enough.
    """

    stage_id: ClassVar[str] = "score_threshold"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "gauge"
    use_cases: ClassVar[tuple[str, ...]] = ("Answer nothing rather than something irrelevant", "Trust a reranker")
    example: ClassVar[dict[str, Any]] = {"min_score": 0.5}

    min_score: Any
    score_field: str = "score"
    comparison: Literal["gte", "gt"] = "gte"
    missing_score: Literal["drop", "keep"] = "drop"

    def check(self, check: Check) -> None:
        check.field("score_field", self.score_field)
        if not is_templated(self.min_score) and not _is_number(self.min_score):
            check.add("bad_parameter", "min_score is a number, or a template of one.", "min_score")

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        least = to.binds.add(f"{to.prefix}_min_score", sa.Double(), self.min_score, _number, in_sql.NUMBER)
        score = score_at(rows, self.score_field)
        passes = score >= least if self.comparison == "gte" else score > least
        tested = sa.select(rows.rank, passes.label("passes")).select_from(rows.joined).cte(f"{to.prefix}_tested")
        none = sa.func.count().filter(tested.c.passes) == sa.literal_column("0")
        below = sa.select(sa.func.to_jsonb(sa.and_(sa.func.count() > sa.literal_column("0"), none)))
        to.tell("all_below_threshold", below.select_from(tested).scalar_subquery())
        kept = tested.c.passes.is_not(sa.false()) if self.missing_score == "keep" else tested.c.passes
        return rows.select(documents=False).join(tested, tested.c.rank == rows.rank).where(kept)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    if not _is_number(value):
        raise ValueError("min_score is a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("min_score is too large a number") from None
