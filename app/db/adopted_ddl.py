"""The DDL of an adopted table's namespace: its schema, and a view over the table with the columns that documents have.

The table itself is not touched: the only lock on it is that of a reader.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import sql
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from app.db.ddl import documents_table, hand_over
from app.db.engine import raw
from app.retrieval.adopted import KEY

# jsonb_build_object takes 100 arguments.
PAIRS = 50
TABLE = sql.Identifier("t")
CREATE = sql.SQL(
    "CREATE VIEW {} WITH (security_invoker = true) AS SELECT {} FROM {} AS t CROSS JOIN (SELECT 1 AS one) AS reading"
)


@dataclass(frozen=True, slots=True)
class View:
    """What is shown as what: columns of the table by their names in the view."""

    schema: str
    table: tuple[str, str]
    key: str
    raw_key: bool
    collection_id: str
    at: datetime
    payload: Sequence[tuple[str, str]] | str  # columns with their types; or the one that is the whole payload
    columns: Mapping[str, str]


async def create_view(conn: AsyncConnection, view: View) -> None:
    """Create the schema with the view `documents`."""
    await conn.execute(CreateSchema(view.schema))
    driver = await raw(conn)
    await driver.execute(_statement(view), prepare=False)
    await hand_over(conn, view.schema)


def _statement(view: View) -> sql.Composed:
    """Who reads the view needs the rights that the table asks for, row-level security included: security_invoker.

    The second relation, of one row, costs nothing once planned, but makes the view one that cannot be written to:
    else a DELETE FROM the view would delete rows of the table.
    """
    shown = [sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in _columns(view).items()]
    return CREATE.format(
        sql.Identifier(view.schema, "documents"), sql.SQL(", ").join(shown), sql.Identifier(*view.table)
    )


def _columns(view: View) -> dict[str, sql.Composable]:
    """Every column of a table of documents; what an adopted one has nothing for is as in a new row, or null."""
    given: dict[str, sql.Composable] = {
        "document_id": _cast(_of(view.key), "text"),
        "collection_id": _cast(sql.Literal(view.collection_id), "text"),
        "payload": _payload(view.payload),
        "metadata": sql.SQL("'{}'::jsonb"),
        "provenance": sql.SQL("'{}'::jsonb"),
        # When it was adopted. Columns of the table may be null, infinite or mean something else; the payload has them.
        "created_at": sql.Literal(view.at),
        "updated_at": sql.Literal(view.at),
    }
    for column in documents_table(view.schema, ()).columns:
        type_: Any = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        given.setdefault(column.name, _cast(sql.NULL, type_))
    if view.raw_key:
        given[KEY] = _of(view.key)
    return given | {name: _of(column) for name, column in view.columns.items()}


def _of(column: str) -> sql.Composed:
    return sql.SQL(".").join([TABLE, sql.Identifier(column)])


def _payload(columns: Sequence[tuple[str, str]] | str) -> sql.Composable:
    if isinstance(columns, str):  # what is no object has no fields
        whole = "CASE WHEN jsonb_typeof({0}::jsonb) = 'object' THEN {0}::jsonb ELSE '{{}}'::jsonb END"
        return sql.SQL(whole).format(_of(columns))
    pairs = [sql.SQL("{}, {}").format(_cast(sql.Literal(name), "text"), _value(name, type_)) for name, type_ in columns]
    parts = [pairs[n : n + PAIRS] for n in range(0, len(pairs), PAIRS)] or [[]]
    built = [sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(part)) for part in parts]
    return sql.SQL(" || ").join(built)


def _value(column: str, type_: str) -> sql.Composable:
    if type_ != "timestamptz":
        return _of(column)
    # As to_jsonb writes it where the time zone is UTC, whatever the session's is.
    utc = "CASE WHEN isfinite({0}) THEN (to_jsonb({0} AT TIME ZONE 'UTC') #>> '{{}}') || '+00:00' ELSE {0}::text END"
    return sql.SQL(utc).format(_of(column))


def _cast(value: sql.Composable, type_: LiteralString) -> sql.Composed:
    return sql.SQL("{}::{}").format(value, sql.SQL(type_))
