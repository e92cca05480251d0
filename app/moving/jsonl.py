"""JSON lines: a document a line, as the API takes and answers it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec
import numpy as np

from app.moving.rows import (
    ACL,
    CHUNK_BYTES,
    CHUNK_ROWS,
    COLLECTION_ID,
    DOCUMENT_ID,
    METADATA,
    PAYLOAD,
    VECTORS,
    Dense,
    Layout,
    Rows,
    Unreadable,
    as_payload,
)
from app.retrieval.catalog import VectorConfig

_Line = dict[str, msgspec.Raw]
_OWN = frozenset({DOCUMENT_ID, COLLECTION_ID, PAYLOAD, METADATA, ACL, VECTORS})
_decode = msgspec.json.Decoder(_Line).decode
LONGEST_LINE = 64_000_000


def read(
    lines: Iterable[bytes],
    configs: Mapping[str, VectorConfig],
    layout: Layout,
    skip: int,
    rows: int = CHUNK_ROWS,
    first: int = 1,
) -> Iterator[Rows]:
    """Chunks of the lines after the first `skip`; `first` is the number of the first one.

    Vectors of no config are told where the chunk is checked.
    """
    chunk, size, number = Rows(), 0, 0
    for number, line in enumerate(lines, start=first):
        if number <= skip or not line.strip():
            continue
        chunk.last = number
        _add(chunk, number, line, layout)
        size += len(line)
        if len(chunk.ids) + len(chunk.unreadable) >= rows or size >= CHUNK_BYTES:
            yield _dense(chunk, configs)
            chunk, size = Rows(), 0
    if number > max(skip, chunk.last):
        chunk.last = number
    if chunk.last:
        yield _dense(chunk, configs)


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; one that is too long comes in pieces, which are no JSON."""
    while line := file.readline(LONGEST_LINE):
        yield line


def _add(chunk: Rows, number: int, line: bytes, layout: Layout) -> None:
    try:
        found = _decode(line)
        vectors = _vectors(found, layout)
        taken = {layout.document_id or DOCUMENT_ID, *layout.vectors.values()}
        # A line of ours has a payload; in one of another maker what is not known is a field of it.
        fields = {name: value for name, value in found.items() if name not in taken and name not in _OWN}
        payload = as_payload(bytes(found[PAYLOAD]) if PAYLOAD in found else None, fields)
        identifier = msgspec.json.decode(found.get(layout.document_id or DOCUMENT_ID, b"null"))
        collection = msgspec.json.decode(found.get(COLLECTION_ID, b"null"))
        metadata = bytes(found.get(METADATA, b"{}"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        chunk.unreadable.append(Unreadable(number, f"It is no JSON object of a document: {error}."))
        return
    at = len(chunk.ids)
    chunk.numbers.append(number)
    chunk.ids.append(identifier)
    chunk.collections.append(collection)
    chunk.payloads.append(payload)
    chunk.metadata.append(metadata)
    chunk.acls.append(bytes(found[ACL]) if ACL in found else None)
    for name, vector in vectors.items():
        column = chunk.vectors.setdefault(name, [])
        assert isinstance(column, list)
        column.extend([None] * (at - len(column)))
        column.append(vector)


def _vectors(found: _Line, layout: Layout) -> dict[str, Any]:
    named = {name: found[column] for name, column in layout.vectors.items() if column in found}
    if VECTORS in found:
        named |= msgspec.json.decode(found[VECTORS], type=_Line)
    decoded = {name: msgspec.json.decode(raw) for name, raw in named.items()}
    return {name: vector for name, vector in decoded.items() if vector is not None}


def _dense(chunk: Rows, configs: Mapping[str, VectorConfig]) -> Rows:
    """Columns of whole length; those whose vectors are all numbers, and as many as there should be, as matrices."""
    for name, column in chunk.vectors.items():
        assert isinstance(column, list)
        column.extend([None] * (len(chunk.ids) - len(column)))
        if config := configs.get(name):
            chunk.vectors[name] = dense(column, config)
    return chunk


def dense(column: list[Any], config: VectorConfig) -> Dense | list[Any]:
    """A column of lists of numbers as a matrix, where the config's vectors are such, and all have its dimension."""
    return (_matrix(column, config.dimension) if config.kind == "dense" else None) or column


def _matrix(column: list[Any], dimension: int) -> Dense | None:
    present = np.array([vector is not None for vector in column])
    whole = [vector for vector in column if vector is not None]
    if not all(isinstance(vector, list) and len(vector) == dimension for vector in whole):
        return None
    try:
        numbers = np.array(whole)
    except (ValueError, OverflowError):
        return None
    if numbers.dtype.kind not in "if" or numbers.ndim != 2:
        return None
    matrix = np.zeros((len(column), dimension), np.float32)
    with np.errstate(over="ignore"):
        matrix[present] = numbers
    return Dense(matrix, present)


class Writer:
    """Writes chunks as lines, numbers as the shortest JSON that reads back to the same float32."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def add(self, rows: Rows) -> None:
        self.file.writelines(lines(rows))

    def close(self) -> None:
        """Nothing stands after the last line."""


def go_on(file: BinaryIO) -> tuple[int, str | None]:
    """Cut a file of ours, whose writing was interrupted, after its last whole line: how many there are, and its id."""
    count, end, last = 0, 0, b""
    for line in file:
        if not line.endswith(b"\n"):
            break
        count, end, last = count + 1, end + len(line), line
    file.seek(end)
    file.truncate()
    return count, msgspec.json.decode(last)[DOCUMENT_ID] if count else None


def lines(rows: Rows) -> Iterator[bytes]:
    """Each document as one line."""
    columns = {name: _texts(column) for name, column in rows.vectors.items()}
    encode, raw = msgspec.json.encode, msgspec.Raw
    for n, identifier in enumerate(rows.ids):
        vectors = {name: column[n] for name, column in columns.items() if column[n] is not None}
        document = {
            DOCUMENT_ID: identifier,
            COLLECTION_ID: rows.collections[n],
            VECTORS: vectors,
            PAYLOAD: raw(rows.payloads[n]),
            METADATA: raw(rows.metadata[n]),
        }
        if rows.acls and (acl := rows.acls[n]) is not None:
            document[ACL] = raw(acl)
        yield encode(document) + b"\n"


def _texts(column: Dense | list[Any]) -> list[Any]:
    if isinstance(column, Dense):
        return [row if there else None for row, there in zip(column.matrix.tolist(), column.present, strict=True)]
    return column
