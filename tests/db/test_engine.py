"""The pool: a connection that may hold somebody else's answers is never handed on."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import connection, raw


async def backend(engine: AsyncEngine) -> int:
    async with connection(engine) as conn:
        pid: int = (await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    return pid


async def test_a_connection_left_within_a_pipeline_is_not_handed_on(engine: AsyncEngine) -> None:
    async with connection(engine) as conn:
        driver = await raw(conn)
        before = driver.info.backend_pid
    assert await backend(engine) == before
    driver.pgconn.enter_pipeline_mode()
    assert await backend(engine) != before


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_a_cancelled_pipeline_leaves_no_answer_to_the_next(engine: AsyncEngine, turns: int) -> None:
    """Cancelled at each point of its way, one turn of the event loop later each time."""

    async def work() -> None:
        async with connection(engine) as conn:
            driver = await raw(conn)
            async with driver.pipeline():
                await driver.execute("SELECT 1")
                await driver.execute("SELECT 2")
                await driver.execute("COMMIT")

    await backend(engine)
    task = asyncio.create_task(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with connection(engine) as conn:
        for n in range(3):
            assert (await conn.execute(text("SELECT CAST(:n AS int)"), {"n": n})).scalar_one() == n


async def test_a_connection_that_was_cancelled_is_not_handed_on(engine: AsyncEngine) -> None:
    began = asyncio.Event()
    pids = []

    async def wait() -> None:
        async with connection(engine) as conn:
            pids.append((await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one())
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await backend(engine) not in pids
