"""pgretrieve import and export: documents from files and databases, and into files, on the database itself."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app import moving, service
from app.commands.loading import Load, load
from app.commands.options import data_dir_option, json_option, print_json, settings_of
from app.commands.reading import Elsewhere, File
from app.db.engine import create_engine, transaction
from app.domain.documents import exporting, importing
from app.domain.documents.importing import Manner
from app.moving import jsonl, sources
from app.moving.rows import Layout, Rows

SLOW = {"statement_timeout_ms": 600_000}
format_option = click.option("--format", "form", type=click.Choice(moving.FORMATS), help="Without: by the file's name.")
namespace_option = click.option("--namespace", required=True, help="Id or name of the namespace.")


class Pair(click.ParamType[tuple[str, str]]):
    """`NAME=COLUMN`."""

    name = "name=column"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, column = value.rpartition("=") if isinstance(value, str) else (*value, "")[:3]
        if not (equals and name and column):
            self.fail(f"{value!r} is no NAME=COLUMN.", param, ctx)
        return name, column


@click.command("import")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@namespace_option
@click.option("--table", help="Instead of a file: a table, as SQL names it, or a collection.")
@click.option(
    "--from",
    "address",
    metavar="ADDRESS",
    help="Where that is: postgresql://…, qdrant+https://…, qdrant:FOLDER, chroma+http://…. Without: this database.",
)
@click.option(
    "--create", is_flag=True, help="Make the namespace, if there is none, with the vector indexes of the source."
)
@click.option(
    "--metric", "metrics", multiple=True, type=Pair(), help="How an index that is made compares, by its name."
)
@format_option
@click.option("--id", "document_id", metavar="COLUMN", help="Where the ids are, if not in document_id.")
@click.option("--vector", "vectors", multiple=True, type=Pair(), help="Where the vectors of an index are.")
@click.option("--columns", metavar="A,B,…", help="The columns of a binary COPY, where the file does not name them.")
@click.option("--collection", help="Put all documents into this collection.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are wrong, and tell them, instead of stopping.")
@click.option(
    "--indexes",
    type=click.Choice(["auto", "after", "kept"]),
    default="auto",
    show_default=True,
    help="Build vector indexes after the load, or grow them; auto: after, where more comes than there is.",
)
@click.option("--restart", is_flag=True, help="Begin anew instead of going on where this import was cut off.")
@click.option("--no-wait", is_flag=True, help="Leave the builds of indexes to the workers of a service.")
@json_option
@data_dir_option
def import_(
    file: Path | None,
    namespace: str,
    table: str | None,
    address: str | None,
    create: bool,
    metrics: tuple[tuple[str, str], ...],
    form: str | None,
    document_id: str | None,
    vectors: tuple[tuple[str, str], ...],
    columns: str | None,
    collection: str | None,
    skip_bad: bool,
    indexes: str,
    restart: bool,
    no_wait: bool,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Store the documents of a file, or of a table or collection of a database. Run again after an interruption, it
    goes on where it was.

    Documents are stored as upserts store them: each replaces the one of its id.
    """
    settings = settings_of(data_dir=data_dir).model_copy(update=SLOW)
    layout, manner = Layout(document_id, dict(vectors)), Manner(collection, strict=not skip_bad)
    if (file is None) == (table is None) or (file and (address or create or metrics)) or (table and (form or columns)):
        raise click.UsageError(
            "Give a FILE, with --format and --columns; or --table, with --from, --create and --metric."
        )

    def opened(url: str) -> File | Elsewhere:
        if file is not None:
            return File(file, _form(file, form), layout, columns.split(",") if columns else (), manner)
        key = settings.source_api_key.get_secret_value() if settings.source_api_key else None
        return Elsewhere(sources.connect(address or url, str(table), layout, key), layout, manner, dict(metrics))

    with (
        service.existing_database(settings) as url,
        closing(opened(url)) as reading,
        _bar(as_json) as tell,
    ):
        wanted = Load(namespace, restart, manner, indexes, wait=not no_wait, create=create)
        done = asyncio.run(load(url, settings, wanted, reading, tell))
    if as_json:
        shown = asdict(done.current)
        print_json({**shown, "indexes": done.tasks})
        return
    for problem in done.current.problems:
        click.echo(importing.told(problem), err=True)
    refused = f", {done.current.refused:,} refused" if done.current.refused else ""
    click.echo(f"{done.current.stored:,} documents stored{refused}.")
    for name, state in done.tasks.items():
        click.echo(f"Index {name!r}: {state}.")


def _form(file: Path, form: str | None) -> str:
    form = form or moving.format_of(file)
    if form is None:
        raise click.UsageError(f"What is {file.name}? Give --format {'|'.join(moving.FORMATS)}.")
    return form


@contextmanager
def _bar(quiet: bool) -> Iterator[Any]:
    """A function that shows a part of all and a text; a bar only on a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    ) as progress:
        bar = progress.add_task("Beginning …", total=1.0)
        yield lambda part, text: progress.update(bar, completed=part, description=text)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@namespace_option
@format_option
@click.option("--collection", "collections", multiple=True, help="Only documents of this collection.")
@click.option("--without-vectors", is_flag=True, help="Leave the vectors out.")
@click.option("--snapshot", is_flag=True, help="All of one moment, in one transaction that is open all the while.")
@click.option("--resume", is_flag=True, help="Go on with FILE.part, which an interrupted export of JSON lines left.")
@data_dir_option
def export(
    file: Path,
    namespace: str,
    form: str | None,
    collections: tuple[str, ...],
    without_vectors: bool,
    snapshot: bool,
    resume: bool,
    data_dir: Path | None,
) -> None:
    """Write the documents of a namespace into a file (- is the standard output), in the order of their ids.

    The file has its name only once it is whole.
    """
    settings = settings_of(data_dir=data_dir).model_copy(update=SLOW)
    dash = str(file) == "-"
    form = (form or "jsonl") if dash else _form(file, form)
    part = file.with_name(f"{file.name}.part")
    goes_on = form == "jsonl" and not snapshot and not dash
    if resume and not (goes_on and part.exists()):
        raise click.UsageError(f"--resume is for JSON lines without --snapshot, whose {part.name} is there.")

    async def run(url: str, out: BinaryIO, tell: Any) -> int:
        engine = create_engine(url, settings, application_name="pgretrieve-export")
        try:
            async with transaction(engine, settings) as conn:
                wanted = await exporting.wanted_of(conn, namespace, collections or None, vectors=not without_vectors)
            count, after = jsonl.go_on(out) if resume else (0, None)
            snapped = exporting.snapshot(engine, wanted) if snapshot else None
            pages = snapped or exporting.pages(engine, settings, wanted, after=after)
            _, expected = await importing.documents_in(engine, settings, wanted.catalog.namespace_id)
            return await _write(pages, moving.write(form, out, wanted.configs), count, expected, tell)
        finally:
            await engine.dispose()

    with service.existing_database(settings) as url, _bar(dash) as tell:
        if dash:
            asyncio.run(run(url, sys.stdout.buffer, tell))
            return
        try:
            with part.open("r+b" if resume else "wb") as out:
                count = asyncio.run(run(url, out, tell))
            part.replace(file)
        except BaseException:
            if goes_on and part.stat().st_size:
                click.echo(f"{part} is kept: the same command goes on with --resume.", err=True)
            else:
                part.unlink(missing_ok=True)
            raise
    click.echo(f"{count:,} documents in {file}.")


async def _write(pages: AsyncIterator[Rows], writer: Any, count: int, expected: int, tell: Any) -> int:
    """Write the pages, after as many documents as are there already: how many there are then."""
    async for rows in pages:
        await asyncio.to_thread(writer.add, rows)
        count += len(rows.ids)
        tell(min(count / max(expected, count), 0.999), f"{count:,} documents")
    await asyncio.to_thread(writer.close)
    return count
