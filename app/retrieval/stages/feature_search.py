"""Finds the documents nearest to query vectors: one or several searches, each with filters, fused into one order."""

from typing import Any, ClassVar, Literal

import msgspec
import sqlalchemy as sa

from app.errors import Problem
from app.retrieval.catalog import Catalog, VectorConfig, vector_type
from app.retrieval.fusion import Fusion, fuse, normalised
from app.retrieval.plan import Embed, constant
from app.retrieval.searches.dense import Nearest
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType
from app.retrieval.templates import Template
from app.retrieval.vectors import as_query, score


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is searched for. `vector`: a list of numbers or a template of one; `text`: words that the index's
    inference service embeds."""

    input_mode: Literal["text", "vector", "content", "document", "multi_content"] = "text"
    value: Any = None
    text: Any = None
    vector: Any = None
    embedding_task: Literal[
        "retrieval_query", "retrieval_document", "semantic_similarity", "classification", "none"
    ] = "retrieval_query"

    def content(self) -> Any:
        """The value, by its present name or the older one of its mode."""
        if self.value is not None:
            return self.value
        return self.vector if self.input_mode == "vector" else self.text


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One search in one vector index."""

    feature_uri: str
    query: Any
    top_k: int = 100
    min_score: float | None = None
    weight: float = 1.0
    filters: Any = None
    collection_identifiers: list[str] = []
    lexical: bool = False
    optional: bool = False

    def wanted(self) -> Query:
        """The query; a bare string is text, a bare list a vector."""
        if isinstance(self.query, dict):
            return msgspec.convert(self.query, Query)
        return Query(input_mode="vector" if isinstance(self.query, list) else "text", value=self.query)

    def config(self, catalog: Catalog) -> VectorConfig | None:
        """The index, by its name or by the last part of a `mixpeek://extractor@v1/name` URI."""
        return catalog.by_name.get(self.feature_uri) or catalog.by_name.get(self.feature_uri.rsplit("/", 1)[-1])


class FeatureSearch(SqlStage, frozen=True, kw_only=True):
    """Find documents by vector: each of `searches` answers its `top_k` nearest, fused to `final_top_k`.

    A search names its index (`feature_uri`), its `query` (`input_mode` `vector` or `text`), and may have `filters`
    in either language, a `min_score` (before fusion) and a `weight`. A single search keeps its raw scores; several
    are fused: `rrf` sums weight / (60 + rank), `dbsf` sums weight × score stretched to 0…1 per search, `weighted`
    sums weight × score, `max` takes the best score. As a later stage it searches among the rows that it is given.
    """

    stage_id: ClassVar[str] = "feature_search"
    stage_type: ClassVar[StageType] = "filter"
    category: ClassVar[str] = "filter"
    icon: ClassVar[str] = "search"
    use_cases: ClassVar[tuple[str, ...]] = ("Semantic search", "More like this", "Several indexes fused into one order")
    example: ClassVar[dict[str, Any]] = {
        "searches": [
            {"feature_uri": "text", "query": {"input_mode": "text", "value": "{{INPUT.query}}"}, "top_k": 100}
        ],
        "final_top_k": 25,
    }
    not_offered: ClassVar[frozenset[str]] = frozenset(
        {"group_by", "facets", "learning_config", "query_preprocessing", "hard_timeout_ms"}
    )

    searches: list[Search]
    final_top_k: int = 25
    fusion: Fusion = "rrf"
    filters: Any = None  # the pre_filters of the stage: AND-ed with those of every search
    collection_identifiers: list[str] = []
    interactive: bool = False
    degrade_retry: bool | None = None
    auto_preprocess: bool = True

    def check(self, check: Check) -> None:
        if not 1 <= len(self.searches) <= check.limits.searches:
            message = f"A feature_search has 1 to {check.limits.searches} searches, not {len(self.searches)}."
            check.add("out_of_range", message, "searches")
        _check_top_k(check, self.final_top_k, "final_top_k")
        check.filter(self.filters, "pre_filters")
        for n, search in enumerate(self.searches):
            _check_search(check, search, ("searches", n))

    def most_rows(self) -> int:
        return self.final_top_k

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        searches = [
            self._search(n, search, source, to).cte(f"{to.prefix}_search_{n}")
            for n, search in enumerate(self.searches, start=1)
        ]
        found = searches[0] if len(searches) == 1 else self._fused(searches, to)
        rank = sa.func.row_number().over(order_by=[found.c.score.desc(), found.c.document_id]).label("rank")
        rows = sa.select(found.c.document_id, found.c.score, rank).order_by(sa.text("rank"))
        return rows.limit(constant(self.final_top_k))

    def _search(self, n: int, search: Search, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        """The rows of one search, best first, with exact scores."""
        config = search.config(to.catalog)
        assert config is not None, "checked before"
        query = _query_bind(search, config, f"{to.prefix}_query_{n}", to)

        def where(lowering: Lowering, _served: bool) -> list[sa.ColumnElement[bool]]:
            return self._where(n, search, source, lowering)

        # One search hands its rows on as they are: more than those would be found in vain.
        rows = min(search.top_k, self.final_top_k) if len(self.searches) == 1 else search.top_k
        filtered = self._filtered(search, to)
        found = Nearest(n, config, query, rows, where, whole=source is None, filtered=filtered, served=False)
        select, _ = found.lower(to)
        nearest = select.subquery(f"nearest_{n}")
        scored = score(config.metric, nearest.c.distance)
        selected = sa.select(nearest.c.document_id, scored.label("score"))
        if search.min_score is not None:
            least = to.binds.add(f"{to.prefix}_min_score_{n}", sa.Double(), search.min_score)
            selected = selected.where(scored >= least)
        return selected

    def _filtered(self, search: Search, to: Lowering) -> bool:
        collections = self.collection_identifiers or search.collection_identifiers
        return bool(self.filters or search.filters or collections or to.everywhere)

    def _where(self, n: int, search: Search, source: sa.CTE | None, to: Lowering) -> list[sa.ColumnElement[bool]]:
        documents = to.catalog.documents
        where = [
            *to.where(self.filters, documents, "pre_filter"),
            *to.where(search.filters, documents, f"filter_{n}"),
        ]
        if collections := [*self.collection_identifiers, *search.collection_identifiers]:
            names = to.binds.add(f"{to.prefix}_collections_{n}", sa.ARRAY(sa.Text), collections)
            where.append(documents.c.collection_id == sa.func.any(names))
        if source is None:
            return where + to.where_parsed(to.everywhere, documents, "request_filter")
        return [*where, documents.c.document_id.in_(sa.select(source.c.document_id))]

    def _fused(self, searches: list[sa.CTE], to: Lowering) -> sa.Subquery:
        """One row per document from the rows of all searches, each with its rank within its own search."""
        selects = []
        for n, (search, cte) in enumerate(zip(self.searches, searches, strict=True), start=1):
            weight = to.binds.add(f"{to.prefix}_weight_{n}", sa.Double(), search.weight)
            rank = sa.func.row_number().over(order_by=[cte.c.score.desc(), cte.c.document_id])
            columns = [cte.c.document_id, cte.c.score, rank.label("rank"), weight.label("weight")]
            if self.fusion == "dbsf":
                columns.append(normalised(cte).label("normalised"))
            selects.append(sa.select(*columns))
        hits = sa.union_all(*selects).cte(f"{to.prefix}_hits")
        return fuse(self.fusion, hits).subquery("fused")


def _query_bind(search: Search, config: VectorConfig, hint: str, to: Lowering) -> sa.Cast[Any]:
    """The query vector: a bind whose value is given, or is embedded by the index's service before the statement."""
    query = search.wanted()
    bind = to.binds.add(hint, vector_type(config), query.content(), lambda raw: as_query(raw, config))
    if query.input_mode == "text":
        task: Literal["query", "document"] = "document" if query.embedding_task == "retrieval_document" else "query"
        to.embeds.append(Embed(hint, to.catalog.inference_map[config.name], task))
    return bind


def _check_top_k(check: Check, value: int, *path: str | int) -> None:
    if not 1 <= value <= check.limits.top_k:
        check.add("out_of_range", f"{path[-1]} is from 1 to {check.limits.top_k}, not {value}.", *path)


def _check_search(check: Check, search: Search, path: tuple[str | int, ...]) -> None:
    _check_top_k(check, search.top_k, *path, "top_k")
    check.filter(search.filters, *path, "filters")
    if not 0 <= search.weight <= 1:
        check.add("out_of_range", f"weight is from 0 to 1, not {search.weight}.", *path, "weight")
    if search.lexical:
        check.add("not_offered", "lexical search is not offered by this server.", *path, "lexical")
    config = search.config(check.catalog)
    if config is None:
        available = ", ".join(repr(name) for name in check.catalog.by_name) or "none"
        message = f"No vector index {search.feature_uri!r} exists; available indexes: {available}."
        check.add("unknown_index", message, *path, "feature_uri")
    try:
        query = search.wanted()
    except msgspec.ValidationError as error:
        check.add("bad_query", f"{error}.", *path, "query")
        return
    if config is not None:
        _check_query(check, query, config, (*path, "query"))


def _check_query(check: Check, query: Query, config: VectorConfig, path: tuple[str | int, ...]) -> None:
    content = query.content()
    if query.input_mode not in ("text", "vector"):
        message = f"input_mode {query.input_mode!r} is not offered by this server; use 'vector' or 'text'."
        check.add("not_offered", message, *path, "input_mode")
    elif content is None:
        check.add("bad_query", f"A query of input_mode {query.input_mode!r} needs a `value`.", *path, "value")
    elif query.input_mode == "text":
        if problem := text_refusal(check.catalog, config):
            check.add(problem.code, problem.message, *path, "input_mode")
        elif not isinstance(content, str | Template):
            check.add("bad_query", "The value of a text query is a string.", *path, "value")
    elif not isinstance(content, Template) and not _holds_template(content):
        try:
            as_query(content, config)
        except ValueError as error:
            check.add("bad_vector", f"The query vector does not fit: {error}.", *path, "value")


def text_refusal(catalog: Catalog, config: VectorConfig) -> Problem | None:
    """Why text cannot be a query of this index yet, with the remedy; None where it can."""
    if config.name in catalog.inference_map:
        return None
    if catalog.mode == "standalone":
        message = (
            f"Text cannot be searched in the standalone namespace {catalog.namespace_id!r}: query with vectors, or "
            f"promote it (POST /v1/namespaces/{catalog.namespace_id}/promote) with a vector_mappings entry for "
            f"{config.name!r}."
        )
        return Problem((), "text_needs_promotion", message)
    mapped = ", ".join(repr(name) for name in catalog.inference_map) or "none"
    message = (
        f"The index {config.name!r} is mapped to no inference service, so text cannot be its query: query it with a "
        f"vector, or search a mapped index ({mapped})."
    )
    return Problem((), "text_needs_service", message)


def _holds_template(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, list | dict) and any(isinstance(item, Template) or _holds_template(item) for item in items)
