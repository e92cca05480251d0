"""The roles of a database (`sql/roles.sql`): made, and proven by trying what each must and must not be able to do."""

import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

PROBE = re.compile(r"^-- (\w+) (must|must not): (.+) --$", re.MULTILINE)
# Tables change hands under locks; who holds one for longer is not worth stopping a service for.
LOCK_TIMEOUT = "5s"


@dataclass(frozen=True, slots=True)
class Probe:
    """Something that a role tries. `what` says it in words."""

    role: str
    allowed: bool
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether it went as it must, and what PostgreSQL said to it otherwise."""

    probe: Probe
    kept: bool
    said: str = ""


def _file(name: str) -> str:
    return importlib.resources.files("sql").joinpath(name).read_text(encoding="utf-8")


def script() -> str:
    """The statements that make the roles."""
    return _file("roles.sql")


def probes() -> list[Probe]:
    """In their order: later ones stand on what earlier ones made."""
    parts = PROBE.split(_file("role_probes.sql"))[1:]
    found = zip(*(parts[n::4] for n in range(4)), strict=True)
    return [Probe(f"pgretrieve_{role}", may == "must", what, text.strip()) for role, may, what, text in found]


def make(conn: psycopg.Connection[TupleRow]) -> None:
    """Make the roles, and give them what they need; what is so already stays."""
    with conn.transaction():
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        conn.execute(script().encode())


def check(conn: psycopg.Connection[TupleRow]) -> Iterator[Outcome]:
    """Try all of it in a transaction that is rolled back."""
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        for probe in probes():
            yield _try(conn, probe)


def _try(conn: psycopg.Connection[TupleRow], probe: Probe) -> Outcome:
    try:
        with conn.transaction(force_rollback=not probe.allowed):
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(probe.role)))
            conn.execute(probe.text.encode())
            conn.execute("RESET ROLE")
    except psycopg.errors.InsufficientPrivilege as error:
        return Outcome(probe, not probe.allowed, "" if not probe.allowed else str(error))
    except psycopg.Error as error:
        return Outcome(probe, False, str(error))
    return Outcome(probe, probe.allowed, "" if probe.allowed else "PostgreSQL let it.")
