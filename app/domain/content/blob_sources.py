"""Where a blob of a new object comes from: a text, JSON, base64, a URL or an upload; read and checked. Pure."""

import base64
import binascii
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from app.domain.content.bucket_schemas import FILES, BucketSchema, Location, digest
from app.errors import Problems
from app.retrieval.inputs import check_value

LONGEST_URL = 2083
DATA_URI = re.compile(r"data:(?P<mime>[^;,]*)(?P<more>(?:;[^;,]*)*),", re.DOTALL)
CHECKSUM = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
MIME = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;.*)?")


@dataclass(frozen=True, slots=True)
class RawBlob:
    """One entry of `blobs` as it was sent."""

    property: str
    type: str
    data: Any = None
    url: str | None = None
    upload_id: str | None = None
    key_prefix: str | None = None
    checksum: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """What a blob is: bytes that were sent, bytes that are stored already (`sha256` alone), or a URL."""

    property: str
    type: str
    content: bytes | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    url: str | None = None
    mime_type: str | None = None
    filename: str | None = None
    key_prefix: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def content_hash(self) -> str:
        return self.sha256 or digest({"url": self.url})

    def hashed(self) -> list[Any]:
        """What of it makes the content of its object."""
        return [self.property, self.type, self.content_hash(), self.mime_type, self.filename, dict(self.metadata)]

    def row(self) -> dict[str, Any]:
        """The row of `object_blobs`, but for what only storing it can tell."""
        names = ("property", "type", "sha256", "size_bytes", "url", "mime_type", "filename", "key_prefix")
        own = {name: getattr(self, name) for name in names}
        return {**own, "content_hash": self.content_hash(), "metadata": dict(self.metadata)}


class Wrong(ValueError):
    """Why a blob's data cannot be read: a code and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def read_source(
    raw: RawBlob,
    uploaded: Mapping[str, Source],
    schema: BucketSchema,
    most: int,
    problems: Problems,
    here: Location,
) -> Source | None:
    """The source of a blob; None, and problems, where there is none. `uploaded` are what the uploads have brought."""
    before = len(problems.found)
    kind = raw.type.lower()
    declared = schema.properties.get(raw.property)
    if declared is None:
        message = f"The bucket's schema has no property {raw.property!r}; it has {', '.join(schema.properties)}."
        problems.add((*here, "property"), "unknown_property", message)
    elif declared["type"] != kind:
        message = f"The property {raw.property!r} is of type {declared['type']}, not {kind}."
        problems.add((*here, "type"), "schema_violation", message)
    given = [name for name in ("data", "url", "upload_id") if getattr(raw, name) is not None]
    if len(given) != 1:
        message = "Give one of `data`, `url` and `upload_id`" + (f", not {' and '.join(given)}." if given else ".")
        problems.add(here, "bad_blob", message)
    if len(problems.found) > before:
        return None
    assert declared is not None
    try:
        if raw.upload_id is not None:
            found = _uploaded(raw.upload_id, uploaded)
        else:
            found = _url(raw.url) if raw.url is not None else _data(raw.data, kind, declared)
        found = _whole(found, raw, kind)
        _check_content(found, raw.checksum, most)
    except Wrong as wrong:
        problems.add((*here, given[0]), wrong.code, wrong.message)
        return None
    return found


def _whole(found: Source, raw: RawBlob, kind: str) -> Source:
    sha256, size = found.sha256, found.size_bytes
    if found.content is not None:
        sha256, size = hashlib.sha256(found.content).hexdigest(), len(found.content)
    return Source(
        raw.property,
        kind,
        content=found.content,
        sha256=sha256,
        size_bytes=size,
        url=found.url,
        mime_type=found.mime_type or (mimetypes.guess_type(found.filename)[0] if found.filename else None),
        filename=found.filename,
        key_prefix=raw.key_prefix,
        metadata=raw.metadata,
    )


def _check_content(found: Source, checksum: str | None, most: int) -> None:
    if found.size_bytes is not None and found.size_bytes > most:
        raise Wrong("blob_too_large", f"A blob has at most {most} bytes (PGRETRIEVE_MAX_BLOB_BYTES).")
    if checksum is None:
        return
    asked = CHECKSUM.fullmatch(checksum)
    if asked is None:
        raise Wrong("bad_checksum", "A checksum is `sha256:` and 64 hexadecimal digits.")
    if found.sha256 is None:
        raise Wrong("bad_checksum", "A URL is fetched when it is processed, so it has no checksum here.")
    if asked[1].lower() != found.sha256:
        raise Wrong("bad_checksum", f"The bytes that came have the checksum sha256:{found.sha256}.")


def _uploaded(upload_id: str, uploaded: Mapping[str, Source]) -> Source:
    found = uploaded.get(upload_id)
    if found is None:
        message = f"No upload {upload_id!r} of this bucket that has its bytes; send them to its presigned_url first."
        raise Wrong("unknown_upload", message)
    return found


def _url(url: Any) -> Source:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise Wrong("bad_url", "A URL begins with http:// or https://; other schemes are not fetched.")
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or len(url) > LONGEST_URL or not url.isprintable() or " " in url:
        raise Wrong(
            "bad_url", f"A URL names a host, has at most {LONGEST_URL} characters, and none that is not printed."
        )
    return Source("", "", url=url)


def _data(data: Any, kind: str, declared: Mapping[str, Any]) -> Source:
    """`data` in one of its forms."""
    if kind not in FILES:
        return _json(data, declared)
    if isinstance(data, dict):
        return _structured(data, kind)
    if not isinstance(data, str):
        raise Wrong("bad_blob", f"`data` of a blob of type {kind} is a text or an object, not JSON of another type.")
    if re.match(r"(?:https?|s3|file|gs|ftp)://", data):
        return _url(data)
    if data.startswith("data:") and (uri := DATA_URI.match(data)):
        encoded = data[uri.end() :]
        is_base64 = "base64" in uri["more"].lower().split(";")
        content = _base64(encoded) if is_base64 else unquote_to_bytes(encoded)
        return Source("", "", content=content, mime_type=uri["mime"] or "text/plain")
    if kind == "text":
        return _text(data)
    return Source("", "", content=_base64(data))


def _structured(data: Mapping[str, Any], kind: str) -> Source:
    """`{"url"}`, `{"text"}`, or `{"base64", "mime_type", "filename"}`."""
    if data.keys() == {"url"}:
        return _url(data["url"])
    if data.keys() == {"text"} and isinstance(data["text"], str) and kind == "text":
        return _text(data["text"])
    if "base64" not in data or data.keys() - {"base64", "mime_type", "filename"}:
        raise Wrong("bad_blob", "`data` as an object is {url}, {text}, or {base64, mime_type, filename}.")
    mime_type, filename = data.get("mime_type"), data.get("filename")
    if mime_type is not None and not (isinstance(mime_type, str) and MIME.fullmatch(mime_type)):
        raise Wrong("bad_blob", "`mime_type` is like image/png.")
    if filename is not None and not (isinstance(filename, str) and 1 <= len(filename) <= 255):
        raise Wrong("bad_blob", "`filename` has 1 to 255 characters.")
    return Source("", "", content=_base64(data["base64"]), mime_type=mime_type, filename=filename)


def _text(text: str) -> Source:
    return Source("", "", content=text.encode(), mime_type="text/plain; charset=utf-8")


def _json(value: Any, declared: Mapping[str, Any]) -> Source:
    found = Problems()
    check_value("`data`", value, declared, found, ())
    if found:
        raise Wrong("schema_violation", found.found[0].message)
    return Source("", "", content=msgspec.json.encode(value), mime_type="application/json")


def _base64(text: Any) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError
        return base64.b64decode(re.sub(r"\s", "", text), validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("bad_base64", "This is no base64; a file's `data` is base64, a data URI, or a URL.") from None
