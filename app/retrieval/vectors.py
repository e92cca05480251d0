"""How each metric and each dimension lives in pgvector: operators, scores, index methods, and what a vector must be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import SparseVector
from pgvector.sqlalchemy import BIT, HALFVEC

from app.retrieval.catalog import IndexMethod, Kind, Metric, VectorConfig

Vector = NDArray[np.float32]
# Of a dense, a sparse or a multi-vector.
Value = Vector | SparseVector | list[Vector]

# pgvector's own limits of an HNSW index, in dimensions.
MAX_HNSW_VECTOR = 2_000
MAX_HNSW_HALFVEC = 4_000
# The largest number that half precision holds; a larger one fails the insert into a halfvec index.
HALF_MAX = 65_504.0
# pgvector's own limits of a sparse vector.
MAX_NON_ZERO = 16_000
MAX_SPARSE_DIMENSION = 1_000_000_000

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


def index_method(dimension: int, metric: Metric, kind: Kind = "dense") -> IndexMethod:
    """HNSW on vector to 2,000 dimensions, on a halfvec cast to 4,000; above, bits for cosine, else exact search.

    A multi-vector's index holds each of its vectors; pgvector indexes no sparse vector of more than 1,000 values.
    """
    if kind == "sparse":
        return "exact"
    if dimension <= MAX_HNSW_VECTOR:
        return "hnsw_vector"
    if dimension <= MAX_HNSW_HALFVEC:
        return "hnsw_halfvec"
    # The sign bits of a vector say much about its direction and nothing about its length.
    return "hnsw_binary" if metric == "cosine" and kind == "dense" else "exact"


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


def as_value(raw: Any, config: VectorConfig) -> Value:
    """What is stored for `raw` in an index of this kind; ValueError says why it cannot be."""
    if config.kind == "sparse":
        return as_sparse(raw, config)
    if config.kind == "multi":
        return as_multi(raw, config)
    if isinstance(raw, list) and raw and isinstance(raw[0], list):
        raise ValueError(f"the index {config.name!r} is dense: it takes one vector, not several")
    return as_vector(raw, config)


def as_vector(raw: Any, config: VectorConfig) -> Vector:
    """The float32 vector, shape (dimension,), that `raw` (a list of numbers) means; ValueError says why it is none."""
    if not isinstance(raw, Sequence | np.ndarray) or isinstance(raw, str | bytes):
        raise ValueError(f"a vector is a list of {config.dimension} numbers, not {_kind(raw)}")
    if len(raw) != config.dimension:
        raise ValueError(f"it has {len(raw)} dimensions, the index {config.name!r} has {config.dimension}")
    return _checked(_numbers(raw), config)


def as_query(raw: Any, config: VectorConfig) -> Value:
    """What an index of this kind can be searched with; one vector is a multi-vector, too."""
    if config.kind == "multi" and not (isinstance(raw, list) and raw and isinstance(raw[0], list)):
        return [as_vector(raw, config)]
    return as_value(raw, config)


def random_query(config: VectorConfig) -> Value:
    """A query in a random direction."""
    draw = np.random.default_rng()
    if config.kind == "sparse":
        indices = draw.choice(config.dimension, min(config.dimension, 8), replace=False).tolist()
        return SparseVector(dict.fromkeys(indices, 1.0), config.dimension)
    vector = draw.standard_normal(config.dimension, np.float32)
    return [vector] if config.kind == "multi" else vector


def mean_of(raw: Any, config: VectorConfig) -> Vector:
    """The mean of several vectors, which count alike by direction where the metric is cosine."""
    vectors = as_multi([vector.tolist() if isinstance(vector, np.ndarray) else vector for vector in raw], config)
    if config.metric == "cosine":
        vectors = [vector / np.linalg.norm(vector) for vector in vectors]
    mean: Vector = np.mean(vectors, axis=0, dtype=np.float32)
    return _checked(mean, config)


def as_sparse(raw: Any, config: VectorConfig) -> SparseVector:
    """`{"indices": […], "values": […]}`, indices from 0 and each once, in any order; no value is 0."""
    if not isinstance(raw, dict) or raw.keys() != {"indices", "values"}:
        what = "a dense vector" if isinstance(raw, list) else _kind(raw)
        raise ValueError(f'the index {config.name!r} is sparse: it takes {{"indices": […], "values": […]}}, not {what}')
    indices, values = raw["indices"], raw["values"]
    if not isinstance(indices, list) or not isinstance(values, list) or len(indices) != len(values):
        raise ValueError("indices and values are lists of the same length")
    if len(indices) > MAX_NON_ZERO:
        raise ValueError(f"it has {len(indices)} values; a sparse vector has at most {MAX_NON_ZERO}")
    if not all(type(index) is int and 0 <= index < config.dimension for index in indices):
        raise ValueError(f"indices are whole numbers from 0 to {config.dimension - 1}")
    if len(set(indices)) != len(indices):
        raise ValueError("an index is given more than once")
    numbers = _checked(_numbers(values), config) if values else np.zeros(0, np.float32)
    if not numbers.all():
        raise ValueError("a value is 0 (perhaps only in float32): what is 0 is left out of a sparse vector")
    if not values and config.metric == "cosine":
        raise ValueError("a vector without values has no direction, so no cosine; use another metric")
    return SparseVector(dict(zip(indices, numbers.tolist(), strict=True)), config.dimension)


def as_multi(raw: Any, config: VectorConfig) -> list[Vector]:
    """A list of vectors, each of the index's dimension."""
    if not isinstance(raw, list) or not raw or not all(isinstance(row, list) for row in raw):
        what = "a sparse vector" if isinstance(raw, dict) else "one vector" if raw else "an empty one"
        raise ValueError(f"the index {config.name!r} holds multi-vectors: it takes a list of vectors, not {what}")
    found = []
    for n, row in enumerate(raw):
        try:
            found.append(as_vector(row, config))
        except ValueError as error:
            raise ValueError(f"vector {n}: {error}") from None
    return found


def _numbers(raw: Any) -> Vector:
    try:
        wide = np.asarray(raw)
        if wide.dtype.kind not in "iuf" or wide.ndim != 1:
            raise ValueError("not numbers")
        with np.errstate(over="ignore"):
            vector: Vector = wide.astype(np.float32)
    except (ValueError, OverflowError):
        raise ValueError("every element of a vector must be a number") from None
    return vector


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
        raise ValueError(f"the index {config.name!r} holds half precision, at most ±{HALF_MAX:.0f}")
    return vector


def _kind(raw: Any) -> str:
    return {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}.get(type(raw), "a number")
