"""How fast documents are stored over HTTP, beside a hand-written COPY into such a table, in the same run."""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from app import service
from app.settings import Settings
from bench.client import Connection, Target
from bench.servers import running
from tests.data import glove

DIMENSIONS = (50, 768)
BATCH = 500
ROUNDS = 3
TABLE = """
    CREATE TABLE copied (document_id text PRIMARY KEY, collection_id text NOT NULL, payload jsonb NOT NULL,
        metadata jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(), v vector({dimension}));
    CREATE INDEX ON copied (collection_id, document_id);
    CREATE INDEX ON copied USING hnsw (v vector_cosine_ops) WITH (m = 16, ef_construction = 64);
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """Documents a second, the median of the rounds; the index is there and grows in both."""

    dimension: int
    documents: int
    service: float
    copy: float

    @property
    def ratio(self) -> float:
        return self.service / self.copy


def measure(directory: Path, documents: int) -> list[Rate]:
    """Both ways at each dimension, in turns, each round into an empty table."""
    settings = Settings(data_dir=directory, database_url=None)
    key = service.root_key(settings).key
    with service.database(settings) as url, running(settings, url, key) as base:
        return [_at(base, url, key, dimension, documents) for dimension in DIMENSIONS]


def _at(base: str, url: str, key: str, dimension: int, documents: int) -> Rate:
    vectors = _vectors(dimension)[:documents]
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS):
        rates[0].append(documents / _upserted(base, key, vectors, f"upserts_{dimension}_{turn}"))
        rates[1].append(documents / _copied(url, vectors))
    return Rate(dimension, documents, statistics.median(rates[0]), statistics.median(rates[1]))


def _vectors(dimension: int) -> NDArray[np.float32]:
    """Real vectors of 50 dimensions; for more, turned into a wider space by a random map that keeps every angle."""
    words = glove.load().stored
    if dimension == words.shape[1]:
        return words
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((dimension, words.shape[1])))
    return np.asarray(words @ turn.T, dtype=np.float32)


def _upserted(base: str, key: str, vectors: NDArray[np.float32], namespace: str) -> float:
    """Seconds for all documents through the API, one client, bodies made ready before the clock runs."""
    headers = {"Authorization": f"Bearer {key}"}
    config = {"name": "v", "dimension": vectors.shape[1]}
    create = json.dumps({"namespace_id": namespace, "vector_configs": [config]}).encode()
    with Connection(Target("create", base, "/v1/namespaces/standalone", headers, [create])) as connection:
        connection.answer(0)
    bodies = []
    for at in range(0, len(vectors), BATCH):
        rows = [
            {"document_id": f"d{at + n}", "vectors": {"v": vector.tolist()}, "payload": {"n": at + n}}
            for n, vector in enumerate(vectors[at : at + BATCH])
        ]
        bodies.append(json.dumps({"documents": rows}).encode())
    path = f"/v1/namespaces/{namespace}/documents/upsert"
    with Connection(Target("upsert", base, path, headers, bodies)) as connection:
        return sum(connection.timed(n) for n in range(len(bodies))) / 1000


def _copied(url: str, vectors: NDArray[np.float32]) -> float:
    """Seconds for the same rows by COPY in binary, committed batch by batch as the API commits them."""
    with _table(url, vectors.shape[1]) as conn:
        started = time.perf_counter()
        for at in range(0, len(vectors), BATCH):
            with (
                conn.transaction(),
                conn.cursor() as cursor,
                cursor.copy("COPY copied (document_id, collection_id, payload, metadata, v) FROM STDIN BINARY") as copy,
            ):
                copy.set_types(["text", "text", "jsonb", "jsonb", "vector"])
                for n, vector in enumerate(vectors[at : at + BATCH]):
                    payload = psycopg.types.json.Jsonb({"n": at + n})
                    copy.write_row((f"d{at + n}", "_direct_upsert", payload, psycopg.types.json.Jsonb({}), vector))
        return time.perf_counter() - started


@contextmanager
def _table(url: str, dimension: int) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as conn:
        register_vector(conn)
        conn.execute("DROP TABLE IF EXISTS copied")
        for statement in TABLE.format(dimension=dimension).split(";"):
            if statement.strip():
                conn.execute(statement.encode())
        yield conn
