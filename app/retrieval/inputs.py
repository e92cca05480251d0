"""The inputs of an execution: what a retriever's `input_schema` may say, and values checked against it."""

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from app.errors import Problems
from app.retrieval.stages.base import Location

MAX_DEPTH = 8  # of `items` and `properties` in a schema
MAX_INPUT_NESTING = 64
KEYS = ("type", "required", "default", "description", "enum", "items", "properties", "examples")
ABSENT = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_date(value: Any) -> bool:
    return _parses(date.fromisoformat, value) and len(value) == len("2026-01-31")


def _is_datetime(value: Any) -> bool:
    return _parses(datetime.fromisoformat, value)


def _parses(parse: Callable[[str], object], value: Any) -> bool:
    try:
        return isinstance(value, str) and parse(value) is not None
    except ValueError:
        return False


def _is_reference(value: Any) -> bool:
    """An id, or `{"document_id": …, "collection_id": …}`."""
    if not isinstance(value, dict):
        return _is_text(value)
    known = value.keys() <= {"document_id", "collection_id"} and "document_id" in value
    return known and all(isinstance(item, str) for item in value.values())


CHECKS: dict[str, Callable[[Any], bool]] = {
    "number": _is_number,
    "float": _is_number,
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    **dict.fromkeys(("string", "text", "image", "audio", "video", "pdf", "excel"), _is_text),
    "date": _is_date,
    "datetime": _is_datetime,
    "document_reference": _is_reference,
}
# Python's types of which every value from JSON will do.
PLAIN: dict[str, set[type]] = {"number": {int, float}, "float": {int, float}, "string": {str}, "text": {str}}
MEANS = {
    "date": "a date like 2026-01-31",
    "datetime": "a date and time like 2026-01-31T12:00:00Z",
    "document_reference": "a document's id, or {document_id, collection_id}",
    "number": "a finite number",
    "float": "a finite number",
}


def check_schema(schema: Any, used: frozenset[str], problems: Problems, location: Location) -> None:
    """Check an input schema, and that it declares every input that the templates use (if it declares any)."""
    if not isinstance(schema, dict):
        problems.add(location, "bad_input_schema", "`input_schema` maps input names to {type, required, default}.")
        return
    for name, field in schema.items():
        _check_field(str(name), field, problems, (*location, str(name)), 1)
    for name in sorted(used - schema.keys()) if schema else ():
        message = f"A template uses the input {name!r}, which input_schema does not declare."
        problems.add(location, "unknown_input", message)


def _check_field(name: str, field: Any, problems: Problems, here: Location, depth: int) -> None:
    def wrong(message: str, *path: str | int) -> None:
        problems.add((*here, *path), "bad_input_schema", message)

    if depth > MAX_DEPTH:
        wrong(f"`items` and `properties` nest at most {MAX_DEPTH} deep.")
        return
    if not isinstance(field, dict) or not isinstance(field.get("type"), str) or field["type"] not in CHECKS:
        wrong(f"The input {name!r} needs a `type`, one of {', '.join(CHECKS)}.")
        return
    for key in sorted(map(str, field.keys() - set(KEYS))):
        wrong(f"An input has no {key!r}; it has {', '.join(KEYS)}.", key)
    for key, type_ in (("required", bool), ("description", str), ("enum", list), ("examples", list)):
        if field.get(key) is not None and not isinstance(field[key], type_):
            wrong(f"`{key}` of {name!r} is a {type_.__name__}.", key)
    kind = field["type"]
    for key, of in (("items", "array"), ("properties", "object")):
        if field.get(key) is not None and kind != of:
            wrong(f"Only an {of} has `{key}`; {name!r} is of type {kind}.", key)
    before = len(problems.found)
    _check_parts(name, field, problems, here, depth)
    if len(problems.found) == before and field.get("default") is not None:
        found = Problems()
        check_value(f"The default of {name!r}", field["default"], field, found, (*here, "default"))
        for problem in found.found:
            problems.add(problem.location, "bad_input_schema", problem.message)


def _check_parts(name: str, field: Mapping[str, Any], problems: Problems, here: Location, depth: int) -> None:
    if field.get("enum") is not None and isinstance(field["enum"], list):
        for n, value in enumerate(field["enum"]):
            if not CHECKS[field["type"]](value):
                message = f"Each of `enum` of {name!r} is {_means(field['type'])}."
                problems.add((*here, "enum", n), "bad_input_schema", message)
    if field.get("items") is not None:
        _check_field(f"{name}[]", field["items"], problems, (*here, "items"), depth + 1)
    properties = field.get("properties")
    if properties is not None and not isinstance(properties, dict):
        problems.add((*here, "properties"), "bad_input_schema", f"`properties` of {name!r} maps names to inputs.")
    elif properties is not None:
        for key, part in properties.items():
            _check_field(f"{name}.{key}", part, problems, (*here, "properties", str(key)), depth + 1)


def check_inputs(
    schema: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], problems: Problems, location: Location
) -> dict[str, Any]:
    """The inputs that templates see: those given (null counts as absent) over the defaults."""
    inputs = {name: value for name, value in given.items() if value is not None}
    for name, field in schema.items():
        value = _checked(f"The input {name!r}", inputs.get(name), field, problems, (*location, name))
        if value is not ABSENT:
            inputs[name] = value
    return inputs


def _checked(what: str, value: Any, field: Mapping[str, Any], problems: Problems, here: Location) -> Any:
    """The value or its default, `ABSENT` where there is neither."""
    if value is None:
        if field.get("default") is not None:
            return field["default"]
        if field.get("required"):
            problems.add(here, "missing_input", f"{what} ({field['type']}) is required.")
        return ABSENT
    return check_value(what, value, field, problems, here)


def check_value(what: str, value: Any, field: Mapping[str, Any], problems: Problems, here: Location) -> Any:
    """The value with the defaults of its properties; adds every problem that it and its parts have."""
    kind = field["type"]
    if not CHECKS[kind](value):
        problems.add(here, "bad_input", f"{what} must be {_means(kind)}.")
    elif field.get("enum") and not any(_same(value, allowed) for allowed in field["enum"]):
        shown = ", ".join(map(repr, field["enum"][:20]))
        problems.add(here, "bad_input", f"{what} must be one of {shown}.")
    elif kind == "array" and field.get("items"):
        items = field["items"]
        if not items.get("enum") and set(map(type, value)) <= PLAIN.get(items["type"], set()):
            return value  # a vector has a thousand numbers
        return [check_value(f"{what}[{n}]", item, items, problems, (*here, n)) for n, item in enumerate(value)]
    elif kind == "object" and field.get("properties"):
        whole = dict(value)
        for name, part in field["properties"].items():
            found = _checked(f"{what}.{name}", value.get(name), part, problems, (*here, name))
            if found is not ABSENT:
                whole[name] = found
        return whole
    return value


def _same(value: Any, allowed: Any) -> bool:
    """Equal as JSON, where true is no 1."""
    return bool(value == allowed) and isinstance(value, bool) == isinstance(allowed, bool)


def _means(kind: str) -> str:
    return MEANS.get(kind, f"of type {kind}")


def is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects nest deeper than this, found without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        if not level:
            return False
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, dict | list)
        ]
    return bool(level)
