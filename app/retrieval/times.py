"""Dates and times as filters compare them: ISO 8601 texts, UTC where they name no zone.

`2024-01-31`, `2024-01-31T12:30`, `2024-01-31 12:30:00.5+01:00`, `…Z`. Microseconds count; what is finer is cut off.
"""

import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from app.retrieval.plan import Binds

_ZONE = "[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?"
_CLOCK = f"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?(?: ?(?:{_ZONE}))?)?"
# A zone is read where seconds are, as Qdrant does it. PostgreSQL and Python read the same regular expression.
PATTERN = f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[Tt ]{_CLOCK})?$"
_ZONED = f":[0-9]{{2}}([.][0-9]+)? ?({_ZONE})$"
_TOO_FINE = "([.][0-9]{6})[0-9]+"


def instant(text: str) -> str | None:
    """The instant that a text names, in UTC, as PostgreSQL reads it; None where it is no date."""
    if not re.match(PATTERN, text) or text.endswith("\n"):
        return None
    try:
        found = datetime.fromisoformat(re.sub(_TOO_FINE, r"\1", text).upper().replace(" ", "T", 1).replace(" ", ""))
        return (found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
    except (ValueError, OverflowError):  # no such day; before year 1 or after 9999
        return None


def compared(
    text: sa.ColumnElement[str], bounds: dict[str, sa.ColumnElement[Any]], binds: Binds, hint: str
) -> sa.ColumnElement[bool]:
    """Whether the instant that a text of that pattern names keeps to all bounds; what is no day does not."""
    fine, kept = binds.add(hint, sa.Text(), _TOO_FINE), binds.add(hint, sa.Text(), r"\1")
    cut = sa.func.regexp_replace(text, fine, kept, type_=sa.Text())
    zoned = text.regexp_match(binds.add(hint, sa.Text(), _ZONED))
    named = cut.concat(sa.case((zoned, sa.literal_column("''")), else_=sa.literal_column("'Z'")))
    valid = sa.func.pg_input_is_valid(named, sa.literal_column("'timestamptz'"), type_=sa.Boolean())
    found = sa.cast(named, sa.TIMESTAMP(timezone=True))
    return sa.case((valid, sa.and_(*(keeps(found, name, bound) for name, bound in bounds.items()))), else_=sa.false())


def keeps(found: sa.ColumnElement[Any], name: str, bound: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a value keeps to a bound, which `name` tells the kind of: gt, gte, lt or lte."""
    match name:
        case "gt":
            return found > bound
        case "gte":
            return found >= bound
        case "lt":
            return found < bound
    return found <= bound
