"""pgretrieve settings: every setting with its value and where that comes from; never a secret."""

import os
import re
from typing import Any

import click
from pydantic import SecretStr

from app.commands.options import json_option, print_json, print_table, settings_of
from app.settings import Settings, ordered
from app.settings_files import SUFFIX, variable

HIDDEN = "(hidden)"
# What stands before the @ of a URL may be a password.
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


@click.command()
@json_option
@click.option("--changed", is_flag=True, help="Only those that are not their defaults.")
def settings(as_json: bool, changed: bool) -> None:
    """Print every setting with its value and where that comes from: its default, the environment or a file."""
    rows = [row for row in described(settings_of()) if not changed or row["source"] != "default"]
    if as_json:
        print_json(rows)
    else:
        print_table(("setting", "value", "source"), [(row["name"], _text(row["value"]), row["source"]) for row in rows])


def described(found: Settings) -> list[dict[str, Any]]:
    """Name, value and source of each; a secret's value says only whether there is one."""
    rows = []
    for name, field in ordered():
        value = getattr(found, name)
        named = variable(name, field)
        rows.append({"name": named, "value": _shown(value), "source": _source(named)})
    return rows


def _source(name: str) -> str:
    if name in os.environ:
        return "environment"
    path = os.environ.get(name + SUFFIX)
    return f"file {path}" if path else "default"


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, str):
        return CREDENTIALS.sub(f"{HIDDEN}@", value)
    return value if isinstance(value, bool | int | float | dict | None) else str(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
