"""Commands run within this process, against a database."""

import os
import re
import shlex
from pathlib import Path

from click.testing import CliRunner, Result

from app.cli import main


def run(conninfo: str, *arguments: str, **environment: str) -> Result:
    unset = dict.fromkeys((n for n in os.environ if n.startswith(("PGRETRIEVE_", "DATABASE_URL"))), None)
    env = {**unset, "DATABASE_URL": conninfo, **environment}
    return CliRunner().invoke(main, arguments, env=env, prog_name="pgretrieve")


def documented(scheme: str, address: str, namespace: str) -> list[str]:
    """The command of docs/moving.md that imports from such an address, for this one and a namespace of the test."""
    page = Path(__file__).parents[2].joinpath("docs", "moving.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^    pgretrieve (import --from {scheme}.*)$", page, flags=re.MULTILINE)
    arguments = shlex.split(command)
    for option, value in (("--from", address), ("--namespace", namespace)):
        arguments[arguments.index(option) + 1] = value
    return arguments
