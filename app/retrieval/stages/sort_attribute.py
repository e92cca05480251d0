"""Orders documents by a field."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType


class SortAttribute(SqlStage, frozen=True, kw_only=True):
    """Order the documents by a field's JSON value; those that tie keep the order that they came in.

    Numbers sort as numbers, strings by code point, and values of different types by PostgreSQL's order of jsonb.
    A missing field and a JSON null are nulls: last unless `nulls_last` is false.
    """

    stage_id: ClassVar[str] = "sort_attribute"
    aliases: ClassVar[Mapping[str, str]] = {"sort_field": "field", "order": "direction"}
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "arrow-up-down"
    use_cases: ClassVar[tuple[str, ...]] = ("Newest or cheapest first", "A stable order without a search")
    example: ClassVar[dict[str, Any]] = {"field": "price", "direction": "asc"}

    field: str = "metadata.created_at"
    direction: Literal["asc", "desc"] = "desc"
    nulls_last: bool = True

    def check(self, check: Check) -> None:
        check.field("field", self.field)

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        value = rows.value(self.field, "field")
        by = value.desc() if self.direction == "desc" else value.asc()
        by = by.nulls_last() if self.nulls_last else by.nulls_first()
        return rows.select(rank=sa.func.row_number().over(order_by=[by, rows.rank]))
