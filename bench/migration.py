"""Cut-over and roll-back of a migration of models, by the number of documents, in one run.

`python -m bench.migration` fills namespaces of 1,000 and of 100,000 documents with two columns of vectors, and swaps
them back and forth in turns, while a caller writes to each of them. What is timed is the whole transaction, with the
wait for its locks; the back-fill, which is linear, is not part of it.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import service
from app.db.ddl import create_index_concurrently
from app.db.engine import create_engine, raw, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.models import cutting_over, model_migrations
from app.domain.models.model_migrations import Wanted
from app.inference.base import ServiceInfo
from app.settings import Settings

OLD, NEW = 64, 96
RATIO = 1.5
FILL = """
    INSERT INTO {table} (document_id, collection_id, payload, metadata, {old}, {new})
    SELECT 'd' || n, '_direct_upsert', jsonb_build_object('title', 'title ' || n), '{{}}',
        (SELECT array_agg(random() - 0.5) FROM generate_series(1, {old_dimension} + 0 * n))::vector,
        (SELECT array_agg(random() - 0.5) FROM generate_series(1, {new_dimension} + 0 * n))::vector
    FROM generate_series(1, {documents}) AS n
"""
SERVICES = {
    name: ServiceInfo(name, "bench", name, dimension, ("text",), normalized=False, description="", licence="none")
    for name, dimension in (("old", OLD), ("new", NEW))
}


@dataclass(frozen=True, slots=True)
class Timed:
    """The milliseconds of each cut-over and of each roll-back of a namespace."""

    documents: int
    cut_over: list[float]
    roll_back: list[float]


@dataclass(slots=True)
class Place:
    """A namespace whose migration is ready."""

    engine: AsyncEngine
    settings: Settings
    name: str
    migration_id: str

    async def time(self, change: Callable[[AsyncConnection], Awaitable[object]]) -> float:
        started = time.perf_counter()
        async with transaction(self.engine, self.settings) as conn:
            await change(conn)
        return (time.perf_counter() - started) * 1000

    async def both(self) -> tuple[float, float]:
        name, migration = self.name, self.migration_id
        over = await self.time(lambda conn: cutting_over.cut_over(conn, name, migration, "bench", force=True))
        back = await self.time(lambda conn: cutting_over.roll_back(conn, name, migration, "bench"))
        return over, back

    async def write(self, stop: asyncio.Event) -> None:
        """A caller that goes on writing."""
        n = 0
        while not stop.is_set():
            async with transaction(self.engine, self.settings) as conn:
                catalog = await namespaces.lock_catalog(conn, self.name, exclusive=False)
                given = [Document(f"w{n % 100}", {}, b'{"title": "new %d"}' % n)]
                await documents.upsert(conn, catalog, given, self.settings)
            n += 1
            await asyncio.sleep(0.01)


async def prepare(engine: AsyncEngine, settings: Settings, count: int) -> Place:
    name = f"of_{count}"
    vector = NewVector("text", OLD, inference_service="old", source_field="title")
    async with transaction(engine, settings) as conn:
        await namespaces.create(conn, settings, mode="managed", namespace_id=name, vectors=[vector])
        migration = await model_migrations.start(conn, name, Wanted("text", "new"), SERVICES, "bench")
        catalog = await namespaces.load_catalog(conn, name)
    old, new = catalog.vector_configs[0], catalog.shadows[0]
    async with engine.connect() as opened:
        conn = await opened.execution_options(isolation_level="AUTOCOMMIT")
        driver = await raw(conn)
        table = f'"{catalog.schema}".documents'
        await driver.execute(f'DROP INDEX "{catalog.schema}"."{old.index_name}"')
        numbers = {"old_dimension": OLD, "new_dimension": NEW, "documents": count}
        await driver.execute(FILL.format(table=table, old=old.column, new=new.column, **numbers))
        for config in (old, new):
            await create_index_concurrently(conn, catalog.schema, config, settings)
        await driver.execute(f"VACUUM ANALYZE {table}")
    async with transaction(engine, settings) as conn:
        await model_migrations.move(conn, migration.migration_id, ["backfilling"], "comparing")
    return Place(engine, settings, name, migration.migration_id)


async def measure(sizes: Sequence[int], rounds: int, console: Console) -> list[Timed]:
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory, "data"), database_url=None)
        with console.status("Loading …") as status, service.database(settings) as url:
            engine = create_engine(url, settings)
            try:
                places = {}
                for count in sizes:
                    status.update(f"Loading {count:,} documents …")
                    places[count] = await prepare(engine, settings, count)
                status.update("Cutting over and rolling back …")
                return await _timed(places, rounds)
            finally:
                await engine.dispose()


async def _timed(places: dict[int, Place], rounds: int) -> list[Timed]:
    found = {count: Timed(count, [], []) for count in places}
    stop = asyncio.Event()
    writers = [asyncio.create_task(place.write(stop)) for place in places.values()]
    for n in range(rounds + 3):
        for count, place in places.items():  # in turns, so that all of them see the same machine
            over, back = await place.both()
            if n >= 3:
                found[count].cut_over.append(over)
                found[count].roll_back.append(back)
    stop.set()
    await asyncio.gather(*writers)
    return list(found.values())


def _table(found: Sequence[Timed]) -> tuple[Table, float]:
    table = Table(title="Cut-over and roll-back beside a writer, ms")
    for column in ("documents", "cut-over p50", "p95", "roll-back p50", "p95"):
        table.add_column(column, justify="right")
    for each in found:
        figures = []
        for times in (each.cut_over, each.roll_back):
            figures += [f"{statistics.median(times):.1f}", f"{statistics.quantiles(times, n=20)[-1]:.1f}"]
        table.add_row(f"{each.documents:,}", *figures)
    pairs = [(statistics.median(each.cut_over), statistics.median(each.roll_back)) for each in (found[0], found[-1])]
    ratio = max(large / small for small, large in zip(*pairs, strict=True))
    table.caption = f"most documents / fewest: {ratio:.2f}, at most {RATIO}"
    return table, ratio


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.migration", description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    given, console = parser.parse_args(), Console(width=120)
    found = asyncio.run(measure(given.documents, given.rounds, console))
    table, ratio = _table(found)
    console.print(table)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    if ratio > RATIO:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
