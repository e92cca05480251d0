"""What of an object goes into an extractor (`input_mappings`) and past it (`field_passthrough`). Pure functions.

Both are checked when a collection is made, every problem at once, and applied to each of its objects.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from app.errors import ExtractionFailed, Problems
from app.extractors.base import Blob, Extractor, Location

Paths = dict[str, tuple[str, ...]]
"""For each input of an extractor, the paths of the object's fields that feed it."""

TARGET = re.compile(r"[A-Za-z0-9_-]{1,255}")
SYSTEM = frozenset(("document_id", "collection_id", "score", "_internal", "metadata", "payload", "vectors"))
EXPECTED = '`input_mappings` is {"input": "field"}, or a list of {"input_key": …, "source_type": …, "path": …}.'
MISSING = object()


class Mapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The list form of an input mapping."""

    input_key: str
    source_type: Literal["payload", "blob", "literal", "vector"] = "payload"
    path: str | None = None
    override: Any = None


class FieldPassthrough(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field that goes from the object to its documents; without `target_path`, by the last name of `source_path`."""

    source_path: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    target_path: str | None = None
    default: Any = None
    required: bool = False

    @property
    def target(self) -> str:
        return self.target_path or self.source_path.rpartition(".")[2]


def read_mappings(
    raw: Any,
    extractor: type[Extractor],
    types: Mapping[str, str] | None,
    problems: Problems,
    at: Location = ("body", "feature_extractor", "input_mappings"),
) -> Paths:
    """The paths for each input. `types` are the object's fields with their types, where those are known.

    An input that is not mapped takes the field of its own name, else the only field of a type that suits it.
    """
    paths: Paths = {}
    for name, value, here in _entries(raw, problems, at):
        spec = extractor.inputs.get(name)
        if spec is None:
            message = f"{extractor.extractor_name} has no input {name[:60]!r}; it has {', '.join(extractor.inputs)}."
            problems.add(here, "unknown_extractor_input", message)
            continue
        found = (value,) if isinstance(value, str) else value
        if not isinstance(found, list | tuple) or not found or not all(_is_path(path) for path in found):
            problems.add(here, "bad_field", f"The input {name!r} takes the path of a field, or a list of such.")
            continue
        paths[name] = (*paths.get(name, ()), *found)
        if len(paths[name]) > spec.most:
            problems.add(
                here, "too_many_inputs", f"The input {name!r} takes {spec.most} field, not {len(paths[name])}."
            )
        for path in found:
            _check_known(path, types, problems, here)
            kind = (types or {}).get(path)
            if kind is not None and kind not in spec.types:
                message = (
                    f"The input {name!r} takes fields of the types {', '.join(spec.types)}; {path!r} is of {kind!r}."
                )
                problems.add(here, "unsuitable_field", message)
    for name, spec in extractor.inputs.items():
        if name not in paths:
            suits = [field for field, kind in (types or {name: ""}).items() if field == name or kind in spec.types]
            suits = [name] if name in suits else suits
            if len(suits) == 1:
                paths[name] = (suits[0],)
            elif spec.required:
                listed = f" ({', '.join(suits)})" if suits else ""
                message = f"Map the input {name!r}: {len(suits)} fields could feed it{listed}."
                problems.add((*at, name), "input_not_mapped", message)
    return paths


def mapped_inputs(
    paths: Paths, fields: Mapping[str, Any], blobs: Mapping[str, Sequence[Blob]]
) -> dict[str, tuple[Blob, ...]]:
    """What the object has for each input: its blobs of that property, or a text in a field."""
    inputs = {}
    for name, wanted in paths.items():
        found: list[Blob] = []
        for path in wanted:
            value = MISSING if path in blobs else value_at(fields, path)
            found += blobs.get(path, ())
            found += [
                Blob.of(text) for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
            ]
        if found:
            inputs[name] = tuple(found)
    return inputs


def read_passthrough(
    raw: Any,
    extractor: type[Extractor],
    known: Collection[str] | None,
    problems: Problems,
    at: Location = ("body", "feature_extractor", "field_passthrough"),
) -> tuple[FieldPassthrough, ...]:
    """The fields to pass. `known` are the names of the object's fields, where those are known."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        problems.add(at, "bad_type", "`field_passthrough` is a list of {source_path, target_path, default, required}.")
        return ()
    passed: list[FieldPassthrough] = []
    for n, entry in enumerate(raw):
        here = (*at, n)
        try:
            field = msgspec.convert(entry, FieldPassthrough)
        except msgspec.ValidationError as error:
            problems.add(here, "bad_field", f"{error}.")
            continue
        if not _is_path(field.source_path):
            problems.add((*here, "source_path"), "bad_field", "source_path is a dotted path of field names.")
            continue
        _check_known(field.source_path, known, problems, (*here, "source_path"))
        _check_target(field, extractor, {each.target for each in passed}, problems, here)
        passed.append(field)
    return tuple(passed)


def passed_fields(
    fields: Mapping[str, Any], passthrough: Sequence[FieldPassthrough], *, include_all: bool = False
) -> dict[str, Any]:
    """The fields that each document of the object gets. Raises `ExtractionFailed`, naming all that are missing."""
    passed = dict(fields) if include_all else {}
    for field in passthrough:
        if include_all and field.source_path in fields:
            passed.pop(field.source_path, None)  # it goes by its target's name instead
    missing = []
    for field in passthrough:
        value = value_at(fields, field.source_path)
        if value is MISSING:
            if field.required:
                missing.append(field.source_path)
            value = field.default
        if value is not None:
            passed[field.target] = value
    if missing:
        message = f"The object lacks fields that the collection needs: {', '.join(missing)}."
        raise ExtractionFailed(message, code="field_missing", fields=missing)
    return passed


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; a key with dots in it wins. `MISSING` where there is none."""
    if path in fields:
        return fields[path]
    found: Any = fields
    for step in path.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return MISSING
        found = found[step]
    return found


def _entries(raw: Any, problems: Problems, at: Location) -> list[tuple[str, Any, Location]]:
    """Both forms as (input, its paths, where that stands)."""
    if raw is None:
        return []
    if isinstance(raw, Mapping):
        return [(str(name), value, (*at, str(name))) for name, value in raw.items()]
    if not isinstance(raw, list):
        problems.add(at, "bad_type", EXPECTED)
        return []
    entries: list[tuple[str, Any, Location]] = []
    for n, each in enumerate(raw):
        try:
            mapped = msgspec.convert(each, Mapped)
        except msgspec.ValidationError as error:
            problems.add((*at, n), "bad_type", f"{error}. {EXPECTED}")
            continue
        if mapped.source_type in ("literal", "vector"):
            message = f"The source_type {mapped.source_type!r} is not offered by this server."
            problems.add((*at, n, "source_type"), "not_offered", message)
            continue
        entries.append((mapped.input_key, mapped.path, (*at, n)))
    return entries


def _is_path(path: Any) -> bool:
    return isinstance(path, str) and 0 < len(path) <= 255 and "\0" not in path and "" not in path.split(".")


def _check_known(path: str, known: Collection[str] | None, problems: Problems, here: Location) -> None:
    if known is not None and path not in known and path.partition(".")[0] not in known:
        listed = ", ".join(sorted(known)[:20]) or "none"
        problems.add(here, "unknown_field", f"The source has no field {path!r}; it has {listed}.")


def _check_target(
    field: FieldPassthrough, extractor: type[Extractor], taken: Collection[str], problems: Problems, here: Location
) -> None:
    target, where = field.target, (*here, "target_path")
    if not TARGET.fullmatch(target):
        problems.add(where, "bad_field", "target_path is a name of letters, digits, `_` and `-`.")
    elif target in SYSTEM:
        problems.add(where, "reserved_field", f"{target!r} is a field of every document: choose a target_path.")
    elif target in extractor.produces:
        message = f"{extractor.extractor_name} sets the field {target!r} itself: choose another target_path."
        problems.add(where, "reserved_field", message)
    elif target in taken:
        problems.add(where, "duplicate_field", f"Two fields go to {target!r}: choose another target_path.")
