"""`python -m bench.content`: how soon an object can be searched, and how many a second, beside the bare embedding call.

The texts are the demo's: descriptions of Debian's applications, one chunk each, through minilm_l6_v2 on this machine.
The clock of an object runs from the answer to its request (its commit) until its vector stands in the index.
"""

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from app import service
from app.demo.data import load_apps
from app.inference.registry import Inference
from app.settings import Settings
from bench.servers import running

NAMESPACE, SERVICE = "content", "minilm_l6_v2"
AT_ONCE = 100  # objects in one request
ROUNDS = 5
SEEN = "SELECT count(*) FROM {} WHERE minilm_l6_v2 IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds from commit to searchable of single objects; objects a second beside bare embeddings, and the ratio:
    how much of the bare rate is left when objects are stored, read, split, embedded and indexed. Medians of rounds."""

    singles: int
    p50_ms: float
    p95_ms: float
    objects: int
    objects_per_s: float
    embeddings_per_s: float
    ratio: float


class Api:
    """HTTP with the root key; an error ends the run."""

    def __init__(self, base: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "X-Namespace": NAMESPACE}
        self._http = httpx.Client(base_url=f"{base}/v1", headers=headers, timeout=60)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()


def measure(directory: Path, singles: int, objects: int) -> Measured:
    """Single objects first, each when the one before can be searched; then rounds of many, each followed by the bare
    call for the same texts, so that what else the machine does meets both alike."""
    settings = Settings(data_dir=directory, database_url=None)
    texts = [app.text for app in load_apps()]
    while len(texts) < singles + objects:
        texts += [f"{text} {len(texts)}" for text in texts]
    key = service.root_key(settings).key
    with service.database(settings) as url, running(settings, url, key) as base, psycopg.connect(url) as conn:
        conn.autocommit = True
        api = Api(base, key)
        _prepare(api)
        api("POST", "/buckets/pages/objects", _object("warm", "The first starts the process that reads files."))
        _until(conn, 1)
        times = []
        for n, text in enumerate(texts[:singles]):
            api("POST", "/buckets/pages/objects", _object(f"single {n}", text))
            times.append(_until(conn, 2 + n, single=True) * 1000)
        rates, bare, count, size = [], [], 1 + singles, objects // ROUNDS
        for first in range(singles, singles + size * ROUNDS, size):
            some, began = texts[first : first + size], time.perf_counter()
            _send(api, some, first)
            count += size
            _until(conn, count)
            rates.append(size / (time.perf_counter() - began))
            bare.append(size / asyncio.run(_bare(settings, some)))
    p95 = sorted(times)[int(0.95 * (len(times) - 1))]
    ratio = statistics.median(rate / other for rate, other in zip(rates, bare, strict=True))
    medians = statistics.median(rates), statistics.median(bare)
    return Measured(singles, statistics.median(times), p95, size * ROUNDS, *medians, ratio)


def _send(api: Api, texts: list[str], number: int) -> None:
    for first in range(0, len(texts), AT_ONCE):
        some = [_object(f"many {number + first + n}", text) for n, text in enumerate(texts[first : first + AT_ONCE])]
        api("POST", "/buckets/pages/objects/batch", {"objects": some})


def _prepare(api: Api) -> None:
    api("POST", "/namespaces/standalone", {"namespace_id": NAMESPACE})
    api("POST", f"/namespaces/{NAMESPACE}/promote", {})
    properties = {"title": {"type": "string"}, "content": {"type": "text"}}
    api("POST", "/buckets", {"bucket_name": "pages", "bucket_schema": {"properties": properties}})
    extractor = {
        "feature_extractor_name": "text_extractor",
        "version": "v1",
        "input_mappings": {"text": "content"},
        "parameters": {"embedding_model": SERVICE},
    }
    source = {"type": "bucket", "bucket_ids": ["pages"]}
    api("POST", "/collections", {"collection_name": "chunks", "source": source, "feature_extractor": extractor})


def _object(title: str, text: str) -> dict[str, Any]:
    return {"title": title, "blobs": [{"property": "content", "type": "text", "data": text}]}


def _until(conn: psycopg.Connection[Any], count: int, *, single: bool = False) -> float:
    """Seconds until so many documents have their vectors; asked for every 2 ms, of many every 50."""
    began, query = time.perf_counter(), sql.SQL(SEEN).format(sql.Identifier(NAMESPACE, "documents"))
    pause = 0.002 if single else 0.05
    while True:
        row = conn.execute(query).fetchone()
        assert row is not None
        if row[0] >= count:
            return time.perf_counter() - began
        if time.perf_counter() - began > 600:
            raise SystemExit(f"{row[0]} of {count} after ten minutes")
        time.sleep(pause)


async def _bare(settings: Settings, texts: list[str]) -> float:
    """Seconds to embed them in one process, 64 at a time, while the service has nothing to do."""
    inference = Inference.from_settings(settings)
    await inference.answer(SERVICE, texts[:1], "document")
    began = time.perf_counter()
    for first in range(0, len(texts), 64):
        await inference.answer(SERVICE, texts[first : first + 64], "document")
    took = time.perf_counter() - began
    await inference.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", type=int, default=50)
    parser.add_argument("--objects", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    console = Console()
    with console.status("Storing objects …"), tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), asked.singles, asked.objects)
    table = Table("", "figure")
    table.add_row("one object, commit to searchable, p50", f"{found.p50_ms:.0f} ms")
    table.add_row("one object, commit to searchable, p95", f"{found.p95_ms:.0f} ms")
    table.add_row(
        f"{found.objects:,} objects in {ROUNDS} rounds, request to searchable", f"{found.objects_per_s:.0f} / s"
    )
    table.add_row("bare embedding call, same texts", f"{found.embeddings_per_s:.0f} / s")
    table.add_row("ratio", f"{found.ratio:.2f}")
    console.print(table)
    console.print(f"[dim]{platform.platform()}[/dim]")
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
