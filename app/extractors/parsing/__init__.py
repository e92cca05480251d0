"""Files as text: what a file is, by its content before its declared type, and the parser for it."""

import importlib

from app.extractors.base import Blob, Limits
from app.extractors.parsing.detection import kind_of
from app.extractors.parsing.parsed import Parsed


def parse(blob: Blob, limits: Limits) -> Parsed:
    """The text of a file with its pages, headings and code. Raises `ExtractionFailed`.

    Each kind of file has a module with `parse`, imported when the first such file comes: all together take 0.1 s.
    """
    module = importlib.import_module(f"{__name__}.{kind_of(blob)}")
    parsed: Parsed = module.parse(blob, limits)
    return parsed
