"""DOCX: paragraphs and tables in their order, headings by their styles, pages as Word last laid them out."""

import io
import re
import zipfile

import docx
from docx.document import Document
from docx.table import Table
from docx.text.paragraph import Paragraph

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Limits
from app.extractors.parsing.parsed import Parsed, Writer

MAX_PARTS = 10_000
HEADING = re.compile(r"Heading (\d)")
LAID_OUT, ASKED_FOR = "w:lastRenderedPageBreak", "w:br[@w:type='page']"


def parse(blob: Blob, limits: Limits) -> Parsed:
    _check_inflated(blob.content, limits)
    try:
        document = docx.Document(io.BytesIO(blob.content))
    except Exception as error:  # zipfile, lxml and python-docx raise whatever a broken part leads them to
        raise _unreadable(error) from error
    to = Writer(limits)
    try:
        _read(document, to)
    except ExtractionFailed:
        raise
    except Exception as error:  # the same, for parts that are looked at late
        raise _unreadable(error) from error
    return to.parsed()


def _unreadable(error: Exception) -> ExtractionFailed:
    return ExtractionFailed(f"The DOCX cannot be read: {type(error).__name__}: {error}"[:500], code="unreadable_file")


def _check_inflated(content: bytes, limits: Limits) -> None:
    """What the archive says of its parts is enough: zipfile reads no more of a part than that."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
    if any(part.flag_bits & 1 for part in parts):
        raise ExtractionFailed("The DOCX is encrypted.", code="encrypted_file")
    inflated = sum(part.file_size for part in parts)
    if len(parts) > MAX_PARTS or inflated > limits.inflated_bytes:
        raise ExtractionFailed(
            f"The DOCX unfolds to {len(parts):,} parts of {inflated:,} bytes, more than "
            f"{limits.inflated_bytes:,} (PGRETRIEVE_EXTRACT_MAX_INFLATED_BYTES).",
            code="inflates_too_far",
        )


def _read(document: Document, to: Writer) -> None:
    mark = LAID_OUT if document.element.body.xpath(f".//{LAID_OUT}") else ASKED_FOR
    paged = bool(document.element.body.xpath(f".//{mark}"))
    if paged:
        to.page()
    for block in document.iter_inner_content():
        breaks = len(block._element.xpath(f".//{mark}")) if paged else 0
        if mark == LAID_OUT:  # a paragraph that begins a page holds its mark; one that spans two counts to the later
            _turn(to, breaks)
        text = block.text if isinstance(block, Paragraph) else _table(block)
        if text.strip():
            start = to.length + (2 if to.length else 0)
            to.write(("\n\n" if to.length else "") + text)
            level = _level(block)
            if level:
                to.heading(start, level, text)
        if mark == ASKED_FOR:
            _turn(to, breaks)


def _turn(to: Writer, pages: int) -> None:
    for _ in range(pages):
        to.page()


def _level(block: Paragraph | Table) -> int | None:
    name = block.style.name if isinstance(block, Paragraph) and block.style else None
    if name == "Title":
        return 1
    found = HEADING.fullmatch(name or "")
    return int(found[1]) if found else None


def _table(table: Table) -> str:
    """A line for each row; a cell that spans several stands once."""
    rows = []
    for row in table.rows:
        cells = {id(cell._tc): " ".join(cell.text.split()) for cell in row.cells}
        rows.append("\t".join(cells.values()).rstrip())
    return "\n".join(rows)
