"""What PostgreSQL keeps for the index of a payload field: keys for equality; for ranges numbers, and texts; cells.

The functions of schema pgretrieve that make them open arrays as filters do, and return nothing that is too long for an
index. Their paths stand in the text, since an index serves only the very expression that it was made with.
"""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONPATH

from app.retrieval.catalog import SYSTEM_COLUMNS, FieldIndex, Fields, FieldType
from app.retrieval.conditions import quoted

Kind = Literal["keys", "numbers", "texts", "cells"]
_EQUALITY: tuple[Kind, ...] = ("keys",)
_EQUALITY_AND_RANGES: tuple[Kind, ...] = ("keys", "numbers", "texts")
KINDS: Mapping[FieldType, tuple[Kind, ...]] = {
    **dict.fromkeys(("keyword", "uuid", "bool"), _EQUALITY),
    **dict.fromkeys(("integer", "float", "datetime"), _EQUALITY_AND_RANGES),
    "geo": ("cells",),
    "text": (),
}

_WHICH: tuple[sa.ColumnElement[str], ...] = tuple(map(sa.literal_column, ("'only'", "'greatest'", "'least'")))


def is_system(field: str) -> bool:
    """Whether the field is a column of the documents."""
    return field in ("document_id", "collection_id") or field in [f"_internal.{name}" for name in SYSTEM_COLUMNS]


def kinds(index: FieldIndex) -> tuple[Kind, ...]:
    """What is kept for an index; nothing for the system's columns."""
    return () if is_system(index.field) else KINDS[index.type]


def name_of(index: FieldIndex, kind: Kind) -> str:
    return f"payload_{index.number}_{kind}"


def keys(fields: Fields, field: str) -> sa.ColumnElement[Any]:
    """The keys of the scalars at a field: bytea[]."""
    value, path = fields(field)
    paths = _literal(f"{_path(path)}[*][*]"), _literal(f"strict {_path(path)}")
    return sa.func.pgretrieve.payload_keys(value, *paths, type_=sa.ARRAY(sa.LargeBinary))


def numbers(fields: Fields, field: str) -> tuple[sa.ColumnElement[Any], ...]:
    """The field's only number, if both filter languages find it; else the greatest and the least."""
    value, path = fields(field)
    paths = _of_type("number", path), _literal(f"strict {_path(path)}")
    return tuple(sa.func.pgretrieve.payload_number(value, *paths, which) for which in _WHICH)


def texts(fields: Fields, field: str) -> tuple[sa.ColumnElement[Any], ...]:
    """The field's only string; or, of several, the greatest and the least, ordered by code points."""
    value, path = fields(field)
    of_type = _of_type("string", path)
    return tuple(sa.func.pgretrieve.payload_text(value, of_type, which, type_=sa.Text).collate("C") for which in _WHICH)


def cells(fields: Fields, field: str) -> sa.ColumnElement[Any]:
    """The cells of a grid in which the points at a field lie: bigint[]."""
    value, path = fields(field)
    return sa.func.pgretrieve.payload_cells(value, _literal(_path(path)), type_=sa.ARRAY(sa.BigInteger))


def expressions(kind: Kind, fields: Fields, field: str) -> tuple[sa.ColumnElement[Any], ...]:
    """The columns of the index."""
    match kind:
        case "keys":
            return (keys(fields, field),)
        case "numbers":
            return numbers(fields, field)
        case "texts":
            return texts(fields, field)
        case "cells":
            return (cells(fields, field),)


def _of_type(type_: str, path: tuple[str, ...]) -> sa.ColumnElement[Any]:
    # Arrays are opened two deep; the test does it once.
    return _literal(f'{_path(path)}[*] ? (@.type() == "{type_}")')


def _path(path: tuple[str, ...]) -> str:
    return "$" + "".join(f".{quoted(key)}" for key in path)


def _literal(path: str) -> sa.ColumnElement[Any]:
    """A path of the catalog, quoted so that no setting of the server changes what it means."""
    escaped = path.replace("\\", "\\\\").replace("'", "''")
    prefix = "" if escaped == path else "E"
    return sa.literal_column("".join((prefix, "'", escaped, "'::jsonpath")), JSONPATH())
