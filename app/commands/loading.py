"""What every import does, whatever it reads: open or go on, leave indexes for later, store, build them and wait."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from app.commands.reading import Elsewhere, Reading
from app.db.engine import create_engine, transaction
from app.domain.background import tasks
from app.domain.documents import importing
from app.domain.documents.importing import Import, Manner
from app.jobs import worker
from app.jobs.tasks import connecting
from app.moving.rows import Rows
from app.moving.sources import At
from app.settings import Settings

# To grow an index by so few documents costs less than to build it anew.
FEW = 10_000
POLL_S = 0.5
Tell = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """Where it is loaded to, and how."""

    namespace: str
    restart: bool
    manner: Manner
    indexes: str = "auto"
    wait: bool = True
    create: bool = False


@dataclass(slots=True)
class Loaded:
    """The import at its end, and what became of each index that was built for it."""

    current: Import
    tasks: dict[str, str] = field(default_factory=dict)


async def load(url: str, settings: Settings, wanted: Load, reading: Reading, tell: Tell) -> Loaded:
    """Load everything that is read."""
    engine = create_engine(url, settings, application_name="pgretrieve-import")
    read = reading.progress
    try:
        if wanted.create and isinstance(reading, Elsewhere):
            await reading.make_namespace(engine, settings, wanted.namespace)
        catalog, there = await importing.documents_in(engine, settings, wanted.namespace)
        async with transaction(engine, settings) as conn:
            namespace_id = catalog.namespace_id
            current = await importing.open_import(
                conn, namespace_id, reading.name, reading.identity(), anew=wanted.restart
            )
        ahead = _Ahead(reading.read(catalog.by_name, At(current.last_row, current.place)))
        if wanted.indexes == "after" or (wanted.indexes == "auto" and await _is_much(ahead, read, there)):
            async with connecting(_direct(url, settings), settings) as autocommit:
                await importing.suspend_indexes(engine, settings, namespace_id, autocommit)

        def show(now: Import) -> None:
            part, total = read()
            tell(now.last_row / total if total else part, f"{now.stored:,} documents")

        await importing.run(engine, settings, namespace_id, iter(ahead), current, wanted.manner, show)
        building = await importing.resume_indexes(engine, settings, namespace_id)
        if wanted.wait and building:
            async with worker.alone(url, settings):
                return Loaded(current, await _ended(engine, settings, building, tell))
        return Loaded(current, dict.fromkeys(building, "to be built by a worker"))
    finally:
        await engine.dispose()


class _Ahead:
    """Chunks, of which the first ones may be looked at before they are taken."""

    def __init__(self, chunks: Iterator[Rows]) -> None:
        self._chunks, self.seen = chunks, list[Rows]()

    def look(self) -> int | None:
        """Reads one more; how many rows were seen, None at the end."""
        if (rows := next(self._chunks, None)) is None:
            return None
        self.seen.append(rows)
        return sum(len(each.ids) for each in self.seen)

    def __iter__(self) -> Iterator[Rows]:
        while self.seen:
            yield self.seen.pop(0)
        yield from self._chunks


async def _is_much(ahead: _Ahead, read: Callable[[], tuple[float, int]], there: int) -> bool:
    """Whether more comes than there is, and not just a little: by the source's own word, else by its first chunks."""
    seen = await asyncio.to_thread(ahead.look)
    part, total = read()
    coming = total or (seen or 0) / max(part, 1e-9)
    return coming >= max(FEW, there)


def _direct(url: str, settings: Settings) -> str:
    return settings.direct_database_url.get_secret_value() if settings.direct_database_url else url


async def _ended(engine: AsyncEngine, settings: Settings, building: Mapping[str, str], tell: Tell) -> dict[str, str]:
    """What became of the builds, once they have ended."""
    found: dict[str, str] = {}
    while len(found) < len(building):
        for name, task_id in building.items():
            async with transaction(engine, settings) as conn:
                task = await tasks.find(conn, task_id)
            if task.status in tasks.ENDED:
                found[name] = "ready" if task.status == "COMPLETED" else f"{task.status.lower()}: {task.error}"
            else:
                tell((task.percentage or 0.0) / 100, f"Building index {name!r}")
        await asyncio.sleep(POLL_S)
    return found
