"""Sources: what of a document a service embeds by itself, and which vectors an upsert may leave as they are.

The triggers of `pgretrieve.sources_changed` queue what is to be embedded, whoever writes; the hash beside a vector says
of which text a service made it.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.errors import Problems
from app.retrieval.catalog import Catalog, Source

EMPTY = sa.literal_column("'{}'::jsonb", JSONB)
Columns = Mapping[str, sa.ColumnElement[Any]] | sa.sql.ColumnCollection[str, sa.ColumnElement[Any]]


def check_field(field: str | None, at: tuple[str | int, ...], problems: Problems) -> None:
    """A source field is a dotted path into the payload."""
    if field is not None and not (1 <= len(field) <= 255 and "\0" not in field and all(field.split("."))):
        problems.add(at, "bad_field", "A source_field is a dotted path of 1 to 255 characters into the payload.")


def binds(catalog: Catalog) -> dict[str, str]:
    """The values that `kept` binds."""
    found = {f"source_{n}": source.field for n, source in enumerate(catalog.sources)}
    return found | {f"made_{n}": source.column for n, source in enumerate(catalog.sources)}


def text_of(payload: sa.ColumnElement[Any], field: sa.ColumnElement[str]) -> sa.ColumnElement[str | None]:
    """The text that a service embeds; null where there is none."""
    return sa.func.pgretrieve.source_text(payload, field, type_=sa.Text)


def hash_of(text: sa.ColumnElement[Any]) -> sa.ColumnElement[str | None]:
    return sa.func.pgretrieve.source_hash(text, type_=sa.Text)


def made(provenance: sa.ColumnElement[Any], column: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    """Who made the vector in a column; null: its caller."""
    return provenance.op("->", return_type=JSONB())(column)


def kept(catalog: Catalog, stored: sa.FromClause, new: Columns) -> dict[str, sa.ColumnElement[Any]]:
    """What an upsert sets for the columns that embed themselves: where it brings no vector and the same source, what a
    service made of that stays, so that nobody makes it again."""
    provenance = stored.c.provenance
    found: dict[str, sa.ColumnElement[Any]] = {}
    entries: list[sa.ColumnElement[Any]] = [EMPTY]
    for n, source in enumerate(catalog.sources):
        field, column = sa.bindparam(f"source_{n}", type_=sa.Text), sa.bindparam(f"made_{n}", type_=sa.Text)
        same = _same(source, made(provenance, column), field, new)
        found[source.column] = sa.case((same, stored.c[source.column]), else_=new[source.column])
        entry = sa.func.jsonb_build_object(column, made(provenance, column), type_=JSONB)
        entries.append(sa.case((same, entry), else_=EMPTY))
    together = reduce(lambda left, right: left.op("||", return_type=JSONB())(right), entries)
    return found | {"provenance": together}


def _same(source: Source, maker: sa.ColumnElement[Any], field: Any, new: Columns) -> sa.ColumnElement[bool]:
    text = text_of(new["payload"], field)
    return sa.and_(new[source.column].is_(None), maker.op("->>")(sa.literal_column("'input'")) == hash_of(text))
