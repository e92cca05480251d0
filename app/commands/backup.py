"""pgretrieve backup and restore: one namespace in a file, exactly as it is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.commands.options import data_dir_option, settings_of
from app.db.engine import create_engine, transaction
from app.domain.operation import backup as saving
from app.domain.operation import restoring
from app.domain.security import audit
from app.settings import Settings

T = TypeVar("T")
file_argument = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("namespace")
@click.argument("file", type=file_argument)
@data_dir_option
def backup(namespace: str, file: Path, data_dir: Path | None) -> None:
    """Write a namespace to FILE: documents, vectors, mappings, retrievers with all versions, promotions.

    It is one snapshot; writers go on meanwhile. Buckets, objects and collections are not in it: pg_dump has all.
    """
    settings = settings_of(data_dir=data_dir)
    with _bar(f"Saving {namespace}", None) as advance:
        made = _on_database(settings, lambda engine: saving.save(engine, namespace, file, advance))
    click.echo(f"{file} holds {made.namespace_id} ({file.stat().st_size:,} bytes).")
    if left := ", ".join(f"{count} {kind}" for kind, count in made.left_out.items() if count):
        click.echo(f"Not in it: {left}.", err=True)


@click.command()
@click.argument("file", type=file_argument)
@click.option("--as", "name", help="Name of the namespace; its own without it.")
@data_dir_option
def restore(file: Path, name: str | None, data_dir: Path | None) -> None:
    """Make a namespace anew from FILE, in one transaction. Its indexes are then built by a worker.

    It must not be there: `--as` gives it another name, beside the one that was saved.
    """
    settings = settings_of(data_dir=data_dir).model_copy(update={"statement_timeout_ms": saving.A_DAY_MS})
    known, size = restoring.look(file)

    async def act(engine: AsyncEngine) -> restoring.Restored:
        async with transaction(engine, settings) as conn:
            return await restoring.restore(conn, file, name, advance)

    audit.enter(audit.Circumstances(operation_id=click.get_current_context().command_path))
    with _bar(f"Restoring {name or known.namespace_id}", size) as advance:
        made = _on_database(settings, act)
    click.echo(f"{made.namespace_id} ({made.mode}) is back, with {made.documents:,} documents.")
    if made.building:
        click.echo(f"A worker builds its indexes ({', '.join(made.building)}); until then searches are exact.")
    if made.services:
        click.echo(f"It needs these services: {', '.join(made.services)} (`pgretrieve doctor`).")


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, as a function that is told of bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _on_database(settings: Settings, act: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    async def run(url: str) -> T:
        engine = create_engine(url, settings, application_name="pgretrieve-backup")
        try:
            return await act(engine)
        finally:
            await engine.dispose()

    with service.existing_database(settings) as url:
        return asyncio.run(run(url))
