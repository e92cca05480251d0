"""Doing the work that is due in a namespace, whatever kind it is of."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.db.engine import transaction
from app.domain.background import filling, work
from app.domain.background.work import Claimed
from app.domain.content import extracting, gathering
from app.domain.runtime import Runtime

log = logging.getLogger(__name__)

Handler = Callable[[Runtime, str, Sequence[Claimed]], Awaitable[bool]]
"""Ends each of the rows that it is given, all of one target: made, postponed or dead. Answers whether others of that
target may be tried now: not where a service is down."""

HANDLERS: Mapping[str, Handler] = {"embed": filling.fill, "extract": extracting.extract, "gather": gathering.gather}


async def do_all(runtime: Runtime, namespace_id: str, subjects: Sequence[str] | None = None) -> int:
    """Do what is due, until nothing is; of these documents alone where `subjects` names them. Answers how much it was.

    What another worker has is left to it.
    """
    count, down, settings = 0, set[str](), runtime.settings
    while True:
        async with transaction(runtime.engine, settings) as conn:
            rows = await work.claim(conn, settings, namespace_id, settings.work_batch, subjects=subjects, without=down)
        if not rows:
            return count
        async with work.renewing(runtime, rows):
            up = await HANDLERS[rows[0].kind](runtime, namespace_id, rows)
        if not up:
            down.add(rows[0].target)
        count += len(rows)
