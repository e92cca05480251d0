"""What a stage is: a frozen struct of parameters that can check itself and lower itself to SQL.

A stage module defines one subclass of `SqlStage`; its docstring is the published documentation.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import msgspec
import sqlalchemy as sa

from app.errors import Problems
from app.retrieval.catalog import Catalog, Fields
from app.retrieval.filters import Condition, Filter, FilterLimits, Not, drop_missing, parse_filter
from app.retrieval.plan import Binds, Embed
from app.retrieval.predicates import predicate

StageType = Literal["filter", "sort", "reduce", "apply", "enrich"]
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a pipeline; from the settings."""

    stages: int
    searches: int
    top_k: int
    filters: FilterLimits


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


@dataclass(slots=True)
class Lowering:
    """What a stage is lowered with: the catalog, the inputs that are there, and where binds and queries gather."""

    catalog: Catalog
    limits: Limits
    provided: frozenset[str]
    prefix: str = "s1"
    ef_search: int = 100  # grows with the widest search, since one index scan answers no more than this
    everywhere: Filter | None = None  # the request's own filters, AND-ed with those of the first stage
    binds: Binds = field(default_factory=Binds)
    embeds: list[Embed] = field(default_factory=list)
    relaxed: list[Condition] = field(default_factory=list)

    def where(
        self, raw: Any, documents: sa.FromClause, hint: str, *, case_insensitive: bool = False
    ) -> list[sa.ColumnElement[bool]]:
        """The predicates of a filter in either language; conditions whose input is missing are dropped and noted."""
        parsed = parse_filter(raw, (), Problems(), self.limits.filters)
        if parsed is not None and case_insensitive:
            parsed = _case_insensitive(parsed)
        return self.where_parsed(parsed, documents, hint)

    def where_parsed(self, parsed: Filter | None, documents: sa.FromClause, hint: str) -> list[sa.ColumnElement[bool]]:
        if parsed is None:
            return []
        kept, dropped = drop_missing(parsed, self.provided)
        self.relaxed += dropped
        if kept is None:
            return []
        return [predicate(kept, Fields(documents), self.binds, f"{self.prefix}_{hint}")]


class SqlStage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stage that stays in Postgres.

    A relation between stages is a CTE with the columns `document_id` (text), `score` (float8, may be null) and
    `rank` (bigint, from 1: the order that the stage gives its rows).
    """

    stage_id: ClassVar[str]
    stage_type: ClassVar[StageType]
    category: ClassVar[str]
    not_offered: ClassVar[frozenset[str]] = frozenset()
    # What the list of stages tells beside the documentation: a Lucide icon, when to use it, parameters that work.
    icon: ClassVar[str] = "box"
    use_cases: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[dict[str, Any]] = {}

    cache_behavior: Literal["auto", "disabled", "aggressive"] = "auto"
    cache_ttl_seconds: int | None = None

    def check(self, check: Check) -> None:
        """Add every problem of these parameters in this namespace."""

    def most_rows(self) -> int | None:
        """How many rows this stage answers at most, where its parameters say so; a page's size follows from it."""
        return None

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        """The select whose rows are this stage's; `source` is None for the first stage: the whole namespace."""
        raise NotImplementedError


def _case_insensitive(filter_: Filter) -> Filter:
    if isinstance(filter_, Condition):
        return replace(filter_, case_insensitive=True)
    if isinstance(filter_, Not):
        return Not(_case_insensitive(filter_.item))
    return type(filter_)(tuple(_case_insensitive(item) for item in filter_.items))


def whole_namespace(to: Lowering, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Every document without a score, in the order of their ids: what a pipeline starts from that does not search."""
    documents = to.catalog.documents
    return sa.select(
        documents.c.document_id,
        sa.cast(sa.null(), sa.Double).label("score"),
        sa.func.row_number().over(order_by=documents.c.document_id).label("rank"),
    ).where(*where)
