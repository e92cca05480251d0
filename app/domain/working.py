"""Doing the work that is due in a namespace, whatever kind it is of."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.db.engine import transaction
from app.domain import filling, work
from app.domain.runtime import Runtime
from app.domain.work import Claimed

log = logging.getLogger(__name__)

Handler = Callable[[Runtime, str, Sequence[Claimed]], Awaitable[None]]
"""Ends each of the rows that it is given, all of one target: made, postponed or dead."""

HANDLERS: Mapping[str, Handler] = {"embed": filling.fill}


async def do_all(runtime: Runtime, namespace_id: str, subjects: Sequence[str] | None = None) -> int:
    """Do what is due, until nothing is; of these documents alone where `subjects` names them. Answers how much it was.

    What another worker has is left to it.
    """
    count = 0
    while True:
        async with transaction(runtime.engine, runtime.settings) as conn:
            rows = await work.claim(conn, runtime.settings, namespace_id, runtime.settings.work_batch, subjects)
        if not rows:
            return count
        await HANDLERS[rows[0].kind](runtime, namespace_id, rows)
        count += len(rows)
