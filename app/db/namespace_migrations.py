"""Changes of every namespace's schema: in batches, each its own transaction, so that thousands need no long lock.

A step is a file `NNNN_name.sql`, written for one namespace: its schema comes first in the search path. What is
interrupted goes on where it was, several may run at once, and a namespace that somebody holds is come back to.
"""

import importlib.resources
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources.abc import Traversable

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from app.errors import Unavailable

NAME = re.compile(r"(\d{4})_\w+\.sql")
BATCH = 50  # a changed table holds some ten locks until its batch commits; PostgreSQL has room for 6,400 by default
LOCK_TIMEOUT = "1s"
ROUNDS = 5

# Adopted tables are their users', and have nothing in their schemas that steps change.
# Adopted tables are their users': there is nothing of ours for a step to change.
PENDING = "SELECT count(*) FROM pgretrieve.namespaces WHERE schema_revision < %s AND adopted_from IS NULL"
# What another migrator has in hand is passed over.
TAKE = """
    SELECT namespace_id, schema_name, schema_revision FROM pgretrieve.namespaces
    WHERE schema_revision < %s AND adopted_from IS NULL AND namespace_id > %s
    ORDER BY namespace_id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""
DONE = "UPDATE pgretrieve.namespaces SET schema_revision = %s WHERE namespace_id = %s"

Progress = Callable[[int, int], None]
"""Is told how many are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change, by its number."""

    number: int
    text: str


def steps_in(folder: Traversable) -> list[Step]:
    """The steps of a folder, in their order."""
    found = [(NAME.fullmatch(file.name), file) for file in folder.iterdir()]
    steps = [Step(int(match[1]), file.read_text(encoding="utf-8")) for match, file in found if match]
    return sorted(steps, key=lambda step: step.number)


@cache
def shipped() -> tuple[Step, ...]:
    """The steps of this installation."""
    return tuple(steps_in(importlib.resources.files("migrations.namespaces")))


def newest() -> int:
    """The revision that a namespace has which this installation creates."""
    return max((step.number for step in shipped()), default=0)


def run(url: str, steps: Sequence[Step] | None = None, *, batch: int = BATCH, progress: Progress | None = None) -> int:
    """Bring every namespace of the database at `url` to the last step; answers how many were changed."""
    steps = shipped() if steps is None else steps
    if not steps:
        return 0
    with psycopg.connect(url, autocommit=True, application_name="pgretrieve-migrate") as conn:
        return _run(conn, steps, batch, progress or (lambda _done, _total: None))


def pending(conn: psycopg.Connection[TupleRow], revision: int) -> int:
    """Namespaces that have yet to be changed."""
    row = conn.execute(PENDING, [revision]).fetchone()
    assert row is not None
    return int(row[0])


def _run(conn: psycopg.Connection[TupleRow], steps: Sequence[Step], batch: int, progress: Progress) -> int:
    last = max(step.number for step in steps)
    done, total = 0, pending(conn, last)
    for round_ in range(ROUNDS):
        if round_:
            time.sleep(round_)  # for who held a namespace to let it go
        after = ""
        while taken := _batch(conn, steps, last, after, batch):
            after, changed = taken
            done += changed
            progress(done, total)
        if not (left := pending(conn, last)):
            return done
    message = f"{left} namespaces are held by other transactions; the rest are done. Run this again."
    raise Unavailable(message, code="namespaces_locked", retryable=True)


def _batch(
    conn: psycopg.Connection[TupleRow], steps: Sequence[Step], last: int, after: str, batch: int
) -> tuple[str, int] | None:
    """The last namespace of a batch and how many of it were changed; None where there is none left."""
    with conn.transaction():
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        found = conn.execute(TAKE, [last, after, batch]).fetchall()
        changed = 0
        for namespace_id, schema, revision in found:
            try:
                with conn.transaction():
                    path = sql.SQL("SET LOCAL search_path = {}, public, pg_catalog").format(sql.Identifier(schema))
                    conn.execute(path)
                    for step in steps:
                        if step.number > revision:
                            conn.execute(step.text.encode())
                    conn.execute(DONE, [last, namespace_id])
                changed += 1
            except psycopg.errors.LockNotAvailable:
                pass  # in the next round
    return (found[-1][0], changed) if found else None
