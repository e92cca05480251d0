"""Orders documents by a field."""

from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval.catalog import Fields
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType, whole_namespace


class SortAttribute(SqlStage, frozen=True, kw_only=True):
    """Order the documents by a field's JSON value; those that tie keep the order that they came in.

    Numbers sort as numbers, strings by code point, and values of different types by PostgreSQL's order of jsonb.
    A missing field and a JSON null are nulls: last unless `nulls_last` is false.
    """

    stage_id: ClassVar[str] = "sort_attribute"
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "arrow-up-down"
    use_cases: ClassVar[tuple[str, ...]] = ("Newest or cheapest first", "A stable order without a search")
    example: ClassVar[dict[str, Any]] = {"field": "price", "direction": "asc"}

    field: str = "metadata.created_at"
    direction: Literal["asc", "desc"] = "desc"
    nulls_last: bool = True

    def check(self, check: Check) -> None:
        if not self.field or "\0" in self.field or len(self.field) > 255:
            check.add("bad_field", "A field is a dotted path of 1 to 255 characters.", "field")

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        documents = to.catalog.documents
        if source is None:
            everywhere = to.where_parsed(to.everywhere, documents, "request_filter")
            source = whole_namespace(to, *everywhere).cte(f"{to.prefix}_documents")
        target, path = Fields(documents)(self.field)
        steps = to.binds.add(f"{to.prefix}_field", sa.ARRAY(sa.Text), list(path))
        # A JSON null is a null: it has no place among values.
        value = sa.func.nullif(target.op("#>")(steps), sa.text("'null'::jsonb"))
        by = value.desc() if self.direction == "desc" else value.asc()
        by = by.nulls_last() if self.nulls_last else by.nulls_first()
        rank = sa.func.row_number().over(order_by=[by, source.c.rank]).label("rank")
        joined = source.join(documents, documents.c.document_id == source.c.document_id)
        return sa.select(source.c.document_id, source.c.score, rank).select_from(joined)
