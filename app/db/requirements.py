"""What the database must be: PostgreSQL 16 or newer, with pgvector 0.8.4 or newer."""

import re
from typing import Any

import psycopg

from app.errors import Unavailable

POSTGRESQL = "16"
PGVECTOR = "0.8.4"  # 0.8.2 to 0.8.4 fixed a buffer overflow, and HNSW indexes damaged by vacuum
FOUND = """
    SELECT current_setting('server_version'),
           (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'),
           (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector')
"""


def check_server(conn: psycopg.Connection[Any]) -> None:
    """Refuse a server that is too old; asked once, at start."""
    row = conn.execute(FOUND).fetchone()
    assert row is not None
    if problems := lacks(*row):
        raise Unavailable(" ".join(problems), code="unsupported_database")


def lacks(server: str, installed: str | None, available: str | None) -> list[str]:
    """What is too old or missing, and what to do. Before pgvector is installed, the available one counts."""
    problems = []
    if not at_least(server, POSTGRESQL):
        problems.append(
            f"The database runs PostgreSQL {server}; pgretrieve needs {POSTGRESQL} or newer. "
            "Upgrade the server (pg_upgrade), or point DATABASE_URL at a newer one."
        )
    present = installed or available
    if present is None:
        problems.append(
            f"The server has no pgvector; pgretrieve needs {PGVECTOR} or newer. Install its package on the "
            "server (such as postgresql-18-pgvector), or use the image pgvector/pgvector."
        )
    elif not at_least(present, PGVECTOR):
        if available and at_least(available, PGVECTOR):
            todo = f"The server carries {available}: run ALTER EXTENSION vector UPDATE in this database."
        else:
            todo = "Install a newer package of it on the server, then run ALTER EXTENSION vector UPDATE."
        problems.append(f"The database has pgvector {present}; pgretrieve needs {PGVECTOR} or newer. {todo}")
    return problems


def at_least(version: str, floor: str) -> bool:
    """Compare by number, not by text: 0.10.0 is newer than 0.8.4; what follows the numbers does not count."""
    return _numbers(version) >= _numbers(floor)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
