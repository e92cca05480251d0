"""Plain text; form feeds are the ends of pages, as in RFCs and what printers were sent."""

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Limits
from app.extractors.parsing.encoding import decoded
from app.extractors.parsing.parsed import Parsed, check_length


def parse(blob: Blob, limits: Limits) -> Parsed:
    text = read(blob, limits)
    if "\f" not in text:
        return Parsed(text)
    starts = [0] + [place + 1 for place, char in enumerate(text) if char == "\f"]
    return Parsed(text, tuple(start for start in starts if start < len(text)) or (0,))


def read(blob: Blob, limits: Limits) -> str:
    text = decoded(blob)
    check_length(len(text), limits)
    if "\0" in text:
        raise ExtractionFailed("This is no text: it holds U+0000.", code="not_text")
    return text
