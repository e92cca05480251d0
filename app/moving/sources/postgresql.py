"""Tables with pgvector's columns, of any database: read page by page in the order of a key.

Each page is a statement and a transaction of its own, so nothing is held up there while documents are stored here.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import sqlalchemy as sa

from app.db.statements import statement
from app.errors import InvalidRequest, Problem, Unavailable
from app.moving import copying
from app.moving.rows import CHUNK_BYTES, CHUNK_ROWS, DOCUMENT_ID, Layout, Rows
from app.moving.sources import TIMEOUT_S, At, Found, again
from app.retrieval.catalog import Kind, Metric, VectorConfig
from app.retrieval.plan import render

KINDS: dict[str, Kind] = {"vector": "dense", "halfvec": "dense", "sparsevec": "sparse", "_vector": "multi"}
METRICS: dict[str, Metric] = {"cosine_ops": "cosine", "ip_ops": "dot", "l2_ops": "euclidean"}
# As JSON these are of use to nobody: bytes, and words that are made of other columns.
NO_FIELDS = {"bytea", "_bytea", "tsvector", "_halfvec", "_sparsevec"}
TABLES = ("r", "p")
FIRST_PAGE = 500


def connect(address: str, table: str, layout: Layout, _key: str | None) -> "Table":
    """A table, as SQL writes its name. The password may stand in PGPASSWORD or in ~/.pgpass, as for psql."""
    scheme, _, rest = address.partition(":")  # drivers that other libraries name there are none of libpq's
    return Table(f"{scheme.partition('+')[0]}:{rest}", table, layout)


class Table:
    """A table that has a key: the column that is named, else `document_id` or the primary key."""

    def __init__(self, address: str, table: str, layout: Layout) -> None:
        self._address, self._layout = address, layout
        self._conn: psycopg.Connection[Any] | None = None
        try:
            found = next(iter(self._rows("source_table", table=table)), None)
            if found is None or found["relkind"] not in TABLES:
                raise _refused(f"There is no table {table!r} there that this login sees; give it as schema.table.")
            columns = self._rows("source_columns", relation=found["oid"])
            info = self._connection().info
            self.name = f"postgresql://{info.host}:{info.port}/{info.dbname} {found['schema']}.{found['name']}"
            self.total = found["rows"]
            self._types = {column["name"]: column["type"] for column in columns}
            self._key = _key_of(columns, layout.document_id)
            self._table = sa.table(found["name"], *map(sa.column, self._types), schema=found["schema"]).alias("t")
            self.vectors = [self._vector(column) for column in columns if column["type"] in KINDS]
        except psycopg.Error as error:
            self.close()
            raise Unavailable(f"The table cannot be read: {error}", code="source_unavailable") from None
        except InvalidRequest:
            self.close()
            raise
        self.left_out = [
            f"Column {name!r} ({kind}) is left out: it has no form in JSON."
            for name, kind in self._types.items()
            if kind in NO_FIELDS
        ]

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]:
        """Chunks of the rows whose key comes after the place. Those that come later with a lower key are not seen."""
        named = {
            name: self._layout.column(config, {v.column for v in self.vectors}) for name, config in configs.items()
        }
        kinds = {configs[name]: column for name, column in named.items() if column}
        query = self._query(list(kinds.values()))
        after, row, limit = at.place, at.row, FIRST_PAGE
        while True:
            found = self._page(query, after, limit)
            if not found:
                return
            ids, payloads, *vectors = (list(column) for column in zip(*found, strict=True))
            before, row, after = row, row + len(ids), ids[-1]
            yield Rows(
                row,
                list(range(before + 1, row + 1)),
                ids,
                [None] * len(ids),
                [payload.encode() for payload in payloads],
                [b"{}"] * len(ids),
                {c.name: copying.column(bodies, c) for c, bodies in zip(kinds, vectors, strict=True)},
                place=after,
            )
            limit = max(1, min(CHUNK_ROWS, CHUNK_BYTES * len(found) // max(1, sum(map(_size, found)))))

    def _query(self, vectors: list[str]) -> sa.Select[Any]:
        """The key, a JSON object of the fields, the vectors. JSON as text: jsonb has no U+0000, which we tell."""
        table, key = self._table, self._table.c[self._key]
        names = [n for n, kind in self._types.items() if n != self._key and kind not in KINDS and kind not in NO_FIELDS]
        fields = sa.select(*(table.c[name] for name in names)).correlate(table).lateral("fields")
        payload = sa.cast(sa.func.row_to_json(fields.table_valued()), sa.Text) if names else sa.literal_column("'{}'")
        columns = [sa.cast(key, sa.Text), payload, *(table.c[name] for name in vectors)]
        rows = sa.select(*columns).select_from(table.join(fields, sa.true()) if names else table)
        return rows.order_by(key).limit(sa.bindparam("page", type_=sa.BigInteger))

    def _page(self, query: sa.Select[Any], after: str | None, limit: int) -> list[tuple[Any, ...]]:
        """Rows after a key, until they are as many or as large as a chunk."""
        binds: dict[str, Any] = {"page": limit}
        if after is not None:  # a text of no type: PostgreSQL reads it as one of the key's
            query, binds["after"] = query.where(self._table.c[self._key] > sa.bindparam("after")), after
        try:
            for attempt in again(lambda error: isinstance(error, psycopg.OperationalError)):
                with attempt:
                    return self._streamed(render(query), binds)
        except psycopg.Error as error:
            raise Unavailable(f"The table cannot be read on: {error}", code="source_unavailable") from None
        raise AssertionError("an attempt answers or raises")

    def _streamed(self, text: str, binds: dict[str, Any]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        size = 0
        conn = self._connection()
        try:
            conn.execute(render(statement("source_session")), {"timeout": f"{TIMEOUT_S}s"})
            with conn.cursor(binary=True) as cursor:
                for row in cursor.stream(text, binds):
                    found.append(row)
                    size += _size(row)
                    if size >= CHUNK_BYTES:
                        break
        finally:
            conn.rollback()
        return found

    def _rows(self, name: str, **binds: Any) -> list[dict[str, Any]]:
        conn = self._connection()
        with conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            found = cursor.execute(render(statement(name)), binds).fetchall()
        conn.rollback()
        return found

    def _connection(self) -> psycopg.Connection[Any]:
        """The connection; another one where it broke."""
        if self._conn is None or self._conn.broken or self._conn.closed:
            name = "pgretrieve-import"
            self._conn = psycopg.connect(
                self._address, connect_timeout=10, application_name=name, client_encoding="utf8", prepare_threshold=None
            )
            self._conn.read_only = True
        return self._conn

    def _vector(self, column: Mapping[str, Any]) -> Found:
        kind, dimension = KINDS[column["type"]], column["dimension"]
        if dimension < 1:  # the type names none: the first vector tells
            dimension = self._dimension(column["name"], kind)
        named = {METRICS.get(opclass.partition("_")[2]) for opclass in column["opclasses"]}
        if len(named) == 1 and (metric := named.pop()):
            return Found(column["name"], dimension, kind, metric)
        why = f"its indexes have {', '.join(column['opclasses'])}" if column["opclasses"] else "it has no index"
        return Found(column["name"], dimension, kind, None, why)

    def _dimension(self, name: str, kind: Kind) -> int:
        place = self._table.c[name]
        conn = self._connection()
        first = sa.select(place).where(place.is_not(None)).limit(sa.literal_column("1"))
        row = conn.cursor(binary=True).execute(render(first)).fetchone()
        conn.rollback()
        if row is None:
            return 0
        body = next(iter(copying.elements(row[0])), b"\0\0") if kind == "multi" else row[0]
        (dimension,) = struct.unpack_from(">i" if kind == "sparse" else ">H", body)
        return int(dimension)


def _key_of(columns: list[dict[str, Any]], named: str | None) -> str:
    """The column whose order pages follow: unique and never null, or a page would lose or repeat rows."""
    keys = [column["name"] for column in columns if column["is_key"]]
    primary = [column["name"] for column in columns if column["is_primary"]]
    wanted = named or (DOCUMENT_ID if DOCUMENT_ID in keys else None) or next(iter(primary), None)
    if wanted is not None and wanted in keys:
        return wanted
    known = ", ".join(map(repr, keys)) or "none"
    who = "The table has no primary key of one column" if wanted is None else f"The column {wanted!r} is no key"
    raise _refused(
        f"{who}: --id names a column that is NOT NULL and has a unique index of its own, whose order is followed. "
        f"There are: {known}."
    )


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest([Problem(("table",), "bad_source", message)])


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) for value in row if value is not None)
