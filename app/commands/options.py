"""What commands have in common: options, settings from them, and output as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from app.settings import Settings
from app.telemetry import configure_logging

data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path), help="Data of the embedded server.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def settings_of(**chosen: Any) -> Settings:
    """The settings of the environment, but for options that were given."""
    settings = Settings(**{name: value for name, value in chosen.items() if value is not None})
    configure_logging(settings.log_level, settings.log_format)
    return settings


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else asdict(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as the terminal; where there is none, as wide as its lines, so that programs may cut it."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=400)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
