"""The inputs of an execution: checked against the retriever's schema, defaults filled in."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from app.errors import Problems
from app.retrieval.stages.base import Location


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "number": _is_number,
    "float": _is_number,
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    **dict.fromkeys(
        ("string", "text", "date", "datetime", "image", "audio", "video", "pdf", "excel"),
        _is_text,
    ),
    "document_reference": lambda value: isinstance(value, str | dict),
}


def check_schema(schema: Any, used: frozenset[str], problems: Problems, location: Location) -> None:
    """Check an input schema, and that it declares every input that the templates use (if it declares any)."""
    if not isinstance(schema, dict):
        problems.add(location, "bad_input_schema", "`input_schema` maps input names to {type, required, default}.")
        return
    for name, spec in schema.items():
        if not isinstance(spec, dict) or spec.get("type") not in CHECKS:
            message = f"The input {name!r} needs a `type`, one of {', '.join(CHECKS)}."
            problems.add((*location, name), "bad_input_schema", message)
        elif spec.get("default") is not None and not CHECKS[spec["type"]](spec["default"]):
            message = f"The default of {name!r} is no {spec['type']}."
            problems.add((*location, name, "default"), "bad_input_schema", message)
    for name in sorted(used - schema.keys()) if schema else ():
        message = f"A template uses the input {name!r}, which input_schema does not declare."
        problems.add(location, "unknown_input", message)


def check_inputs(
    schema: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], problems: Problems, location: Location
) -> dict[str, Any]:
    """The inputs that templates see: those given (null counts as absent) over the defaults."""
    inputs = {name: value for name, value in given.items() if value is not None}
    for name, spec in schema.items():
        if name not in inputs and spec.get("default") is not None:
            inputs[name] = spec["default"]
        if name not in inputs:
            if spec.get("required"):
                problems.add((*location, name), "missing_input", f"The input {name!r} ({spec['type']}) is required.")
        elif not CHECKS[spec["type"]](inputs[name]):
            problems.add((*location, name), "bad_input", f"The input {name!r} must be of type {spec['type']}.")
    return inputs
