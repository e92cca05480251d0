"""What stages that work on scores have in common: where a score is read, and where one is written."""

from typing import Any

import sqlalchemy as sa

from app.retrieval.aggregates import double
from app.retrieval.stages.base import Check, Rows
from app.retrieval.stages.document_enrich import SYSTEM

Float = sa.ColumnElement[float]

NAN: Float = sa.literal_column("'NaN'::float8", sa.Double())
ZERO: Float = sa.literal_column("0", sa.Double())


def score_at(rows: Rows, field: str) -> Float:
    """The row's score, or the number at a field; NULL where it is missing, null, NaN, or no number."""
    if field == "score":
        return sa.func.nullif(rows.score, NAN)
    return double(rows.value(field, "score_field"))


def with_score(rows: Rows, field: str, value: Float) -> dict[str, Any]:
    """What `Rows.select` changes so that this is the row's score, or stands at a field."""
    if field == "score":
        return {"score": value}
    return {"fields": rows.with_field(field, sa.func.to_jsonb(value))}


def check_output(check: Check, name: str, field: str) -> None:
    """A parameter that names a field to write to, which answers show."""
    check.output(name, field)
    if field.split(".")[0] in SYSTEM:
        check.add("bad_field", f"{field!r} is the system's at the document's root; give another {name}.", name)
