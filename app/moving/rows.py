"""What files hold and the database takes: documents in columns, a chunk of them at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequest, Problem
from app.retrieval.catalog import VectorConfig

# So many documents of a file are one chunk, and one transaction: fewer where they are large.
CHUNK_ROWS, CHUNK_BYTES = 5_000, 32_000_000
# What a file may call the parts of a document. Columns of other names are fields of its payload.
DOCUMENT_ID, COLLECTION_ID, PAYLOAD, METADATA, ACL, VECTORS = (
    "document_id",
    "collection_id",
    "payload",
    "metadata",
    "acl",
    "vectors",
)
# In columns, a vector is called by its config: no name of a config can be taken for another column's.
PREFIX = "vector:"


@dataclass(slots=True)
class Dense:
    """A column of dense vectors, a row each; those of rows without a vector mean nothing."""

    matrix: NDArray[np.float32]
    present: NDArray[np.bool_]


@dataclass(slots=True)
class Unreadable:
    """A row that is no document: its number in the file, and why."""

    number: int
    message: str


@dataclass(slots=True)
class Rows:
    """A chunk of a file. Vectors that are no `Dense` are as the API takes them, or None.

    `numbers` are the rows' in the file, from 1; `last` is that of the last row read, whatever it was. A source whose
    rows have no numbers of their own says in `place`, as it likes, where it goes on after them.
    """

    last: int = 0
    numbers: list[int] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    collections: list[Any] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    metadata: list[bytes] = field(default_factory=list)
    vectors: dict[str, Dense | list[Any]] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    place: str | None = None
    acls: list[bytes | None] = field(default_factory=list)  # empty where a file has no access lists


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a foreign file has ids, and the vectors of each config. All other columns are fields of the payload."""

    document_id: str | None = None
    vectors: Mapping[str, str] = field(default_factory=dict)

    def column(self, config: VectorConfig, columns: set[str]) -> str | None:
        """The column of a vector config; None where the file has none."""
        for name in (self.vectors.get(config.name), PREFIX + config.name, config.name):
            if name in columns and name not in (DOCUMENT_ID, COLLECTION_ID, PAYLOAD, METADATA, ACL):
                return name
        return None

    def check(self, configs: Mapping[str, VectorConfig], columns: set[str] | None = None) -> None:
        """Raise where a vector is no config of the namespace, or a column is not in the file."""
        known = ", ".join(map(repr, configs)) or "none"
        problems = [
            Problem(("vector", name), "unknown_vector", f"There is no vector index {name!r}; the indexes are {known}.")
            for name in self.vectors
            if name not in configs
        ]
        wanted = [] if columns is None else [self.document_id or DOCUMENT_ID, *self.vectors.values()]
        problems += [
            Problem(
                ("file",), "unknown_column", f"The file has no column {name!r}; it has {', '.join(sorted(columns))}."
            )
            for name in wanted
            if columns is not None and name not in columns
        ]
        if problems:
            raise InvalidRequest(problems)


def as_payload(given: Any, fields: Mapping[str, Any]) -> bytes:
    """The payload: a JSON object (as text, or taken apart), and the fields that stand beside it, which win."""
    if given is None or given == "":
        return msgspec.json.encode(fields)
    if not isinstance(given, str | bytes):
        return msgspec.json.encode({**given, **fields} if fields else given)
    text = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    if not fields:
        return text
    return msgspec.json.encode({**msgspec.json.decode(text, type=dict[str, msgspec.Raw]), **fields})
