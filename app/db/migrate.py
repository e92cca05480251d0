"""Brings a database to the newest schema, and tells whether it is there."""

import importlib.resources
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, pool

from app.db.statements import statement
from app.errors import Unavailable


def alembic_config(url: str | None = None) -> Config:
    """The config of the migrations that this installation carries; no ini file is needed."""
    config = Config()
    with importlib.resources.as_file(importlib.resources.files("migrations")) as location:
        config.set_main_option("script_location", str(Path(location)).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def upgrade(url: str, revision: str = "head", *, sql: bool = False) -> None:
    """Migrate the database at `url` (libpq URL); with `sql` only print the statements."""
    command.upgrade(alembic_config(url), revision, sql=sql)


@cache
def head() -> str:
    """The newest revision that this installation knows."""
    found = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert found is not None
    return found


def revision(conn: Connection) -> str | None:
    """The revision that this database is at; None before the first migration."""
    exists = conn.execute(statement("has_catalog")).scalar_one()
    return conn.execute(statement("schema_revision")).scalar_one_or_none() if exists else None


def knows(other: str) -> bool:
    """Whether this installation has a migration of that revision."""
    return any(script.revision == other for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def check_current(url: str) -> None:
    """Refuse a database whose schema is not the one that this code was written for."""
    target, name = make_url(url).set(drivername="postgresql+psycopg"), {"application_name": "pgretrieve-cli"}
    engine = create_engine(target, poolclass=pool.NullPool, connect_args=name)
    with engine.connect() as conn:
        current = revision(conn)
    if current != head():
        raise Unavailable(
            f"The database's schema is at revision {current or 'none'}, this version needs {head()}. "
            "Run `pgretrieve migrate` first.",
            code="schema_outdated",
        )
