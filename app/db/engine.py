"""The one pool of connections, and the transaction that every request runs in."""

import asyncio
import selectors
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg.pq import PipelineStatus
from sqlalchemy import event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.db.statements import statement
from app.errors import Unavailable
from app.settings import Settings
from app.telemetry import origin


def create_engine(url: str, settings: Settings, *, application_name: str = "pgretrieve-api") -> AsyncEngine:
    """The pool. Vectors travel in binary: pgvector's adapters are registered on each new connection."""
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout_s,
        connect_args={
            "application_name": application_name,
            "connect_timeout": 10,
            "prepare_threshold": 3 if settings.prepare_statements else None,
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def register(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.run_async(register_vector_async)

    @event.listens_for(engine.sync_engine, "checkout")
    def refuse_ended(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
        # Without a round trip: a live connection is silent while idle; one that the server ended has its end to read.
        driver = dbapi_connection.driver_connection
        if driver.closed or _readable(driver.fileno()):
            raise DisconnectionError("The server has ended this connection.")
        # psycopg leaves a pipeline open where it could not collect the answers: they would be taken for the next ones.
        if driver.pgconn.pipeline_status != PipelineStatus.OFF:
            raise DisconnectionError("This connection was left within a pipeline.")

    return engine


def _readable(fileno: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(fileno, selectors.EVENT_READ)
        return bool(selector.select(0))


@asynccontextmanager
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection from the pool; `Unavailable` when none is free in time or the server cannot be reached."""
    opened = engine.connect()
    try:
        await opened.start()
    except PoolTimeout:
        raise Unavailable("Every database connection is busy; try again.", code="pool_exhausted") from None
    try:
        yield opened
    except (asyncio.CancelledError, TimeoutError):
        # It may have stopped between a statement and its answer, which nobody else may be given.
        await opened.invalidate()
        raise
    finally:
        await opened.close()


@asynccontextmanager
async def transaction(
    engine: AsyncEngine, settings: Settings, *, lock_timeout_ms: int | None = None, keep: bool = True
) -> AsyncIterator[AsyncConnection]:
    """A transaction with the time limits of the settings, committed at the end: the edge's, and only the edge's.

    What changes no tables waits for those that do, which give way after their own short `lock_timeout_ms`. Without
    `keep` it is rolled back, however it ends.
    """
    async with connection(engine) as conn, conn.begin() as begun:
        limits = {
            "statement": f"{settings.statement_timeout_ms}ms",
            "lock": f"{lock_timeout_ms or settings.statement_timeout_ms}ms",
        }
        await conn.execute(statement("set_time_limits"), {**limits, "origin": origin.get() or None})
        yield conn
        if not keep:
            await begun.rollback()


async def raw(conn: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    """The driver's own connection, for what SQLAlchemy does not do: pipelines, and jobs deferred on it."""
    fairy = await conn.get_raw_connection()
    driver = fairy.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    return driver
