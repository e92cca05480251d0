"""Migrations: up and down stair by stair, online and offline alike, frozen once landed, every object with a comment."""

import asyncio
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Engine, event

from app.db.migrate import alembic_config, check_current, head, upgrade
from app.errors import Unavailable
from tests import servers
from tests.dump_schema import FILE, catalog, dump
from tests.state import blocked

VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"
FROZEN = VERSIONS / "frozen.txt"
REVISIONS = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()][::-1]
ADVISORY_LOCK = 7_203_114_650


def downgrade(url: str, revision: str) -> None:
    command.downgrade(alembic_config(url), revision)


def revision_of(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        return [
            revision for (revision,) in conn.execute("SELECT version_num FROM pgretrieve.alembic_version").fetchall()
        ]


def test_every_stair_goes_up_and_down_and_up_again(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    whole = dump(url)
    downgrade(url, "base")
    below = dump(url)  # all that stays: the extension, the schema and the table of the version
    assert revision_of(url) == []
    for before, revision in zip(["base", *REVISIONS], REVISIONS, strict=False):
        upgrade(url, revision)
        above = dump(url)
        assert above != below, f"{revision} does nothing"
        downgrade(url, before)
        assert dump(url) == below, f"the downgrade of {revision} does not undo it"
        upgrade(url, revision)
        assert dump(url) == above
        assert revision_of(url) == [revision]
        below = above
    assert below == whole


def test_sql_that_is_printed_does_the_same(
    empty_database: Callable[[], str], fresh_database: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade("postgresql://nowhere.invalid/none", sql=True)
    url = empty_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(capsys.readouterr().out.encode())
    assert dump(url) == dump(fresh_database())
    assert revision_of(url) == [head()]
    check_current(url)


def test_the_committed_dump_is_what_the_migrations_make(fresh_database: Callable[[], str]) -> None:
    assert catalog(fresh_database()) == FILE.read_text(encoding="utf-8"), "run `make schema` and commit sql/schema.sql"


def test_every_table_and_column_has_a_comment(conninfo: str) -> None:
    bare = """
        SELECT concat_ws('.', c.relname, a.attname)
        FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'pgretrieve'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND c.relname <> 'alembic_version' AND coalesce(col_description(c.oid, a.attnum), '') = ''
        UNION ALL
        SELECT c.relname
        FROM pg_class c
        WHERE c.relnamespace = 'pgretrieve'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND c.relname <> 'alembic_version' AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''
        ORDER BY 1
    """
    with psycopg.connect(conninfo) as conn:
        assert conn.execute(bare).fetchall() == []
        conn.execute(
            "COMMENT ON COLUMN pgretrieve.api_keys.name IS NULL; COMMENT ON TABLE pgretrieve.promotions IS NULL"
        )
        assert conn.execute(bare).fetchall() == [("api_keys.name",), ("promotions",)]
        conn.rollback()


def test_landed_migrations_are_never_edited() -> None:
    files = sorted(path for path in VERSIONS.iterdir() if path.name[0].isdigit())
    found = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    assert found == FROZEN.read_text(encoding="utf-8"), (
        "A migration that has landed is never edited: write a new one instead. For one that has not landed yet: "
        "(cd migrations/versions && LC_ALL=C sha256sum [0-9]* > frozen.txt)"
    )


MIGRATOR = "import sys; from app.db.migrate import upgrade; upgrade(sys.argv[1])"


async def test_migrators_of_one_database_wait_for_each_other(
    empty_database: Callable[[], str], fresh_database: Callable[[], str]
) -> None:
    url = empty_database()
    with psycopg.connect(url) as first:
        first.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        others = [await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATOR, url) for _ in range(2)]
        await blocked(url, first.info.backend_pid, 2)
    assert await asyncio.gather(*(other.wait() for other in others)) == [0, 0]
    assert dump(url) == dump(fresh_database())
    assert revision_of(url) == [head()]


def test_a_migrator_is_patient_with_another_one_only(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    with psycopg.connect(url, autocommit=True) as conn:
        name = sql.Identifier(servers.database_of(url))
        conn.execute(sql.SQL("ALTER DATABASE {} SET lock_timeout = '1ms'").format(name))
    timeouts: dict[str, str] = {}

    def listen(_conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "pg_advisory_xact_lock" in statement or "CREATE SCHEMA" in statement:
            cursor.execute("SHOW lock_timeout")
            timeouts[statement] = cursor.fetchone()[0]

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        upgrade(url)
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    assert list(timeouts.values()) == ["0", "5s"]


def test_an_outdated_schema_is_refused_with_what_to_do(
    empty_database: Callable[[], str], fresh_database: Callable[[], str]
) -> None:
    check_current(fresh_database())
    url = empty_database()
    for revision in ("none", *REVISIONS[:-1]):
        if revision != "none":
            upgrade(url, revision)
        with pytest.raises(
            Unavailable, match=f"revision {revision}, this version needs {head()}.*pgretrieve migrate"
        ) as no:
            check_current(url)
        assert no.value.error_code == "schema_outdated"
    upgrade(url)
    check_current(url)
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE pgretrieve.alembic_version SET version_num = '9999'")
    with pytest.raises(Unavailable, match="revision 9999"):  # of a version to come
        check_current(url)
