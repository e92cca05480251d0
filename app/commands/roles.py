"""pgretrieve roles: the database roles of API, worker, migrator and analysts, made and proven."""

from pathlib import Path

import click
import psycopg

from app import service
from app.commands.options import data_dir_option, json_option, print_json, print_table, settings_of
from app.db import roles as database_roles


@click.command()
@click.option("--check", is_flag=True, help="Make nothing: try what each role must and must not be able to do.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the statements instead of running them.")
@json_option
@data_dir_option
def roles(check: bool, as_sql: bool, as_json: bool, data_dir: Path | None) -> None:
    """Make the database roles of API, worker, migrator and analysts, as an administrator of the database.

    Run it again after `pgretrieve migrate`, for what a new version has brought; what is there already stays.
    """
    if as_sql:
        click.echo(database_roles.script(), nl=False)
        return
    settings = settings_of(data_dir=data_dir)
    direct = settings.direct_database_url
    with service.existing_database(settings) as url:
        address = direct.get_secret_value() if direct else url
        with psycopg.connect(address, autocommit=True, application_name="pgretrieve-roles") as conn:
            if check:
                _check(conn, as_json)
                return
            database_roles.make(conn)
    click.echo("The roles are there. `pgretrieve roles --check` proves what they can do.")


def _check(conn: psycopg.Connection[tuple[object, ...]], as_json: bool) -> None:
    found = list(database_roles.check(conn))
    if as_json:
        print_json(found)
    else:
        must = {True: "must", False: "must not"}
        rows = [
            [o.probe.role, must[o.probe.allowed], o.probe.what, "yes" if o.kept else f"NO: {o.said}"] for o in found
        ]
        print_table(("role", "", "be able to", "is so"), rows)
    if wrong := [outcome for outcome in found if not outcome.kept]:
        raise click.ClickException(f"{len(wrong)} of {len(found)} are not so; run `pgretrieve roles`.")
