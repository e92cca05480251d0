"""What of a user's table can be a namespace: its key, its vectors and their indexes, its payload. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.domain.catalog.namespaces import NewVector, as_config, check_vectors
from app.errors import Problems
from app.retrieval.adopted import Field, FieldType, KeyType
from app.retrieval.catalog import IndexMethod, Metric, VectorConfig
from app.retrieval.field_indexes import is_system
from app.retrieval.vectors import METRIC_SPELLINGS, OPERATOR_CLASSES
from app.settings import Settings

KEYS: Mapping[str, KeyType] = {
    **dict.fromkeys(("text", "varchar"), "text"),
    **dict.fromkeys(("int2", "int4", "int8"), "bigint"),
    "uuid": "uuid",
}
FIELDS: Mapping[str, FieldType] = {
    **dict.fromkeys(("text", "varchar"), "keyword"),
    **dict.fromkeys(("int2", "int4", "int8"), "integer"),
    "bool": "bool",
}
# JSON has nothing for these that a reader of documents would want.
LEFT_OUT = frozenset({"bytea", "tsvector", "bit", "varbit"})
KINDS = {
    "p": "a partitioned table",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
    "t": "a TOAST table",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type as declared and, of pgvector's types, which it is and how many dimensions are declared."""

    number: int
    name: str
    quoted: str
    required: bool
    type: str
    base: str
    vector: str | None
    dimension: int | None
    comparable: bool


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is whole: what it holds first, as PostgreSQL writes it, and the columns of its key."""

    name: str
    method: str
    holds: str
    operators: str
    partial: bool
    is_primary: bool
    is_unique: bool
    width: int
    columns: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as PostgreSQL's catalog has it. `role` is who must be granted what `may_enter` and `may_read` lack."""

    oid: int
    schema: str
    name: str
    quoted: str
    kind: str
    persistence: str
    row_security: bool
    reserved: bool
    role: str
    may_enter: bool
    may_read: bool
    columns: Sequence[Column] = ()
    indexes: Sequence[Index] = ()

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)

    def column_of(self, number: int) -> Column | None:
        return next((column for column in self.columns if column.number == number), None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be adopted, and as what. The payload is of some columns, or is one, or is of all that are left."""

    table: str
    namespace_id: str
    namespace_name: str | None = None
    description: str | None = None
    key: str | None = None
    vectors: Sequence["WantedVector"] | None = None
    payload_columns: Sequence[str] | None = None
    payload_column: str | None = None


@dataclass(frozen=True, slots=True)
class WantedVector:
    """A vector column, the name that it has in the API, and how it is searched; by its index, unless given."""

    column: str
    name: str | None = None
    metric: str | None = None


@dataclass(slots=True)
class Decision:
    """How the table is read, or in `problems` every reason against it; and what its owner may want to know."""

    key: str = ""
    key_type: KeyType = "text"
    configs: list[VectorConfig] = field(default_factory=list)
    vectors: dict[str, Column] = field(default_factory=dict)  # by their columns in the view
    payload: list[Column] | str = ""
    warnings: list[str] = field(default_factory=list)


def decide(table: Table, wanted: Wanted, settings: Settings, problems: Problems) -> Decision:
    """Find everything that forbids adopting this table, and how it is read if nothing does."""
    found = Decision()
    _check_table(table, problems)
    if table.kind == "r":
        _key(table, wanted.key, found, problems)
        _vectors(table, wanted.vectors, found, settings, problems)
        _payload(table, wanted, found, problems)
    if table.row_security:
        found.warnings.append(
            f"{table.quoted} has row-level security: the service answers what its role {table.role!r} may see."
        )
    return found


def _check_table(table: Table, problems: Problems) -> None:
    at = ("body", "table")
    if table.reserved:
        problems.add(
            at, "not_a_user_table", f"{table.quoted} is the service's own or the system's; adopt one of yours."
        )
    if table.kind != "r":
        message = f"{table.quoted} is {KINDS.get(table.kind, 'no table')}; what can be adopted is an ordinary table."
        problems.add(at, "not_a_table", message)
    if table.persistence == "t":
        problems.add(at, "not_a_table", f"{table.quoted} is temporary: no other connection sees it.")
    grants = [f"GRANT USAGE ON SCHEMA {table.schema} TO {table.role};"] * (not table.may_enter)
    grants += [f"GRANT SELECT ON {table.quoted} TO {table.role};"] * (not table.may_read)
    if grants:
        message = f"The service may not read {table.quoted}. Its owner allows it: {' '.join(grants)}"
        problems.add(at, "no_privilege", message)


def _key(table: Table, wanted: str | None, found: Decision, problems: Problems) -> None:
    at = ("body", "key")
    if wanted is None:
        primary = next((index for index in table.indexes if index.is_primary), None)
        if primary is None or len(primary.columns) > 1:
            has = (
                f"has a key of {len(primary.columns)} columns ({', '.join(primary.columns)})"
                if primary
                else "has no primary key"
            )
            message = f"{table.quoted} {has}: name a `key`, one column that is unique and never null."
            problems.add(at, "composite_key" if primary else "no_key", message)
            return
        wanted = primary.columns[0]
    column = table.column(wanted)
    if column is None:
        problems.add(at, "unknown_column", f"{table.quoted} has no column {wanted!r}.")
        return
    if not column.required or not any(i.is_unique and i.width == 1 and i.columns == [wanted] for i in table.indexes):
        message = (
            f"The column {wanted!r} may be null, or is not unique: an id finds one document. It takes NOT NULL and a "
            "unique index of that column alone, without WHERE, not deferrable."
        )
        problems.add(at, "not_unique", message)
    if column.base not in KEYS:
        message = f"A key is text, varchar, an integer or a uuid; {wanted!r} is {column.type}."
        problems.add(at, "unsupported_type", message)
    found.key, found.key_type = wanted, KEYS.get(column.base, "text")


def _vectors(
    table: Table, given: Sequence[WantedVector] | None, found: Decision, settings: Settings, problems: Problems
) -> None:
    at = ("body", "vectors")
    if given is None:
        others = [column for column in table.columns if column.vector not in (None, "vector")]
        found.warnings += [
            f"The column {c.name!r} is {c.type}; only those of type vector are searched." for c in others
        ]
        given = [WantedVector(column.name) for column in table.columns if column.vector == "vector"]
    if not given:
        problems.add(at, "no_vectors", f"{table.quoted} has no column of pgvector's type vector to search.")
    chosen: list[tuple[Column, NewVector, Index | None, IndexMethod]] = []
    for n, vector in enumerate(given):
        if (column := table.column(vector.column)) is None:
            problems.add((*at, n, "column"), "unknown_column", f"{table.quoted} has no column {vector.column!r}.")
        elif column.vector != "vector":
            message = (
                f"The column {column.name!r} is {column.type}; only columns of pgvector's type vector are searched."
            )
            problems.add((*at, n, "column"), "unsupported_type", message)
        elif column.dimension is None:
            message = (
                f"The column {column.name!r} declares no dimension, and may hold vectors of several. If they have one: "
                f"ALTER TABLE {table.quoted} ALTER COLUMN {column.quoted} TYPE vector(…). Or leave it out (`vectors`)."
            )
            problems.add((*at, n, "column"), "no_dimension", message)
        else:
            metric, index, method = _index_of(table, column, vector.metric)
            chosen.append((column, NewVector(vector.name or column.name, column.dimension, metric), index, method))
    check_vectors([new for _, new, _, _ in chosen], at, (), settings, problems)
    if problems:
        return
    for column, new, index, method in chosen:
        config = as_config(new, "ready", found.configs)
        found.configs.append(with_index(config, index, method))
        found.vectors[config.column] = column
        found.warnings += index_warnings(table, column, found.configs[-1])


def _index_of(table: Table, column: Column, wanted: str | None) -> tuple[str, Index | None, IndexMethod]:
    """The metric, and the HNSW index that serves it: without `wanted` those of the first index."""
    metric = METRIC_SPELLINGS.get(wanted) if wanted is not None else None
    if wanted is None:
        metric = next((of for _, _, of in hnsw_indexes(table, column)), "cosine")
    return wanted or str(metric), *(index_for(table, column, metric) if metric else (None, "exact"))


def index_for(table: Table, column: Column, metric: Metric) -> tuple[Index | None, IndexMethod]:
    """The HNSW index of this column and metric."""
    found = ((index, method) for index, method, of in hnsw_indexes(table, column) if of == metric)
    return next(found, (None, "exact"))


def hnsw_indexes(table: Table, column: Column) -> Iterator[tuple[Index, IndexMethod, Metric]]:
    """The indexes of a vector column that searches can use, as the service makes them itself: of the vectors, of
    their halves, of their signs."""
    halves = f"({column.quoted}::halfvec({column.dimension}))"
    signs = f"(binary_quantize({column.quoted})::bit({column.dimension}))"
    for index in table.indexes:
        if index.method != "hnsw" or index.partial:
            continue
        if index.holds == signs and index.operators == "bit_hamming_ops":
            yield index, "hnsw_binary", "cosine"
        for metric, operators in OPERATOR_CLASSES.items():
            if index.holds == column.quoted and index.operators == f"vector_{operators}":
                yield index, "hnsw_vector", metric
            if index.holds == halves and index.operators == f"halfvec_{operators}":
                yield index, "hnsw_halfvec", metric


def with_index(config: VectorConfig, index: Index | None, method: IndexMethod) -> VectorConfig:
    return replace(config, index_name=index.name if index else config.index_name, index_method=method)


def index_warnings(table: Table, column: Column, config: VectorConfig) -> list[str]:
    """That a vector is searched exactly, and what would change that."""
    if config.index_method != "exact":
        return []
    vector, operators = column.quoted, f"vector_{OPERATOR_CLASSES[config.metric]}"
    if config.dimension > 2_000:
        vector, operators = f"({vector}::halfvec({config.dimension}))", f"halfvec_{OPERATOR_CLASSES[config.metric]}"
    others = [index for index in table.indexes if index.holds == column.quoted and index.method in ("ivfflat", "hnsw")]
    why = "has no HNSW index of the whole table for its metric"
    if others:
        why += f" ({', '.join(f'{index.name} is {index.method}, {index.operators}' for index in others)})"
    return [
        f"{config.name!r} {why}: its searches are exact, and read every row. The table's owner may build one, CREATE "
        f"INDEX CONCURRENTLY ON {table.quoted} USING hnsw ({vector} {operators}); then POST …/ensure-indexes to use it."
    ]


def _payload(table: Table, wanted: Wanted, found: Decision, problems: Problems) -> None:
    if wanted.payload_column is not None:
        _whole_payload(table, wanted, found, problems)
        return
    at = ("body", "payload_columns")
    used = {found.key, *(vector.column for vector in wanted.vectors or ())}
    names = [c.name for c in table.columns if not c.vector and c.name not in used]
    chosen: list[Column] = []
    for n, name in enumerate(names if wanted.payload_columns is None else wanted.payload_columns):
        column = table.column(name)
        if column is None:
            problems.add((*at, n), "unknown_column", f"{table.quoted} has no column {name!r}.")
        elif column.vector or column.base in LEFT_OUT:
            message = f"The column {name!r} is {column.type}, which is left out of the payload."
            found.warnings.append(message)
        elif column in chosen:
            problems.add((*at, n), "duplicate_name", f"The column {name!r} is given more than once.")
        else:
            chosen.append(column)
    found.payload = chosen


def _whole_payload(table: Table, wanted: Wanted, found: Decision, problems: Problems) -> None:
    at = ("body", "payload_column")
    name = str(wanted.payload_column)
    column = table.column(name)
    if wanted.payload_columns is not None:
        problems.add(at, "bad_value", "Give `payload_columns` or `payload_column`, not both.")
    if column is None:
        problems.add(at, "unknown_column", f"{table.quoted} has no column {name!r}.")
    elif column.base not in ("json", "jsonb"):
        problems.add(at, "unsupported_type", f"The payload is a column of JSON; {name!r} is {column.type}.")
    found.payload = name


def scalar_fields(table: Table, numbers: Mapping[str, int]) -> dict[str, Field]:
    """Fields whose columns conditions can ask, for a value's JSON is the same if and only if the column's value is."""
    found = {}
    for name, number in numbers.items():
        column = table.column_of(number)
        if column and column.comparable and column.base in FIELDS and "." not in name and not is_system(name):
            indexed = any(i.method == "btree" and not i.partial and i.holds == column.quoted for i in table.indexes)
            found[name] = Field(number, FIELDS[column.base], indexed)
    return found
