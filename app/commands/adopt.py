"""pgretrieve adopt: a table of the database as a namespace, in place."""

import asyncio
from pathlib import Path
from typing import Any

import click

from app import service
from app.commands.options import data_dir_option, json_option, print_json, settings_of
from app.db.engine import create_engine, transaction
from app.domain.catalog import adopting
from app.domain.catalog.adoptable import Wanted, WantedVector
from app.settings import Settings


class Vector(click.ParamType[WantedVector]):
    """`COLUMN`, `COLUMN=NAME`, each perhaps with `:METRIC`."""

    name = "column[=name][:metric]"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> WantedVector:
        if isinstance(value, WantedVector):
            return value
        named, _, metric = value.partition(":")
        column, _, name = named.partition("=")
        return WantedVector(column, name or None, metric or None)


@click.command()
@click.argument("table")
@click.option("--as", "namespace", required=True, metavar="NAME", help="Id of the namespace that is made.")
@click.option("--key", help="The column that is the document_id; without: the primary key.")
@click.option("--vector", "vectors", multiple=True, type=Vector(), help="A vector column; without: all of them.")
@click.option("--payload", "columns", metavar="A,B,…", help="The columns of the payload; without: all others.")
@click.option("--payload-column", help="The one JSON column that is the payload.")
@json_option
@data_dir_option
def adopt(
    table: str,
    namespace: str,
    key: str | None,
    vectors: tuple[WantedVector, ...],
    columns: str | None,
    payload_column: str | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Make TABLE (schema.table) a standalone namespace, in place; it is not copied, and stays its owner's.

    Documents are written in SQL, as ever. `pgretrieve serve` searches them; promotion gives the namespace services.
    """
    settings = settings_of(data_dir=data_dir)
    named = columns.split(",") if columns is not None else None
    wanted = Wanted(table, namespace, None, None, key, vectors or None, named, payload_column)
    with service.existing_database(settings) as url:
        made = asyncio.run(_adopt(url, settings, wanted))
    for warning in made.warnings:
        click.echo(warning, err=True)
    configs = [{"name": c.name, "dimension": c.dimension, "metric": c.metric} for c in made.catalog.vector_configs]
    if as_json:
        print_json({"namespace_id": namespace, "adopted_from": made.table, "vector_configs": configs})
        return
    shown = ", ".join(f"{c['name']} ({c['dimension']} dimensions, {c['metric']})" for c in configs)
    click.echo(f"{made.table} is the namespace {namespace}: {shown}.")


async def _adopt(url: str, settings: Settings, wanted: Wanted) -> adopting.Adoption:
    engine = create_engine(url, settings, application_name="pgretrieve-adopt")
    try:
        async with transaction(engine, settings) as conn:
            return await adopting.adopt(conn, settings, wanted)
    finally:
        await engine.dispose()
