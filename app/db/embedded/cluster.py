"""The data directory of a server: who owns it now, how it is made, and which settings it is given."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from app.db.embedded.account import Account
from app.db.embedded.postmaster import PORT
from app.db.embedded.programs import Programs
from app.errors import Conflict, Unavailable

SOCKET_PATH_BYTES = 103  # sun_path less its final zero: 107 on Linux, 103 on macOS


def take_lock(data_dir: Path) -> IO[str]:
    """Become the one owner of a data directory, until the file is closed or the process ends in any way."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError as error:  # Windows
        message = "The embedded PostgreSQL needs Linux or macOS. Set DATABASE_URL to a PostgreSQL with pgvector."
        raise Unavailable(message) from error
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.fdopen(os.open(data_dir / "service.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError as error:
        holder = lock.read().strip()
        lock.close()
        raise Conflict(
            f"Another pgretrieve{f' (process {holder})' if holder else ''} uses the data directory "
            f"{data_dir}. Stop it, or choose another directory with PGRETRIEVE_DATA_DIR.",
            data_dir=str(data_dir),
        ) from error
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def prepare(programs: Programs, pgdata: Path, *, sync: bool) -> None:
    """Make the data where there is none; refuse what another version made."""
    major = programs.major()
    version = pgdata / "PG_VERSION"
    if not version.exists():
        initialise(programs, pgdata, major, sync=sync)
    present = version.read_text().strip()
    if present != str(major):
        raise Unavailable(
            f"{pgdata} holds data of PostgreSQL {present}, and this installation carries {major}. Dump it "
            "with the installation that made it, and load that into a new directory (pg_dump, pg_restore).",
            code="unsupported_database",
        )


def initialise(programs: Programs, pgdata: Path, major: int, *, sync: bool) -> None:
    """initdb beside the final place, then rename: a start that is killed leaves no half of a cluster."""
    fresh = pgdata.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    programs.account.give(fresh)
    # The built-in locale sorts and folds alike on every machine, whatever its C library; it came with 17.
    provider = "builtin" if major >= 17 else "libc"
    options = ["--encoding=UTF8", f"--locale-provider={provider}", "--locale=C.UTF-8"]
    # No passwords: only this account and root reach the socket, for its directory has mode 700.
    options += ["--username=postgres", "--auth=trust", *([] if sync else ["--no-sync"])]
    code, output = programs.run("initdb", "-D", fresh.name, *options)
    if code:
        shutil.rmtree(fresh, ignore_errors=True)
        raise cannot_start(pgdata, f"initdb failed. {tail(output, 6)}")
    with (fresh / "postgresql.conf").open("a") as file:
        file.write("\ninclude 'pgretrieve.conf'  # written anew at each start; ALTER SYSTEM wins over it\n")
    fresh.rename(pgdata)


def write_settings(pgdata: Path, account: Account, settings: Mapping[str, str]) -> None:
    ours = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(socket_dir(pgdata, account)),
        "unix_socket_permissions": "0700",
    }
    lines = ["# Written by pgretrieve at each start.\n"]
    for name, value in {**settings, **ours}.items():
        escaped = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{escaped}'\n")
    path = pgdata / "pgretrieve.conf"
    path.write_text("".join(lines))
    path.chmod(0o600)
    account.give(path)


def socket_dir(pgdata: Path, account: Account) -> Path:
    """The data's own; or where its path is too long or cannot stand in a list, one named by a hash."""
    path = os.fsencode(pgdata)
    if len(path) + len(f"/.s.PGSQL.{PORT}") <= SOCKET_PATH_BYTES and not set(path) & set(b",\"'\\\n"):
        return pgdata
    short = Path(tempfile.gettempdir(), f"pgretrieve-{hashlib.sha256(path).hexdigest()[:16]}")
    try:
        short.mkdir(mode=0o700)
        account.give(short)
    except FileExistsError:
        found = short.lstat()
        if short.is_symlink() or found.st_uid != account.uid or found.st_mode & 0o077:
            raise cannot_start(pgdata, f"{short}, where its socket should be, is somebody else's") from None
    return short


def cannot_start(pgdata: Path, reason: str) -> Unavailable:
    return Unavailable(f"The embedded PostgreSQL in {pgdata.parent} cannot start: {reason}.")


def tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
