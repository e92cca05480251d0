"""What a file is: by its first bytes where those tell, else by its declared type or name, else by its text."""

import io
import re
import zipfile
from pathlib import PurePosixPath

from app.errors import ExtractionFailed
from app.extractors.base import Blob

# PDF's header may stand anywhere in the first 1,024 bytes; readers take such files.
PDF_WITHIN = 1_024
ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Files that are no text, by how they begin: they are refused by name rather than as bad text.
OTHERS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    OLE: "an Office file of before 2007, or an encrypted one",
}
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TYPES = {
    "application/pdf": "pdf",
    DOCX: "docx",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/plain": "plain",
}
SUFFIXES = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "plain",
}
# As the WHATWG's rules for sniffing, cut to what pages begin with; comments may stand before it.
HTML = re.compile(rb"\s*(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE | re.DOTALL)


def kind_of(blob: Blob) -> str:
    """`pdf`, `docx`, `html`, `markdown` or `plain`. Raises `ExtractionFailed` for what is none of them."""
    declared = _declared(blob)
    if blob.is_text:
        return declared if declared in ("html", "markdown") else "plain"
    start = blob.content[:4_096]
    if b"%PDF-" in start[:PDF_WITHIN]:
        return "pdf"
    if start.startswith(ZIP):
        return _office(blob.content)
    other = next((name for magic, name in OTHERS.items() if start.startswith(magic)), None)
    if other:
        raise ExtractionFailed(f"This is {other}; the input takes {SUPPORTED}.", code="unsupported_content")
    if declared in ("pdf", "docx"):
        raise ExtractionFailed(
            f"This is no {declared.upper()} file, though it is declared as one.", code="wrong_content"
        )
    return declared or ("html" if HTML.match(start.removeprefix(b"\xef\xbb\xbf")) else "plain")


SUPPORTED = "plain text, Markdown, HTML, PDF or DOCX"


def _declared(blob: Blob) -> str | None:
    kind = TYPES.get((blob.content_type or "").partition(";")[0].strip().lower())
    return kind or SUFFIXES.get(PurePosixPath(blob.name or "").suffix.lower())


def _office(content: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ExtractionFailed(f"The zip file cannot be read: {error}.", code="unreadable_file") from error
    if "[Content_Types].xml" in names and any(name.startswith("word/") for name in names):
        return "docx"
    raise ExtractionFailed(f"This is a zip file; the input takes {SUPPORTED}.", code="unsupported_content")
