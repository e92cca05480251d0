"""The DDL of a namespace: its schema, its table of documents, vector columns and their indexes."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, CreateSchema, DropIndex, DropSchema

from app.db.statements import statement
from app.retrieval.catalog import VectorConfig, vector_type
from app.retrieval.vectors import index_expression, index_operator_class
from app.settings import Settings

# As the migration has it that brought the column to the tables of before.
PROVENANCE = (
    "Who made each vector, by its column: {service, model, revision, input (SHA-256), at}. "
    "A vector that is not here is its caller's."
)
# As migrations/namespaces/0001_access_lists.sql has them.
ACL = "Its access list: {read, write, public}. Null: it has none."
READERS = "Whom the access list lets read (pgretrieve.acl_readers); * is everybody."


def documents_table(schema: str, configs: Sequence[VectorConfig]) -> sa.Table:
    """The table of a namespace's documents, as it is created."""
    text, time, now = sa.Text(), sa.TIMESTAMP(timezone=True), sa.func.now()
    return sa.Table(
        "documents",
        sa.MetaData(),
        sa.Column("document_id", text, primary_key=True, comment="Unique in the namespace; its owner's choice."),
        sa.Column("collection_id", text, nullable=False, comment="_direct_upsert for documents upserted directly."),
        sa.Column("payload", JSONB, nullable=False, comment="The document, as it was sent."),
        sa.Column("metadata", JSONB, nullable=False, comment="The service's side of it: _internal.metadata."),
        sa.Column("created_at", time, nullable=False, server_default=now, comment="When it first came."),
        sa.Column("updated_at", time, nullable=False, server_default=now, comment="When it last came."),
        sa.Column("provenance", JSONB, nullable=False, server_default=sa.text("'{}'"), comment=PROVENANCE),
        sa.Column("acl", JSONB, comment=ACL),
        sa.Column("readers", ARRAY(text), comment=READERS),
        *(vector_column(config) for config in configs if config.kind != "multi"),
        # Serves lists of one collection, in their order.
        sa.Index("documents_collection", "collection_id", "document_id"),
        # Serves keys with a principal that reads few of the documents; those without an access list are not in it.
        sa.Index(
            "documents_readers",
            "readers",
            postgresql_using="gin",
            postgresql_where=sa.text("readers IS NOT NULL"),
        ),
        schema=schema,
        comment="The documents of this namespace, one row each, and one nullable column per vector config.",
    )


def vector_column(config: VectorConfig) -> sa.Column[Any]:
    return sa.Column(
        config.column,
        vector_type(config),
        nullable=True,
        comment=f"Vector config {config.name!r}, {config.metric}.",
    )


def side_table(schema: str, config: VectorConfig) -> sa.Table:
    """The table of a multi-vector."""
    documents = documents_table(schema, ())
    document = sa.ForeignKey(documents.c.document_id, ondelete="CASCADE")
    return sa.Table(
        config.side_table,
        documents.metadata,
        sa.Column("document_id", sa.Text(), document, primary_key=True, comment="The document."),
        sa.Column("position", sa.Integer(), primary_key=True, comment="Of this vector in the document's, from 0."),
        sa.Column("vector", vector_type(config), nullable=False, comment="The vector."),
        schema=schema,
        comment=f"Vector config {config.name!r}, {config.metric}: several vectors per document, one row each.",
    )


def vector_index(schema: str, config: VectorConfig, settings: Settings) -> sa.Index | None:
    """The index of a vector config; None where search is exact."""
    if config.index_method == "exact":
        return None
    multi = config.kind == "multi"
    table = side_table(schema, config) if multi else documents_table(schema, [config])
    return sa.Index(
        config.index_name,
        index_expression(config, table.c["vector" if multi else config.column]).label("vector"),
        _table=table,
        postgresql_using="hnsw",
        postgresql_ops={"vector": index_operator_class(config)},
        postgresql_with={
            "m": config.m or settings.hnsw_m,
            "ef_construction": config.ef_construction or settings.hnsw_ef_construction,
        },
    )


async def create_namespace(
    conn: AsyncConnection, schema: str, configs: Sequence[VectorConfig], settings: Settings
) -> None:
    """Create schema, tables and indexes; all is empty, so that building in the transaction costs nothing."""
    await create_tables(conn, schema, configs)
    for config in configs:
        await create_index(conn, schema, config, settings)


async def create_tables(conn: AsyncConnection, schema: str, configs: Sequence[VectorConfig]) -> None:
    """Create the schema and its tables, without vector indexes."""
    await conn.execute(CreateSchema(schema))
    await conn.run_sync(documents_table(schema, configs).metadata.create_all, checkfirst=False)
    await hand_over(conn, schema)
    await create_side_tables(conn, schema, configs)


async def create_side_tables(conn: AsyncConnection, schema: str, configs: Sequence[VectorConfig]) -> None:
    several = [config for config in configs if config.kind == "multi"]
    for config in several:
        await conn.run_sync(side_table(schema, config).create, checkfirst=False)
    if several:
        await hand_over(conn, schema)


async def hand_over(conn: AsyncConnection, schema: str) -> None:
    """What was just created belongs to the database's roles, where those were made: for whoever creates tables here."""
    await conn.execute(statement("hand_over"), {"schema": schema})


async def create_index(conn: AsyncConnection, schema: str, config: VectorConfig, settings: Settings) -> None:
    """Create the index in this transaction: for tables that hold no such vectors yet."""
    if (index := vector_index(schema, config, settings)) is not None:
        await conn.execute(CreateIndex(index))


async def create_index_concurrently(
    conn: AsyncConnection, schema: str, config: VectorConfig, settings: Settings
) -> None:
    """Build the index beside readers and writers, on a connection in autocommit."""
    if (index := vector_index(schema, config, settings)) is not None:
        index.dialect_options["postgresql"]["concurrently"] = True
        await conn.execute(CreateIndex(index))


async def drop_index_concurrently(conn: AsyncConnection, schema: str, index_name: str) -> None:
    """Drop an index, if it is there, beside readers and writers, on a connection in autocommit."""
    index = sa.Index(index_name, documents_table(schema, ()).c.document_id)
    index.dialect_options["postgresql"]["concurrently"] = True
    await conn.execute(DropIndex(index, if_exists=True))


async def add_vector_columns(conn: AsyncConnection, schema: str, configs: Sequence[VectorConfig]) -> None:
    """Add nullable columns, and tables for multi-vectors: a change of the catalog only, whatever the number of rows."""

    def add(sync: sa.Connection) -> None:
        operations = Operations(MigrationContext.configure(sync))
        for config in configs:
            if config.kind != "multi":
                operations.add_column("documents", vector_column(config), schema=schema)

    await conn.run_sync(add)
    await create_side_tables(conn, schema, configs)


async def drop_vector_column(conn: AsyncConnection, schema: str, config: VectorConfig) -> None:
    """Drop a vector config's column, or its table, with its index: a change of the catalog only, as adding is."""

    def drop(sync: sa.Connection) -> None:
        operations = Operations(MigrationContext.configure(sync))
        if config.kind == "multi":
            operations.drop_table(config.side_table, schema=schema)
        else:
            operations.drop_column("documents", config.column, schema=schema)

    await conn.run_sync(drop)


async def drop_namespace(conn: AsyncConnection, schema: str) -> None:
    await conn.execute(DropSchema(schema, cascade=True))
