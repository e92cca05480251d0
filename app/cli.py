"""The pgretrieve command: serve, migrate, demo; the others are in `app.commands`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.progress import Progress

from app import __version__, service
from app.commands.adopt import adopt
from app.commands.backup import backup, restore
from app.commands.doctor import doctor
from app.commands.keys import keys
from app.commands.moving import export, import_
from app.commands.options import data_dir_option, settings_of
from app.commands.roles import roles
from app.commands.settings import settings as show_settings
from app.commands.worker import worker
from app.db import migrate as migrations
from app.db import namespace_migrations
from app.demo import walkthrough
from app.errors import InvalidRequest, PgretrieveError


class PlainErrors(click.Group):
    """What we expect to go wrong is one plain line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidRequest as error:
            raise click.ClickException("\n  ".join(problem.message for problem in error.problems)) from error
        except PgretrieveError as error:
            raise click.ClickException(error.message) from error
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise click.ClickException("These settings are wrong:\n  " + "\n  ".join(lines)) from None
        except SettingsError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=PlainErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgretrieve")
def main() -> None:
    """Multimodal retrieval inside your own Postgres, with pgvector."""


class Stopped(BaseException):
    """The process was told to end; not an error, so nothing that handles errors may catch it."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT and SIGTERM unwind what was opened, in order, rather than end the process at once: so the embedded
    server is stopped cleanly. (uvicorn finishes its requests first, and then raises the signal again.)"""

    def stop(_signal: int, _frame: object) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Stopped:
        click.echo("Stopped.")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@main.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@data_dir_option
@click.option("--worker/--no-worker", default=None, help="Run background jobs in this process too.")
def serve(host: str | None, port: int | None, data_dir: Path | None, worker: bool | None) -> None:
    """Serve the API until it is told to stop. Without DATABASE_URL on an embedded PostgreSQL."""
    settings = settings_of(host=host, port=port, data_dir=data_dir, worker=worker)
    with until_stopped(), service.database(settings) as url:
        migrations.check_current(url)
        key = service.root_key(settings)
        click.echo(f"pgretrieve {__version__} on http://{settings.host}:{settings.port} (API docs: /docs)")
        click.echo(f"Root API key: {f'in {key.file}' if key.file else 'as set in PGRETRIEVE_ROOT_KEY'}")
        if settings.database_url is None:
            click.echo(f"Database: psql '{url}'")
        server = service.server(settings, url, key.key)
        server.run()
        if not server.started:
            raise click.ClickException("The service did not start; see the log above.")


@main.command()
@data_dir_option
@click.option("--sql", is_flag=True, help="Print the statements instead of running them.")
def migrate(data_dir: Path | None, sql: bool) -> None:
    """Bring the database to the newest schema; then, in batches, every namespace. What is interrupted goes on."""
    settings = settings_of(data_dir=data_dir)
    if sql:
        migrations.upgrade("", sql=True)
        return
    direct = settings.direct_database_url or settings.database_url
    with service.database(settings) as url:
        target = direct.get_secret_value() if direct else url
        migrations.upgrade(target)
        click.echo(f"The schema is at revision {migrations.head()}.")
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("Changing namespaces", total=None, visible=False)
            namespace_migrations.run(
                target, progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True)
            )


@main.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@data_dir_option
@click.option("--once", is_flag=True, envvar="ONCE", help="End after the walk instead of serving on.")
def demo(host: str | None, port: int | None, data_dir: Path | None, once: bool) -> None:
    """Walk through the whole workflow on real data, over HTTP, and serve on."""
    settings = settings_of(host=host, port=port, data_dir=data_dir)
    with until_stopped(), service.database(settings) as url:
        migrations.check_current(url)
        key = service.root_key(settings)
        with service.in_background(settings, url, key.key) as base_url:
            walkthrough.run(base_url, key.key, settings)
            if not once:
                walkthrough.serve_on(base_url, key.file, url)


main.add_command(keys)
main.add_command(doctor)
main.add_command(roles)
main.add_command(worker)
main.add_command(adopt)
main.add_command(backup)
main.add_command(restore)
main.add_command(show_settings)
main.add_command(import_)
main.add_command(export)

if __name__ == "__main__":
    main()
