"""Joins documents of another collection to the rows."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, distinct_on

from app.retrieval.aggregates import EMPTY_LIST
from app.retrieval.catalog import Fields
from app.retrieval.objects import EMPTY_OBJECT, merged, tree_of
from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType

MOST_FIELDS = 100
# What stands at the root of a document in answers and is the system's: a field of that name would not be seen.
SYSTEM = frozenset({"document_id", "collection_id", "score", "payload", "_internal", "vectors", "_vectors"})

DOCUMENT_ID = sa.literal_column("'document_id'", sa.Text())
COLLECTION_ID = sa.literal_column("'collection_id'", sa.Text())
OBJECT = sa.literal_column("'object'", sa.Text())
STRING = sa.literal_column("'string'", sa.Text())
ROOT: sa.ColumnElement[Any] = sa.literal_column("'{}'::text[]", sa.ARRAY(sa.Text))

Json = sa.ColumnElement[Any]


class DocumentEnrich(SqlStage, frozen=True, kw_only=True):
    """Join each document with one of another collection: fields of that are added to it (a left join).

    A document of `target_collection_id` matches whose `target_field` is equal to the `source_field` of the document:
    the same JSON value, so "5" is not 5, and an array is equal as a whole (unwind it first to join by its elements).
    Missing and null match nothing. Of several that match, the one with the smallest `document_id` is taken.

    What is merged are `fields_to_merge` (dotted paths, nested in the result as in the target, absent where they are
    missing or null there), else all of the target's fields. It goes to `output_field`, where without `fields_to_merge`
    the target's `document_id` and `collection_id` go too, or else to the document's root. `strategy` says how:
    `enrich` adds to the object that is there, the target's fields winning; `replace` puts it in the place of what is
    there (at the root, of all fields); `append` adds it to a list at `output_field`, which is made if need be.

    Only documents that `when` (a filter in either language) keeps are joined; the others go on as they are. Documents
    without a match go on as they are, too, unless `allow_missing` is false: then they are dropped. The stage's
    metadata has `matched_count`. Order and scores stay.
    """

    stage_id: ClassVar[str] = "document_enrich"
    stage_type: ClassVar[StageType] = "enrich"
    category: ClassVar[str] = "enrich"
    icon: ClassVar[str] = "combine"
    use_cases: ClassVar[tuple[str, ...]] = ("Add the catalogue's prices to what was found", "The author of each page")
    example: ClassVar[dict[str, Any]] = {
        "target_collection_id": "makers",
        "source_field": "maker_id",
        "target_field": "document_id",
        "fields_to_merge": ["name", "address.city"],
        "output_field": "maker",
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "collection_id": "target_collection_id",
        "lookup_field": "target_field",
        "result_field": "output_field",
    }
    not_offered: ClassVar[frozenset[str]] = frozenset({"retriever_id", "retriever_config", "retriever_inputs"})

    target_collection_id: str
    source_field: str = "source_object_id"
    target_field: str = "document_id"
    fields_to_merge: list[str] | None = None
    output_field: str | None = None
    strategy: Literal["enrich", "replace", "append"] = "enrich"
    when: Any = None
    allow_missing: bool = True

    @property
    def output(self) -> str | None:
        """The official client's model writes the text "null" where nothing was given."""
        return None if self.output_field == "null" else self.output_field

    def check(self, check: Check) -> None:
        if not 0 < len(self.target_collection_id) <= 255 or "\0" in self.target_collection_id:
            check.add("bad_name", "target_collection_id is the id of a collection.", "target_collection_id")
        check.field("source_field", self.source_field)
        check.field("target_field", self.target_field)
        check.filter(self.when, "when")
        if self.output is not None:
            check.output("output_field", self.output)
            self._check_visible(check, self.output, "output_field")
        elif self.strategy == "append":
            check.add("bad_parameter", "The strategy append needs an output_field.", "output_field")
        fields = self.fields_to_merge
        if fields is not None and not 1 <= len(fields) <= MOST_FIELDS:
            check.add("out_of_range", f"There are 1 to {MOST_FIELDS} fields_to_merge.", "fields_to_merge")
        for n, field in enumerate(fields or ()):
            check.output("A field to merge", field, "fields_to_merge", n)
            if self.output is None:
                self._check_visible(check, field, "fields_to_merge", n)

    def _check_visible(self, check: Check, field: str, *path: str | int) -> None:
        if field.split(".")[0] in SYSTEM:
            check.add(
                "bad_field", f"{field!r} is the system's at the document's root; give another output_field.", *path
            )

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        key = rows.value(self.source_field, "source_field").label("key")
        keys = sa.select(rows.rank, key).select_from(rows.joined).where(*to.where(self.when, rows.get, "when"))
        asked = keys.cte(f"{to.prefix}_keys")
        matches = self._matches(asked, to).cte(f"{to.prefix}_matches")
        count = sa.select(sa.func.to_jsonb(sa.func.count())).select_from(
            asked.join(matches, matches.c.key == asked.c.key)
        )
        to.tell("matched_count", count.scalar_subquery())
        matched = matches.c.found.is_not(None)
        fields = sa.case((matched, self._enriched(rows, matches.c.found, to)), else_=rows.fields)
        joined = rows.select(fields=fields).outerjoin(asked, asked.c.rank == rows.rank)
        joined = joined.outerjoin(matches, matches.c.key == asked.c.key)
        return joined if self.allow_missing else joined.where(sa.or_(asked.c.rank.is_(None), matched))

    def _matches(self, asked: sa.CTE, to: Lowering) -> sa.Select[Any]:
        """For each key that is asked for and found, what is merged of its document."""
        target = to.catalog.stored("target")
        key = to.value(Fields(target), self.target_field, "target_field")
        collection = to.binds.add(
            f"{to.prefix}_collection", sa.Text(), to.catalog.collection_id(self.target_collection_id)
        )
        where = [target.c.collection_id == collection]
        if self.target_field == "document_id":  # by the primary key
            ids = sa.select(asked.c.key.op("#>>", return_type=sa.Text())(ROOT))
            where.append(target.c.document_id.in_(ids.where(sa.func.jsonb_typeof(asked.c.key) == STRING)))
        else:
            where.append(key.in_(sa.select(asked.c.key)))
        found = sa.select(key.label("key"), self._found(target, to).label("found")).where(*where)
        return found.ext(distinct_on(key)).order_by(key, target.c.document_id)

    def _found(self, target: sa.FromClause, to: Lowering) -> Json:
        if self.fields_to_merge is not None:
            fields = Fields(target)
            values = {field: to.value(fields, field, "merged_field") for field in self.fields_to_merge}
            return merged(EMPTY_OBJECT, tree_of(values), lambda name: self._key(name, to), optional=True)
        if self.output is None:
            return target.c.payload
        own = [DOCUMENT_ID, target.c.document_id, COLLECTION_ID, target.c.collection_id]
        return target.c.payload.op("||", return_type=JSONB())(sa.func.jsonb_build_object(*own, type_=JSONB))

    def _enriched(self, rows: Rows, found: Json, to: Lowering) -> Json:
        """The row's fields with what was found."""
        output = self.output
        if self.strategy == "append" and output is not None:
            list_ = sa.func.coalesce(rows.value(output, "output_field"), EMPTY_LIST, type_=JSONB)
            added = list_.op("||", return_type=JSONB())(sa.func.jsonb_build_array(found, type_=JSONB))
            return rows.with_field(output, added)
        if self.strategy == "replace":
            return found if output is None else rows.with_field(output, found)
        if self.fields_to_merge is not None:
            prefix = "" if output is None else f"{output}."
            values = {f"{prefix}{field}": self._at(found, field, to) for field in self.fields_to_merge}
            return merged(rows.fields, tree_of(values), lambda name: self._key(name, to), optional=True)
        if output is None:
            return rows.fields.op("||", return_type=JSONB())(found)
        there = rows.value(output, "output_field")
        extended = there.op("||", return_type=JSONB())(found)
        return rows.with_field(output, sa.case((sa.func.jsonb_typeof(there) == OBJECT, extended), else_=found))

    def _at(self, found: Json, field: str, to: Lowering) -> Json:
        steps = to.binds.add(f"{to.prefix}_found_field", sa.ARRAY(sa.Text), field.split("."))
        return found.op("#>", return_type=JSONB())(steps)

    def _key(self, name: str, to: Lowering) -> Json:
        return to.binds.add(f"{to.prefix}_key", sa.Text(), name)
