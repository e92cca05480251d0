"""Keeps documents by their fields."""

from typing import Any, ClassVar

import sqlalchemy as sa

from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType, whole_namespace


class AttributeFilter(SqlStage, frozen=True, kw_only=True):
    """Keep the documents whose fields satisfy a condition; order and scores stay as they are.

    Either `field`, `operator` (default `eq`) and `value`, or `conditions` in either filter language
    (`{"AND": [...]}` or `{"must": [...]}`). As the first stage it starts from every document of the namespace.
    `case_insensitive` compares strings without regard to case. `batch_size` is accepted and has no effect: the
    filter runs in the database, on all rows.
    """

    stage_id: ClassVar[str] = "attribute_filter"
    stage_type: ClassVar[StageType] = "filter"
    category: ClassVar[str] = "filter"
    icon: ClassVar[str] = "filter"
    use_cases: ClassVar[tuple[str, ...]] = ("Keep one category, tenant or time span", "Browse without a search")
    example: ClassVar[dict[str, Any]] = {"field": "category", "operator": "eq", "value": "{{INPUT.category}}"}
    not_offered: ClassVar[frozenset[str]] = frozenset({"natural_language", "field_hints"})

    field: str | None = None
    operator: str = "eq"
    value: Any = None
    conditions: Any = None
    case_insensitive: bool = False
    batch_size: int = 100

    def condition(self) -> Any:
        if self.conditions is not None:
            return self.conditions
        return {"field": self.field, "operator": self.operator, "value": self.value}

    def check(self, check: Check) -> None:
        if (self.field is None) == (self.conditions is None):
            check.add("bad_filter", "Give either `field` (with `operator` and `value`) or `conditions`.")
            return
        check.filter(self.condition(), *(("conditions",) if self.conditions is not None else ()))

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        if source is None:
            documents, served = to.catalog.documents, to.served()
            to.note(to.parsed(self.condition()), to.everywhere)
            where = served.where(self.condition(), documents, "filter", case_insensitive=self.case_insensitive)
            return whole_namespace(to, *where, *served.where_parsed(to.everywhere, documents, "request_filter"))
        rows = to.rows(source)
        return rows.select().where(
            *to.where(self.condition(), rows.get, "filter", case_insensitive=self.case_insensitive)
        )
