"""The fixed statements, by name, from `sql/queries/*.sql`: `-- name --`, a line that says what it is for, the text."""

import importlib.resources
import re
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa

NAME = re.compile(r"^-- ([a-z_0-9]+) --$", re.MULTILINE)


@cache
def _texts() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in importlib.resources.files("sql").joinpath("queries").iterdir():
        if file.name.endswith(".sql"):
            parts = NAME.split(file.read_text(encoding="utf-8"))
            new = dict(zip(parts[1::2], (part.strip().removesuffix(";") for part in parts[2::2]), strict=True))
            assert not found.keys() & new.keys(), f"two statements are called {found.keys() & new.keys()}"
            found |= new
    return found


@cache
def statement(name: str) -> sa.TextClause:
    """The statement of that name, with `:binds`; KeyError when there is none."""
    return sa.text(_texts()[name])


def as_json(value: Any) -> str:
    """The text that a statement casts to jsonb."""
    return msgspec.json.encode(value).decode()
