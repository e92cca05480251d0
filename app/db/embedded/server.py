"""A PostgreSQL server of our own, reached by a Unix socket only. It has one owner at a time; a server that
outlived its owner (kill -9) is taken over, one that died itself is recovered.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.db.embedded.account import account_for
from app.db.embedded.cluster import cannot_start, prepare, tail, take_lock, write_settings
from app.db.embedded.postmaster import Postmaster
from app.db.embedded.programs import Programs, wheel_binaries
from app.db.embedded.tuning import machine_settings
from app.errors import Unavailable

START_S = 120  # crash recovery replays at most max_wal_size of log, about a minute on a slow disk
STOP_S = 60
ORPHANS_S = 30  # backends end at once when their postmaster dies, unless within a long system call
HELD = "shared memory block"  # what PostgreSQL logs while orphans hold the data directory
log = logging.getLogger(__name__)


class EmbeddedServer:
    """A server in `data_dir`: data in `postgres/`, log in `postgres.log`, owner in `service.lock`."""

    def __init__(
        self, data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings` win over those that fit the machine; `bin_dir` replaces the programs of the wheel."""
        self.data_dir = data_dir.expanduser().absolute()
        self._pgdata = self.data_dir / "postgres"
        self._log_file = self.data_dir / "postgres.log"
        self._bin_dir = bin_dir
        self._settings = dict(settings or {})
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def postmaster(self) -> Postmaster:
        """The running server: its process and its URL."""
        found = Postmaster.read(self._pgdata)
        if self._lock is None or found is None:
            raise Unavailable(f"The embedded PostgreSQL in {self.data_dir} is not running.")
        return found

    @property
    def url(self) -> str:
        return self.postmaster.url

    def start(self) -> str:
        """Make the data if there is none, start its server or take it over, and answer its URL."""
        try:
            with ExitStack() as on_failure:
                lock = on_failure.enter_context(take_lock(self.data_dir))
                bin_dir = self._bin_dir or wheel_binaries()
                self._programs = Programs(bin_dir, self.data_dir, account_for(self._pgdata))
                prepare(self._programs, self._pgdata, sync=self._settings.get("fsync") != "off")
                if not self._take_over():
                    self._launch()
                on_failure.pop_all()
        except OSError as error:
            raise cannot_start(self._pgdata, f"{error.strerror}: {error.filename or self._pgdata}") from error
        self._lock = lock
        return self.url

    def stop(self) -> None:
        """Stop the server cleanly; after a minute without its last checkpoint: the next start recovers."""
        if self._lock is None:
            return
        try:
            found = Postmaster.read(self._pgdata)
            if found is not None and found.lives():
                self._shut_down()
                if Path(found.socket_dir) != self._pgdata:
                    with suppress(OSError):
                        Path(found.socket_dir).rmdir()
        finally:
            self._lock.close()
            self._lock = None

    def _shut_down(self) -> None:
        for mode in ("fast", "immediate"):
            command = ("pg_ctl", "stop", "-D", "postgres", "-m", mode, "-w", "-t", str(STOP_S))
            code, output = self._programs.run(*command)
            if code == 0:
                return
            log.warning("stopping PostgreSQL (%s) failed: %s", mode, output)
        raise Unavailable(f"The embedded PostgreSQL in {self.data_dir} does not stop: {output}")

    def _take_over(self) -> bool:
        """Whether a server that its owner left behind is ours now; waits while it starts or stops."""
        deadline, announced = time.monotonic() + START_S, False
        while (found := Postmaster.read(self._pgdata)) and found.lives():
            if found.answers():
                log.info("took over the PostgreSQL server (process %d) in %s", found.pid, self.data_dir)
                return True
            if time.monotonic() > deadline:
                raise cannot_start(self._pgdata, f"process {found.pid} holds it and does not answer; end it")
            if not announced:
                log.info("waiting for the PostgreSQL server (process %d), now %s", found.pid, found.state)
                announced = True
            time.sleep(0.1)
        if found and found.exists():
            log.warning("removed a stale postmaster.pid (process %d is not its server)", found.pid)
            found.forget()
        return False

    def _launch(self) -> None:
        account = self._programs.account
        write_settings(self._pgdata, account, {**machine_settings(), **self._settings})
        os.close(os.open(self._log_file, os.O_WRONLY | os.O_CREAT, 0o600))
        account.give(self._log_file)
        deadline = time.monotonic() + ORPHANS_S
        command = ("pg_ctl", "start", "-D", "postgres", "-l", "postgres.log", "-w", "-t", str(START_S))
        while True:
            seen = self._log_file.stat().st_size
            code, output = self._programs.run(*command)
            if code == 0:
                return
            said = self._log_file.read_bytes()[seen:].decode(errors="replace")
            if HELD not in said or time.monotonic() > deadline:
                reason = f"{tail(output)}\n{tail(said)}\nThe whole log is {self._log_file}"
                raise cannot_start(self._pgdata, reason)
            log.info("processes of a server that died still hold %s; trying again", self.data_dir)
            time.sleep(0.2)
