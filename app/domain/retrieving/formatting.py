"""Statements as people read them: indented, with the names of their parameters, long values shortened."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlparse
from pgvector import SparseVector
from sqlparse.exceptions import SQLParseError

PARAMETER = re.compile(r"%\((\w+)\)s")
QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
MOST_CHARS = 300
SHOWN_NUMBERS = 3


def formatted(text: str) -> str:
    """The statement indented; as it is where the formatter would change more than blanks."""
    try:
        found = str(sqlparse.format(text, reindent_aligned=True)).strip()
    except (SQLParseError, RecursionError):
        return text
    same = _bare(found) == _bare(text) and QUOTED.findall(found) == QUOTED.findall(text)
    return found if same else text


def _bare(text: str) -> str:
    return "".join(text.split())


def readable(text: str) -> str:
    """A statement of ours indented, its parameters as `:name`."""
    return PARAMETER.sub(r":\1", formatted(text)).replace("%%", "%")


def type_of(text: str, parameter: str) -> str:
    """The type that a statement casts its parameter to."""
    found = re.search(rf"CAST\(%\({parameter}\)s AS ([A-Z ]+(?:\(\d+\))?(?:\[\])?)\)", text)
    return found[1].lower() if found else "text"


def shortened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of parameters for reading: of a vector its first numbers, of a long text its beginning."""
    return {name: _short(value) for name, value in values.items()}


def _short(value: Any) -> Any:
    if isinstance(value, SparseVector):
        return f"sparse vector of {value.dimensions()} dimensions, {len(value.indices())} of them set"
    if isinstance(value, np.ndarray):
        numbers = ", ".join(f"{number:.4g}" for number in value.ravel()[:SHOWN_NUMBERS])
        return f"[{numbers}{', …' if value.size > SHOWN_NUMBERS else ''}] of {value.size} numbers"
    if isinstance(value, list) and len(value) > SHOWN_NUMBERS and not isinstance(value[0], str):
        return [*map(_short, value[:SHOWN_NUMBERS]), f"… of {len(value)}"]
    text = value if isinstance(value, str) else str(value)
    if len(text) > MOST_CHARS:
        return f"{text[:MOST_CHARS]}… of {len(text):,} characters"
    return value if isinstance(value, str | int | float | list | None) else text
