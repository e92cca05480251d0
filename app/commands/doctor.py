"""pgretrieve doctor: what `app.doctor` found, a line each, and an exit code."""

import sys
from dataclasses import asdict
from pathlib import Path

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.text import Text

from app.commands.options import data_dir_option, json_option, print_json, settings_of
from app.doctor import examine
from app.doctor.findings import Finding, fail

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@json_option
@data_dir_option
def doctor(as_json: bool, data_dir: Path | None) -> None:
    """Look at all that the service needs, and say what to do. Changes nothing; exits with 1 when something fails."""
    found = []
    for finding in _findings(data_dir):
        found.append(finding)
        if not as_json:
            _print(finding)
    failed = any(finding.status == "fail" for finding in found)
    if as_json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in found]})
    sys.exit(1 if failed else 0)


def _findings(data_dir: Path | None) -> list[Finding]:
    try:
        return [*examine(settings_of(data_dir=data_dir, log_level="ERROR"))]
    except ValidationError as error:
        todo = "docs/settings.md has every setting with what it takes."
        return [fail("settings", f"{'.'.join(map(str, e['loc']))}: {e['msg']}", todo) for e in error.errors()]
    except SettingsError as error:
        return [fail("settings", str(error), "docs/settings.md says how settings come from files.")]


def _print(finding: Finding) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        Text(f"{finding.status:<5}", STYLES[finding.status]), Text(f"{finding.check}: {finding.message}"), sep=""
    )
    if finding.todo:
        console.print(Text(f"     → {finding.todo}", "dim"))
