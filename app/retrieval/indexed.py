"""Lowers filters so that indexes of payload fields serve them: for exact search, and for estimates.

An index passes what a filter passes, and in few cases more; then the condition itself is asked of what it passed. A
condition that no index serves is asked of each document, as `predicates` lowers it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, Literal

import sqlalchemy as sa

from app.retrieval import in_sql
from app.retrieval.between import Between
from app.retrieval.catalog import Catalog, FieldIndex, Fields, FieldType
from app.retrieval.conditions import bind, written
from app.retrieval.field_indexes import Kind, cells, is_system, keys, kinds, numbers
from app.retrieval.filters import And, Condition, Filter, Not, Or
from app.retrieval.geo_cells import cells_of
from app.retrieval.keyed import implied, looser_field
from app.retrieval.on_column import on_column
from app.retrieval.operators import AREAS, COMPARISONS
from app.retrieval.plan import Binds, InSql
from app.retrieval.predicates import predicate

Indexes = Mapping[str, FieldIndex]
# As pgretrieve.payload_key has it.
LONGEST_KEY = 200
# Columns of documents that have an index.
_IDS = ("document_id", "collection_id")
_POSITIVE = {"ne": "eq", "nin": "in"}


def indexed(
    filter_: Filter, fields: Fields, binds: Binds, hint: str, indexes: Indexes, *, estimate: bool = False
) -> sa.ColumnElement[bool]:
    """The filter as an expression for WHERE (NULL is false), served by these indexes of the documents.

    With `estimate` it is an expression only to be planned, whose selectivity PostgreSQL knows best.
    """
    return _Indexed(fields, binds, hint, indexes, estimate).expression(filter_)


def narrows(filter_: Filter, indexes: Indexes) -> bool:
    """Whether indexes find what the filter keeps, so that no document beside is read."""
    match filter_:
        case And():
            return any(narrows(item, indexes) for item in filter_.items)
        case Or():
            return all(narrows(item, indexes) for item in filter_.items)
        case Condition():
            wanted = _wanted(filter_)
            return wanted is not None and (wanted.field in _IDS or wanted.by(indexes))
        case _:
            return False


def unindexed(filter_: Filter, catalog: Catalog) -> list[tuple[str, FieldType]]:
    """The fields whose conditions read every document, though an index of this type would serve them."""
    found: dict[str, FieldType] = {}
    for wanted in filter(None, map(_wanted, _conditions(filter_))):
        if not is_system(wanted.field) and len(wanted.field) <= 255 and not wanted.by(catalog.field_indexes):
            found.setdefault(wanted.field, wanted.type)
    return list(found.items())


def advice(filter_: Filter, catalog: Catalog) -> list[str]:
    """What to say of conditions that read every document."""
    found = {index.field: index for index in catalog.payload_indexes}
    patch = f"PATCH /v1/namespaces/{catalog.namespace_id}"
    said = []
    for field, type_ in unindexed(filter_, catalog):
        start, index = f"The filter on {field!r} reads every document", found.get(field)
        ensure = f"POST /v1/namespaces/{catalog.namespace_id}/ensure-indexes"
        entry = f'{{"field_name": {written(field)}, "type": "{type_}"}}'
        if catalog.adopted is not None:
            column = f"an index of that column would serve it, once {ensure} has found it"
            none = "none of its indexes can serve it"
            said.append(f"{start} of the adopted table; {column if field in catalog.adopted.fields else none}.")
        elif index is None:
            said.append(f'{start}; declare a payload index: {patch} {{"payload_indexes": [{entry}]}}.')
        elif index.state == "ready":
            said.append(f"{start}: its payload index is of type {index.type}; declare {entry} instead ({patch}).")
        elif index.state == "building":
            said.append(f"{start} until its payload index is built.")
        else:
            said.append(f"{start}: the build of its payload index failed; try again, {ensure}.")
    return said


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The index that a condition wants: the field, what must be kept for it, and the type to declare."""

    field: str
    kind: Kind
    type: FieldType

    def by(self, indexes: Indexes) -> bool:
        index = indexes.get(self.field)
        return index is not None and self.kind in kinds(index)


def _wanted(asked: Condition) -> _Wanted | None:
    """None where no index would serve the condition."""
    if asked.operator == "key.range":
        field = looser_field(asked)
        return _Wanted(field, "numbers", _range_type(next(iter(asked.value.values())))) if field is not None else None
    if _area(asked) is not None:
        return _Wanted(asked.field, "cells", "geo")
    if asked.operator.startswith("key."):
        wider = implied(asked)
        return _wanted(wider) if isinstance(wider, Condition) else None
    if asked.operator in COMPARISONS:
        return _Wanted(asked.field, "numbers", _range_type(asked.value))
    return _Wanted(asked.field, "keys", _key_type(asked.value)) if _is_equality(asked) else None


def _area(asked: Condition) -> str | None:
    """The shape of the area that it asks for."""
    shape = asked.operator.removeprefix("key.")
    return shape if shape in AREAS else None


def _is_equality(asked: Condition) -> bool:
    """Whether it asks for one of some scalars."""
    value = asked.value
    match asked.operator:
        case "eq":
            return not asked.case_insensitive and value is not None and not isinstance(value, dict | list)
        case "in":
            return not asked.case_insensitive
        case "contains":  # a text is contained in longer ones, too
            return isinstance(value, bool | int | float)
    return False


def _key_type(value: Any) -> FieldType:
    one = value[0] if isinstance(value, list) and value else value
    return "bool" if isinstance(one, bool) else "integer" if isinstance(one, int) else "keyword"


def _range_type(bound: Any) -> FieldType:
    return "datetime" if isinstance(bound, str) else "integer" if isinstance(bound, int) else "float"


def _conditions(filter_: Filter) -> Iterator[Condition]:
    """Those that an index could serve where they stand."""
    match filter_:
        case Condition():
            yield filter_
        case And() | Or():
            for item in filter_.items:
                yield from _conditions(item)


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A filter on its way to SQL."""

    fields: Fields
    binds: Binds
    hint: str
    indexes: Indexes
    estimate: bool

    def expression(self, filter_: Filter) -> sa.ColumnElement[bool]:
        match filter_:
            case And():
                return sa.and_(*self.all_of(list(_flat(filter_))))
            case Or():
                return sa.or_(*(self.expression(item) for item in filter_.items))
            case Not() if self.estimate:
                return sa.not_(self.expression(filter_.item))
            case Condition():
                return sa.and_(*self.all_of([filter_]))
            case _:
                return self.plain(filter_)

    def all_of(self, items: Sequence[Filter]) -> list[sa.ColumnElement[bool]]:
        """Bounds of one field are one range, which PostgreSQL scans and estimates as such."""
        found: list[sa.ColumnElement[bool]] = []
        bounds: dict[str, list[Condition]] = {}
        for item in items:
            if not isinstance(item, Condition):
                found.append(self.expression(item))
            elif item.operator in COMPARISONS and self.has(item.field, "numbers") and not self.is_column(item.field):
                bounds.setdefault(item.field, []).append(item)
            else:
                found.append(self.condition(item))
        for field, conditions in bounds.items():
            found.append(self.between(field, conditions))
        return found

    def between(self, field: str, conditions: Sequence[Condition]) -> sa.ColumnElement[bool]:
        bounds = Between(tuple((asked.operator, asked.value) for asked in conditions))
        found = bounds.expression(self.fields, field, self.binds, self.hint)
        if self.estimate or bounds.certain:
            return found
        again = _passes(sa.and_(*map(self.plain, conditions)))
        return sa.and_(found, sa.or_(bounds.is_certain(self.binds, self.hint), again))

    def condition(self, asked: Condition) -> sa.ColumnElement[bool]:
        if self.is_column(asked.field):
            return self.of_column(asked)
        if (shape := _area(asked)) is not None:
            return self.in_area(asked, shape)
        if asked.operator.startswith("key."):
            return self.keyed(asked)
        if _is_equality(asked):
            if asked.field in _IDS and self.fields.rows is None:
                return self.is_id(asked)
            if self.has(asked.field, "keys"):
                return self.has_key(asked)
        if self.estimate and asked.operator in _POSITIVE:
            return sa.not_(self.condition(replace(asked, operator=_POSITIVE[asked.operator])))
        return self.plain(asked)

    def is_column(self, field: str) -> bool:
        """Whether it is a column of an adopted table, whose index is the table's own."""
        index = self.indexes.get(field)
        return self.fields.rows is None and index is not None and index.column is not None

    def of_column(self, asked: Condition) -> sa.ColumnElement[bool]:
        if asked.operator.startswith("key."):
            wider = implied(asked)
            if wider is None:
                return self.plain(asked)
            found = self.expression(wider)
            return found if self.estimate else sa.and_(found, _passes(self.plain(asked)))
        on = on_column(asked, self.indexes[asked.field], self.fields, self.binds, self.hint)
        return self.plain(asked) if on is None else on

    def keyed(self, asked: Condition) -> sa.ColumnElement[bool]:
        """Language B opens fewer arrays than language A, and compares instants."""
        wanted, wider = _wanted(asked), implied(asked)
        if wanted is None or (wanted.field not in _IDS and not self.has(wanted.field, wanted.kind)):
            return self.plain(asked)
        bare = asked.field == wanted.field and asked.field not in _IDS
        if asked.operator == "key.range":
            return self.keyed_range(asked, wanted.field, bare)
        assert isinstance(wider, Condition), "as _wanted found it"
        found = self.has_key(wider, "B") if bare else self.condition(wider)
        if self.estimate:
            return found
        again = _passes(self.plain(asked))
        return sa.and_(found, sa.or_(self.is_certain(wider), again) if bare else again)

    def keyed_range(self, asked: Condition, field: str, bare: bool) -> sa.ColumnElement[bool]:
        bounds = Between(tuple(asked.value.items()), operator="key.range")
        found = bounds.expression(self.fields, field, self.binds, self.hint)
        if self.estimate:
            return found
        again = _passes(self.plain(asked))
        if not bare:
            return sa.and_(found, again)
        certain = sa.and_(bounds.is_certain(self.binds, self.hint), sa.not_(self.has_others(field)))
        return sa.and_(found, sa.or_(certain, again))

    def in_area(self, asked: Condition, shape: str) -> sa.ColumnElement[bool]:
        if not self.has(asked.field, "cells"):
            return self.plain(asked)
        wanted = bind(self.binds, self.hint, asked, "cells", sa.ARRAY(sa.BigInteger), partial(cells_of, shape))
        found = cells(self.fields, asked.field).bool_op("&&")(wanted)
        return found if self.estimate else sa.and_(found, _passes(self.plain(asked)))

    def is_id(self, asked: Condition) -> sa.ColumnElement[bool]:
        def ids(value: Any) -> list[str]:
            return [item for item in _listed(asked, value) if isinstance(item, str)]

        column = self.fields.documents.c[asked.field]
        return column == sa.func.any(
            bind(self.binds, self.hint, asked, "ids", sa.ARRAY(sa.Text), ids, in_sql.ids(asked.operator))
        )

    def has_key(self, asked: Condition, language: Literal["A", "B"] = "A") -> sa.ColumnElement[bool]:
        """By the keys of documents where the languages find the same, and by those of the others."""

        def alike(value: Any) -> list[bytes]:
            return [key_of(item) for item in _listed(asked, value)]

        def own(value: Any) -> list[bytes]:
            prefix = language.encode() if _same_to_both(_listed(asked, value)) else b"A"
            return [prefix + key for key in alike(value)]

        def both(value: Any) -> list[bytes]:
            return alike(value) + own(value)

        if not self.estimate:
            return self.overlaps(asked, both, in_sql.payload_keys(language, asked.operator))
        # Statistics know little of keys that hardly occur: those of the others count for as much as there are others.
        others = self.overlaps(asked, lambda _value: [b"A"])
        return sa.or_(self.overlaps(asked, alike), sa.and_(self.overlaps(asked, own), others))

    def overlaps(
        self, asked: Condition, convert: Callable[[Any], list[bytes]], sql: InSql | None = None
    ) -> sa.ColumnElement[bool]:
        wanted = bind(self.binds, self.hint, asked, "keys", sa.ARRAY(sa.LargeBinary), convert, sql)
        return keys(self.fields, asked.field).bool_op("&&")(wanted)

    def is_certain(self, asked: Condition) -> sa.ColumnElement[bool]:
        """Whether its keys are all that there is to a condition of language B."""

        def certain(value: Any) -> bool:
            return _same_to_both(_listed(asked, value))

        sql = in_sql.certain(asked.operator)
        return bind(self.binds, self.hint, asked, "certain", sa.Boolean(), certain, sql)

    def has_others(self, field: str) -> sa.ColumnElement[bool]:
        """Whether any document has numbers of which the languages find other ones; looked up once, in the index."""
        documents = self.fields.documents
        assert isinstance(documents, sa.Alias | sa.Subquery), "as the catalog has it"
        other = documents.element.alias("other")
        only, greatest, _ = numbers(Fields(other), field)
        there = greatest > sa.literal_column("'-Infinity'", sa.Numeric)
        return sa.select(sa.literal_column("1")).select_from(other).where(only.is_(None), there).exists()

    def has(self, field: str, kind: Kind) -> bool:
        index = self.indexes.get(field)
        return self.fields.rows is None and index is not None and kind in kinds(index)

    def plain(self, filter_: Filter) -> sa.ColumnElement[bool]:
        return predicate(filter_, self.fields, self.binds, self.hint)


def key_of(value: Any) -> bytes:
    """A scalar as pgretrieve.payload_key writes it."""
    key = written(value).encode()
    return key if len(key) <= LONGEST_KEY else b"#" + sha256(key).digest()


def _listed(asked: Condition, value: Any) -> list[Any]:
    values = value if isinstance(value, list) and asked.operator == "in" else [value]
    if not all(isinstance(item, str | int | float) for item in values):
        raise ValueError(f"`{asked.operator}` needs a text, a number or a boolean from an input")
    return values


def _same_to_both(listed: list[Any]) -> bool:
    """To language B a number that is no integer equals integers, too, as to language A."""
    return not any(isinstance(item, float) for item in listed)


def _flat(filter_: And) -> Iterator[Filter]:
    for item in filter_.items:
        yield from _flat(item) if isinstance(item, And) else [item]


def _passes(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """The condition, written so that PostgreSQL takes it for 99.5 % true: the index has passed hardly anything else."""
    return sa.func.nullif(condition, sa.false()).is_not(None)
