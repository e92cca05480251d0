"""Background jobs (procrastinate, in its own schema), deferred on the caller's connection.

So a job exists if and only if the change that asked for it was committed.
"""

import math
from datetime import timedelta
from typing import Any

import procrastinate
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import raw
from app.db.statements import statement

SCHEMA = "pgretrieve_queue"

# Never opened: it only defers on connections that it is handed.
_deferring = procrastinate.App(connector=procrastinate.PsycopgConnector())


async def defer(
    conn: AsyncConnection,
    task: str,
    arguments: dict[str, Any],
    *,
    lock: str | None = None,
    after: timedelta | None = None,
    priority: int = 0,
) -> int:
    """Add a job for `task` in the caller's transaction; jobs with the same `lock` run one after another. It is run
    `after` a while, where one is given; of those that are due, the one of the highest priority first."""
    before = (await conn.execute(statement("swap_search_path"), {"path": SCHEMA})).scalar_one()
    later = None if after is None else {"seconds": math.ceil(after.total_seconds())}
    deferrer = _deferring.configure_task(
        task, connection=await raw(conn), lock=lock, schedule_in=later, priority=priority
    )
    job_id = await deferrer.defer_async(**arguments)
    await conn.execute(statement("swap_search_path"), {"path": before})
    return job_id


def worker_app(url: str) -> procrastinate.App:
    """An app for a worker, on connections of its own (not through a pooler: it listens)."""
    options = {"options": f"-c search_path={SCHEMA}", "application_name": "pgretrieve-worker"}
    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, kwargs=options, max_size=4))
