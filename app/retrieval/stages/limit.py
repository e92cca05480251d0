"""Keeps a window of the rows."""

from typing import Any, ClassVar

import sqlalchemy as sa

from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType


class Limit(SqlStage, frozen=True, kw_only=True):
    """Keep `limit` rows (1 to 10,000) after the first `offset`, in the order that they came in."""

    stage_id: ClassVar[str] = "limit"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "list-end"
    use_cases: ClassVar[tuple[str, ...]] = ("Answer the best few only", "Skip what was shown before")
    example: ClassVar[dict[str, Any]] = {"limit": 10, "offset": 0}

    limit: int = 10
    offset: int = 0

    def check(self, check: Check) -> None:
        check.range("limit", self.limit, 1, 10_000)
        check.range("offset", self.offset, 0, 10_000)

    def most_rows(self) -> int:
        return self.limit

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        kept = rows.select(documents=False).order_by(rows.rank)
        return kept.limit(constant(self.limit)).offset(constant(self.offset))
