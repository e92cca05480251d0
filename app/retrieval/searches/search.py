"""One search of a feature_search stage: its parameters, what is wrong with them, and the rows that it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from app.retrieval import in_sql
from app.retrieval.catalog import Catalog, VectorConfig, vector_type
from app.retrieval.indexed import narrows
from app.retrieval.lexical import MOST_FIELDS, advice, lexical_search
from app.retrieval.plan import Embed, InSql, SearchShape, constant, word
from app.retrieval.searches.bm25 import Lexical
from app.retrieval.searches.dense import Nearest
from app.retrieval.searches.maxsim import MaxSim, query_vectors
from app.retrieval.searches.query import OnEmpty, Query, Reader, check_query, query_of, reader
from app.retrieval.stages.base import Check, Lowering
from app.retrieval.templates import needed_names
from app.retrieval.vectors import score

ZERO: sa.ColumnElement[float] = sa.literal_column("0", sa.Double())
ZERO_ROWS = constant(0)


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One search in one vector index, or in the words of documents."""

    feature_uri: str
    query: Any = None
    top_k: int = 100
    min_score: float | None = None
    weight: float = 1.0
    filters: Any = None
    collection_identifiers: list[str] = []
    lexical: bool = False
    fields: list[str] = []  # what a lexical search reads; none: every text-indexed field
    optional: bool = False
    on_empty: OnEmpty = "error"

    def wanted(self) -> Query:
        """Raises `msgspec.ValidationError`."""
        return query_of(self.query)

    def config(self, catalog: Catalog) -> VectorConfig | None:
        return catalog.index(self.feature_uri)

    def check(self, check: Check, path: tuple[str | int, ...]) -> None:
        check.range("top_k", self.top_k, 1, check.limits.top_k, *path, "top_k")
        check.range("weight", self.weight, 0, 1, *path, "weight")
        check.filter(self.filters, *path, "filters")
        config = None if self.lexical else self.config(check.catalog)
        if self.lexical:
            self._check_lexical(check, path)
        else:
            self._check_index(check, config, path)
        try:
            query = self.wanted()
        except msgspec.ValidationError as error:
            check.add("bad_query", f"{error}.", *path, "query")
            return
        if config is not None or self.lexical:
            check_query(check, query, config, self.on_empty, (*path, "query"))

    def _check_index(self, check: Check, config: VectorConfig | None, path: tuple[str | int, ...]) -> None:
        if config is None and not self.optional:
            available = ", ".join(repr(name) for name in check.catalog.by_name) or "none"
            message = f"No vector index {self.feature_uri!r} exists; available indexes: {available}."
            check.add("unknown_index", message, *path, "feature_uri")
        if self.fields:
            check.add("bad_parameter", "`fields` are those of a lexical search: set `lexical`, too.", *path, "fields")

    def _check_lexical(self, check: Check, path: tuple[str | int, ...]) -> None:
        for n, name in enumerate(self.fields):
            check.field("A field", name, *path, "fields", n)
        if len(self.fields) > MOST_FIELDS:
            check.add("out_of_range", f"A lexical search has at most {MOST_FIELDS} fields.", *path, "fields")
        if self.on_empty == "random":
            check.add("bad_parameter", "A lexical search has no random query; use skip or error.", *path, "on_empty")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the searches of a stage have in common. `given` are the rows that it searches among; None: every document.
    `most` is how many rows of a search count, where there is only one."""

    filters: Any
    collections: Sequence[str]
    given: sa.CTE | None
    most: int | None

    def rows(self, search: Search) -> int:
        return min(search.top_k, self.most or search.top_k)

    def filtered(self, search: Search, to: Lowering) -> bool:
        collections = search.collection_identifiers or self.collections
        return bool(self.filters or search.filters or collections or to.everywhere or to.catalog.restricted)

    def of_all(self, to: Lowering) -> list[sa.ColumnElement[bool]]:
        """What is asked of a document where nothing is searched for."""
        if self.given is not None:
            return []
        documents = to.catalog.documents
        names = [in_collections(self.collections, "collections", to)] if self.collections else []
        where = [*to.where(self.filters, documents, "pre_filter"), *names]
        return where + to.where_parsed(to.everywhere, documents, "request_filter")

    def narrowed(self, search: Search, to: Lowering) -> bool:
        """Whether indexes find what the filters of a search in the whole namespace keep."""
        if self.given is not None:
            return False
        kept = to.note(to.parsed(self.filters), to.parsed(search.filters), to.everywhere)
        collections = search.collection_identifiers or self.collections
        # Of what restricts the catalog there is an index.
        return (
            bool(collections)
            or (kept is None and to.catalog.restricted)
            or (kept is not None and narrows(kept, to.catalog.field_indexes))
        )

    def where(self, n: int, search: Search, to: Lowering) -> list[sa.ColumnElement[bool]]:
        """What the stage, the request and the search ask of a document."""
        documents, where = to.catalog.documents, list[sa.ColumnElement[bool]]()
        if self.given is None:
            where += to.where(self.filters, documents, "pre_filter")
            where += to.where(search.filters, documents, f"filter_{n}")
        if collections := search.collection_identifiers or self.collections:
            where.append(in_collections(collections, f"collections_{n}", to))
        if self.given is None:
            return where + to.where_parsed(to.everywhere, documents, "request_filter")
        rows = to.rows(self.given)
        kept = to.where(search.filters, rows.get, f"filter_{n}")
        ids = sa.select(rows.document_id).select_from(rows.joined if kept else self.given).where(*kept)
        return [*where, documents.c.document_id.in_(ids)]


def in_collections(names: Sequence[str], hint: str, to: Lowering) -> sa.ColumnElement[bool]:
    ids = [to.catalog.collection_id(name) for name in names]
    bind = to.binds.add(f"{to.prefix}_{hint}", sa.ARRAY(sa.Text), ids)
    return to.catalog.documents.c.collection_id == sa.func.any(bind)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search finds: `document_id, score`, and what is told of it beside their number."""

    number: int
    search: Search
    rows: sa.CTE
    told: Mapping[str, sa.ColumnElement[Any]] = field(default_factory=dict)

    @property
    def rank(self) -> sa.ColumnElement[int]:
        """Among the search's own rows."""
        return sa.func.row_number().over(order_by=[self.rows.c.score.desc(), self.rows.c.document_id])


def lower(n: int, search: Search, scope: Scope, to: Lowering) -> Found | None:
    """The n-th search's rows; None where its index is missing, which it takes as it is."""
    name = f"{to.prefix}_search_{n}"
    if search.lexical:
        return _lexical(n, search, scope, to)
    config = search.config(to.catalog)
    if config is None:
        to.warnings.append(f"No vector index {search.feature_uri!r} exists: its optional search was skipped.")
        return None
    needle = _needle(n, search, config, to)

    def where(lowering: Lowering, served: bool) -> list[sa.ColumnElement[bool]]:
        lowering = lowering.served() if served else lowering
        asked = [*scope.where(n, search, lowering), *_not_itself(n, search, lowering)]
        return asked or (_of_documents(lowering) if config.kind == "multi" else [])

    about = (scope.rows(search), where, scope.given is None, scope.filtered(search, to), scope.narrowed(search, to))
    scored: sa.ColumnElement[Any]
    told: dict[str, Any] = {
        **needle.told,
        "skipped": _skipped(search, config, needle, to),
        "missing": _missing(config, to),
    }
    if needle.vectors is not None:
        select, told["exhausted"] = MaxSim(n, config, needle.vectors, *about).lower(to)
        found = select.subquery(f"nearest_{n}")
        scored, told["asked"] = found.c.score, constant(scope.rows(search))
    else:
        select, told["exhausted"] = Nearest(n, config, needle.vector, *about).lower(to)
        found = select.subquery(f"nearest_{n}")
        scored = score(config.metric, found.c.distance)
    rows = sa.select(found.c.document_id, scored.label("score")).where(*needle.where)
    if config.kind == "sparse" and config.metric != "euclidean":
        rows = rows.where(scored > ZERO)  # what shares no index with the query is no match
    if search.min_score is not None:
        rows = rows.where(scored >= to.binds.add(f"{to.prefix}_min_score_{n}", sa.Double(), search.min_score))
    return Found(n, search, rows.cte(name), {key: value for key, value in told.items() if value is not None})


def _lexical(n: int, search: Search, scope: Scope, to: Lowering) -> Found:
    if (advised := advice(to.catalog, search.fields)) is not None:
        to.warnings.append(advised)
    rows, read = scope.rows(search), _reader(search, None, to)
    asked = Lexical(
        _read(search, to),
        rows,
        search.fields,
        search.min_score,
        scope.where(n, search, to) or _of_documents(to),
        scope.given,
        to.limits.query_words,
        read,
        search.on_empty == "error",
    )
    to.shapes.append(SearchShape(to.prefix, n, "lexical", rows))
    found = lexical_search(to.catalog, asked, to.binds, f"{to.prefix}_lexical_{n}")
    if search.on_empty == "error":
        return Found(n, search, found.cte(f"{to.prefix}_search_{n}"))
    hint, given = f"{to.prefix}_query_{n}", lambda raw: None if read(raw) is None else True
    is_empty = to.binds.add(hint, sa.Boolean(), _read(search, to), given, in_sql.HAS_QUERY).is_(None)
    best = found.subquery(f"lexical_{n}")
    kept = sa.select(best.c.document_id, best.c.score).where(sa.not_(is_empty))
    return Found(n, search, kept.cte(f"{to.prefix}_search_{n}"), {"skipped": sa.case((is_empty, word("empty_query")))})


def _of_documents(to: Lowering) -> list[sa.ColumnElement[bool]]:
    """Nothing is asked, but that there is such a document: postings and side tables have those, too, that row-level
    security hides from a function's caller, or access lists from a principal."""
    hidden = to.as_function or to.catalog.restricted
    return [to.catalog.documents.c.document_id.is_not(None)] if hidden else []


# The query


@dataclass(frozen=True, slots=True)
class Needle:
    """The query in SQL: a vector, or the `vectors` (`n, vector`) of a multi-vector; rows are found `where` it is."""

    vector: sa.ColumnElement[Any]
    vectors: sa.CTE | None = None
    where: Sequence[sa.ColumnElement[bool]] = ()
    told: Mapping[str, sa.ColumnElement[Any]] = field(default_factory=dict)


def _needle(n: int, search: Search, config: VectorConfig, to: Lowering) -> Needle:
    query = search.wanted()
    if query.input_mode == "document":
        return _stored(n, search, query, config, to)
    hint = f"{to.prefix}_query_{n}"
    type_ = sa.ARRAY(vector_type(config)) if config.kind == "multi" else vector_type(config)
    bind = to.binds.add(hint, type_, _read(search, to), _reader(search, config, to), _in_sql(search, config, to))
    mode, service = query.input_mode, to.catalog.inference_map.get(config.name)
    if service and mode in ("text", "content", "multi_content"):
        task: Literal["query", "document"] = "document" if query.embedding_task == "retrieval_document" else "query"
        several = to.limits.contents if mode == "multi_content" else 0
        to.embeds.append(Embed(hint, service, task, mode, several, config.name))
    where = [bind.is_not(None)] if search.on_empty == "skip" else []
    vectors = query_vectors(bind, config, hint) if config.kind == "multi" else None
    return Needle(bind, vectors, where)


def _in_sql(search: Search, config: VectorConfig, to: Lowering) -> InSql | None:
    """None where it is said in no SQL: of contents, of several texts, of a random query."""
    query, required = search.wanted(), search.on_empty == "error"
    if search.on_empty == "random":
        return None
    if query.input_mode == "vector":
        directed = config.metric == "cosine"
        return in_sql.query_vector(config.kind, directed=directed, most=to.limits.query_vectors)
    service = to.catalog.inference_map.get(config.name)
    if query.input_mode != "text" or service is None:
        return None
    task = "document" if query.embedding_task == "retrieval_document" else "query"
    return in_sql.embedded(service, task, required=required)


def _stored(n: int, search: Search, query: Query, config: VectorConfig, to: Lowering) -> Needle:
    """The vector of a stored document."""
    name, documents = f"{to.prefix}_query_{n}", to.catalog.stored("q")
    sql = in_sql.query_text(required=search.on_empty == "error")
    reference = to.binds.add(name, sa.Text(), _read(search, to), _reader(search, None, to), sql)
    is_it = [documents.c.document_id == reference]
    if query.document_ref is not None and query.document_ref.collection_id is not None:
        read = Reader("document", None, "error", 1)
        collection = to.binds.add(f"{name}_collection", sa.Text(), query.document_ref.collection_id, read, in_sql.TEXT)
        is_it.append(documents.c.collection_id == collection)
    if config.kind == "multi":
        side = to.catalog.side(config).alias("qm")
        of_it = sa.select(side.c.position.label("n"), side.c.vector).where(*is_it)
        vectors = of_it.join(documents, documents.c.document_id == side.c.document_id).cte(name)
        missing = sa.not_(sa.exists(sa.select(vectors.c.n)))
        return Needle(sa.null(), vectors, told=_told_missing(sa.and_(reference.is_not(None), missing)))
    column = documents.c[config.column].label("vector")
    vector = sa.select(sa.select(column).where(*is_it).cte(name).c.vector).scalar_subquery()
    missing = sa.and_(reference.is_not(None), vector.is_(None))
    return Needle(vector, where=[vector.is_not(None)], told=_told_missing(missing))


def _told_missing(missing: sa.ColumnElement[bool]) -> dict[str, sa.ColumnElement[Any]]:
    return {"missing_document": sa.case((missing, sa.true()))}


def _not_itself(n: int, search: Search, to: Lowering) -> list[sa.ColumnElement[bool]]:
    """A document is not like itself. Where it is not known, the search finds nothing."""
    if search.wanted().input_mode != "document":
        return []
    sql = in_sql.query_text(required=search.on_empty == "error")
    reference = to.binds.add(f"{to.prefix}_not_{n}", sa.Text(), _read(search, to), _reader(search, None, to), sql)
    return [to.catalog.documents.c.document_id != reference]


def _reader(search: Search, config: VectorConfig | None, to: Lowering) -> Reader:
    return reader(search.wanted(), config, search.on_empty, to.limits)


def _read(search: Search, to: Lowering) -> Any:
    """The query as it is bound: empty where an input of it is missing that it can do without."""
    raw = search.wanted().given()
    missing = search.on_empty != "error" and not needed_names(raw) <= to.provided
    return None if missing else raw


def _skipped(search: Search, config: VectorConfig, needle: Needle, to: Lowering) -> sa.ColumnElement[Any] | None:
    """Why a search that may be skipped was."""
    cases = list[tuple[sa.ColumnElement[bool], sa.ColumnElement[str]]]()
    if search.on_empty == "skip" and search.wanted().input_mode != "document":
        cases.append((needle.vector.is_(None), word("empty_query")))
    if search.optional:
        relation = to.catalog.side(config) if config.kind == "multi" else to.catalog.relation
        column = relation.c["vector" if config.kind == "multi" else config.column]
        cases.append(
            (
                sa.not_(sa.exists(sa.select(column).where(column.is_not(None)))),
                word("empty_index"),
            )
        )
    return sa.case(*cases) if cases else None


TASKS = sa.table(
    "tasks",
    sa.column("task_id", sa.Text),
    sa.column("total", sa.BigInteger),
    sa.column("done", sa.BigInteger),
    schema="pgretrieve",
)


def _missing(config: VectorConfig, to: Lowering) -> sa.ColumnElement[Any] | None:
    """How many documents are not in an index that is being filled: by its task's counters, of which one row is read."""
    if config.filled_by is None or to.catalog.restricted:
        return None
    task = to.binds.add(f"{to.prefix}_filled_by", sa.Text(), config.filled_by)
    open_ = sa.func.nullif(sa.func.greatest(TASKS.c.total - TASKS.c.done, ZERO_ROWS), ZERO_ROWS)
    return sa.select(open_).where(TASKS.c.task_id == task).scalar_subquery()
