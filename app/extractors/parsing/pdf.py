"""PDF, by PDFium, which browsers show PDFs with: page for page."""

import re
from threading import Lock

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Limits
from app.extractors.parsing.parsed import Parsed, Writer

LOCK = Lock()  # PDFium keeps state of the whole process: never two calls at a time
# PDFium's own mark for a hyphen at the end of a line, with that end.
HYPHEN = re.compile("[\ufffe\x02]\n?")
NO_TEXT = "The PDF has no text: its pages may be scanned images, and texts in images are not read."


def parse(blob: Blob, limits: Limits) -> Parsed:
    with LOCK:
        try:
            document = pdfium.PdfDocument(blob.content)
        except pdfium.PdfiumError as error:
            raise _refused(error) from error
        try:
            return _read(document, limits)
        except pdfium.PdfiumError as error:
            raise _refused(error) from error
        finally:
            document.close()


def _read(document: pdfium.PdfDocument, limits: Limits) -> Parsed:
    count = len(document)
    if count > limits.pages:
        message = f"The PDF has {count:,} pages, more than {limits.pages:,} (PGRETRIEVE_EXTRACT_MAX_PAGES)."
        raise ExtractionFailed(message, code="too_many_pages")
    to = Writer(limits)
    for number in range(count):
        if number:
            to.write("\n\n")
        to.page()
        to.write(_page(document, number))
    parsed = to.parsed()
    if not parsed.text.strip():
        raise ExtractionFailed(NO_TEXT, code="no_text")
    return parsed


def _page(document: pdfium.PdfDocument, number: int) -> str:
    page = document[number]
    try:
        text = page.get_textpage()
        try:
            found: str = text.get_text_bounded()
        finally:
            text.close()
    finally:
        page.close()
    return HYPHEN.sub("", found.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")


def _refused(error: pdfium.PdfiumError) -> ExtractionFailed:
    if error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
        return ExtractionFailed("The PDF is encrypted: store one without a password.", code="encrypted_file")
    return ExtractionFailed(f"The PDF cannot be read: {error}", code="unreadable_file")
