"""Kills a service's backend at each of its statements in turn."""

from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import create_engine
from tests.state import kill


class Sabotage:
    """Kills a service's backend at a step: before or after one of its statements, COMMIT among them."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.steps: list[str] | None = None
        self.at = -1

    def arm(self, at: int = -1) -> list[str]:
        """Count steps from here, and kill at that one."""
        self.at, self.steps = at, []
        return self.steps

    def step(self, driver: psycopg.AsyncConnection[Any], what: str) -> None:
        if self.steps is not None:
            if len(self.steps) == self.at:
                kill(self.conninfo, driver.info.backend_pid)
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
