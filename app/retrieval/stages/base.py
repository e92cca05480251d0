"""What a stage is: a frozen struct of parameters that checks itself, and is lowered to SQL or runs on the host.

A stage module defines one subclass of `SqlStage` or `HostStage`; its docstring is the published documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.errors import Problems
from app.retrieval.catalog import Catalog, Fields
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import Condition, Filter, FilterLimits, all_of, drop_missing, guarded, with_conditions
from app.retrieval.host import Host, Row
from app.retrieval.indexed import indexed
from app.retrieval.objects import DEEPEST, merged, tree_of
from app.retrieval.plan import Binds, Embed, SearchShape
from app.retrieval.predicates import predicate
from app.retrieval.strategy import Way

StageType = Literal["filter", "sort", "reduce", "apply", "enrich"]
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a pipeline; from the settings."""

    stages: int
    searches: int
    top_k: int
    filters: FilterLimits
    host_rows: int = 1_000
    query_vectors: int = 256
    contents: int = 16
    facets: int = 20
    query_words: int = 256


@dataclass(frozen=True, slots=True)
class Check:
    """What a stage is checked against, and where its problems go."""

    catalog: Catalog
    limits: Limits
    problems: Problems
    location: Location

    def filter(self, raw: Any, *path: str | int) -> Filter | None:
        return parse_filter(raw, (*self.location, *path), self.problems, self.limits.filters)

    def add(self, code: str, message: str, *path: str | int) -> None:
        self.problems.add((*self.location, *path), code, message)

    def range(self, name: str, value: float | None, low: float, high: float, *path: str | int) -> None:
        """A number of the stage (at the path, where it is no parameter itself), which must lie between these two; None
        is what was not given."""
        if value is not None and not low <= value <= high:
            self.add("out_of_range", f"{name} is from {low:,} to {high:,}, not {value}.", *(path or (name,)))

    def field(self, name: str, value: Any, *path: str | int) -> None:
        """A parameter that names a field."""
        if not isinstance(value, str) or not 0 < len(value) <= 255 or "\0" in value or "" in value.split("."):
            self.add("bad_field", f"{name} is a dotted path of 1 to 255 characters.", *(path or (name,)))

    def output(self, name: str, value: Any, *path: str | int) -> None:
        """A parameter that names a field to write to."""
        self.field(name, value, *path)
        if isinstance(value, str) and value.count(".") >= DEEPEST:
            self.add("bad_field", f"{name} is a path of at most {DEEPEST} steps.", *(path or (name,)))


@dataclass(slots=True)
class Lowering:
    """What a stage is lowered with: the catalog, the inputs that are there, and where binds and queries gather."""

    catalog: Catalog
    limits: Limits
    provided: frozenset[str]
    prefix: str = "s1"
    everywhere: Filter | None = None  # the request's own filters, AND-ed with those of the first stage
    after_host: bool = False  # rows may be there that are no stored documents
    as_function: bool = False  # the statement is a function's, for whoever calls it
    optional: frozenset[str] = frozenset()  # of a function's inputs: those that may be NULL
    parallel: bool = False  # the stage has an output_alias: a branch beside the rows that it is given
    # Filters of whole namespaces are lowered to be cheap for each row, to be served by indexes, or to be estimated.
    rendering: Literal["plain", "indexed", "estimate"] = "plain"
    reads: list[Filter] = field(default_factory=list)  # what whole namespaces were filtered by
    wholes: list[str] = field(default_factory=list)  # the stages that read a whole namespace, by their prefixes
    ways: Mapping[str, Way] = field(default_factory=dict)  # of searches, by `SearchShape.key`
    shapes: list[SearchShape] = field(default_factory=list)
    binds: Binds = field(default_factory=Binds)
    embeds: list[Embed] = field(default_factory=list)
    relaxed: list[Condition] = field(default_factory=list)
    needs_one: list[tuple[str, ...]] = field(default_factory=list)  # as in `Plan`
    timeouts_ms: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # lines of the answer's `warnings`
    told: dict[tuple[str, str], sa.ColumnElement[Any]] = field(default_factory=dict)

    def tell(self, key: str, value: sa.ColumnElement[Any]) -> None:
        """What the stage answers beside its rows: a scalar, shown in its statistics' `metadata`."""
        self.told[self.prefix, key] = value

    def rows(self, source: sa.CTE | None) -> "Rows":
        """The rows that a stage is given; for the first stage every document, in the order of their ids."""
        if source is None:
            self.note(self.everywhere)
            everywhere = self.served().where_parsed(self.everywhere, self.catalog.documents, "request_filter")
            source = whole_namespace(self, *everywhere).cte(f"{self.prefix}_documents")
        return Rows(source, self)

    def value(self, fields: Fields, field: str, hint: str) -> sa.ColumnElement[Any]:
        """The JSON value of a document's field; NULL where it is missing or a JSON null."""
        target, path = fields(field)
        if not path:
            return target
        steps = self.binds.add(f"{self.prefix}_{hint}", sa.ARRAY(sa.Text), list(path))
        return sa.func.nullif(target.op("#>", return_type=JSONB())(steps), NULL_JSON, type_=JSONB)

    def where(
        self,
        raw: Any,
        documents: sa.FromClause | Fields,
        hint: str,
        *,
        case_insensitive: bool = False,
    ) -> list[sa.ColumnElement[bool]]:
        """The predicates of a filter in either language; conditions whose input is missing are dropped and noted."""
        parsed = self.parsed(raw)
        if parsed is not None and case_insensitive:
            parsed = with_conditions(parsed, lambda condition: replace(condition, case_insensitive=True))
        return self.where_parsed(parsed, documents, hint)

    def where_parsed(
        self, parsed: Filter | None, documents: sa.FromClause | Fields, hint: str
    ) -> list[sa.ColumnElement[bool]]:
        if parsed is None:
            return []
        kept, dropped = drop_missing(parsed, self.provided)
        self.relaxed += dropped
        if kept is None:
            return []
        fields = documents if isinstance(documents, Fields) else Fields(documents)
        kept = guarded(kept, self.optional) if self.optional else kept
        hint = f"{self.prefix}_{hint}"
        if self.rendering == "plain" or fields.rows is not None:
            return [predicate(kept, fields, self.binds, hint)]
        indexes, estimate = self.catalog.field_indexes, self.rendering == "estimate"
        if self.as_function and self.catalog.adopted is not None:
            indexes = {}  # what a parameter asks of a column is made of it in Python
        return [indexed(kept, fields, self.binds, hint, indexes, estimate=estimate)]

    def served(self) -> "Lowering":
        """The same, but that indexes serve its filters."""
        return replace(self, rendering="indexed") if self.rendering == "plain" else self

    def note(self, *filters: Filter | None) -> Filter | None:
        """Notes what the whole namespace is filtered by, all of it; conditions whose input is missing do not count."""
        kept = [drop_missing(each, self.provided)[0] for each in filters if each is not None]
        found = all_of([each for each in kept if each is not None])
        self.reads += [found] if found is not None else []
        return found

    def parsed(self, raw: Any) -> Filter | None:
        return parse_filter(raw, (), Problems(), self.limits.filters)


@dataclass(frozen=True, slots=True)
class Rows:
    """A stage's rows with their documents: what the next stage reads and hands on.

    Columns of a row are `document_id` (text), `score` (float8, may be null), `rank` (bigint, unique, from 1: the
    order), and `fields` (jsonb, only where an earlier stage changed them: the document's fields as they are now).
    """

    source: sa.CTE
    to: Lowering

    @property
    def documents(self) -> sa.FromClause:
        return self.to.catalog.documents

    @property
    def joined(self) -> sa.FromClause:
        same = self.documents.c.document_id == self.source.c.document_id
        return self.source.join(self.documents, same, isouter=self.to.after_host)

    @property
    def score(self) -> sa.ColumnElement[float]:
        return self.source.c.score

    @property
    def rank(self) -> sa.ColumnElement[int]:
        return self.source.c.rank

    @property
    def document_id(self) -> sa.ColumnElement[str]:
        return self.source.c.document_id

    @property
    def get(self) -> Fields:
        """Finds a field: a jsonb expression and the path that remains in it."""
        return Fields(self.documents, self.source)

    @property
    def fields(self) -> sa.ColumnElement[Any]:
        """The document's fields as they are now, a jsonb object."""
        return self.get.payload

    def value(self, field: str, hint: str) -> sa.ColumnElement[Any]:
        """The JSON value of a field; NULL where it is missing or a JSON null."""
        return self.to.value(self.get, field, hint)

    def with_field(self, field: str, value: sa.ColumnElement[Any], hint: str = "output") -> sa.ColumnElement[Any]:
        """The fields with this one set to a jsonb value; the objects on its path are made where they are missing."""
        return self.with_fields({field: value}, hint)

    def with_fields(self, values: Mapping[str, sa.ColumnElement[Any]], hint: str = "output") -> sa.ColumnElement[Any]:
        """The same for several; what is set in `metadata` joins what is read there, which it would hide else."""
        tree, whole, hint = tree_of(values), self.fields, f"{self.to.prefix}_{hint}"
        if isinstance(tree.get("metadata"), Mapping):
            own = sa.func.jsonb_build_object(METADATA, self.get("metadata")[0], type_=JSONB)
            whole = whole.op("||", return_type=JSONB())(own)
        return merged(whole, tree, lambda key: self.to.binds.add(hint, sa.Text(), key))

    def select(self, *more: sa.ColumnElement[Any], documents: bool = True, **changed: Any) -> sa.Select[Any]:
        """These rows with some columns changed, and more; without `documents` their fields are not looked up."""
        names = ["document_id", "score", "rank", *(["fields"] if "fields" in self.source.c else [])]
        columns = {name: self.source.c[name] for name in names} | changed
        chosen = [column.label(name) for name, column in columns.items()]
        return sa.select(*chosen, *more).select_from(self.joined if documents else self.source)


NULL_JSON: sa.ColumnElement[Any] = sa.literal_column("'null'::jsonb", JSONB())
METADATA: sa.ColumnElement[Any] = sa.literal_column("'metadata'", sa.Text())


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What stages of both kinds say of themselves."""

    stage_id: ClassVar[str]
    stage_type: ClassVar[StageType]
    category: ClassVar[str]
    not_offered: ClassVar[frozenset[str]] = frozenset()
    # Older names of parameters, and those that the prose of the public API uses: name -> ours.
    aliases: ClassVar[Mapping[str, str]] = {}
    # What the list of stages tells beside the documentation: a Lucide icon, when to use it, parameters that work.
    icon: ClassVar[str] = "box"
    use_cases: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[dict[str, Any]] = {}
    # What templates in its parameters may read beside INPUT: DOC, CONTEXT, … (lower case), filled for each document.
    scopes: ClassVar[frozenset[str]] = frozenset()
    # Parameters that are there when they are not given, and hold templates.
    defaults: ClassVar[Mapping[str, Any]] = {}

    cache_behavior: Literal["auto", "disabled", "aggressive"] = "auto"
    cache_ttl_seconds: int | None = None

    def check(self, check: Check) -> None:
        """Add every problem of these parameters in this namespace."""

    def most_rows(self) -> int | None:
        """How many rows this stage answers at most, where its parameters say so; a page's size follows from it."""
        return None


class SqlStage(Stage, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stage that stays in Postgres. A relation between stages is a CTE with the columns of `Rows`."""

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        """The select whose rows are this stage's; `source` is None for the first stage: the whole namespace."""
        raise NotImplementedError


class HostStage(Stage, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stage that runs in the service, between two statements, with no transaction open."""

    # Whether it finds documents by itself, and so may be the first stage.
    finds: ClassVar[bool] = False

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        """The rows that this stage makes of those it is given, in their order; it may change them."""
        raise NotImplementedError


def whole_namespace(to: Lowering, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Every document without a score, in the order of their ids: what a pipeline starts from that does not search."""
    to.wholes.append(to.prefix)
    documents = to.catalog.documents
    return sa.select(
        documents.c.document_id,
        sa.cast(sa.null(), sa.Double).label("score"),
        sa.func.row_number().over(order_by=documents.c.document_id).label("rank"),
    ).where(*where)
