"""Runs an extractor, and holds what goes in and what comes out to the limits."""

from collections.abc import Iterator
from typing import Any

import msgspec

from app.errors import ExtractionFailed
from app.extractors.base import Extracted, Extractor, Item, Limits, Rejected, Source, Text

MAX_KEY = 255


def run(extractor: Extractor, source: Source, limits: Limits) -> Iterator[Item]:
    """The documents of one object; blocks for as long as the work takes. Raises `ExtractionFailed`."""
    _check_source(extractor, source, limits)
    count = 0
    try:
        for item in extractor.extract(source, limits):
            count += 1
            if count > limits.documents:
                raise ExtractionFailed(
                    f"The object makes more than {limits.documents:,} documents (PGRETRIEVE_EXTRACT_MAX_DOCUMENTS).",
                    code="too_many_extracted",
                )
            yield _checked(item, limits) if isinstance(item, Extracted) else item
    except (MemoryError, RecursionError) as error:
        message = "The content takes more memory than an extractor may use (PGRETRIEVE_EXTRACT_MEMORY_MB)."
        raise ExtractionFailed(message, code="extraction_exhausted") from error


def _check_source(extractor: Extractor, source: Source, limits: Limits) -> None:
    for name, spec in extractor.inputs.items():
        blobs = source.inputs.get(name, ())
        if spec.required and not blobs:
            raise ExtractionFailed(f"The object has nothing for the input {name!r}.", code="input_missing")
        if len(blobs) > spec.most:
            message = f"The input {name!r} takes {spec.most}, not {len(blobs)}."
            raise ExtractionFailed(message, code="too_many_inputs")
        for blob in blobs:
            if len(blob.content) > limits.bytes:
                raise ExtractionFailed(
                    f"The input {name!r} is larger than {limits.bytes:,} bytes (PGRETRIEVE_EXTRACT_MAX_BYTES).",
                    code="blob_too_large",
                )


def _checked(item: Extracted, limits: Limits) -> Item:
    """The document, or why the database could not hold it."""
    key = item.key
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        shown = key[:60].encode("unicode_escape").decode()
        message = f"An id is 1 to {MAX_KEY} printable characters."
        return Rejected(key=shown or '""', code="bad_key", message=message)
    texts = [text.text for text in item.inputs.values() if isinstance(text, Text)]
    try:
        size = len(msgspec.json.encode(item.payload))
        msgspec.json.encode(texts)
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError) as error:
        return Rejected(key=key, code="bad_value", message=f"The document is no JSON: {error}.")
    if size > limits.document_bytes:
        message = (
            f"The document has {size:,} bytes, more than {limits.document_bytes:,} (PGRETRIEVE_MAX_DOCUMENT_BYTES)."
        )
        return Rejected(key=key, code="document_too_large", message=message)
    if _has_nul(item.payload) or any("\0" in text for text in texts):
        return Rejected(key=key, code="nul_character", message="PostgreSQL cannot hold U+0000 in a text.")
    return item


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in name or _has_nul(inner) for name, inner in value.items())
    return isinstance(value, list | tuple) and any(map(_has_nul, value))
