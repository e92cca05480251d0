"""The immutable picture of one namespace that everything else is compiled against.

Callers never assume the shape of the table: they ask for the relation, its id and a field's place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import JSONB

Metric = Literal["cosine", "dot", "euclidean"]
Mode = Literal["standalone", "managed"]
IndexMethod = Literal["hnsw_vector", "hnsw_halfvec", "hnsw_binary", "exact"]
IndexState = Literal["building", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """One vector column: its public `name`, its physical `column`, and how it is indexed."""

    name: str
    column: str
    dimension: int
    metric: Metric
    index_name: str
    index_method: IndexMethod
    index_state: IndexState


@dataclass(frozen=True)
class Catalog:
    """A namespace at one `version`: its relation, vector configs and their inference services."""

    namespace_id: str
    namespace_name: str
    schema: str
    mode: Mode
    version: int
    dynamic_vector_indexes: bool
    vector_configs: tuple[VectorConfig, ...]
    inference_map: Mapping[str, str]

    @cached_property
    def by_name(self) -> dict[str, VectorConfig]:
        return {config.name: config for config in self.vector_configs}

    @cached_property
    def documents(self) -> sa.FromClause:
        """The documents as statements read them."""
        return self.relation.alias("d")

    @cached_property
    def relation(self) -> sa.TableClause:
        """The relation that holds the documents, with every column that statements may name."""
        columns: list[sa.ColumnClause[Any]] = [
            sa.column("document_id", sa.Text),
            sa.column("collection_id", sa.Text),
            sa.column("payload", JSONB),
            sa.column("metadata", JSONB),
            sa.column("created_at", sa.TIMESTAMP(timezone=True)),
            sa.column("updated_at", sa.TIMESTAMP(timezone=True)),
        ]
        columns += [sa.column(config.column, VECTOR(config.dimension)) for config in self.vector_configs]
        return sa.table("documents", *columns, schema=self.schema)


SYSTEM_COLUMNS = ("document_id", "collection_id", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Fields:
    """Finds a document's field: a jsonb expression and the path that remains in it.

    `document_id`, `collection_id`, `_internal.created_at`, `_internal.updated_at` and `_internal.metadata.…` are
    the system's; everything else is a path into the payload.
    """

    documents: sa.FromClause

    def __call__(self, field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
        path = tuple(field.split("."))
        columns = self.documents.c
        if field in ("document_id", "collection_id"):
            return sa.func.to_jsonb(columns[field]), ()
        if path[0] == "_internal" and len(path) > 1:
            if path[1] == "metadata":
                return columns.metadata, path[2:]
            if path[1] in SYSTEM_COLUMNS:
                return sa.func.to_jsonb(columns[path[1]]), path[2:]
        return columns.payload, path
