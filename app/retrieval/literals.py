"""Lifts the values of a request's own filters out of them, so that filters of one form share a compiled plan."""

from typing import Any

from app.retrieval.filters import Condition, Filter, with_conditions
from app.retrieval.operators import FLAGS
from app.retrieval.templates import Template, is_templated

# Inputs of this name hold the values that stood in a filter.
LITERAL = "literal_filter_"


def lift_values(filter_: Filter | None) -> tuple[Filter | None, dict[str, Any]]:
    """The filter with its values as inputs, and those inputs.

    What decides the form of the SQL stays: flags, and values that are null, objects, or lists (but of `in` and `nin`).
    """
    values: dict[str, Any] = {}

    def lift(condition: Condition) -> Condition:
        raw = condition.value
        plain = isinstance(raw, str | int | float) or (isinstance(raw, list) and condition.operator in ("in", "nin"))
        if condition.operator in FLAGS or not plain or is_templated(raw):
            return condition
        name = f"{LITERAL}{len(values) + 1}"
        values[name] = raw
        return Condition(
            condition.field, condition.operator, Template(f"{{{{INPUT.{name}}}}}"), condition.case_insensitive
        )

    return (with_conditions(filter_, lift) if filter_ is not None else None), values
