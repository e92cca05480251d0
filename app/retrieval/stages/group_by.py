"""Gathers documents that share a field's value."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType
from app.retrieval.stages.scored import score_at

# The names in the answer.
DOCUMENT_ID = sa.literal_column("'document_id'", sa.Text())
COLLECTION_ID = sa.literal_column("'collection_id'", sa.Text())
SCORE = sa.literal_column("'score'", sa.Text())


class GroupBy(SqlStage, frozen=True, kw_only=True):
    """Gather the documents that have the same value at `group_by_field`, the best `max_per_group` (1 to 1,000) of each.

    `all` answers one row for each group: its best document, with the fields `group_key`, `group_count` (of the whole
    group) and `group_documents`, a list of the documents' fields with their `document_id`, `collection_id` and `score`,
    the best one first. `first` answers the best document alone, as it is. `flatten` answers the documents as they are,
    group after group.

    Within a group the best have the greatest scores; those that tie, or have none, keep their order. Groups come in
    the order of their first documents. Documents where the field is missing or null are a group of their own, whose
    key is null; an array is equal as a whole (unwind it first to group by its elements). The stage's metadata has
    `total_groups` and `total_documents`.
    """

    stage_id: ClassVar[str] = "group_by"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "group"
    use_cases: ClassVar[tuple[str, ...]] = ("Search chunks, answer whole documents", "The three best of each brand")
    example: ClassVar[dict[str, Any]] = {"group_by_field": "brand", "max_per_group": 3, "output_mode": "all"}
    aliases: ClassVar[Mapping[str, str]] = {"field": "group_by_field", "docs_per_group": "max_per_group"}

    group_by_field: str = "source_object_id"
    max_per_group: int = 10
    output_mode: Literal["all", "first", "flatten"] = "all"

    def check(self, check: Check) -> None:
        check.field("group_by_field", self.group_by_field)
        check.range("max_per_group", self.max_per_group, 1, 1_000)

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        return self.gathered(to.rows(source), to)

    def gathered(self, rows: Rows, to: Lowering, most: int | None = None) -> sa.Select[Any]:
        """The rows of the groups, of the first `most` groups where that is given."""
        places = self._places(rows, to)
        is_best = places.c.place == constant(1)
        count = sa.func.to_jsonb(sa.func.count())
        to.tell("total_groups", sa.select(count).select_from(places).where(is_best).scalar_subquery())
        to.tell("total_documents", sa.select(count).select_from(places).scalar_subquery())
        here = places.c.rank == rows.rank
        numbers = sa.select(places.c.group).where(is_best).order_by(places.c.group)
        first = [] if most is None else [places.c.group.in_(numbers.limit(constant(most)))]
        if self.output_mode == "flatten":
            rank = sa.func.row_number().over(order_by=[places.c.group, places.c.place])
            kept = rows.select(documents=False, rank=rank).join(places, here)
            return kept.where(places.c.place <= constant(self.max_per_group), *first)
        if self.output_mode == "first":
            return rows.select(documents=False, rank=places.c.group).join(places, here).where(is_best, *first)
        groups = self._documents(rows, places).cte(f"{to.prefix}_groups")
        answered = {"group_key": places.c.key, "group_count": sa.func.to_jsonb(places.c.size)}
        fields = rows.with_fields(answered | {"group_documents": groups.c.documents})
        best = rows.select(rank=places.c.group, fields=fields).join(places, here).where(is_best, *first)
        return best.join(groups, groups.c.group == places.c.group)

    def _places(self, rows: Rows, to: Lowering) -> sa.CTE:
        """For each row its group, by the rank of that's first row, the group's key and size, and its place in it."""
        key = rows.value(self.group_by_field, "group_by_field").label("key")
        found = sa.select(rows.rank, score_at(rows, "score").label("score"), key).select_from(rows.joined)
        keys = found.cte(f"{to.prefix}_keys")
        by_score = [keys.c.score.desc().nulls_last(), keys.c.rank]
        place = sa.func.row_number().over(partition_by=keys.c.key, order_by=by_score)
        group = sa.func.min(keys.c.rank).over(partition_by=keys.c.key)
        size = sa.func.count().over(partition_by=keys.c.key)
        places = sa.select(keys.c.rank, keys.c.key, group.label("group"), size.label("size"), place.label("place"))
        return places.cte(f"{to.prefix}_places")

    def _documents(self, rows: Rows, places: sa.CTE) -> sa.Select[Any]:
        """For each group the best of its documents as one list."""
        own = [DOCUMENT_ID, rows.document_id, COLLECTION_ID, rows.documents.c.collection_id, SCORE, rows.score]
        system = sa.func.jsonb_strip_nulls(sa.func.jsonb_build_object(*own))
        document = rows.fields.op("||", return_type=JSONB())(system)
        listed = sa.func.jsonb_agg(aggregate_order_by(document, places.c.place))
        found = sa.select(places.c.group, listed.label("documents"))
        found = found.select_from(rows.joined.join(places, places.c.rank == rows.rank))
        return found.where(places.c.place <= constant(self.max_per_group)).group_by(places.c.group)
