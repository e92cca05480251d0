"""Transactions that change a namespace itself: they give way to whoever holds a lock, and try again."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from app.db.engine import transaction
from app.domain.promoting import blocking
from app.domain.promoting.blocking import Watch
from app.domain.runtime import Runtime
from app.errors import Conflict

T = TypeVar("T")


async def giving_way(
    runtime: Runtime, identifier: str, work: Callable[[AsyncConnection], Awaitable[T]], *, keep: bool = True
) -> T:
    """Do `work` in a transaction that waits for locks only shortly, since everyone else waits behind it.

    Each try waits for `lock_timeout_ms`, with jitter between them; when no try gets its locks, `Conflict` says who
    holds them. Without `keep` what was done is rolled back.
    """
    settings, watch = runtime.settings, Watch()
    limit = settings.lock_timeout_ms
    tries = AsyncRetrying(
        retry=retry_if_exception(_is_lock_timeout),
        stop=stop_after_attempt(settings.lock_attempts),
        wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
        reraise=True,
    )

    async def once() -> T:
        async with (
            transaction(runtime.engine, settings, lock_timeout_ms=limit, keep=keep) as conn,
            blocking.watching(runtime, conn, watch, limit),
        ):
            return await work(conn)

    try:
        return await tries(once)
    except OperationalError as error:
        if _is_lock_timeout(error):
            raise _locked(identifier, watch) from None
        raise


def _is_lock_timeout(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, LockNotAvailable)


def _locked(identifier: str, watch: Watch) -> Conflict:
    who = f": {watch.seen[0]}" if watch.seen else ""
    message = f"Another transaction holds the namespace {identifier!r}{who}. Nothing was changed. Try again later."
    blocked_by = [blocker.shown() for blocker in watch.seen]
    return Conflict(message, code="locked", retryable=True, blocked_by=blocked_by)
