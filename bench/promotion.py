"""`python -m bench.promotion`: how long a promotion shuts others out, by the number of documents, in the same run.

Two namespaces, 1,000 and 1,000,000 documents, are promoted in turns (two mappings and two new indexes, one of them of
multi-vectors) and put back by hand. Measured is the time from the statement that takes the exclusive lock on the
documents to the end of the commit, on the connection that runs them: an upper bound of what the server holds. Beside
it, one reader reads the namespace without a pause: its longest wait during a promotion is what a user would notice.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.db.engine import create_engine, transaction
from app.domain.catalog.namespaces import NewVector, create_standalone
from app.domain.promoting.promotion import Mapped, Promotion, promote
from app.inference.registry import Inference
from app.retrieval.catalog import Catalog
from app.settings import Settings

RATIO = 1.5
DIMENSION = 4
WANTED = Promotion(
    [Mapped("text", "minilm_l6_v2"), Mapped("title", "minilm_l6_v2")],
    [NewVector("image", 512, inference_service="clip_vit_b32"), NewVector("tokens", 64, kind="multi")],
)
FILL = sql.SQL("""
    INSERT INTO {} (document_id, collection_id, payload, metadata, small)
    SELECT 'd' || n, '_direct_upsert', jsonb_build_object('n', n, 'title', md5(n::text)), '{{}}',
        array[n, 1, 2, 3]::vector
    FROM generate_series(1, %s) n""")
# What a promotion did, undone; the namespace is as it was but for the numbers of dropped columns.
UNDO = sql.SQL("""
    ALTER TABLE {documents} DROP COLUMN image;
    DROP TABLE {tokens};
    DELETE FROM pgretrieve.vector_inference_map WHERE namespace_id = {namespace};
    DELETE FROM pgretrieve.vector_configs WHERE namespace_id = {namespace} AND name IN ('image', 'tokens');
    UPDATE pgretrieve.namespaces SET mode = 'standalone' WHERE namespace_id = {namespace};
    DELETE FROM pgretrieve_queue.procrastinate_jobs WHERE args ->> 'namespace_id' = {namespace};""")


@dataclass(frozen=True, slots=True)
class Held:
    """A namespace of so many documents: medians of all promotions, in ms."""

    documents: int
    exclusive_ms: float  # the lock that shuts out readers
    whole_ms: float  # the transaction, which shuts out writers
    longest_read_ms: float
    read_ms: float  # without a promotion


class Clock:
    """When the exclusive lock was asked for, by the statement that takes it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.asked = 0.0

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def before(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
            if text.lstrip().startswith("ALTER TABLE") and not self.asked:
                self.asked = time.perf_counter()


class Reader:
    """Reads one document again and again, on a connection and a thread of its own, and notes the longest read."""

    def __init__(self, url: str, schema: str) -> None:
        self.times: list[float] = []
        self._url, self._stop = url, threading.Event()
        query = sql.SQL("SELECT payload FROM {} WHERE document_id = 'd7'")
        self._query = query.format(sql.Identifier(schema, "documents"))

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.times.clear()
        self._stop.clear()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        while len(self.times) < 20:
            time.sleep(0.001)
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self._stop.is_set():
                began = time.perf_counter()
                conn.execute(self._query)
                self.times.append((time.perf_counter() - began) * 1000)


async def measure(directory: Path, counts: list[int], rounds: int, console: Console) -> list[Held]:
    """All namespaces, in turns, on a server of its own."""
    settings = Settings(data_dir=directory, database_url=None)
    with service.database(settings) as url:
        engine = create_engine(url, settings)
        try:
            with console.status("Filling the namespaces …"):
                namespaces = [await _filled(engine, settings, url, count) for count in counts]
            times: dict[int, list[tuple[float, float, float, float]]] = {count: [] for count in counts}
            with console.status("Promoting …"):
                for turn in range(rounds + 1):  # the first one warms the caches
                    for count, catalog in zip(counts, namespaces, strict=True):
                        found = await _promoted(engine, settings, url, catalog)
                        times[count] += [found] if turn else []
            return [Held(count, *map(statistics.median, zip(*times[count], strict=True))) for count in counts]
        finally:
            await engine.dispose()


async def _filled(engine: AsyncEngine, settings: Settings, url: str, count: int) -> Catalog:
    vectors = [NewVector("text", 384), NewVector("title", 384), NewVector("small", DIMENSION)]
    async with transaction(engine, settings) as conn:
        catalog = await create_standalone(conn, settings, namespace_id=f"n{count}", vectors=vectors)
    with psycopg.connect(url, autocommit=True) as conn:
        documents = sql.Identifier(catalog.schema, "documents")
        # Not rebuilt: no statement of a promotion looks at it, and a million inserts into it take ten minutes.
        conn.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(catalog.schema, "documents_small_hnsw")))
        conn.execute(FILL.format(documents), [count])
        conn.execute(sql.SQL("VACUUM ANALYZE {}").format(documents))
    return catalog


async def _promoted(
    engine: AsyncEngine, settings: Settings, url: str, catalog: Catalog
) -> tuple[float, float, float, float]:
    services = {info.name: info for info in Inference.from_settings(settings).infos()}
    clock, reader = Clock(engine), Reader(url, catalog.schema)
    with reader.reading():
        usual = statistics.median(reader.times)
        reader.times.clear()
        began = time.perf_counter()
        async with transaction(engine, settings, lock_timeout_ms=settings.lock_timeout_ms) as conn:
            await promote(conn, catalog.namespace_id, WANTED, services, settings, "bench")
        ended = time.perf_counter()
        await asyncio.sleep(0.02)
    documents = sql.Identifier(catalog.schema, "documents")
    tokens = sql.Identifier(catalog.schema, "documents_tokens")
    with psycopg.connect(url, options="-c search_path=pgretrieve_queue,public") as undoing:
        undoing.execute(UNDO.format(documents=documents, tokens=tokens, namespace=sql.Literal(catalog.namespace_id)))
    assert clock.asked
    return (ended - clock.asked) * 1000, (ended - began) * 1000, max(reader.times), usual


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.promotion", description=__doc__)
    parser.add_argument(
        "--documents", type=int, nargs=2, default=[1_000, 1_000_000], help="default 1,000 and 1,000,000"
    )
    parser.add_argument("--rounds", type=int, default=50, help="promotions of each, default 50")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    given, console = parser.parse_args(), Console()
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(measure(Path(name, "promotion"), given.documents, given.rounds, console))
    ratio = found[1].exclusive_ms / found[0].exclusive_ms
    table = Table(title=f"Promotions in turns, {given.rounds} of each, medians in ms")
    for column in ("documents", "exclusive lock", "whole transaction", "longest read", "a read without"):
        table.add_column(column, justify="right")
    for each in found:
        figures = (each.exclusive_ms, each.whole_ms, each.longest_read_ms, each.read_ms)
        table.add_row(f"{each.documents:,}", *(f"{ms:.2f}" for ms in figures))
    colour = "green" if ratio <= RATIO else "red"
    table.caption = f"exclusive lock: [{colour}]{ratio:.2f}[/{colour}] times as long, at most {RATIO}"
    console.print(table)
    if given.json is not None:
        given.json.write_text(json.dumps({"ratio": ratio, "held": [asdict(each) for each in found]}, indent=2) + "\n")
    if ratio > RATIO:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
