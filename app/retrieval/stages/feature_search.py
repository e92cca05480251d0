"""Finds documents: one or several searches, each with filters, fused into one order."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.retrieval.fusion import RRF_K, Fusion, fuse, normalised, vote
from app.retrieval.objects import EMPTY_OBJECT
from app.retrieval.plan import constant, word
from app.retrieval.searches.facets import Facet, counts
from app.retrieval.searches.search import Found, Scope, Search, in_collections, lower
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType, whole_namespace
from app.retrieval.stages.group_by import GroupBy


class Grouping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The documents that share a field's value, as the stage group_by gathers them."""

    field: str
    max_per_group: int | None = None
    group_size: int | None = None  # another name of it
    limit: int = 25
    output_mode: Literal["first", "all", "flatten"] = "all"


class FeatureSearch(SqlStage, frozen=True, kw_only=True):
    """Find documents: each of `searches` answers its `top_k` best, and all are fused to `final_top_k`.

    A search names its index (`feature_uri`) and its `query`, and may have `filters` in either language, a `min_score`
    (before fusion) and a `weight`. What a query is, its `input_mode` says:

    - `vector`: a list of numbers; `{indices, values}` for a sparse index; a list of vectors, or one, for an index of
      multi-vectors, whose documents score the sum over the query's vectors of the greatest similarity with one of
      theirs (MaxSim). The similarity is the metric's score: cosine, inner product, or 1 / (1 + distance). Of a sparse
      index only documents that score above 0 are found, unless its metric is euclidean.
    - `text`: words, which the index's inference service embeds.
    - `content`: an image, by a URL (https or http), as a data URI or base64, where the index's service embeds images.
    - `multi_content`: `values`, a list of texts, URLs, data URIs and vectors, whose mean is searched for (for cosine,
      of their directions).
    - `document`: `document_ref: {document_id, collection_id}`, a stored document, whose own vector is searched for; it
      is not among the answers. One that does not exist, or has no vector in this index, is refused.

    With `lexical` a search finds words (BM25) instead of vectors, in its `fields` or in all that are indexed.
    An empty query (null, `""`, a missing input) is refused; with `on_empty: skip` its search is left out of the fusion,
    with `random` a random direction is searched for. Where all are left out, the request is refused. A search that is
    `optional` is left out, with a warning, where its index is missing or has no vectors.

    A single search keeps its raw scores; several are fused: `rrf` sums weight / (`rrf_k` + rank), 60 unless another is
    given; `dbsf` sums weight × score stretched to 0…1 per search, `weighted` sums weight × score, `max` takes the best
    score. With `explain_scores` each document has `scores.search_1: {rank, score}` and so on, of the searches that
    found it. `group_by` gathers all that were found like the stage of this name, and answers `limit` groups. `facets`
    count the values of fields in all documents that the searches match, however far from the query (of a lexical
    search: in those that it found); an array counts for each of its elements. Without `searches` the stage answers
    what the filters keep, in the order of ids. `hard_timeout_ms` ends the statement with a 503.

    As a later stage it searches among the rows that it is given. With an `output_alias` it is a branch: it searches
    everything, and its rows are fused with those that it is given by rrf, each side with weight 1.
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
    not_offered: ClassVar[frozenset[str]] = frozenset({"learning_config", "query_preprocessing"})

    searches: list[Search] = []
    final_top_k: int = 25
    fusion: Fusion = "rrf"
    rrf_k: int = RRF_K
    filters: Any = None  # the pre_filters of the stage: AND-ed with those of every search
    collection_identifiers: list[str] = []
    group_by: Grouping | str | None = None
    group_size: int | None = None
    facets: list[Facet | str] = []
    explain_scores: bool = False
    hard_timeout_ms: int | None = None
    interactive: bool = False
    degrade_retry: bool | None = None
    auto_preprocess: bool = True

    @property
    def grouping(self) -> Grouping | None:
        return Grouping(field=self.group_by) if isinstance(self.group_by, str) else self.group_by

    def check(self, check: Check) -> None:
        if len(self.searches) > check.limits.searches:
            message = f"A feature_search has at most {check.limits.searches} searches, not {len(self.searches)}."
            check.add("out_of_range", message, "searches")
        if not (self.searches or self.filters or self.collection_identifiers):
            check.add("out_of_range", "A feature_search has `searches`, or `pre_filters` alone.", "searches")
        if self.searches and not any(search.lexical or search.config(check.catalog) for search in self.searches):
            for n, search in enumerate(self.searches):  # somebody must be able to answer
                msgspec.structs.replace(search, optional=False).check(check, ("searches", n))
        else:
            for n, search in enumerate(self.searches):
                search.check(check, ("searches", n))
        check.range("final_top_k", self.final_top_k, 1, check.limits.top_k)
        check.range("rrf_k", self.rrf_k, 1, 1_000)
        check.range("hard_timeout_ms", self.hard_timeout_ms, 1, 3_600_000)
        check.filter(self.filters, "pre_filters")
        self._check_grouping(check)
        if len(self.facets) > check.limits.facets:
            check.add("out_of_range", f"A feature_search has at most {check.limits.facets} facets.", "facets")
        for n, facet in enumerate(self._facets):
            facet.check(check, ("facets", n))

    def _check_grouping(self, check: Check) -> None:
        grouping = self.grouping
        sizes = [self.group_size, *((grouping.max_per_group, grouping.group_size) if grouping else ())]
        for size in sizes:
            check.range("max_per_group", size, 1, 100, "group_by", "max_per_group")
        if sum(size is not None for size in sizes) > 1:
            message = "group_size is another name of max_per_group; give one."
            check.add("bad_parameter", message, "group_by", "group_size")
        if grouping is None:
            if self.group_size is not None:
                check.add("bad_parameter", "group_size is for a `group_by`.", "group_size")
            return
        check.field("field", grouping.field, "group_by", "field")
        check.range("limit", grouping.limit, 1, 500, "group_by", "limit")

    @property
    def _facets(self) -> list[Facet]:
        return [Facet(key=facet) if isinstance(facet, str) else facet for facet in self.facets]

    @property
    def _per_group(self) -> int:
        grouping = self.grouping
        sizes = (self.group_size, *((grouping.max_per_group, grouping.group_size) if grouping else ()))
        return next((size for size in sizes if size is not None), 1)

    def most_rows(self) -> int:
        grouping = self.grouping
        if grouping is None:
            return self.final_top_k
        return grouping.limit * (self._per_group if grouping.output_mode == "flatten" else 1)

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        if self.hard_timeout_ms is not None:
            to.timeouts_ms.append(self.hard_timeout_ms)
        given = None if to.parallel or source is None else self._given(source, to)
        alone = len(self.searches) == 1 and self.group_by is None
        scope = Scope(self.filters, self.collection_identifiers, given, self.final_top_k if alone else None)
        searched = [lower(n, search, scope, to) for n, search in enumerate(self.searches, start=1)]
        found = [each for each in searched if each is not None]
        self._tell(found, scope, to)
        rows = self._ranked(found, scope, to) if found else self._kept(scope, to)
        if to.parallel and source is not None:
            rows = self._beside(rows.cte(f"{to.prefix}_branch"), source, to)
        if self.explain_scores and found:
            rows = self._explained(rows.cte(f"{to.prefix}_ranked"), found, to)
        if (grouping := self.grouping) is not None:
            size, mode = self._per_group, grouping.output_mode
            groups = GroupBy(group_by_field=grouping.field, max_per_group=size, output_mode=mode)
            rows = groups.gathered(to.rows(rows.cte(f"{to.prefix}_found")), to, grouping.limit)
        return rows

    def _given(self, source: sa.CTE, to: Lowering) -> sa.CTE:
        """The rows that the stage is given, and its own filters keep."""
        rows = to.rows(source)
        where = to.where(self.filters, rows.get, "pre_filter")
        return rows.select().where(*where).cte(f"{to.prefix}_given") if where else source

    def _kept(self, scope: Scope, to: Lowering) -> sa.Select[Any]:
        """What the filters keep, for nothing is searched for."""
        if scope.given is not None:
            rows = to.rows(scope.given)
            names = self.collection_identifiers
            where = [in_collections(names, "collections", to)] if names else []
            kept = rows.select().where(*where)
        else:
            kept = whole_namespace(to, *scope.of_all(to))
        return kept if self.group_by is not None else kept.order_by(sa.text("rank")).limit(constant(self.final_top_k))

    def _ranked(self, found: Sequence[Found], scope: Scope, to: Lowering) -> sa.Select[Any]:
        """The documents by their scores; those of earlier rows as they are now."""
        best: Any = found[0].rows if len(found) == 1 else self._fused(found, to)
        columns, origin, ties = [best.c.document_id, best.c.score], best, [best.c.document_id]
        if (given := scope.given) is not None:
            origin = best.join(given, given.c.document_id == best.c.document_id)
            columns += [given.c.fields] if "fields" in given.c else []
            ties.append(given.c.rank)
        rank = sa.func.row_number().over(order_by=[best.c.score.desc(), *ties]).label("rank")
        rows = sa.select(*columns, rank).select_from(origin).order_by(sa.text("rank"))
        return rows if self.group_by is not None else rows.limit(constant(self.final_top_k))

    def _fused(self, found: Sequence[Found], to: Lowering) -> sa.Subquery:
        """One row per document from the rows of all searches, each with its rank within its own search."""
        selects = []
        for each in found:
            rows = each.rows
            weight = to.binds.add(f"{to.prefix}_weight_{each.number}", sa.Double(), each.search.weight)
            columns = [rows.c.document_id, rows.c.score, each.rank.label("rank"), weight.label("weight")]
            if self.fusion == "dbsf":
                columns.append(normalised(rows).label("normalised"))
            selects.append(sa.select(*columns))
        hits = sa.union_all(*selects).cte(f"{to.prefix}_hits")
        return fuse(self.fusion, hits, self.rrf_k).subquery("fused")

    def _explained(self, ranked: sa.CTE, found: Sequence[Found], to: Lowering) -> sa.Select[Any]:
        """The rows with their rank and score in each of the searches, at `scores.search_1` and so on."""
        hits = []
        for each in found:
            name = word(f"search_{each.number}").label("search")
            about = sa.func.jsonb_build_object(word("rank"), each.rank, word("score"), each.rows.c.score, type_=JSONB)
            hits.append(sa.select(each.rows.c.document_id, name, about.label("about")))
        union = sa.union_all(*hits).subquery("each")
        scores = sa.func.jsonb_object_agg(union.c.search, union.c.about, type_=JSONB).label("scores")
        explained = sa.select(union.c.document_id, scores).group_by(union.c.document_id).cte(f"{to.prefix}_scores")
        rows = to.rows(ranked)
        before = rows.value("scores", "scores")
        kept = sa.case((sa.func.jsonb_typeof(before) == word("object"), before), else_=EMPTY_OBJECT)
        shown = rows.with_field("scores", kept.op("||", return_type=JSONB())(explained.c.scores))
        fields = sa.case((explained.c.document_id.is_(None), rows.fields), else_=shown)
        same = explained.c.document_id == rows.document_id
        return rows.select(fields=fields).join(explained, same, isouter=True)

    def _beside(self, branch: sa.CTE, source: sa.CTE, to: Lowering) -> sa.Select[Any]:
        """The rows of this branch and those that it is given, by the sum of the votes of both ranks."""
        first = sa.select(source.c.document_id, sa.func.min(source.c.rank).label("rank")).group_by(source.c.document_id)
        before = first.subquery("before")
        sides = [
            sa.select(rows.c.document_id, vote(rows.c.rank, self.rrf_k).label("vote")) for rows in (branch, before)
        ]
        both = sa.union_all(*sides).subquery("votes")
        summed = sa.select(both.c.document_id, sa.func.sum(both.c.vote).label("score")).group_by(both.c.document_id)
        fused = summed.subquery("both")
        origin = fused.outerjoin(source, source.c.document_id == fused.c.document_id)
        order = [fused.c.score.desc(), fused.c.document_id, source.c.rank]
        columns = [fused.c.document_id, fused.c.score, sa.func.row_number().over(order_by=order).label("rank")]
        if "fields" in source.c:
            documents = to.catalog.documents
            origin = origin.outerjoin(documents, documents.c.document_id == fused.c.document_id)
            columns.append(sa.func.coalesce(source.c.fields, documents.c.payload).label("fields"))
        return sa.select(*columns).select_from(origin)

    def _tell(self, found: Sequence[Found], scope: Scope, to: Lowering) -> None:
        """How many rows each search found, and the facets; which of the queries must not all be empty."""
        if found:
            to.tell("searches", sa.func.jsonb_build_array(*map(_about, found), type_=JSONB))
        if self.facets:
            to.tell("facets", counts(self._facets, scope, found, to))
        if all(each.search.on_empty == "skip" for each in found) and found:
            to.needs_one.append(tuple(f"{to.prefix}_query_{each.number}" for each in found))


def _about(found: Found) -> sa.ColumnElement[Any]:
    returned = sa.select(sa.func.count()).select_from(found.rows).scalar_subquery()
    about: Mapping[str, Any] = {"search": constant(found.number), "returned": returned, **found.told}
    pairs = [part for key, value in about.items() for part in (word(key), value)]
    return sa.func.jsonb_strip_nulls(sa.func.jsonb_build_object(*pairs))
