"""A database with its roles, and a login of each: the service and its worker run as those."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from app.db import roles
from app.db.engine import create_engine
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import worker
from app.settings import Settings

ROLES = ("analyst", "api", "worker", "migrator", "owner")
PASSWORD = "only here"


@dataclass(frozen=True, slots=True)
class RoleDatabase:
    """Its URL as the administrator, and as members of the roles."""

    url: str
    login: str

    def as_(self, role: str) -> str:
        parts = urlsplit(self.url)
        address = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{self.login}_{role}:{PASSWORD.replace(' ', '%20')}@{address}"))

    def query(self, role: str, text: LiteralString | sql.Composed, binds: Sequence[Any] | None = None) -> list[Any]:
        with psycopg.connect(self.as_(role)) as conn:
            return conn.execute(text, binds).fetchall()

    def work(self, settings: Settings) -> None:
        """Run the jobs that are due, as the worker's login."""
        asyncio.run(self._drain(settings))

    async def _drain(self, settings: Settings) -> None:
        url = self.as_("worker")
        runtime = Runtime(settings, create_engine(url, settings), Inference.from_settings(settings))
        try:
            await worker.drain(url, runtime)
        finally:
            await runtime.close()


@contextmanager
def made_in(url: str) -> Iterator[RoleDatabase]:
    """Roles and logins in a database; the logins go with the block, the roles where nothing else needs them."""
    made = RoleDatabase(url, f"test_{uuid4().hex[:8]}")
    with psycopg.connect(url, autocommit=True) as conn:
        roles.make(conn)
        for role in ROLES[:-1]:
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
            login, group = f"{made.login}_{role}", f"pgretrieve_{role}"
            conn.execute(create.format(sql.Identifier(login), sql.Literal(PASSWORD), sql.Identifier(group)))
    try:
        yield made
    finally:
        with psycopg.connect(url, autocommit=True) as conn:
            for role in ROLES:
                for name in (f"{made.login}_{role}", f"pgretrieve_{role}"):
                    drop = sql.SQL("DROP OWNED BY {0} CASCADE").format(sql.Identifier(name))
                    with suppress(psycopg.Error):
                        conn.execute(drop)
            for role in ROLES:
                for name in (f"{made.login}_{role}", f"pgretrieve_{role}"):
                    with suppress(psycopg.Error):  # the groups may have rights in another database of the server
                        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
