"""The immutable picture of one namespace that everything else is compiled against.

Callers never assume the shape of the table: they ask for the relation, its id and a field's place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import sqlalchemy as sa
from pgvector.sqlalchemy import SPARSEVEC, VECTOR
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from app.retrieval.adopted import Adopted, DocumentId, key_column

Metric = Literal["cosine", "dot", "euclidean"]
Mode = Literal["standalone", "managed"]
IndexMethod = Literal["hnsw_vector", "hnsw_halfvec", "hnsw_binary", "exact"]
IndexState = Literal["building", "ready", "failed"]
Kind = Literal["dense", "sparse", "multi"]
# The revision of a namespace's schema from which on its documents have access lists.
ACCESS_LISTS = 1
READERS = "readers_of_documents"
# How the names of the tables that hold multi-vectors begin.
SIDE = "documents_"


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """One vector column: its public `name`, its physical `column`, and how it is indexed.

    The vectors of a multi-vector are rows of a table of their own, `side_table`, and `column` its name's end.
    """

    name: str
    column: str
    dimension: int
    metric: Metric
    index_name: str
    index_method: IndexMethod
    index_state: IndexState
    kind: Kind = "dense"
    m: int | None = None  # of HNSW; None: the deployment's setting, as for `ef_construction`
    ef_construction: int | None = None
    filled_by: str | None = None  # the back-fill that has not ended yet: documents are missing

    @property
    def side_table(self) -> str:
        return f"{SIDE}{self.column}"


@dataclass(frozen=True, slots=True)
class LexicalField:
    """A payload field that lexical search finds words in: its number in the postings, a jsonpath of its strings, its
    language, and how many characters a lexeme that counts has."""

    field: int
    name: str
    path: str
    language: str = "english"
    min_length: int = 1
    max_length: int = 2_047  # PostgreSQL's longest lexeme, in bytes


@dataclass(frozen=True, slots=True)
class Source:
    """What embeds itself: the text at a payload `field`, by a `service`, into the `column` of a vector config or of the
    shadow of one. It is the same one whichever of the two has the column."""

    name: str = field(compare=False)
    column: str
    field: str
    service: str


FieldType = Literal["keyword", "integer", "float", "bool", "datetime", "geo", "text", "uuid"]


@dataclass(frozen=True, slots=True)
class FieldIndex:
    """The index of a payload field: what its values are, and who asked for it. `number` is in the names of what
    PostgreSQL keeps for it."""

    field: str
    type: FieldType
    state: IndexState
    origin: Literal["declared", "adaptive"]
    number: int
    column: str | None = None  # of an adopted table's view: its user's index of this column is the index


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
    lexical_fields: tuple[LexicalField, ...] = ()
    lexical_ready: bool = False  # whether the postings have every document
    payload_indexes: tuple[FieldIndex, ...] = ()
    sources: tuple[Source, ...] = ()
    shadows: tuple[VectorConfig, ...] = ()  # written like the others, and not searched
    collections: Mapping[str, str] = field(default_factory=dict)  # ids of those that are processed, by their names
    schema_revision: int = 0  # the last change of namespaces' schemas that this one has had
    adopted: Adopted | None = None  # the user's own table that `documents` is a view of; never written
    compared: tuple[str, ...] = ()  # the indexes whose text queries a migration of models samples
    # Tells under which names documents are found, each time that a statement runs; None: all are. No plan's text holds
    # them, so that all whom it restricts share plans.
    readers: Callable[[], list[str]] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def by_name(self) -> dict[str, VectorConfig]:
        return {config.name: config for config in self.vector_configs}

    @cached_property
    def every_config(self) -> tuple[VectorConfig, ...]:
        """Those that have a column: the vector configs and the shadows."""
        return (*self.vector_configs, *self.shadows)

    def index(self, uri: str) -> VectorConfig | None:
        """A vector config by its name, or by the last part of a `mixpeek://extractor@v1/name` URI."""
        return self.by_name.get(uri) or self.by_name.get(uri.rsplit("/", 1)[-1])

    def collection_id(self, identifier: str) -> str:
        """What stands in the documents of a collection: its id where it is named, else any text that upserts chose."""
        return self.collections.get(identifier, identifier)

    @cached_property
    def field_indexes(self) -> dict[str, FieldIndex]:
        """The payload indexes that are ready, by their fields; of an adopted table, the indexes of its own columns."""
        if self.adopted is not None:
            fields = {name: field for name, field in self.adopted.fields.items() if field.indexed}
            return {n: FieldIndex(n, f.type, "ready", "declared", 0, f.column) for n, f in fields.items()}
        return {index.field: index for index in self.payload_indexes if index.state == "ready"}

    @property
    def has_access_lists(self) -> bool:
        return self.schema_revision >= ACCESS_LISTS

    @cached_property
    def documents(self) -> sa.FromClause:
        """The documents as statements read them."""
        return self.stored("d")

    def stored(self, name: str) -> sa.FromClause:
        """The same under another name. Of a restricted catalog there are only those that its `readers` may read: all
        that answers documents reads them through this, or joins this."""
        if self.readers is None:
            return self.relation.alias(name)
        allowed: sa.ColumnElement[bool] = sa.false()
        if self.has_access_lists:
            names = sa.bindparam(READERS, type_=sa.ARRAY(sa.Text), callable_=self.readers)
            allowed = self.relation.c.readers.bool_op("&&")(sa.cast(names, sa.ARRAY(sa.Text)))
        return sa.select(*self.relation.c).where(allowed).subquery(name)

    @property
    def restriction(self) -> dict[str, list[str]]:
        """The values that `stored` binds, for those who run a statement's text; without them it cannot be run."""
        return {} if self.readers is None else {READERS: self.readers()}

    @property
    def restricted(self) -> bool:
        return self.readers is not None

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
            sa.column("provenance", JSONB),
        ]
        if self.has_access_lists:
            columns += [sa.column("acl", JSONB), sa.column("readers", sa.ARRAY(sa.Text))]
        for config in self.every_config:
            if config.kind != "multi":
                columns.append(sa.column(config.column, vector_type(config)))
        if self.adopted is not None and self.adopted.key != "text":
            columns[0] = sa.column("document_id", DocumentId(self.adopted.key))
            columns.append(key_column(self.adopted.key))
        if self.adopted is not None:
            columns += [sa.column(field.column) for field in self.adopted.fields.values()]
        return sa.table("documents", *columns, schema=self.schema)

    def side(self, config: VectorConfig) -> sa.TableClause:
        """The table that holds a multi-vector, one row for each of its vectors."""
        vector = sa.column("vector", vector_type(config))
        columns = (sa.column("document_id", sa.Text), sa.column("position", sa.Integer), vector)
        return sa.table(config.side_table, *columns, schema=self.schema)

    def vector_text(self, documents: sa.FromClause, config: VectorConfig) -> sa.ColumnElement[str]:
        """The stored vector as text that reads back to the same float32: `[1,2]`, `{1:0.5}/9`, or `[[1],[2]]`."""
        if config.kind != "multi":
            return sa.cast(documents.c[config.column], sa.Text)
        side = self.side(config)
        vectors = sa.func.string_agg(
            sa.cast(side.c.vector, sa.Text), aggregate_order_by(sa.literal_column("','"), side.c.position)
        )
        text = sa.literal_column("'['").concat(vectors).concat(sa.literal_column("']'"))
        return sa.select(text).where(side.c.document_id == documents.c.document_id).scalar_subquery()


def vector_type(config: VectorConfig) -> VECTOR | SPARSEVEC:
    """The type of the column, or of each vector of a multi-vector."""
    return SPARSEVEC(config.dimension) if config.kind == "sparse" else VECTOR(config.dimension)


_METADATA = sa.literal_column("'metadata'", sa.Text())
SYSTEM_COLUMNS = ("document_id", "collection_id", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Fields:
    """Finds a document's field: a jsonb expression and the path that remains in it.

    `document_id`, `collection_id`, `_internal.created_at`, `_internal.updated_at` and `_internal.metadata.…` are
    the system's. `metadata.…` is the document's metadata too, unless its payload has a field `metadata` of its own,
    which wins. Everything else is a path into the payload. Among the rows of a pipeline (`rows`), `score` is the
    row's, and the payload is what earlier stages made of it.
    """

    documents: sa.FromClause
    rows: sa.FromClause | None = None

    @property
    def payload(self) -> sa.ColumnElement[Any]:
        """The document's fields as they are now."""
        if self.rows is not None and "fields" in self.rows.c:
            return self.rows.c.fields
        return self.documents.c.payload

    def __call__(self, field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
        path = tuple(field.split("."))
        columns, payload = self.documents.c, self.payload
        if self.rows is not None and field in ("score", "document_id"):
            return sa.func.to_jsonb(self.rows.c[field]), ()
        if field in ("document_id", "collection_id"):
            return sa.func.to_jsonb(columns[field]), ()
        if path[0] == "_internal" and len(path) > 1:
            if path[1] == "metadata":
                return columns.metadata, path[2:]
            if path[1] in SYSTEM_COLUMNS:
                return sa.func.to_jsonb(columns[path[1]]), path[2:]
        if path[0] == "metadata":
            own = payload.op("->", return_type=JSONB())(_METADATA)
            has_own = payload.op("?", return_type=sa.Boolean())(_METADATA)
            return sa.case((has_own, own), else_=columns.metadata), path[1:]
        return payload, path
