"""Findings about plans that PostgreSQL really ran, each provoked; and none where there is nothing to say."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from app.domain.retrieving.findings import Finding, Statement, findings
from app.errors import Problems
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.filters import FilterLimits
from app.retrieval.pipeline import Segment, parse_pipeline
from app.retrieval.stages.base import Limits
from tests.http import feature_search, search

ROWS = 5_000
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
LIMITS = Limits(10, 10, 1_000, FilterLimits(10, 100))
CONFIG = VectorConfig("v", "v", 2, "euclidean", "documents_v", "hnsw_vector", "ready")


@pytest.fixture(scope="module")
def documents(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """Vectors along a line with an HNSW index; the near end is what no filter of the tests keeps."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA findings")
        conn.execute("CREATE TABLE findings.documents (document_id text PRIMARY KEY, v vector(2), n int, pad text)")
        conn.execute(
            "INSERT INTO findings.documents SELECT 'd' || n, ARRAY[n, 1]::vector, n, repeat('x', 100)"
            " FROM generate_series(1, %s) AS n",
            [ROWS],
        )
        conn.execute("CREATE INDEX documents_v ON findings.documents USING hnsw (v vector_l2_ops) WITH (m = 4)")
        conn.execute("ANALYZE findings.documents")
        yield conn
        conn.execute("DROP SCHEMA findings CASCADE")


def found(
    conn: psycopg.Connection[Any], query: str, *, config: VectorConfig = CONFIG, **settings: Any
) -> list[Finding]:
    with conn.transaction():
        for name, value in settings.items():
            conn.execute("SELECT set_config(%s, %s, true)", [name.replace("__", "."), value])
        row = conn.execute((EXPLAIN + query).encode()).fetchone()
    assert row is not None
    pipeline = parse_pipeline([feature_search(search("v", [0, 1], top_k=10))], LIMITS, Problems())
    catalog = Catalog("findings", "findings", "findings", "standalone", 1, False, (config,), {})
    return findings(Statement(Segment(0, pipeline.steps), catalog, {}, ROWS), row[0][0])


def codes(told: list[Finding]) -> list[str]:
    return [finding.code for finding in told]


NEAREST = "SELECT document_id FROM findings.documents {where} ORDER BY v <-> '[0,1]' LIMIT 10"


def test_a_search_by_its_index_that_finds_enough_gives_no_finding(documents: Any) -> None:
    assert found(documents, NEAREST.format(where=""), enable_seqscan="off") == []


def test_fewer_rows_than_asked_for_are_found(documents: Any) -> None:
    query = NEAREST.format(where="WHERE n > 4000")
    (finding,) = found(documents, query, enable_seqscan="off", enable_sort="off", hnsw__ef_search="20")
    assert (finding.code, finding.severity, finding.stage) == ("under_return", "warning", "feature_search")
    assert (finding.details["asked"], finding.details["returned"]) == (10, 0)
    settings: dict[str, Any] = {"hnsw__iterative_scan": "relaxed_order", "hnsw__max_scan_tuples": "100000"}
    assert "under_return" not in codes(found(documents, query, enable_seqscan="off", enable_sort="off", **settings))


def test_an_index_that_is_not_used_or_not_ready_is_found(documents: Any) -> None:
    query = NEAREST.format(where="")
    (finding,) = found(documents, query, enable_indexscan="off")
    assert (finding.code, finding.severity) == ("index_not_used", "warning")
    assert "5,000 documents were read" in finding.message
    building = VectorConfig("v", "v", 2, "euclidean", "documents_v", "hnsw_vector", "building")
    assert codes(found(documents, query, config=building, enable_indexscan="off")) == ["index_not_ready"]
    none = VectorConfig("v", "v", 2, "euclidean", "documents_v", "exact", "ready")
    assert found(documents, query, config=none, enable_indexscan="off") == []


def test_sorts_and_hashes_that_spill_are_found(documents: Any) -> None:
    few: dict[str, Any] = {"work_mem": "64kB", "enable_indexscan": "off", "max_parallel_workers_per_gather": "0"}
    query = "SELECT pad, n FROM findings.documents ORDER BY pad || n"
    spilled = [f for f in found(documents, query, **few) if f.code == "sort_spilled"]
    assert len(spilled) == 1
    assert spilled[0].details["kilobytes"] > 100
    assert "work_mem" in spilled[0].message
    joined = "SELECT count(*) FROM findings.documents a JOIN findings.documents b USING (pad, n)"
    hashed: dict[str, Any] = {**few, "enable_mergejoin": "off", "enable_nestloop": "off"}
    assert "sort_spilled" in codes(found(documents, joined, **hashed))


def test_filters_that_read_far_more_than_they_keep_and_bad_estimates_are_found(documents: Any) -> None:
    query = "SELECT document_id FROM findings.documents WHERE n % 1000 = 0 OR pad IS NULL"
    told = {finding.code: finding for finding in found(documents, query)}
    assert told["unindexed_filter"].severity == "warning"
    assert "read 5,000 documents to keep 5" in told["unindexed_filter"].message
    half = {f.code: f for f in found(documents, "SELECT document_id FROM findings.documents WHERE n % 2 = 0")}
    assert half["unindexed_filter"].severity == "info"
    assert half["bad_estimate"].details == {"expected": 25, "found": 2_500}
