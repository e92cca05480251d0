"""Recall over HTTP at the default settings: what the indexes find, beside exact search with numpy over the same data.

The vectors are real (GloVe, see tests/data); queries are words that are not stored. Each test proves first that the
statement is one that its index answers.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from tests.data import glove
from tests.data.glove import Glove
from tests.http import ROOT_KEY, Api, feature_search, search

K = 10
QUERIES = 250
# Inserting into HNSW takes most of the time, so that only the default metric has all the vectors.
ROWS = {"cosine": 20_000, "euclidean": 5_000, "dot": 5_000}
# One dimension more than an index of vectors takes, and one more than an index of half precision: that one has only
# the signs. Up to 2,000 rows a search of ten is exact; of the first PostgreSQL would read a few more, too.
WIDE = {"half": 2_001, "bits": 4_001}
WIDE_ROWS = {"half": 2_600, "bits": 2_100}

Numbers = NDArray[Any]
Wide = tuple[Api, dict[str, Numbers], dict[str, Numbers]]


@pytest.fixture(scope="module")
def words() -> Glove:
    return glove.load()


@pytest.fixture(scope="module")
def http(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{base_url}/v1", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def narrow(http: httpx.Client, conninfo: str, words: Glove) -> Api:
    """A vector config for each metric."""
    api = Api(http, f"recall_{uuid4().hex[:12]}")
    api.standalone(*((metric, words.stored.shape[1], metric) for metric in ROWS))
    _load(api, conninfo, {metric: words.stored[:rows] for metric, rows in ROWS.items()}, batch=1_000)
    return api


@pytest.fixture(scope="module")
def wide(http: httpx.Client, conninfo: str, words: Glove) -> Wide:
    """Vectors turned into spaces of more dimensions, with their queries."""
    stored = {name: _turned(words.stored[: WIDE_ROWS[name]], dimension) for name, dimension in WIDE.items()}
    queries = {name: _turned(words.queries[:QUERIES], dimension) for name, dimension in WIDE.items()}
    api = Api(http, f"recall_{uuid4().hex[:12]}")
    api.standalone(*WIDE.items())
    _load(api, conninfo, stored, batch=200)
    return api, stored, queries


# Measured, at least: cosine 0.9996, euclidean 0.9992, dot 0.9972; the layers of an index are drawn by lot.
@pytest.mark.parametrize("metric", ROWS)
def test_hnsw(metric: str, narrow: Api, conninfo: str, words: Glove) -> None:
    recall = _recall(narrow, conninfo, metric, words.stored[: ROWS[metric]], words.queries[:QUERIES])
    assert recall >= 0.95, recall


# Measured: half 1.0, bits 0.9996 with 80 candidates of 2,100 re-scored.
@pytest.mark.parametrize("name", WIDE)
def test_indexes_that_are_coarser_than_the_vectors(name: str, wide: Wide, conninfo: str) -> None:
    api, stored, queries = wide
    recall = _recall(api, conninfo, name, stored[name], queries[name])
    assert recall >= 0.95


def _turned(vectors: Numbers, dimension: int) -> Numbers:
    """The vectors under an orthogonal map into more dimensions: angles and distances stay what they are. Four decimals
    are kept, for JSON's sake."""
    directions, _ = np.linalg.qr(np.random.default_rng(41).normal(size=(dimension, vectors.shape[1])))
    turned: Numbers = (vectors @ directions.T).round(4)
    return turned


def _load(api: Api, conninfo: str, vectors: dict[str, Numbers], batch: int) -> None:
    """Upsert everything, two requests at a time."""
    rows = max(map(len, vectors.values()))
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}

    def upsert(first: int) -> None:
        documents = [
            {"document_id": str(n), "vectors": {name: of[n].tolist() for name, of in vectors.items() if n < len(of)}}
            for n in range(first, min(first + batch, rows))
        ]
        body = msgspec.json.encode({"documents": documents})
        answer = api.http.post(f"/namespaces/{api.namespace}/documents/upsert", content=body, headers=headers)
        assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(upsert, range(0, rows, batch)))
    with psycopg.connect(conninfo, autocommit=True) as conn:  # as autovacuum does, within a minute
        conn.execute(f"ANALYZE {api.namespace}.documents")


def _recall(api: Api, conninfo: str, name: str, stored: Numbers, queries: Numbers) -> float:
    """The mean share of the ten nearest that a search with the default settings finds."""
    metric = name if name in ROWS else "cosine"
    schema = {"v": {"type": "array"}}
    api.retriever(f"by_{name}", feature_search(search(name, "{{INPUT.v}}", top_k=K)), input_schema=schema)
    _assert_uses_index(api, conninfo, name, queries[0])
    found = 0
    for query, nearest in zip(queries, _nearest(metric, stored, queries), strict=True):
        ids = {int(document_id) for document_id in api.ids(f"by_{name}", inputs={"v": query.tolist()})}
        assert len(ids) == K
        found += len(ids & nearest)
    return found / (K * len(queries))


def _nearest(metric: str, stored: Numbers, queries: Numbers) -> list[set[int]]:
    """Exact search."""
    wide, asked = stored.astype(np.float64), queries.astype(np.float64)
    closeness = asked @ wide.T
    if metric == "cosine":
        closeness /= np.linalg.norm(wide, axis=1)
    elif metric == "euclidean":
        closeness -= (wide**2).sum(axis=1) / 2
    return [set(row.tolist()) for row in np.argpartition(-closeness, K, axis=1)[:, :K]]


def _assert_uses_index(api: Api, conninfo: str, name: str, query: Numbers) -> None:
    """EXPLAIN the very statement, under its settings."""
    answer = api.execute(f"by_{name}", inputs={"v": query.tolist()}, explain=True)
    plan: dict[str, Any] = answer["explain_plan"]
    values = {"s1_query_1": str(query.tolist()), "page_limit": None, "page_offset": 0}
    values |= {"namespace_id": api.namespace, "retriever_id": answer["retriever_id"]}
    with psycopg.connect(conninfo) as conn:
        for setting, value in plan["settings"].items():
            conn.execute("SELECT set_config(%s, %s, true)", (setting, value))
        row = conn.execute(f"EXPLAIN (FORMAT JSON) {plan['statement']}", values).fetchone()
    assert row is not None
    assert f'"documents_{name}_hnsw"' in json.dumps(row[0])
