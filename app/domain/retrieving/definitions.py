"""The definition of a retriever: what it may hold, and whether that fits its namespace."""

from collections.abc import Mapping
from typing import Any

from app.errors import Problems
from app.retrieval.catalog import Catalog
from app.retrieval.filters import Condition, Filter
from app.retrieval.inputs import check_schema
from app.retrieval.pipeline import Pipeline, check_pipeline, parse_pipeline
from app.retrieval.stages.base import Limits

# What of a definition a PATCH may change, and what it may hold at all.
DEFINITION = (
    "description",
    "stages",
    "input_schema",
    "collection_identifiers",
    "tags",
    "metadata",
    "display_config",
    "budget_limits",
)

# `max_time_ms` bounds the statement; nothing costs credits here.
BUDGET = ("max_credits", "max_time_ms")


def check_definition(definition: Mapping[str, Any], catalog: Catalog, limits: Limits) -> Pipeline:
    """Parse and check a definition in its namespace; `InvalidRequest` holds every problem."""
    problems = Problems()
    pipeline = parse_pipeline(definition.get("stages"), limits, problems)
    schema = definition.get("input_schema") or {}
    check_schema(schema, pipeline.input_names, problems, ("body", "input_schema"))
    _check_rest(definition, problems)
    if not problems:  # positions of stages that did not parse would be wrong
        check_pipeline(pipeline, catalog, limits, problems)
    problems.refuse()
    return pipeline


def _check_rest(definition: Mapping[str, Any], problems: Problems) -> None:
    for name in definition.get("collection_identifiers") or ():
        if not isinstance(name, str) or "\0" in name:
            problems.add(("body", "collection_identifiers"), "bad_name", "A collection is named by a text.")
    for name, value in (definition.get("budget_limits") or {}).items():
        here, least = ("body", "budget_limits", name), int(name == "max_time_ms")
        if name not in BUDGET:
            problems.add(here, "extra_forbidden", f"budget_limits has no {name!r}; it has {' and '.join(BUDGET)}.")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < least):
            problems.add(here, "out_of_range", f"{name} is a number, {least} or more.")


def within(definition: Mapping[str, Any], catalog: Catalog) -> Filter | None:
    """The filter that keeps a retriever to its collections; None where it names none."""
    collections = definition.get("collection_identifiers")
    return Condition("collection_id", "in", list(map(catalog.collection_id, collections))) if collections else None
