"""The registry of extractors: every module of this package that defines one. Adding an extractor is adding a file."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import msgspec

from app.errors import Problems
from app.extractors.base import Check, Extractor, Location


def _registry() -> dict[str, type[Extractor]]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {kind.extractor_id(): kind for kind in sorted(Extractor.__subclasses__(), key=lambda k: k.extractor_name)}


REGISTRY: dict[str, type[Extractor]] = _registry()


def read(
    name: Any, version: Any, parameters: Any, problems: Problems, at: Location = ("body", "feature_extractor")
) -> Extractor | None:
    """The extractor that a collection names, with its parameters; every problem is added, and then it is None."""
    kind = REGISTRY.get(f"{name}_{version}")
    if kind is None:
        known = ", ".join(f"{each.extractor_name} {each.version}" for each in REGISTRY.values())
        problems.add((*at, "feature_extractor_name"), "unknown_extractor", f"The extractors are {known}.")
        return None
    at = (*at, "parameters")
    if not isinstance(parameters if parameters is not None else {}, Mapping):
        problems.add(at, "bad_parameter", "`parameters` is an object.")
        return None
    before = len(problems.found)
    given = _offered(kind, dict(parameters or {}), problems, at)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for field, value in given.items():
        _check_one(kind, fields.get(field), field, value, Check(problems, (*at, field)))
    if len(problems.found) > before:
        return None
    extractor = msgspec.convert(given, kind)
    extractor.check(Check(problems, at))
    return extractor if len(problems.found) == before else None


def _offered(kind: type[Extractor], given: dict[str, Any], problems: Problems, at: Location) -> dict[str, Any]:
    for name, harmless in kind.not_offered.items():
        if given.pop(name, None) not in (None, harmless):
            message = f"The parameter {name!r} of {kind.extractor_name} is not offered by this server."
            problems.add((*at, name), "not_offered", message)
    return given


def _check_one(
    kind: type[Extractor], field: msgspec.structs.FieldInfo | None, name: str, value: Any, check: Check
) -> None:
    if field is None:
        known = ", ".join(each.encode_name for each in msgspec.structs.fields(kind))
        check.add("bad_parameter", f"{kind.extractor_name} has no parameter {name[:60]!r}; it has {known}.")
        return
    try:
        msgspec.convert(value, field.type)
    except msgspec.ValidationError as error:
        check.add("bad_parameter", f"{name}: {error}.")
