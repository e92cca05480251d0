"""pgretrieve worker: background jobs in a process of its own, in any number of copies."""

import asyncio
import signal
from pathlib import Path

import click

from app import service
from app.commands.options import data_dir_option, settings_of
from app.db import migrate as migrations
from app.jobs import worker as jobs
from app.settings import Settings


@click.command()
@data_dir_option
@click.option("--concurrency", type=int, help="Jobs at a time.")
def worker(data_dir: Path | None, concurrency: int | None) -> None:
    """Run background jobs until told to stop: builds of indexes, and content that is embedded and extracted.

    At SIGTERM the jobs that have begun get a while to end; what they do not end, another worker does.
    """
    settings = settings_of(data_dir=data_dir, worker_concurrency=concurrency)
    with service.existing_database(settings) as url:
        migrations.check_current(url)
        asyncio.run(_run(url, settings))
    click.echo("Stopped.")


async def _run(url: str, settings: Settings) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with jobs.alone(url, settings):
        click.echo(f"pgretrieve worker: {settings.worker_concurrency} jobs at a time.")
        await stop.wait()
