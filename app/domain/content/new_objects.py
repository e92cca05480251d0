"""An object that was sent, read and checked against its bucket's schema: every problem at once. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.content.blob_sources import RawBlob, Source, read_source
from app.domain.content.bucket_schemas import RESERVED, BucketSchema, Location, check_fields, digest, unique_key
from app.domain.documents.documents import holds_nul
from app.errors import Problems
from app.settings import Settings

_encode = msgspec.json.Encoder().encode
NUL = "PostgreSQL cannot store U+0000 in text; remove it."


@dataclass(frozen=True, slots=True)
class RawObject:
    """An object as it was sent: its fields as JSON texts, so that numbers keep their digits."""

    fields: Mapping[str, msgspec.Raw]
    blobs: Sequence[RawBlob] = ()
    key_prefix: str | None = None
    idempotency_key: str | None = None
    skip_duplicates: bool = False


@dataclass(frozen=True, slots=True)
class NewObject:
    """One that keeps to the schema, ready to be stored; `fields` is JSON text."""

    fields: str
    sources: tuple[Source, ...]
    content_hash: str
    unique_key: str | None
    key_prefix: str | None = None
    idempotency_key: str | None = None
    skip_duplicates: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(source.size_bytes or 0 for source in self.sources)


def check(
    raw: RawObject,
    uploaded: Mapping[str, Source],
    schema: BucketSchema,
    settings: Settings,
    problems: Problems,
    here: Location = ("body",),
) -> NewObject | None:
    """The object; None, and problems, where something is wrong with it."""
    before = len(problems.found)
    _check_sizes(raw, settings, problems, here)
    if len(problems.found) > before:
        return None
    texts = _promoted(raw)
    fields = {name: msgspec.json.decode(text) for name, text in texts.items()}
    _check_nul(raw, fields, problems, here)
    blobs = frozenset(blob.property for blob in raw.blobs)
    whole = check_fields(schema, fields, problems, here, blobs)
    key = unique_key(schema, whole, problems, here)
    found = [
        read_source(blob, uploaded, schema, settings.max_blob_bytes, problems, (*here, "blobs", n))
        for n, blob in enumerate(raw.blobs)
    ]
    if len(problems.found) > before:
        return None
    sources = tuple(source for source in found if source is not None)
    return NewObject(
        as_text(whole, fields, texts),
        sources,
        hash_of(whole, [source.hashed() for source in sources]),
        key,
        raw.key_prefix,
        raw.idempotency_key,
        raw.skip_duplicates,
    )


def _promoted(raw: RawObject) -> dict[str, msgspec.Raw]:
    """The fields, with those of the blobs' metadata that nothing else has: so the public API passes them on."""
    texts: dict[str, msgspec.Raw] = {}
    for blob in raw.blobs:
        for name, value in blob.metadata.items():
            if name not in RESERVED and name != "metadata":
                texts.setdefault(name, msgspec.Raw(_encode(value)))
    return {**texts, **raw.fields}


def hash_of(fields: Mapping[str, Any], blobs: Sequence[Any]) -> str:
    """What an object is: its fields, and what of each blob makes its content."""
    return digest({"fields": dict(fields), "blobs": list(blobs)})


def as_text(whole: Mapping[str, Any], sent: Mapping[str, Any], raw: Mapping[str, msgspec.Raw]) -> str:
    """The fields as JSON: what was sent in its own words, and the defaults."""
    kept = {name: raw[name] if name in sent and sent[name] == value else value for name, value in whole.items()}
    return _encode(kept).decode()


def _check_sizes(raw: RawObject, settings: Settings, problems: Problems, here: Location) -> None:
    if sum(len(bytes(text)) + len(name) for name, text in raw.fields.items()) > settings.max_object_bytes:
        message = (
            f"The fields of an object have at most {settings.max_object_bytes} bytes (PGRETRIEVE_MAX_OBJECT_BYTES)."
        )
        problems.add(here, "object_too_large", message)
    if len(raw.blobs) > settings.max_object_blobs:
        message = f"An object has at most {settings.max_object_blobs} blobs (PGRETRIEVE_MAX_OBJECT_BLOBS)."
        problems.add((*here, "blobs"), "too_many_blobs", message)
    if raw.idempotency_key is not None and not 1 <= len(raw.idempotency_key) <= 255:
        problems.add((*here, "idempotency_key"), "out_of_range", "An idempotency_key has 1 to 255 characters.")


def _check_nul(raw: RawObject, fields: Mapping[str, Any], problems: Problems, here: Location) -> None:
    check_nul({**fields, "key_prefix": raw.key_prefix, "idempotency_key": raw.idempotency_key}, problems, here)
    for n, blob in enumerate(raw.blobs):
        for name in ("key_prefix", "metadata"):
            if holds_nul(getattr(blob, name)):
                problems.add((*here, "blobs", n, name), "nul_character", NUL)
        if isinstance(blob.data, dict) and holds_nul(blob.data.get("filename")):
            problems.add((*here, "blobs", n, "data"), "nul_character", NUL)


def check_nul(fields: Mapping[str, Any], problems: Problems, here: Location) -> None:
    for name, value in fields.items():
        if "\0" in name or holds_nul(value):
            problems.add((*here, name), "nul_character", NUL)
