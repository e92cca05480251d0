"""What conditions of both filter languages are lowered with: pieces of jsonpath, and parameters of their values."""

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from app.retrieval.filters import Condition
from app.retrieval.operators import check_value
from app.retrieval.plan import Binds, InSql
from app.retrieval.templates import is_templated

_SHORT = 30
NO_VARIABLE: sa.ColumnElement[Any] = sa.literal_column("'{}'::jsonb", JSONB)


def quoted(text: str) -> str:
    """A jsonpath string; those of JSON are all among them."""
    return json.dumps(text, ensure_ascii=False)


def like(pattern: str, flags: str = "") -> str:
    return f"@ like_regex {quoted(pattern)}" + (f' flag "{flags}"' if flags else "")


def to_text(value: Any) -> str:
    """JSON as the driver takes it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def written(value: Any) -> str:
    """A scalar's JSON; a number as PostgreSQL writes it, without exponent and trailing zeros."""
    if isinstance(value, float):
        return format(Decimal(repr(value)).normalize() + 0, "f")
    return to_text(value)


def exists(
    target: sa.ColumnElement[Any], path: sa.ColumnElement[Any], variable: sa.ColumnElement[Any] = NO_VARIABLE
) -> sa.ColumnElement[bool]:
    return sa.func.jsonb_path_exists(target, path, variable, sa.true(), type_=sa.Boolean())


def each(target: sa.ColumnElement[Any], path: sa.ColumnElement[Any]) -> sa.TableValuedColumn[Any]:
    """What a path finds, one for each row of its `scalar_alias`; names of such rows are made unique."""
    return sa.func.jsonb_path_query(target, path, NO_VARIABLE, sa.true(), type_=JSONB).column_valued()


def is_long(asked: Condition) -> bool:
    """Whether the list is best looked up: it costs 1.5 to 2.5 µs a row, however long it is, where comparing one by one
    costs 0.4 µs for 10 values and 38 µs for 1,000. An input's may be long; patterns of `case_insensitive` cannot be."""
    return not asked.case_insensitive and (is_templated(asked.value) or len(asked.value) > _SHORT)


def among(value: sa.TableValuedColumn[Any], text: sa.ColumnElement[str], keys: sa.ColumnElement[Any]) -> sa.Exists:
    """Whether a row's text is a key of a jsonb object, in which keys are found by bisection."""
    held = keys.op("?", return_type=sa.Boolean())(text)
    return sa.select(sa.literal_column("1")).select_from(value.scalar_alias).where(held).exists()


def keys_of(texts: Iterable[str]) -> str:
    """The jsonb object that has these keys."""
    return to_text(dict.fromkeys(texts, 0))


def decided(expression: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """True or false: NULL is false, so that NOT may be trusted."""
    return sa.func.coalesce(expression, sa.false(), type_=sa.Boolean())


def bind(
    binds: Binds,
    hint: str,
    asked: Condition,
    what: str,
    type_: TypeEngine[Any],
    convert: Callable[[Any], Any],
    sql: InSql | None = None,
) -> sa.ColumnElement[Any]:
    """What `convert` makes of the condition's value: now of a literal, at each request of a template."""
    name = f"{hint}_{what}"
    if not is_templated(asked.value):
        return binds.add(name, type_, convert(asked.value))

    def filled(value: Any) -> Any:
        check_value(asked.operator, value)
        return convert(value)

    return binds.add(name, type_, asked.value, filled, sql)
