"""Nearest dense vectors, in one of three shapes of SQL, chosen before each execution (`app.retrieval.strategy`).

exact: the distances of all documents that the filter keeps; the filter's own indexes find them.
hnsw: the vector index, in its order.
hnsw_iterative: the vector index goes on until enough documents pass the filter; where it gives up first, the same
statement searches exactly, so that no search silently answers fewer documents than there are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from app.retrieval.catalog import VectorConfig
from app.retrieval.plan import Binds, Estimate, SearchShape, constant, render
from app.retrieval.stages.base import Lowering
from app.retrieval.strategy import Way
from app.retrieval.vectors import distance, index_distance

# Rows that the coarse order of bits hands to exact re-scoring, for each row that is asked for.
BINARY_OVERSAMPLING = 8
COARSE = ("hnsw_halfvec", "hnsw_binary")

Where = Callable[[Lowering, bool], list[sa.ColumnElement[bool]]]
"""The conditions of a search, lowered into a `Lowering`: for indexes to serve (True), or to be cheap for each row."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """One search: `rows` documents nearest to `query` that `where` keeps.

    `whole`: among all documents, not among the rows of an earlier stage. `filtered`: there are conditions; `served`:
    indexes serve all of them.
    """

    number: int
    config: VectorConfig
    query: sa.ColumnElement[Any]
    rows: int
    where: Where
    whole: bool
    filtered: bool
    served: bool

    def lower(self, to: Lowering) -> tuple[sa.Select[Any], sa.ColumnElement[bool] | None]:
        """The select of `document_id, distance`, nearest first, and whether iteration gave up (None: it cannot)."""
        shape = self._shape(to)
        to.shapes.append(shape)
        way = to.ways.get(shape.key, Way("hnsw_iterative" if self.filtered else "hnsw"))
        if not shape.ready or way.strategy == "exact":
            return self._exact(to), None
        if way.strategy == "hnsw":
            return self._ordered(self._by_index(to).cte(f"{to.prefix}_near_{self.number}")), None
        return self._completed(self._iterated(to, way).cte(f"{to.prefix}_near_{self.number}"), to)

    def _shape(self, to: Lowering) -> SearchShape:
        wanted = self.whole and self.config.index_method != "exact"
        ready = wanted and self.config.index_state == "ready"
        documents = Estimate(render(self._counted(to.catalog.relation.alias("d"))), ())
        kept = None
        if ready and self.filtered:
            aside = replace(to, binds=Binds(), relaxed=[], rendering="estimate")
            text = render(self._counted(to.catalog.documents).where(*self.where(aside, True)))
            kept = Estimate(text, tuple(aside.binds.found.values()))
        return SearchShape(
            to.prefix,
            self.number,
            self.config.name,
            self.rows,
            documents,
            kept,
            ready=ready,
            served=self.served,
            lacking=self.config.index_state if wanted and not ready else None,
        )

    def _counted(self, documents: sa.FromClause) -> sa.Select[Any]:
        column = documents.c[self.config.column]
        return sa.select(sa.literal_column("1")).select_from(documents).where(column.is_not(None))

    def _exact(self, to: Lowering, *more: sa.ColumnElement[bool]) -> sa.Select[Any]:
        documents = to.catalog.documents
        column = documents.c[self.config.column]
        exact = distance(self.config.metric, column, self.query)
        found = sa.select(documents.c.document_id, exact.label("distance"))
        found = found.where(column.is_not(None), *self.where(to, True), *more)
        # The index orders by the bare distance only: + 0 keeps it out, and costs less than a materialized CTE.
        return found.order_by(exact + sa.literal_column("0")).limit(constant(self.rows))

    def _by_index(self, to: Lowering) -> sa.Select[Any]:
        return (
            self._in_order(to.catalog.documents).where(*self.where(to, False)).limit(constant(self.rows * self._wider))
        )

    def _iterated(self, to: Lowering, way: Way) -> sa.Select[Any]:
        """The filter is asked of what the index hands over, so that what it hands over can be counted and bounded."""
        if to.catalog.restricted:
            return self._iterated_for_readers(to, way)
        kept = sa.and_(sa.true(), *self.where(to, False)).label("kept")
        read = self._in_order(to.catalog.documents).add_columns(kept).limit(constant(way.scan))
        found = read.subquery(f"{to.prefix}_read_{self.number}")
        wanted = math.ceil(self.rows * max(way.spare, self._wider))
        return sa.select(found.c.document_id, found.c.distance).where(found.c.kept).limit(constant(wanted))

    def _iterated_for_readers(self, to: Lowering, way: Way) -> sa.Select[Any]:
        """The index hands over what is stored, whoever may read it; each is then looked up among what is theirs."""
        documents, stored = to.catalog.documents, to.catalog.relation.alias("stored")
        found = self._in_order(stored).limit(constant(way.scan)).subquery(f"{to.prefix}_read_{self.number}")
        row = sa.select(documents.c.document_id).where(
            documents.c.document_id == found.c.document_id, *self.where(to, False)
        )
        kept = row.limit(constant(1)).lateral(f"{to.prefix}_kept_{self.number}")
        wanted = math.ceil(self.rows * max(way.spare, self._wider))
        return sa.select(kept.c.document_id, found.c.distance).join_from(found, kept, sa.true()).limit(constant(wanted))

    @property
    def _wider(self) -> int:
        """The index may order by a coarser distance than the score's: more rows, re-scored with the whole vectors."""
        return BINARY_OVERSAMPLING if self.config.index_method == "hnsw_binary" else 1

    def _in_order(self, documents: sa.FromClause) -> sa.Select[Any]:
        column = documents.c[self.config.column]
        found = sa.select(documents.c.document_id, distance(self.config.metric, column, self.query).label("distance"))
        return found.where(column.is_not(None)).order_by(index_distance(self.config, column, self.query))

    def _ordered(self, near: sa.CTE) -> sa.Select[Any]:
        """What the index found, by its exact distances: relaxed and coarse orders are not."""
        return sa.select(near.c.document_id, near.c.distance).order_by(near.c.distance).limit(constant(self.rows))

    def _completed(self, near: sa.CTE, to: Lowering) -> tuple[sa.Select[Any], sa.ColumnElement[bool]]:
        enough = sa.select(sa.func.count() >= constant(self.rows)).select_from(near).scalar_subquery()
        rest = self._exact(to, sa.not_(enough)).cte(f"{to.prefix}_rest_{self.number}")
        both = sa.union_all(
            sa.select(near.c.document_id, near.c.distance).where(enough),
            sa.select(rest.c.document_id, rest.c.distance),
        ).subquery(f"{to.prefix}_both_{self.number}")
        found = sa.select(both.c.document_id, both.c.distance).order_by(both.c.distance).limit(constant(self.rows))
        return found, sa.not_(enough)
