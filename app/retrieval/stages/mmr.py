"""Orders documents by relevance and by how little they resemble those before them."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import mul
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from app.retrieval.aggregates import double
from app.retrieval.catalog import Catalog, Metric, VectorConfig
from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType
from app.retrieval.vectors import ONE, distance, score

Float = sa.ColumnElement[float]
Likeness = Callable[[sa.FromClause, sa.FromClause], Float]
"""The similarity of two candidates."""

MOST_CANDIDATES = 500
MOST_KINDS = 10

ZERO: Float = sa.literal_column("0", sa.Double())
# Stands in the place of what is selected: greater than every similarity.
SELECTED: Float = sa.literal_column("'Infinity'::float8", sa.Double())
LARGEST: Float = sa.literal_column("1e300", sa.Double())


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A vector index, and how much it counts among the others."""

    feature_uri: str
    weight: float = 1.0


class Mmr(SqlStage, frozen=True, kw_only=True):
    """Diversify: select one document after the other by relevance less resemblance to those selected before.

    Each step takes the document with the greatest `lambda` × relevance − (1 − `lambda`) × its greatest similarity to a
    selected one (maximal marginal relevance, Carbonell and Goldstein 1998); the first takes the most relevant. Of
    equal ones the better ranked goes first. `top_k` are selected (1 to 500) among the best 500 rows; the others go.

    Relevance is the score, or the number at `score_field`; without one it is 0. It is taken as it is: put
    score_normalize before this stage where scores are not of the size of the similarities, as those of `rrf`.

    Similarity is one of: that of the stored vectors of one index (`diversity_feature_uri`), or of several, weighted
    (`diversity_features`), by `similarity_metric`: `cosine`, `dot` (the inner product) or `euclidean` (1 / (1 +
    distance)); or the share of `diversity_fields` that are equal, weighted by `diversity_field_weights` (1 unless
    given). Weights are divided by their sum. Where none is named, it is that of the namespace's only dense index. A
    vector or field that is missing is similar to none; an array is equal as a whole.

    The sum is written to `mmr_score_field` (nowhere if that is null); the score stays.
    """

    stage_id: ClassVar[str] = "mmr"
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "shuffle"
    use_cases: ClassVar[tuple[str, ...]] = ("Results that do not all say the same", "One of each brand near the top")
    example: ClassVar[dict[str, Any]] = {"lambda": 0.7, "top_k": 25, "diversity_fields": ["category"]}
    aliases: ClassVar[Mapping[str, str]] = {
        "top_n": "top_k",
        "lambda_": "lambda",
        "embedding_field": "diversity_feature_uri",
    }

    lambda_: float = msgspec.field(default=0.7, name="lambda")
    top_k: int = 25
    diversity_feature_uri: str | None = None
    diversity_features: list[Feature] | None = None
    diversity_fields: list[str] | None = None
    diversity_field_weights: dict[str, float] | None = None
    score_field: str = "score"
    mmr_score_field: str | None = "scores.mmr"
    similarity_metric: Metric = "cosine"

    def _features(self, catalog: Catalog) -> list[Feature]:
        """The indexes whose vectors are compared. The official client's model writes "null" where none was given."""
        if self.diversity_features:
            return self.diversity_features
        if self.diversity_feature_uri not in (None, "null"):
            return [Feature(feature_uri=str(self.diversity_feature_uri))]
        if self.diversity_fields:
            return []
        dense = [config.name for config in catalog.vector_configs if config.kind == "dense"]
        return [Feature(feature_uri=dense[0])] if len(dense) == 1 else []

    def _modes(self) -> list[str]:
        given = {
            "diversity_feature_uri": self.diversity_feature_uri not in (None, "null"),
            "diversity_features": self.diversity_features,
            "diversity_fields": self.diversity_fields,
        }
        return [name for name, value in given.items() if value]

    def check(self, check: Check) -> None:
        check.range("lambda", self.lambda_, 0, 1)
        check.range("top_k", self.top_k, 1, MOST_CANDIDATES)
        check.field("score_field", self.score_field)
        if self.mmr_score_field is not None:
            check.output("mmr_score_field", self.mmr_score_field)
        modes, features = self._modes(), self._features(check.catalog)
        if len(modes) > 1:
            check.add("bad_parameter", f"Give one of {', '.join(modes)}.", modes[-1])
        elif not features and not self.diversity_fields:
            message = "Give one of diversity_feature_uri, diversity_features and diversity_fields."
            check.add("bad_parameter", message, "diversity_feature_uri")
        for n, feature in enumerate(features):
            _check_feature(check, feature, ("diversity_features", n) if self.diversity_features else modes)
        self._check_fields(check)
        weights = [feature.weight for feature in features] or [*self._field_weights().values()]
        if len(weights) > MOST_KINDS:
            check.add("out_of_range", f"There are at most {MOST_KINDS} of them, not {len(weights)}.", *modes)
        if weights and sum(weights) == 0:
            check.add("out_of_range", "A weight at least is above 0.", *modes)

    def _check_fields(self, check: Check) -> None:
        fields = self.diversity_fields or []
        for n, field in enumerate(fields):
            check.field("A field", field, "diversity_fields", n)
        for field, weight in (self.diversity_field_weights or {}).items():
            check.range("A weight", weight, 0, 1_000_000, "diversity_field_weights", field)
            if field not in fields:
                message = f"{field!r} is none of the diversity_fields."
                check.add("bad_parameter", message, "diversity_field_weights", field)

    def _field_weights(self) -> dict[str, float]:
        given = self.diversity_field_weights or {}
        return {field: given.get(field, 1.0) for field in self.diversity_fields or ()}

    def most_rows(self) -> int:
        return self.top_k

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        selected = self._selected(*self._candidates(rows, to), to)
        changed: dict[str, Any] = {"rank": selected.c.step}
        if self.mmr_score_field == "score":
            changed["score"] = selected.c.mmr
        elif self.mmr_score_field is not None:
            changed["fields"] = rows.with_field(self.mmr_score_field, sa.func.to_jsonb(selected.c.mmr))
        return rows.select(**changed).join(selected, selected.c.rank == rows.rank)

    def _candidates(self, rows: Rows, to: Lowering) -> tuple[sa.CTE, Likeness]:
        """The best rows, numbered from 1, with their relevance and what is compared (`v0`, …); and how it is."""
        features = self._features(to.catalog)
        if features:
            configs = [_config(feature.feature_uri, to.catalog) for feature in features]
            compared = [self._vector(rows.documents.c[config.column]) for config in configs if config is not None]
            weights, similarity = [feature.weight for feature in features], self._similarity
        else:
            of = self._field_weights()
            compared = [rows.value(field, f"diversity_field_{n}") for n, field in enumerate(of, start=1)]
            weights, similarity = [*of.values()], _equality
        relevance = rows.score if self.score_field == "score" else double(rows.value(self.score_field, "score_field"))
        columns = [value.label(f"v{n}") for n, value in enumerate(compared)]
        number = sa.func.row_number().over(order_by=rows.rank).label("n")
        found = sa.select(number, rows.rank, _finite(relevance).label("relevance"), *columns)
        found = found.select_from(rows.joined).order_by(rows.rank).limit(constant(MOST_CANDIDATES))
        shares: list[Float] = [ONE]
        if len(weights) > 1:
            shares = [to.binds.add(f"{to.prefix}_weight", sa.Double(), weight / sum(weights)) for weight in weights]

        def likeness(a: sa.FromClause, b: sa.FromClause) -> Float:
            parts = [similarity(a.c[f"v{n}"], b.c[f"v{n}"]) for n in range(len(shares))]
            return reduce(lambda total, part: total + part, map(mul, parts, shares))

        return found.cte(f"{to.prefix}_candidates"), likeness

    def _vector(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Of length 1 for the cosine, so that each is measured once and not with every other; zero stays zero."""
        return sa.func.l2_normalize(column, type_=column.type) if self.similarity_metric == "cosine" else column

    def _similarity(self, a: sa.ColumnElement[Any], b: sa.ColumnElement[Any]) -> Float:
        metric: Metric = "dot" if self.similarity_metric == "cosine" else self.similarity_metric
        return _finite(score(metric, distance(metric, a, b)))

    def _selected(self, candidates: sa.CTE, likeness: Likeness, to: Lowering) -> sa.CTE:
        """Row by row what is selected: its place `step`, its `n` and `rank`, its sum `mmr`, and `nearest`, which holds
        for each candidate its greatest similarity to those selected so far."""
        weight = to.binds.add(f"{to.prefix}_lambda", sa.Double(), self.lambda_)
        c, chosen = candidates.alias("c"), candidates.alias("chosen")

        def nearest(n: sa.ColumnElement[Any], similarity: Float) -> sa.ScalarSelect[Any]:
            each = sa.case((c.c.n == n, SELECTED), else_=similarity)
            return (
                sa.select(sa.func.array_agg(aggregate_order_by(each, c.c.n), type_=ARRAY(sa.Double)))
                .select_from(c.join(chosen, chosen.c.n == n))
                .scalar_subquery()
            )

        first = candidates.alias("first")
        best = sa.select(first.c.n, first.c.rank, (weight * first.c.relevance).label("mmr"))
        best = best.order_by(first.c.relevance.desc(), first.c.n).limit(constant(1))
        start = best.subquery("start")
        step = constant(1).label("step")
        selected = sa.select(step, start, nearest(start.c.n, likeness(c, chosen)).label("nearest"))
        so_far = selected.cte(f"{to.prefix}_selected", recursive=True)

        open_ = candidates.alias("open")
        mmr = weight * open_.c.relevance - (ONE - weight) * so_far.c.nearest[open_.c.n]
        following = sa.select(open_.c.n, open_.c.rank, mmr.label("mmr")).where(so_far.c.nearest[open_.c.n] < SELECTED)
        next_ = following.order_by(mmr.desc(), open_.c.n).limit(constant(1)).lateral("next")
        nearer = nearest(next_.c.n, sa.func.greatest(so_far.c.nearest[c.c.n], likeness(c, chosen)))
        more = sa.select(so_far.c.step + constant(1), next_, nearer).select_from(so_far.join(next_, sa.true()))
        return so_far.union_all(more.where(so_far.c.step < constant(self.top_k)))


def _config(feature_uri: str, catalog: Catalog) -> VectorConfig | None:
    """The index, by its name or by the last part of a `mixpeek://extractor@v1/name` URI."""
    return catalog.by_name.get(feature_uri) or catalog.by_name.get(feature_uri.rsplit("/", 1)[-1])


def _finite(value: Float) -> Float:
    """What is missing is 0. Inner products of large vectors may be infinite; that and NaN would spoil the sum."""
    return sa.func.least(LARGEST, sa.func.greatest(-LARGEST, sa.func.coalesce(value, ZERO)))


def _equality(a: sa.ColumnElement[Any], b: sa.ColumnElement[Any]) -> Float:
    return sa.case((a == b, ONE), else_=ZERO)


def _check_feature(check: Check, feature: Feature, path: Sequence[str | int]) -> None:
    config = _config(feature.feature_uri, check.catalog)
    check.range("A weight", feature.weight, 0, 1, *path, "weight")
    if config is None:
        available = ", ".join(repr(name) for name in check.catalog.by_name) or "none"
        message = f"No vector index {feature.feature_uri!r} exists; available indexes: {available}."
        check.add("unknown_index", message, *path)
    elif config.kind != "dense":
        check.add("bad_parameter", f"The index {config.name!r} is {config.kind}; only dense ones are compared.", *path)
