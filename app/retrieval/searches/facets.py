"""Facets: how many of the documents that searches match have each value of a field."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from app.retrieval.aggregates import EMPTY_LIST
from app.retrieval.catalog import Fields
from app.retrieval.plan import constant, word
from app.retrieval.searches.search import Found, Scope
from app.retrieval.stages.base import Check, Lowering

SCALARS = tuple(map(word, ("string", "number", "boolean")))


class Facet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A field whose values are counted. Counts are exact either way."""

    key: str
    limit: int = 10
    exact: bool = False

    def check(self, check: Check, path: tuple[str | int, ...]) -> None:
        check.field("key", self.key, *path, "key")
        check.range("limit", self.limit, 1, 1_000, *path, "limit")


def counts(facets: Sequence[Facet], scope: Scope, found: Sequence[Found], to: Lowering) -> sa.ColumnElement[Any]:
    """`[{key, values: [{value, count}, …]}, …]`, the most frequent values first, ties by value."""
    matching = _matching(facets, scope, found, to).cte(f"{to.prefix}_matching")
    listed = []
    for n, facet in enumerate(facets, start=1):
        key = to.binds.add(f"{to.prefix}_facet_{n}_key", sa.Text(), facet.key)
        values = _values(matching, f"facet_{n}", facet.limit).scalar_subquery()
        listed.append(sa.func.jsonb_build_object(word("key"), key, word("values"), values, type_=JSONB))
    return sa.func.jsonb_build_array(*listed, type_=JSONB)


def _matching(facets: Sequence[Facet], scope: Scope, found: Sequence[Found], to: Lowering) -> sa.Select[Any]:
    """The fields' values in every document that one of the searches matches: that has a vector in its index and keeps
    its filters, however far from the query; of a lexical search what it found."""
    documents = to.catalog.documents
    rows = to.rows(scope.given) if scope.given is not None else None
    fields = Fields(documents) if rows is None else rows.get
    values = [to.value(fields, facet.key, f"facet_{n}").label(f"facet_{n}") for n, facet in enumerate(facets, start=1)]
    matching = sa.select(*values).select_from(documents if rows is None else rows.joined)
    if not found:
        return matching.where(*scope.of_all(to))
    return matching.where(sa.or_(*(sa.and_(*_matches(each, scope, to)) for each in found)))


def _matches(found: Found, scope: Scope, to: Lowering) -> list[sa.ColumnElement[bool]]:
    documents, config = to.catalog.documents, found.search.config(to.catalog)
    if found.search.lexical or config is None:
        return [documents.c.document_id.in_(sa.select(found.rows.c.document_id))]
    where = scope.where(found.number, found.search, to)
    if config.kind == "multi":
        side = to.catalog.side(config).alias("has")
        return [documents.c.document_id.in_(sa.select(side.c.document_id)), *where]
    return [documents.c[config.column].is_not(None), *where]


def _values(matching: sa.CTE, name: str, limit: int) -> sa.Select[Any]:
    """Strings, numbers and booleans; of an array each of its elements, once a document."""
    value = matching.c[name]
    items = sa.case((sa.func.jsonb_typeof(value) == word("array"), value), else_=sa.func.jsonb_build_array(value))
    each = sa.func.jsonb_array_elements(items).table_valued(sa.column("value", JSONB)).render_derived("each")
    once = sa.select(each.c.value).distinct().where(sa.func.jsonb_typeof(each.c.value).in_(SCALARS)).lateral("once")
    count = sa.func.count().label("count")
    grouped = sa.select(once.c.value, count).select_from(matching.join(once, sa.true())).group_by(once.c.value)
    best = grouped.order_by(count.desc(), once.c.value).limit(constant(limit)).subquery("best")
    shown = sa.func.jsonb_build_object(word("value"), best.c.value, word("count"), best.c.count, type_=JSONB)
    listed = sa.func.jsonb_agg(aggregate_order_by(shown, best.c.count.desc(), best.c.value), type_=JSONB)
    return sa.select(sa.func.coalesce(listed, EMPTY_LIST))
