"""Bytes as text: by the byte order mark, the declared charset, UTF-8, and at last by a guess from the text itself."""

import codecs
import re

import charset_normalizer

from app.errors import ExtractionFailed
from app.extractors.base import Blob

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
# Codecs that are no charset of files; some take time that is quadratic in the length.
REFUSED = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7", "mbcs", "oem"}
GUESSED_FROM = 65_536


def decoded(blob: Blob, *, html: bool = False) -> str:
    """The text of a blob, with `\\n` as its line ends. Raises `ExtractionFailed`."""
    text = blob.content.decode() if blob.is_text else _decoded(blob.content, blob.content_type or "", html)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(content: bytes, content_type: str, html: bool) -> str:
    if marked := next((name for mark, name in MARKS if content.startswith(mark)), None):
        return _strictly(content, marked)
    told = CHARSET.search(content_type)
    meta = META.search(content[:2_048]) if html else None
    declared = [told[1] if told else "", meta[1].decode("ascii", "replace") if meta else "", "utf-8"]
    for codec in filter(None, map(_codec, declared)):
        try:
            return content.decode(codec)
        except (UnicodeError, LookupError):
            continue
    if b"\0" in content:
        raise ExtractionFailed(
            "This is no text: it holds U+0000. UTF-16 needs a byte order mark, or a charset in its content type.",
            code="not_text",
        )
    guess = charset_normalizer.from_bytes(content[:GUESSED_FROM]).best()
    if guess is None:
        raise ExtractionFailed(
            "The text is neither UTF-8 nor in an encoding that can be told. Declare it: `text/plain; charset=…`.",
            code="unknown_encoding",
        )
    return _strictly(content, guess.encoding)


def _codec(name: str) -> str | None:
    """The codec of a declared charset; None where there is none, or none that files are in."""
    try:
        found = codecs.lookup(name).name
    except LookupError:
        return None
    return None if found in REFUSED else found


def _strictly(content: bytes, name: str) -> str:
    try:
        return content.decode(name)
    except UnicodeError as error:
        raise ExtractionFailed(f"The text seems to be {name}, but is broken.", code="unknown_encoding") from error
