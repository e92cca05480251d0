"""Orders documents by a score."""

from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType
from app.retrieval.stages.scored import Float, score_at


class SortRelevance(SqlStage, frozen=True, kw_only=True):
    """Order the documents by their score, or by the number at `score_field`; those that tie keep their order.

    A document has no score there where the field is missing, null or no number (an array is none). `missing_score`
    says where such ones go: to the `bottom`, to the `top`, or nowhere (`preserve`): they keep their places, and the
    others are sorted into the places between them. Scores and fields stay as they are.
    """

    stage_id: ClassVar[str] = "sort_relevance"
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "arrow-down-wide-narrow"
    use_cases: ClassVar[tuple[str, ...]] = ("Order by a score that an earlier stage wrote", "Best first after grouping")
    example: ClassVar[dict[str, Any]] = {"score_field": "scores.rerank", "direction": "desc"}
    not_offered: ClassVar[frozenset[str]] = frozenset({"feature_address"})

    score_field: str = "score"
    direction: Literal["asc", "desc"] | None = "desc"
    missing_score: Literal["bottom", "top", "preserve"] = "bottom"

    def check(self, check: Check) -> None:
        check.field("score_field", self.score_field)

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        value = score_at(rows, self.score_field)
        by = value.asc() if self.direction == "asc" else value.desc()
        if self.missing_score == "preserve":
            return _preserving(rows, value, by)
        by = by.nulls_last() if self.missing_score == "bottom" else by.nulls_first()
        rank = sa.func.row_number().over(order_by=[by, rows.rank])
        return rows.select(documents=self.score_field != "score", rank=rank)


def _preserving(rows: Rows, value: Float, by: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of those with a score the best gets the first's rank, and so on; of the others, each its own."""
    number, missing = sa.func.row_number(), value.is_(None)
    place = number.over(partition_by=missing, order_by=rows.rank).label("place")
    goal = number.over(partition_by=missing, order_by=[by, rows.rank]).label("goal")
    found = sa.select(rows.rank, missing.label("missing"), place, goal).select_from(rows.joined)
    places = found.cte(f"{rows.to.prefix}_places")
    there = places.alias("there")
    moves = sa.and_(there.c.missing == places.c.missing, there.c.place == places.c.goal)
    return rows.select(documents=False, rank=there.c.rank).join(places, places.c.rank == rows.rank).join(there, moves)
