"""`python -m bench.lexical`: lexical search in real prose, beside the reference bm25s in the same run.

The texts are Debian's package descriptions and WordNet's glosses, which apt fetches (apt and dpkg-deb are needed; no
root). Measured are the order's overlap with the reference's, times, what the index takes, and what it costs to write.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bm25s
import msgspec
import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.db.engine import create_engine, transaction
from app.demo.debian import fetch, read_stanzas
from app.domain.catalog import lexical, namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.retrieving import execution, retrievers
from app.domain.retrieving.execution import Execution
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs.tasks import connecting
from app.settings import Settings
from app.telemetry import Timings
from tests.data import glove

MIRROR, SUITE, GLOSSES = "http://deb.debian.org/debian", "bookworm", "wordnet-base"
BATCH, QUERIES, ROUNDS, TOP_K = 500, 200, 3, 10
STAGE = {
    "stage_id": "feature_search",
    "parameters": {
        "searches": [{"feature_uri": "text", "query": "{{INPUT.q}}", "lexical": True, "top_k": TOP_K}],
        "final_top_k": TOP_K,
    },
}
LEXEMES = """
    SELECT document_id, ARRAY(SELECT lexeme FROM unnest(words), generate_series(1, cardinality(positions)))
    FROM indexed.lexical_documents ORDER BY document_id"""
ASKED = (
    "SELECT ARRAY(SELECT lexeme FROM unnest(to_tsvector('english', %s)), generate_series(1, cardinality(positions)))"
)
FREQUENT = """
    SELECT lexeme FROM indexed.lexical_postings GROUP BY lexeme
    HAVING sum(change * cardinality(numbers)) BETWEEN %(n)s * 0.1 AND %(n)s * 0.5 ORDER BY lexeme"""
SIZES = """
    SELECT relname, pg_total_relation_size(c.oid) FROM pg_class c
    WHERE relnamespace = 'indexed'::regnamespace AND relkind = 'r' ORDER BY relname"""


@dataclass(frozen=True, slots=True)
class Timed:
    """Queries of one kind: their times in ms, and the share of the reference's ten best that they found."""

    kind: str
    queries: int
    p50: float
    p95: float
    overlap: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that a run found. Sizes are bytes, rates documents a second."""

    documents: int
    timed: list[Timed]
    sizes: dict[str, int]
    rate_with: float
    rate_without: float
    merge_s: float


def corpus(count: int) -> tuple[list[str], list[str]]:
    """`count` texts in a fixed order, and synopses of packages, which are queries."""
    try:
        snapshot = fetch(MIRROR, SUITE)
        glosses = _glosses()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"The texts come from Debian by apt and dpkg-deb, which do not work here: {error}") from error
    found = {stanza["Description-en"] for stanza in read_stanzas(snapshot.translations) if "Description-en" in stanza}
    described = [re.sub(r"\n \.?", " ", text) for text in sorted(found)]
    # Without the marks of phrases and prefixes, which the reference does not know.
    synopses = [re.sub(r'["*]', " ", text.split("\n", 1)[0]) for text in sorted(found)]
    texts = [*described, *glosses]
    if len(texts) < count:
        raise SystemExit(f"There are {len(texts):,} texts, fewer than {count:,}: choose --documents.")
    random.Random(1).shuffle(texts)
    return texts[:count], synopses


def _glosses() -> list[str]:
    with tempfile.TemporaryDirectory(prefix="pgretrieve-bench-") as name:
        subprocess.run(["apt-get", "download", "-qq", GLOSSES], cwd=name, check=True, capture_output=True)
        (package,) = Path(name).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, name], check=True, capture_output=True)
        files = sorted(Path(name).glob("usr/share/wordnet/data.*"))
        lines = (line for file in files for line in file.read_text(encoding="latin-1").splitlines())
        return list(dict.fromkeys(line.split("|", 1)[1].strip() for line in lines if "|" in line[:2_000]))


async def measure(directory: Path, count: int) -> Measured:
    """Load the texts into two namespaces, one of them with the index, batch by batch in turns; then search."""
    settings = Settings(data_dir=directory, database_url=None)
    texts, synopses = corpus(count)
    with service.database(settings) as url:
        engine = create_engine(url, settings)
        try:
            rates = await _load(engine, settings, texts)
            started = time.perf_counter()
            async with connecting(url, settings) as conn:
                await lexical.merge_due(conn)
            merged = time.perf_counter() - started
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("VACUUM ANALYZE")
                sizes: dict[str, int] = dict(conn.execute(SIZES).fetchall())
                reference = Reference(conn)
                timed = await _search(engine, settings, reference, synopses, len(texts))
        finally:
            await engine.dispose()
    return Measured(count, timed, sizes, *rates, merged)


async def _load(engine: AsyncEngine, settings: Settings, texts: Sequence[str]) -> tuple[float, float]:
    """Documents a second with the index and without; both have a vector index of 50 dimensions."""
    vectors = glove.load().stored
    took = {"indexed": 0.0, "plain": 0.0}
    for name in took:
        async with transaction(engine, settings) as conn:
            await namespaces.create_standalone(conn, settings, namespace_id=name, vectors=[NewVector("v", 50)])
            if name == "indexed":
                await lexical.declare(conn, name, lexical.fields_of({"text": None}))
    for at in range(0, len(texts), BATCH):
        given = [
            Document(f"d{n:06}", {"v": vectors[n % len(vectors)]}, msgspec.json.encode({"text": text}))
            for n, text in enumerate(texts[at : at + BATCH], start=at)
        ]
        for name in sorted(took, reverse=at % (2 * BATCH) == 0):
            started = time.perf_counter()
            async with transaction(engine, settings) as conn:
                await documents.upsert(conn, await namespaces.load_catalog(conn, name), given, settings)
            took[name] += time.perf_counter() - started
    return len(texts) / took["indexed"], len(texts) / took["plain"]


class Reference:
    """bm25s, fed with the lexemes that PostgreSQL found."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        rows = conn.execute(LEXEMES).fetchall()
        self.names = np.array([name for name, _ in rows])
        self.index = bm25s.BM25(k1=1.2, b=0.75, method="lucene", dtype="float64")
        self.index.index([lexemes for _, lexemes in rows], show_progress=False)

    def overlap(self, query: str, found: Sequence[str]) -> float:
        """The share of the best ten that was found; of equal scores either is right."""
        (lexemes,) = self.conn.execute(ASKED, [query]).fetchone() or ([],)
        scores = self.index.get_scores([lexeme for lexeme in lexemes if lexeme in self.index.vocab_dict])
        least = max(np.sort(scores)[-TOP_K] - 1e-9, 1e-12)
        right = set(self.names[scores >= least])
        return len(right.intersection(found)) / min(TOP_K, len(right)) if right else 1.0


async def _search(
    engine: AsyncEngine, settings: Settings, reference: Reference, synopses: Sequence[str], count: int
) -> list[Timed]:
    runtime = Runtime(settings, engine, Inference({}, settings))
    definition = {"stages": [{"stage_name": "words", "config": STAGE}], "input_schema": {"q": {"type": "string"}}}
    async with transaction(engine, settings) as conn:
        await retrievers.put(conn, "indexed", "words", definition, runtime.limits)
    frequent = [row[0] for row in reference.conn.execute(FREQUENT, {"n": count}).fetchall()]
    draw = random.Random(2)
    kinds = {"synopses of packages": draw.sample(list(synopses), QUERIES)}
    for words in range(1, 6):
        kinds[f"{words} of the {len(frequent)} words in 10 to 50 % of the texts"] = [
            " ".join(draw.sample(frequent, words)) for _ in range(QUERIES // 5)
        ]
    timed = []
    for kind, queries in kinds.items():
        times, overlaps = [], []
        for query in queries:
            for _ in range(ROUNDS):
                started = time.perf_counter()
                outcome = await execution.run(runtime, "indexed", "words", Execution({"q": query}), Timings())
                times.append((time.perf_counter() - started) * 1000)
            overlaps.append(reference.overlap(query, [found["document_id"] for found in outcome.documents]))
        p95 = statistics.quantiles(times, n=20)[-1]
        timed.append(Timed(kind, len(queries), statistics.median(times), p95, statistics.mean(overlaps)))
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.lexical", description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000, help="default 100,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    arguments = parser.parse_args()
    console = Console()
    with console.status("Fetching, loading and measuring …"), tempfile.TemporaryDirectory() as name:
        measured = asyncio.run(measure(Path(name, "lexical"), arguments.documents))
    table = Table(title=f"Ten best of {measured.documents:,} texts, the whole execution but HTTP, in ms")
    for column in ("queries", "kind", "p50", "p95", "overlap@10"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for each in measured.timed:
        table.add_row(str(each.queries), each.kind, f"{each.p50:.1f}", f"{each.p95:.1f}", f"{each.overlap:.4f}")
    console.print(table)
    sizes = ", ".join(f"{relation} {size / 2**20:.0f} MB" for relation, size in measured.sizes.items())
    console.print(f"With indexes: {sizes}; merged in {measured.merge_s:.1f} s")
    ratio = measured.rate_without / measured.rate_with
    rates = f"{measured.rate_with:,.0f} documents a second, without the index {measured.rate_without:,.0f}"
    console.print(f"Upserts in batches of {BATCH}: {rates} (a write costs {ratio:.2f} times as much)")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(measured), indent=2) + "\n")


if __name__ == "__main__":
    main()
