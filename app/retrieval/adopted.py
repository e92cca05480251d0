"""How statements read an adopted table: a user's own, behind a view with the columns that documents have.

Columns of the view that no other namespace has begin with a capital, which no vector column does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import CollectionAggregate

KeyType = Literal["text", "bigint", "uuid"]
FieldType = Literal["keyword", "integer", "bool"]
# The view's column with the key as the table has it, where that is no text.
KEY = "Key"


@dataclass(frozen=True, slots=True)
class Adopted:
    """The table, the type that its documents are looked up by, and columns that statements name: those of vectors by
    the view's columns, and those of scalars by the payload's fields."""

    table: int  # its oid
    key: KeyType
    vectors: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, "Field"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the view that is a field of the payload: conditions may ask it, so that its indexes serve them."""

    number: int  # of the table's column
    type: FieldType
    indexed: bool = False

    @property
    def column(self) -> str:
        return f"Field_{self.number}"


class DocumentId(sa.Text):
    """The id of a document whose key is no text: made of it, and compared by it, so that the key's index finds it.

    For conditions that say what is found, not for their negation: what is no key at all is NULL, not false.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    class Comparator(sa.Text.Comparator[str]):  # type: ignore[type-arg,misc,name-defined,unused-ignore]
        """Equality of a document of the view asks for the key; every other comparison is that of texts."""

        def operate(self, op: Any, *other: Any, **more: Any) -> Any:
            table, type_ = getattr(self.expr, "table", None), self.type
            if op is not operators.eq or table is None or KEY not in table.c or not isinstance(type_, DocumentId):
                return super().operate(op, *other, **more)
            as_key = getattr(sa.func.pgretrieve, f"key_{type_.key}")
            (given,) = other
            match given:
                case CollectionAggregate():
                    return table.c[KEY] == sa.func.any(as_key(given.element))
                case sa.sql.functions.Function() if given.name == "any":
                    return table.c[KEY] == sa.func.any(as_key(*given.clauses))
                case _:
                    return table.c[KEY] == as_key(given)

    comparator_factory = Comparator


def key_column(key: str) -> sa.ColumnClause[Any]:
    return sa.column(KEY, sa.BigInteger() if key == "bigint" else sa.Uuid())
