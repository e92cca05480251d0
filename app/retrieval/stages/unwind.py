"""Takes arrays apart: a row for each element."""

from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.retrieval.aggregates import EMPTY_LIST
from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType
from app.retrieval.stages.scored import check_output

MOST_ROWS = 10_000

ARRAY = sa.literal_column("'array'", sa.Text())


class Unwind(SqlStage, frozen=True, kw_only=True):
    """Make of each document one row for each element of the array at `field`, in their order.

    The element takes the array's place, or stands at `output_field`, and the array stays. `include_array_index` names
    a field for its index, from 0. A value that is no array stands for itself, with a null index; an element that is
    null is an element. Documents where the field is missing, null or an empty array are dropped, unless
    `preserve_null_and_empty`: then they go on as they are, with a null index.

    Rows of one document share its `document_id` and score. 10,000 rows go on at most; `truncated` in the stage's
    metadata says that there were more.
    """

    stage_id: ClassVar[str] = "unwind"
    stage_type: ClassVar[StageType] = "apply"
    category: ClassVar[str] = "apply"
    icon: ClassVar[str] = "ungroup"
    use_cases: ClassVar[tuple[str, ...]] = ("Count results by each of their tags", "One result for each segment")
    example: ClassVar[dict[str, Any]] = {"field": "tags", "output_field": "tag", "include_array_index": "tag_index"}

    field: str
    preserve_null_and_empty: bool = False
    include_array_index: str | None = None
    output_field: str | None = None

    @property
    def output(self) -> str:
        return self.output_field or self.field

    def check(self, check: Check) -> None:
        check.field("field", self.field)
        check_output(check, "field" if self.output_field is None else "output_field", self.output)
        if self.include_array_index is not None:
            check_output(check, "include_array_index", self.include_array_index)
            one, other = f"{self.include_array_index}.", f"{self.output}."
            if one.startswith(other) or other.startswith(one):
                message = f"The index needs a field of its own, apart from {self.output!r}."
                check.add("bad_parameter", message, "include_array_index")

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = self._taken(to.rows(source), to)
        elements = self._elements(rows.source, to)
        cut = sa.select(sa.func.to_jsonb(sa.func.count() > constant(MOST_ROWS))).select_from(elements)
        to.tell("truncated", cut.scalar_subquery())
        values: dict[str, sa.ColumnElement[Any]] = {self.output: elements.c.element}
        without = rows.fields
        if self.include_array_index is not None:
            values[self.include_array_index] = sa.func.to_jsonb(elements.c.index)
            without = rows.with_field(self.include_array_index, sa.cast(sa.null(), JSONB))
        fields = rows.with_fields(values)
        if self.preserve_null_and_empty:
            fields = sa.case((elements.c.element.is_not(None), fields), else_=without)
        kept = rows.select(rank=elements.c.place, fields=fields).join(elements, elements.c.rank == rows.rank)
        return kept.where(elements.c.place <= constant(MOST_ROWS))

    def _taken(self, rows: Rows, to: Lowering) -> Rows:
        """The rows with their values beside them. Where elements take the array's place, it is taken out of the fields
        here, once: to copy it for each element took 20 s for 10,000 of them, this 0.6 s."""
        value = rows.value(self.field, "field")
        kind = sa.func.jsonb_typeof(value)
        fields = rows.fields
        if self.output_field is None:
            path = to.binds.add(f"{to.prefix}_field", sa.ARRAY(sa.Text), self.field.split("."))
            filled = sa.and_(kind == ARRAY, value != EMPTY_LIST)
            fields = sa.case((filled, fields.op("#-", return_type=JSONB())(path)), else_=fields)
        taken = rows.select(value.label("value"), kind.label("kind"), fields=fields)
        return Rows(taken.cte(f"{to.prefix}_taken"), to)

    def _elements(self, values: sa.CTE, to: Lowering) -> sa.CTE:
        """For each element its row's rank, its index, and its place among all, at most one more than go on."""
        is_array = values.c.kind == ARRAY
        alone = sa.case((values.c.value.is_not(None), sa.func.jsonb_build_array(values.c.value)))
        listed = sa.func.jsonb_array_elements(sa.case((is_array, values.c.value), else_=alone))
        each = listed.table_valued(sa.column("element", JSONB), with_ordinality="number", name="each")
        each = each.render_derived()
        place = sa.func.row_number().over(order_by=[values.c.rank, each.c.number]).label("place")
        index = sa.case((is_array, each.c.number - constant(1))).label("index")
        joined = values.join(each, sa.true(), isouter=self.preserve_null_and_empty)
        elements = sa.select(values.c.rank, each.c.element, index, place).select_from(joined)
        return elements.order_by(place).limit(constant(MOST_ROWS + 1)).cte(f"{to.prefix}_elements")
