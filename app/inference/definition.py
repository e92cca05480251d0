"""A service as it is written down: which provider makes it, of what model, with which settings."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from app.errors import Problems

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Definition:
    """What a provider builds a service from. Two that are equal make the same service."""

    name: str
    provider: str
    model: str
    dimension: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    @property
    def fingerprint(self) -> str:
        """Differs wherever vectors may differ, so that no cache answers for another service of the same name."""
        told = [self.provider, self.model, self.dimension, self.settings]
        return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:16]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a provider's services. Its docstring and fields are the published documentation."""


def read_options(model: type[T], given: Mapping[str, Any], at: tuple[str | int, ...], problems: Problems) -> T | None:
    """`given` as the provider's options; every setting that does not fit becomes a problem.

    No message repeats what was sent: it may be a secret in the wrong place.
    """
    fields = {info.name: info for info in msgspec.structs.fields(model)}
    before = len(problems.found)
    for name in given:
        if name not in fields:
            message = f"There is no setting {name[:60]!r}; the settings are {', '.join(fields)}."
            problems.add((*at, name), "bad_setting", message)
    for name, info in fields.items():
        if name not in given:
            if info.required:
                problems.add((*at, name), "bad_setting", f"The setting {name!r} is needed.")
            continue
        try:
            msgspec.convert(given[name], info.type)
        except msgspec.ValidationError:
            problems.add((*at, name), "bad_setting", f"The setting {name!r} is {_told(info.type)}.")
    return msgspec.convert(dict(given), model) if len(problems.found) == before else None


def _told(wanted: Any) -> str:
    match schema := msgspec.json.schema(wanted):
        case {"enum": values}:
            return f"one of {', '.join(values)}"
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f"a whole number from {low} to {high}"
        case {"type": "string", "maxLength": longest}:
            return f"a text of at most {longest} characters"
        case {"type": kind}:
            return {"boolean": "true or false", "string": "a text"}.get(kind, str(kind))
    return f"null or {' or '.join(str(part.get('type')) for part in schema.get('anyOf', []))}"
