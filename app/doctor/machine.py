"""This machine: Python, the data directory, the file of the root key."""

import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from app import __version__
from app.db.embedded.programs import wheel_binaries
from app.doctor.findings import Finding, fail, ok, warn
from app.domain.security.root_key import root_key_file
from app.errors import PgretrieveError
from app.settings import Settings

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 2 * 2**30  # a checkpoint's write-ahead log alone may take more
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def findings(settings: Settings) -> Iterator[Finding]:
    found = f"pgretrieve {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info >= OLDEST_PYTHON:
        yield ok("python", found)
    else:
        yield fail("python", found, "Install Python 3.11 or newer.")
    if settings.database_url is None:
        yield from _data_directory(settings.data_dir.expanduser().absolute())
    yield from _root_key(settings)


def _data_directory(path: Path) -> Iterator[Finding]:
    check = "data directory"
    try:
        wheel_binaries()
    except PgretrieveError as error:
        yield Finding(check, "fail", "there is no embedded PostgreSQL for this machine", error.message)
    there = next(each for each in (path, *path.parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield fail(
            check, f"{there} cannot be written", "Choose another with PGRETRIEVE_DATA_DIR, or start as its owner."
        )
        return
    free = shutil.disk_usage(there).free
    if free < LITTLE_SPACE:
        todo = "Make room, or choose another disk with PGRETRIEVE_DATA_DIR: PostgreSQL stops when it is full."
        yield warn(check, f"{there} has {free / 2**30:.1f} GB left", todo)
    if there != path:
        yield ok(check, f"{path} is not there yet; the first `pgretrieve serve` makes it")
        return
    yield from _owner(path / "postgres")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warn(check, f"{path} can be written by others (mode {mode:o})", f"chmod go-w {path}")
    else:
        yield ok(check, f"{path}, {free / 2**30:.0f} GB free")


def _owner(pgdata: Path) -> Iterator[Finding]:
    if pgdata.exists() and os.geteuid() not in (0, pgdata.stat().st_uid):
        message = f"{pgdata} belongs to another user (id {pgdata.stat().st_uid})"
        yield fail("data directory", message, "Start the service as that user; PostgreSQL refuses the data of others.")


def _root_key(settings: Settings) -> Iterator[Finding]:
    check, path = "root key", root_key_file(settings.data_dir)
    if settings.root_key is not None:
        yield ok(check, "as set in PGRETRIEVE_ROOT_KEY")
        return
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        yield ok(check, f"none yet: the first `pgretrieve serve` makes one in {path}")
        return
    except (OSError, ValueError) as error:
        yield fail(check, f"{path} cannot be read: {error}", "Start the service as its owner.")
        return
    if mode & OTHERS:
        todo = f"chmod 600 {path}; if others may have read it, remove it and start the service: it makes another."
        yield fail(check, f"{path} can be read by others (mode {mode:o})", todo)
    elif not text:
        yield fail(check, f"{path} is empty", "Remove it and start the service: it makes another.")
    else:
        yield ok(check, f"in {path}, for its owner only")
