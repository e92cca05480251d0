"""A PostgreSQL server as its data directory shows it, to a process that need not have started it."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

PORT = 5432  # names the socket only; said everywhere, for PGPORT in the environment would count otherwise


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What `postmaster.pid` says: in line 1 the process, in 5 the socket's directory, in 8 the state."""

    pgdata: Path
    pid: int
    socket_dir: str
    state: str

    @classmethod
    def read(cls, pgdata: Path) -> "Postmaster | None":
        try:
            lines = (pgdata / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        lines += [""] * (8 - len(lines))  # the server writes it line by line as it comes up
        return cls(pgdata, int(lines[0]), lines[4], lines[7].strip()) if lines[0].isdigit() else None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(self.socket_dir)}&port={PORT}"

    def exists(self) -> bool:
        """Whether there is a process of that number, whatever it is."""
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return True

    def lives(self) -> bool:
        """Whether the process is this data's postmaster, not one that was given its number since."""
        process = Path("/proc", str(self.pid))
        try:
            return self.exists() and process.joinpath("cwd").samefile(self.pgdata)
        except PermissionError:
            # Root in a container, without the right to look into processes of other accounts.
            with suppress(OSError):
                return process.joinpath("comm").read_text().strip() == "postgres"
            return False
        except OSError:  # a zombie, which has no directory; or no /proc (macOS)
            return not Path("/proc/self").exists()

    def forget(self) -> None:
        """Remove the lock files of a dead server whose number another process, or a zombie, bears.

        PostgreSQL would take that for a postmaster. Orphans of the dead one are noticed even so: their shared
        memory is named by the directory's inode.
        """
        (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
        if self.socket_dir:
            Path(self.socket_dir, f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)

    def answers(self) -> bool:
        if self.state != "ready":
            return False
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and self.pgdata.samefile(row[0])
