"""How each metric and each dimension lives in pgvector: operators, scores, index methods, and what a vector must be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import BIT, HALFVEC, VECTOR

from app.retrieval.catalog import IndexMethod, Metric, VectorConfig

Vector = NDArray[np.float32]

# pgvector's own limits of an HNSW index, in dimensions.
MAX_HNSW_VECTOR = 2_000
MAX_HNSW_HALFVEC = 4_000
# The largest number that half precision holds; a larger one fails the insert into a halfvec index.
HALF_MAX = 65_504.0

# Constants stand in the text: only what a request brings is a parameter.
ONE: sa.ColumnElement[float] = sa.literal_column("1", sa.Double())

OPERATORS: dict[Metric, str] = {"cosine": "<=>", "dot": "<#>", "euclidean": "<->"}
OPERATOR_CLASSES: dict[Metric, str] = {"cosine": "cosine_ops", "dot": "ip_ops", "euclidean": "l2_ops"}
METRIC_SPELLINGS: dict[str, Metric] = {
    "cosine": "cosine",
    "dot": "dot",
    "dot_product": "dot",
    "euclidean": "euclidean",
}


def index_method(dimension: int, metric: Metric) -> IndexMethod:
    """HNSW on vector to 2,000 dimensions, on a halfvec cast to 4,000; above, bits for cosine, else exact search."""
    if dimension <= MAX_HNSW_VECTOR:
        return "hnsw_vector"
    if dimension <= MAX_HNSW_HALFVEC:
        return "hnsw_halfvec"
    # The sign bits of a vector say much about its direction and nothing about its length.
    return "hnsw_binary" if metric == "cosine" else "exact"


def distance(metric: Metric, column: sa.ColumnElement[Any], query: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    """pgvector's distance, smaller is nearer: 1 - cosine, negative inner product, or L2."""
    return column.op(OPERATORS[metric], precedence=5, return_type=sa.Double())(query)


def score(metric: Metric, distance: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """Higher is better: cosine similarity, inner product, or 1 / (1 + L2)."""
    if metric == "cosine":
        return ONE - distance
    if metric == "dot":
        return -distance
    return ONE / (ONE + distance)


def index_expression(config: VectorConfig, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """What the config's index holds; the same expression must stand in the ORDER BY that is to use it."""
    if config.index_method == "hnsw_halfvec":
        return sa.cast(column, HALFVEC(config.dimension))
    if config.index_method == "hnsw_binary":
        return sa.cast(sa.func.binary_quantize(column), BIT(config.dimension))
    return column


def index_operator_class(config: VectorConfig) -> str:
    if config.index_method == "hnsw_binary":
        return "bit_hamming_ops"
    kind = "halfvec" if config.index_method == "hnsw_halfvec" else "vector"
    return f"{kind}_{OPERATOR_CLASSES[config.metric]}"


def index_distance(
    config: VectorConfig, column: sa.ColumnElement[Any], query: sa.ColumnElement[Any]
) -> sa.ColumnElement[float]:
    """The distance that the index can order by; coarse for halfvec and bits, which are re-scored after it."""
    if config.index_method == "hnsw_halfvec":
        return distance(config.metric, index_expression(config, column), sa.cast(query, HALFVEC(config.dimension)))
    if config.index_method == "hnsw_binary":
        bits = sa.cast(sa.func.binary_quantize(query), BIT(config.dimension))
        return index_expression(config, column).op("<~>", precedence=5, return_type=sa.Double())(bits)
    return distance(config.metric, column, query)


def vector_type(config: VectorConfig) -> VECTOR:
    return VECTOR(config.dimension)


def as_vector(raw: Any, config: VectorConfig) -> Vector:
    """The float32 vector, shape (dimension,), that `raw` (a list of numbers) means; ValueError says why it is none."""
    if not isinstance(raw, Sequence | np.ndarray) or isinstance(raw, str | bytes):
        raise ValueError(f"a vector is a list of {config.dimension} numbers, not {_kind(raw)}")
    if len(raw) != config.dimension:
        raise ValueError(f"it has {len(raw)} dimensions, the index {config.name!r} has {config.dimension}")
    try:
        wide = np.asarray(raw)
        if wide.dtype.kind not in "iuf":
            raise ValueError("not numbers")
        with np.errstate(over="ignore"):
            vector: Vector = wide.astype(np.float32)
    except (ValueError, OverflowError):
        raise ValueError("every element of a vector must be a number") from None
    return _checked(vector, config)


def _checked(vector: Vector, config: VectorConfig) -> Vector:
    if not np.isfinite(vector).all():
        raise ValueError("it holds NaN, Infinity or a number beyond the range of float32")
    if config.metric == "cosine":
        # In float32, as pgvector adds it up: a norm that under- or overflows there gives NaN distances.
        with np.errstate(over="ignore", under="ignore"):
            norm = float(np.dot(vector, vector))
        if norm == 0.0 or not np.isfinite(norm):
            what = "zero vector" if norm == 0.0 else "vector whose length overflows float32"
            raise ValueError(f"a {what} has no direction, so no cosine; scale it or use another metric")
    if config.index_method == "hnsw_halfvec" and float(np.abs(vector).max()) > HALF_MAX:
        raise ValueError(f"indexes above {MAX_HNSW_VECTOR} dimensions hold half precision, at most ±{HALF_MAX:.0f}")
    return vector


def _kind(raw: Any) -> str:
    return {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}.get(type(raw), "a number")
