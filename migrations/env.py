"""Runs every migration in one transaction, under an advisory lock and a short lock_timeout: wholly or not at all.

The URL comes from `app.db.migrate` as an attribute of the config, else from DIRECT_DATABASE_URL or DATABASE_URL.
"""

import os

from alembic import context
from sqlalchemy import create_engine, make_url, pool, text
from sqlalchemy.schema import CreateSchema

# Any fixed number serves; two migrators of one database must choose the same.
ADVISORY_LOCK = 7_203_114_650
SCHEMA = "pgretrieve"


def database_url() -> str:
    url = context.config.attributes.get("url")
    url = url or os.environ.get("DIRECT_DATABASE_URL") or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit("Set DATABASE_URL (or DIRECT_DATABASE_URL) to the database to migrate.")
    return str(url)


def run_offline() -> None:
    context.configure(dialect_name="postgresql", version_table_schema=SCHEMA, literal_binds=True)
    with context.begin_transaction():
        context.get_context().impl.static_output(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};")
        context.run_migrations()


def run_online() -> None:
    url = make_url(database_url()).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"application_name": "pgretrieve-migrate"})
    with engine.begin() as connection:
        # Waits for another migrator rather than failing beside it; bounded by the statement timeout.
        connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        context.configure(connection=connection, version_table_schema=SCHEMA)
        context.run_migrations()
    engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
