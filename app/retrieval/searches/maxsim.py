"""Late interaction: the sum over the query's vectors of the greatest similarity with one of the document's.

Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT"
(SIGIR 2020). The similarity is the metric's score: cosine, inner product, or 1 / (1 + L2).

Exactly, over all documents that the filter keeps; or over candidates: the documents of the stored vectors that are
nearest to each of the query's. Where those are too few, the same statement searches exactly.
"""

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from app.retrieval.catalog import VectorConfig, vector_type
from app.retrieval.plan import Binds, Estimate, SearchShape, constant, render
from app.retrieval.searches.dense import Where
from app.retrieval.stages.base import Lowering
from app.retrieval.strategy import Way
from app.retrieval.vectors import distance, index_distance, score

# Stored vectors that each of the query's finds candidates by: for each document that is asked for, and between these.
# recall@10 of 5,000 documents with 8 GloVe vectors each: 1.0 for queries whose vectors belong together (0.93 with 4
# instead of 32), 0.87 for four words that have nothing to do with each other. The longer list costs little: the index
# looks at as many for its recall.
OVERSAMPLING = 32
LEAST_NEAR, MOST_NEAR = 160, 1_000


def query_vectors(bind: sa.ColumnElement[Any], config: VectorConfig, name: str) -> sa.CTE:
    """The vectors of a query, `n, vector`, from a parameter that is an array of them."""
    vector = sa.column("vector", vector_type(config))
    given = sa.func.unnest(bind).table_valued(vector, with_ordinality="n").render_derived(name=f"{name}_given")
    return sa.select(given.c.n, given.c.vector).cte(name)


def sums(to: Lowering, config: VectorConfig, query: sa.CTE, among: sa.FromClause) -> sa.Select[Any]:
    """`document_id, score` of those documents of `among` (column `document_id`, each once) that have vectors."""
    side = to.catalog.side(config).alias("m")
    least = sa.func.min(distance(config.metric, side.c.vector, query.c.vector), type_=sa.Double)
    best = sa.select(side.c.document_id, score(config.metric, least).label("score"))
    best = best.select_from(among.join(side, side.c.document_id == among.c.document_id).join(query, sa.true()))
    each = best.group_by(side.c.document_id, query.c.n).subquery("best")
    return sa.select(each.c.document_id, sa.func.sum(each.c.score).label("score")).group_by(each.c.document_id)


@dataclass(frozen=True, slots=True)
class MaxSim:
    """One search: the `rows` documents with the greatest sums that `where` keeps; the rest as in `Nearest`."""

    number: int
    config: VectorConfig
    query: sa.CTE  # `n, vector`
    rows: int
    where: Where
    whole: bool
    filtered: bool
    served: bool

    def lower(self, to: Lowering) -> tuple[sa.Select[Any], sa.ColumnElement[bool] | None]:
        """The select of `document_id, score`, the best first, and whether candidates were too few (None: no matter)."""
        shape = self._shape(to)
        to.shapes.append(shape)
        way = to.ways.get(shape.key, Way("hnsw_iterative" if self.filtered else "hnsw"))
        if not shape.ready or way.strategy == "exact":
            return self._best(sums(to, self.config, self.query, self._kept(to, "kept"))), None
        near = self._candidates(to, way.scan).cte(f"{to.prefix}_near_{self.number}")
        few = sa.select(sa.func.count() < constant(self.rows)).select_from(near).scalar_subquery()
        rest = self._kept(to, "rest", few)
        both = sa.union(sa.select(near.c.document_id), sa.select(rest.c.document_id)).subquery("candidates")
        return self._best(sums(to, self.config, self.query, both)), few

    @property
    def near(self) -> int:
        """Stored vectors that are looked for, for each of the query's."""
        return max(min(max(OVERSAMPLING * self.rows, LEAST_NEAR), MOST_NEAR), self.rows)

    def _shape(self, to: Lowering) -> SearchShape:
        """Sizes are in vectors, for those are what is read."""
        wanted = self.whole and self.config.index_method != "exact"
        ready = wanted and self.config.index_state == "ready"
        side, documents = to.catalog.side(self.config).alias("m"), to.catalog.documents
        vectors: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(side)
        kept = None
        if ready and self.filtered:
            aside = replace(to, binds=Binds(), relaxed=[], rendering="estimate")
            joined = vectors.join(documents, documents.c.document_id == side.c.document_id)
            text = render(joined.where(*self.where(aside, True)))
            kept = Estimate(text, tuple(aside.binds.found.values()))
        stored = Estimate(render(vectors), ())
        lacking = self.config.index_state if wanted and not ready else None
        name = self.config.name
        return SearchShape(to.prefix, self.number, name, self.near, stored, kept, ready, self.served, lacking)

    def _kept(self, to: Lowering, name: str, *where: sa.ColumnElement[bool]) -> sa.Subquery:
        documents = to.catalog.documents
        return sa.select(documents.c.document_id).where(*self.where(to, True), *where).subquery(name)

    def _candidates(self, to: Lowering, scan: int) -> sa.Select[Any]:
        side, documents = to.catalog.side(self.config).alias("m"), to.catalog.documents
        by = index_distance(self.config, side.c.vector, self.query.c.vector)
        near = sa.select(side.c.document_id).correlate(self.query).order_by(by)
        if where := self.where(to, False):
            # As in `Nearest`: what the index hands over is bounded, and then asked whether it passes.
            read = near.limit(constant(scan)).subquery("read")
            near = sa.select(read.c.document_id)
            near = near.join(documents, documents.c.document_id == read.c.document_id).where(*where)
        found = near.limit(constant(self.near)).lateral("found")
        return sa.select(found.c.document_id).distinct().select_from(self.query.join(found, sa.true()))

    def _best(self, summed: sa.Select[Any]) -> sa.Select[Any]:
        found = summed.subquery(f"summed_{self.number}")
        best = sa.select(found.c.document_id, found.c.score)
        return best.order_by(found.c.score.desc(), found.c.document_id).limit(constant(self.rows))
