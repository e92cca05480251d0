"""Inputs as parameters of a SQL function: their types, and the values of binds as expressions of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.retrieval.in_sql import as_jsonb
from app.retrieval.plan import Bind, Kept
from app.retrieval.templates import Template, is_templated, pieces

SqlType = Literal["text", "double precision", "bigint", "boolean", "jsonb", "vector", "sparsevec", "vector[]"]
_TYPES: Mapping[str, SqlType] = {
    **dict.fromkeys(("string", "text", "date", "datetime", "document_reference"), "text"),
    **dict.fromkeys(("image", "audio", "video", "pdf", "excel"), "text"),
    **dict.fromkeys(("number", "float"), "double precision"),
    "integer": "bigint",
    "boolean": "boolean",
}
_WANTED: Mapping[Kept, SqlType] = {
    "vector": "vector",
    "sparsevec": "sparsevec",
    "vector[]": "vector[]",
    "text": "text",
    "float8": "double precision",
}


class NotAFunction(ValueError):
    """Why a retriever cannot be a SQL function."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input as the function takes it. `kind` is what its JSON must be, `allowed` what it may be."""

    name: str
    input: str
    type: SqlType
    required: bool
    default: Any = None
    kind: str | None = None
    allowed: list[Any] | None = None
    description: str | None = None

    @property
    def column(self) -> sa.ColumnElement[Any]:
        return sa.column(sa.sql.quoted_name(self.name, quote=True))

    @property
    def jsonb(self) -> sa.ColumnElement[Any]:
        if self.type in ("vector", "sparsevec", "vector[]"):
            raise NotAFunction(f"The input {self.input!r} is a query vector, and something else beside that.")
        return self.column if self.type == "jsonb" else sa.func.to_jsonb(self.column)


def type_of(declared: Mapping[str, Any] | None, uses: Iterable[Kept | None]) -> SqlType:
    """The SQL type of an input, by its place in the schema (None: there is no schema) and by what it is used for."""
    wanted, kind = set(uses), str(declared["type"]) if declared else None
    if kind is not None and kind in _TYPES:
        return _TYPES[kind]
    only = next(iter(wanted)) if len(wanted) == 1 else None
    if only is None or (kind is not None and only in ("text", "float8")):
        return "jsonb"
    return _WANTED[only]


def alone(value: Any) -> str | None:
    """The input that is all of a value."""
    match pieces(value) if isinstance(value, Template) else None:
        case (("input", name),):
            return name
    return None


@dataclass(frozen=True)
class Filled:
    """A bind's value, with parameters in the place of its templates. Raises `NotAFunction`."""

    bind: Bind
    parameters: Mapping[str, Parameter]

    @cached_property
    def jsonb(self) -> sa.ColumnElement[Any]:
        return self._json(self.bind.value)

    @cached_property
    def text(self) -> sa.ColumnElement[str]:
        if isinstance(self.bind.value, str):
            return sa.literal(self.bind.value, sa.Text())
        if not isinstance(self.bind.value, Template):
            raise NotAFunction(f"The value of {self.bind.name} is no text.")
        return self._text(self.bind.value)

    def typed(self, type_: Kept) -> sa.ColumnElement[Any]:
        name = alone(self.bind.value)
        parameter = self.parameters.get(name) if name is not None else None
        if parameter is not None and parameter.type == type_:
            return parameter.column
        if parameter is not None and parameter.type == "jsonb" and type_ == "vector":
            return sa.cast(sa.cast(parameter.column, sa.Text()), _Vector())
        raise NotAFunction(f"The query {self.bind.name} is not one input alone, of type {type_}.")

    def _json(self, value: Any) -> sa.ColumnElement[Any]:
        if not is_templated(value):
            return as_jsonb(msgspec.json.encode(value).decode())
        if isinstance(value, Template):
            name = alone(value)
            return self.parameters[name].jsonb if name is not None else sa.func.to_jsonb(self._text(value))
        if isinstance(value, dict):
            pairs = [part for key, item in value.items() for part in (sa.literal(key, sa.Text()), self._json(item))]
            return sa.func.jsonb_build_object(*pairs, type_=JSONB)
        return sa.func.jsonb_build_array(*map(self._json, value), type_=JSONB)

    def _text(self, template: Template) -> sa.ColumnElement[str]:
        """NULL where one of its inputs is."""
        found = pieces(template)
        if found is None:
            raise NotAFunction(f"The template {template.source} computes; a function takes inputs as they are.")
        parts = [sa.literal(part, sa.Text()) if kind == "text" else self._part(part, found) for kind, part in found]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.concat(part)
        return whole

    def _part(self, name: str, among: tuple[Any, ...]) -> sa.ColumnElement[str]:
        parameter = self.parameters[name]
        if parameter.type == "text":
            return parameter.column
        if parameter.type == "bigint" and len(among) > 1:
            return sa.cast(parameter.column, sa.Text())
        if parameter.type == "jsonb" and len(among) == 1:
            return sa.func.pgretrieve.input_text(parameter.column)
        raise NotAFunction(f"The input {name!r} is put into a text, and is none: declare it as a string.")


class _Vector(sa.types.UserDefinedType[Any]):
    """pgvector's type, of any dimension."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"
