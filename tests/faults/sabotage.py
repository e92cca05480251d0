"""Kills at each statement of a service in turn: its backend, itself, or the whole server."""

import signal
from collections.abc import Callable
from typing import Any

import psutil
import psycopg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.embedded import EmbeddedServer
from app.db.engine import create_engine
from tests.state import kill


class Sabotage:
    """Does something deadly at a step: before or after one of a service's statements, COMMIT among them.

    By default it kills the backend that runs them, through `conninfo`.
    """

    def __init__(self, conninfo: str, deed: Callable[[int], None] | None = None) -> None:
        self.deed = deed or (lambda pid: kill(conninfo, pid))
        self.steps: list[str] | None = None
        self.at = -1
        self.beginning = ""

    def arm(self, at: int = -1, *, beginning: str = "") -> list[str]:
        """Count steps from here (or from the first statement that holds `beginning`), and do it at that one."""
        self.at, self.steps, self.beginning = at, [], beginning
        return self.steps

    def step(self, driver: psycopg.AsyncConnection[Any], what: str) -> None:
        if self.steps is not None and (self.steps or self.beginning in what):
            if len(self.steps) == self.at:
                self.deed(driver.info.backend_pid)
            self.steps.append(what)

    def create_engine(self, *arguments: Any, **options: Any) -> AsyncEngine:
        """In place of the service's own: every connection tells what it does, SQLAlchemy's and the driver's alike."""
        engine = create_engine(*arguments, **options)
        step = self.step

        class Cursor(psycopg.AsyncCursor[Any]):
            async def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
                text = " ".join(str(query).split())
                step(self.connection, f"before {text}")
                await super().execute(query, *arguments, **options)
                step(self.connection, f"after {text}")
                return self

        @event.listens_for(engine.sync_engine, "connect")
        def watch(dbapi_connection: Any, _record: Any) -> None:
            driver: psycopg.AsyncConnection[Any] = dbapi_connection.driver_connection
            commit = driver.commit

            async def watched() -> None:
                step(driver, "before COMMIT")
                await commit()
                step(driver, "after COMMIT")

            driver.cursor_factory = Cursor
            driver.commit = watched  # type: ignore[method-assign]

        return engine


def shut_down(server: EmbeddedServer) -> None:
    """End a server as `pg_ctl stop -m immediate` does: no checkpoint, no goodbye."""
    postmaster = psutil.Process(server.postmaster.pid)
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(30)
