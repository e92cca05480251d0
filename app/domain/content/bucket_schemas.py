"""What the objects of a bucket consist of: schemas checked, objects checked against them, contents compared. Pure."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.errors import Problems
from app.retrieval.inputs import MAX_DEPTH, check_value, is_deeper

Location = tuple[str | int, ...]
Field = Mapping[str, Any]
FILES = ("text", "image", "audio", "video", "pdf", "excel")
TYPES = ("string", "number", "integer", "float", "boolean", "object", "array", "date", "datetime", *FILES)
POLICIES = ("insert", "update", "upsert")
KEYED = ("string", "number", "integer", "float", "boolean", "date", "datetime")  # scalars: what may be a unique key
LONGEST_KEY = 255
DEEPEST_FIELD = 64
# What answers show of an object beside its fields, and what asks for something; no field has such a name.
RESERVED = frozenset(
    {
        "object",
        "object_id",
        "bucket_id",
        "namespace_id",
        "blobs",
        "key_prefix",
        "status",
        "error",
        "created_at",
        "updated_at",
        "document_count",
        "consistency",
        "source_details",
        "edges",
        "content_hash",
        "skip_duplicates",
        "canonicalize_source",
        "force_remirror",
        "idempotency_key",
        "auto_process",
        "policy",
        "replayed",
        "replayed_by",
        "object_index",
        "_internal",
    }
)


@dataclass(frozen=True, slots=True)
class BucketSchema:
    """A stored schema, and the fields (sorted) whose values together no two objects share."""

    properties: Mapping[str, Field]
    unique_fields: Sequence[str] | None = None
    default_policy: str | None = None


def check_schema(properties: Mapping[str, Field], most: int, problems: Problems, here: Location) -> None:
    """Find everything that is wrong with a new schema; its shape was checked when it was decoded."""
    count = _check_fields(properties, problems, here, 1)
    if count > most:
        problems.add(here, "too_many_fields", f"A schema has at most {most} fields (PGRETRIEVE_MAX_SCHEMA_FIELDS).")
    for name in sorted(RESERVED & properties.keys()):
        problems.add((*here, name), "bad_schema", f"No field can be called {name!r}: objects have that themselves.")


def _check_fields(fields: Mapping[str, Field], problems: Problems, here: Location, depth: int) -> int:
    for name in fields:
        if not 1 <= len(name) <= 100 or "\0" in name:
            problems.add(here, "bad_schema", "The name of a field has 1 to 100 characters, none of them U+0000.")
    return sum(_check_field(name, field, problems, (*here, name), depth) for name, field in fields.items())


def _check_field(name: str, field: Field, problems: Problems, here: Location, depth: int) -> int:
    """Check one, and count it with those within it."""
    if depth > MAX_DEPTH:
        problems.add(here, "bad_schema", f"`items` and `properties` nest at most {MAX_DEPTH} deep.")
        return 1
    for key, of in (("items", "array"), ("properties", "object")):
        if field.get(key) is not None and field["type"] != of:
            problems.add((*here, key), "bad_schema", f"Only an {of} has `{key}`; {name!r} is of type {field['type']}.")
    before = len(problems.found)
    found = 1 + _check_fields(field.get("properties") or {}, problems, (*here, "properties"), depth + 1)
    if field.get("items") is not None:
        found += _check_field(f"{name}[]", field["items"], problems, (*here, "items"), depth + 1)
    if len(problems.found) == before:
        bare = {key: value for key, value in field.items() if key != "enum"}
        for n, value in enumerate(field.get("enum") or ()):
            _check(f"Each of `enum` of {name!r}", value, bare, "bad_schema", problems, (*here, "enum", n))
        if field.get("default") is not None:
            what = f"The default of {name!r}"
            _check(what, field["default"], field, "bad_schema", problems, (*here, "default"))
            if field["type"] in FILES and field["type"] != "text":
                problems.add((*here, "default"), "bad_schema", "A file has no default.")
    return found


def _check(what: str, value: Any, field: Field, code: str, problems: Problems, here: Location) -> Any:
    """The value with the defaults of its properties; what is wrong is told with this code."""
    found = Problems()
    whole = check_value(what, value, field, found, here)
    for problem in found.found:
        problems.add(problem.location, code, problem.message)
    return whole


def check_unique_fields(
    fields: Sequence[str], properties: Mapping[str, Field], problems: Problems, here: Location
) -> None:
    """A unique key is made of declared scalars."""
    if len(set(fields)) != len(fields):
        problems.add(here, "bad_unique_key", "Each field of a unique key is named once.")
    for n, name in enumerate(fields):
        if name not in properties:
            message = f"The schema has no field {name!r}; it has {', '.join(properties) or 'none'}."
            problems.add((*here, n), "bad_unique_key", message)
        elif properties[name]["type"] not in KEYED:
            message = f"{name!r} is of type {properties[name]['type']}; a unique key is made of {', '.join(KEYED)}."
            problems.add((*here, n), "bad_unique_key", message)


def check_fields(
    schema: BucketSchema, fields: Mapping[str, Any], problems: Problems, here: Location, blobs: frozenset[str]
) -> dict[str, Any]:
    """The fields with defaults. A declared one may stand in `metadata`, too; one that is not declared is kept as it is.

    `blobs` are the properties that the object's blobs are values of.
    """
    whole = dict(fields)
    for name in sorted(RESERVED & fields.keys()):
        message = f"{name!r} is no field: it is a name of the API's own, or not offered here."
        problems.add((*here, name), "reserved_field", message)
    if not isinstance(fields.get("metadata", {}), dict):
        problems.add((*here, "metadata"), "schema_violation", "`metadata` is an object.")
    if is_deeper(fields, DEEPEST_FIELD):
        problems.add(here, "too_deep", f"Fields nest at most {DEEPEST_FIELD} deep.")
        return whole
    for name, field in schema.properties.items():
        place, value = _value_of(name, fields)
        at = (*here, *place)
        what = f"The field {name!r}"
        if value is None:
            if field.get("default") is not None and name not in blobs:
                whole[name] = field["default"]
            elif field.get("required") and name not in blobs:
                kind = f"a blob with `property: {name}`" if field["type"] in FILES else f"of type {field['type']}"
                problems.add(at, "schema_violation", f"{what} ({kind}) is required.")
        elif field["type"] in FILES and field["type"] != "text":
            message = f"{what} is of type {field['type']}: give it as a blob, {{property, type, data}}."
            problems.add(at, "schema_violation", message)
        else:
            checked = _check(what, value, field, "schema_violation", problems, at)
            if len(place) == 1:
                whole[name] = checked
    return whole


def _value_of(name: str, fields: Mapping[str, Any]) -> tuple[tuple[str, ...], Any]:
    """The value of a declared field, and where it stands: at the root, else in `metadata`."""
    inner = fields.get("metadata")
    if fields.get(name) is None and isinstance(inner, dict) and inner.get(name) is not None:
        return ("metadata", name), inner[name]
    return (name,), fields.get(name)


def unique_key(schema: BucketSchema, fields: Mapping[str, Any], problems: Problems, here: Location) -> str | None:
    """A hash of the values of the unique fields; None where the bucket has none."""
    if schema.unique_fields is None:
        return None
    values = []
    for name in schema.unique_fields:
        place, value = _value_of(name, fields)
        if value is None or value == "" or (isinstance(value, str) and len(value) > LONGEST_KEY):
            message = f"The field {name!r} is of the unique key: it is required, and has 1 to {LONGEST_KEY} characters."
            problems.add((*here, *place), "bad_unique_key", message)
        values.append(value)
    return digest(values)


def digest(value: Any) -> str:
    """A hash of a JSON value: the same for the same values, whatever their spelling and the order of their keys."""
    return hashlib.sha256(msgspec.json.encode(_plain(value), order="deterministic")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def property_of_file(schema: BucketSchema, filename: str) -> str:
    """The property that a file is a value of, where nobody says: the only one of files, else the file's name."""
    files = [name for name, field in schema.properties.items() if field["type"] in FILES]
    return files[0] if len(files) == 1 else re.sub(r"\.[^.]*$", "", filename)
