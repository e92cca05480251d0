"""Puts the first rows into the order of late interaction between the query's vectors and their stored multi-vectors."""

from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval import in_sql
from app.retrieval.catalog import VectorConfig, vector_type
from app.retrieval.plan import constant
from app.retrieval.searches.maxsim import query_vectors, sums
from app.retrieval.searches.query import Reader, is_empty
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType
from app.retrieval.templates import is_templated

MOST = 1_000


class MaxsimRerank(SqlStage, frozen=True, kw_only=True):
    """Score the first `top_n` documents (at most, and by default, 1,000) by MaxSim, and order them by it.

    `feature_uri` names an index of multi-vectors, `query` is a list of vectors, or one: the score is the sum over
    these of the greatest similarity with one of the document's (cosine, inner product, or 1 / (1 + distance), as the
    index's metric is), and becomes the document's. A text is refused, for no service here makes several vectors of one.
    Documents without vectors in this index come after those that have some, in their order and without a score, or are
    left out (`missing: drop`). Documents past `top_n` follow in their order, without a score: theirs are of another
    scale. `match_on` is `document_id`.
    """

    stage_id: ClassVar[str] = "maxsim_rerank"
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "grid-3x3"
    use_cases: ClassVar[tuple[str, ...]] = ("ColBERT's order over a fast search", "Precision from stored token vectors")
    example: ClassVar[dict[str, Any]] = {"feature_uri": "tokens", "query": "{{INPUT.query_vectors}}", "top_n": 100}
    defaults: ClassVar[dict[str, Any]] = {"query": "{{INPUT.query}}"}

    feature_uri: str
    query: Any = None
    top_n: int | None = None
    match_on: Literal["document_id", "root_object_id"] = "document_id"
    missing: Literal["bottom", "drop"] = "bottom"

    def check(self, check: Check) -> None:
        check.range("top_n", self.top_n, 1, MOST)
        if self.match_on != "document_id":
            message = "match_on is document_id: this server knows no objects that several documents are made of."
            check.add("not_offered", message, "match_on")
        config = check.catalog.index(self.feature_uri)
        if config is None or config.kind != "multi":
            names = [repr(each.name) for each in check.catalog.vector_configs if each.kind == "multi"]
            message = f"No index of multi-vectors {self.feature_uri!r} exists; there are: {', '.join(names) or 'none'}."
            check.add("unknown_index", message, "feature_uri")
        elif isinstance(self.query, str) and not is_empty(self.query):
            message = "No service here makes several vectors of a text: give vectors, as {{INPUT.query_vectors}}."
            check.add("text_needs_service", message, "query")
        elif not is_templated(self.query):
            try:
                self._reader(config, check.limits.query_vectors)(self.query)
            except ValueError as error:
                check.add("bad_vector", f"The query does not fit: {error}.", "query")

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        config = to.catalog.index(self.feature_uri)
        assert config is not None, "checked before"
        rows = to.rows(source)
        read = self._reader(config, to.limits.query_vectors)
        sql = in_sql.query_vector("multi", directed=config.metric == "cosine", most=to.limits.query_vectors)
        bind = to.binds.add(f"{to.prefix}_query", sa.ARRAY(vector_type(config)), self.query, read, sql)
        first = sa.select(rows.rank, rows.document_id).order_by(rows.rank).limit(constant(self.top_n or MOST))
        among = first.cte(f"{to.prefix}_first")
        documents = sa.select(among.c.document_id).distinct().subquery("among")
        query = query_vectors(bind, config, f"{to.prefix}_query")
        scored = sums(to, config, query, documents).cte(f"{to.prefix}_scored")
        is_first = rows.source.outerjoin(among, among.c.rank == rows.rank)
        placed = is_first.outerjoin(scored, scored.c.document_id == among.c.document_id)
        order = [among.c.rank.is_(None), scored.c.score.desc().nulls_last(), rows.rank]
        score = scored.c.score.label("score")
        rank = sa.func.row_number().over(order_by=order).label("rank")
        carried = [rows.source.c.fields] if "fields" in rows.source.c else []
        found = sa.select(rows.document_id, score, rank, *carried).select_from(placed)
        dropped = sa.and_(among.c.rank.is_not(None), scored.c.score.is_(None))
        return found.where(sa.not_(dropped)) if self.missing == "drop" else found

    @staticmethod
    def _reader(config: VectorConfig, most: int) -> Reader:
        return Reader("vector", config, "error", most)
