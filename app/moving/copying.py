"""PostgreSQL's binary COPY: rows as the server takes and gives them, and files of them.

A file of ours names its columns in the header's extension area, which PostgreSQL passes over: so such a file can be
given to `COPY … FROM` as well, into a table of these columns.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from pgvector import SparseVector, Vector

from app.errors import ExtractionFailed
from app.moving.rows import (
    ACL,
    CHUNK_BYTES,
    CHUNK_ROWS,
    COLLECTION_ID,
    DOCUMENT_ID,
    METADATA,
    PAYLOAD,
    PREFIX,
    Dense,
    Layout,
    Rows,
)
from app.retrieval.catalog import VectorConfig

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
NULL = struct.pack(">i", -1)
JSONB = b"\1"  # the version that jsonb's binary form begins with
_int, _short = struct.Struct(">i"), struct.Struct(">h")
# pgvector's array type of this database is not known in a file: whoever reads it takes it for an array of vectors.
ANY_OID = 0
LARGEST_FIELD = 1_000_000_000


def dense_fields(column: Dense, dimension: int) -> list[bytes | None]:
    """Each vector as pgvector's binary form, with its length before it."""
    head = struct.pack(">iHH", 4 + 4 * dimension, dimension, 0)
    width, body = 4 * dimension, column.matrix.astype(">f4").tobytes()
    there = column.present.tolist()
    return [head + body[at * width : (at + 1) * width] if there[at] else None for at in range(len(there))]


def field(body: bytes) -> bytes:
    """A field with its length before it."""
    return _int.pack(len(body)) + body


def vector_field(vector: NDArray[np.float32]) -> bytes:
    return field(struct.pack(">HH", len(vector), 0) + vector.astype(">f4").tobytes())


def array_field(vectors: Sequence[NDArray[np.float32]], oid: int = ANY_OID) -> bytes:
    """An array of vectors, of the type that has this oid here."""
    head = struct.pack(">iiIii", 1, 0, oid, len(vectors), 1)
    return field(head + b"".join(map(vector_field, vectors)))


def tuples(columns: Sequence[Sequence[bytes | None]]) -> Iterator[bytes]:
    """Rows of columns of fields."""
    count = _short.pack(len(columns))
    for row in zip(*columns, strict=True):
        yield count + b"".join([NULL if body is None else body for body in row])


class Writer:
    """Writes chunks as a file of binary COPY."""

    def __init__(self, file: BinaryIO, configs: Sequence[VectorConfig]) -> None:
        self.file, self.configs = file, configs
        names = [DOCUMENT_ID, COLLECTION_ID, PAYLOAD, METADATA, ACL, *(PREFIX + config.name for config in configs)]
        about = msgspec.json.encode({"columns": names})
        file.write(SIGNATURE + struct.pack(">ii", 0, len(about)) + about)

    def add(self, rows: Rows) -> None:
        columns: list[list[bytes | None]] = [
            [field(identifier.encode("utf-8")) for identifier in rows.ids],
            [field(collection.encode("utf-8")) for collection in rows.collections],
            [field(JSONB + payload) for payload in rows.payloads],
            [field(JSONB + metadata) for metadata in rows.metadata],
            [None if acl is None else field(JSONB + acl) for acl in rows.acls or [None] * len(rows.ids)],
        ]
        columns += [_fields(rows.vectors[config.name], config) for config in self.configs]
        self.file.writelines(tuples(columns))

    def close(self) -> None:
        self.file.write(TRAILER)


def _fields(column: Dense | list[Any], config: VectorConfig) -> list[bytes | None]:
    if isinstance(column, Dense):
        return dense_fields(column, config.dimension)
    made: list[bytes | None] = []
    for value in column:
        if value is None:
            made.append(None)
        elif config.kind == "sparse":
            sparse = SparseVector(dict(zip(value["indices"], value["values"], strict=True)), config.dimension)
            made.append(field(sparse.to_binary()))
        else:
            made.append(array_field([np.asarray(row, np.float32) for row in value]))
    return made


def read(
    file: BinaryIO, configs: Mapping[str, VectorConfig], layout: Layout, skip: int, columns: Sequence[str] = ()
) -> Iterator[Rows]:
    """Chunks of the rows after the first `skip`. `columns` names them where the file does not."""
    names = _names(file) or list(columns)
    if not names:
        message = "The file does not name its columns: give --columns, in their order."
        raise ExtractionFailed(message, code="unnamed_columns")
    layout.check(configs, set(names))
    kinds = {name: configs[name] for name in configs if layout.column(configs[name], set(names))}
    places = {name: names.index(str(layout.column(config, set(names)))) for name, config in kinds.items()}
    where = {name: n for n, name in enumerate(names)}
    where[DOCUMENT_ID] = where[layout.document_id or DOCUMENT_ID]
    chunk: list[list[bytes | None]] = []
    number = size = 0
    for number, row in enumerate(_tuples(file, len(names)), start=1):
        if number <= skip:
            continue
        chunk.append(row)
        size += sum(len(body) for body in row if body is not None)
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield _rows(chunk, number, where, places, kinds)
            chunk, size = [], 0
    if chunk:
        yield _rows(chunk, number, where, places, kinds)


def _names(file: BinaryIO) -> list[str] | None:
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ExtractionFailed("This is no file of a binary COPY.", code="unreadable_file")
    _flags, length = struct.unpack(">ii", _exactly(file, 8))
    about = _exactly(file, length)
    return msgspec.json.decode(about)["columns"] if about else None


def _tuples(file: BinaryIO, count: int) -> Iterator[list[bytes | None]]:
    while True:
        (found,) = _short.unpack(_exactly(file, 2))
        if found == -1:
            return
        if found != count:
            message = f"A row of the file has {found} columns, not {count}."
            raise ExtractionFailed(message, code="unreadable_file")
        row: list[bytes | None] = []
        for _ in range(count):
            (length,) = _int.unpack(_exactly(file, 4))
            row.append(None if length == -1 else _exactly(file, length))
        yield row


def _exactly(file: BinaryIO, length: int) -> bytes:
    body = file.read(length) if 0 <= length <= LARGEST_FIELD else b""
    if len(body) != length:
        raise ExtractionFailed("The file of the binary COPY is cut off or broken.", code="unreadable_file")
    return body


def _rows(
    chunk: list[list[bytes | None]],
    last: int,
    where: Mapping[str, int],
    places: Mapping[str, int],
    kinds: Mapping[str, VectorConfig],
) -> Rows:
    def texts(name: str) -> Iterator[bytes | None]:
        return (row[where[name]] if name in where else None for row in chunk)

    vectors: dict[str, Dense | list[Any]] = {}
    for name, place in places.items():
        vectors[name] = column([row[place] for row in chunk], kinds[name])
    return Rows(
        last,
        list(range(last - len(chunk) + 1, last + 1)),
        [None if text is None else text.decode("utf-8", "replace") for text in texts(DOCUMENT_ID)],
        [None if text is None else text.decode("utf-8", "replace") for text in texts(COLLECTION_ID)],
        [(text or b"{}").removeprefix(JSONB) for text in texts(PAYLOAD)],
        [(text or b"{}").removeprefix(JSONB) for text in texts(METADATA)],
        vectors,
        acls=[None if text is None else text.removeprefix(JSONB) for text in texts(ACL)],
    )


def column(bodies: list[bytes | None], config: VectorConfig) -> Dense | list[Any]:
    """A column of pgvector's binary forms, for a vector config."""
    dense = _dense(bodies, config.dimension) if config.kind == "dense" else None
    return dense or [_value(body, config) for body in bodies]


def _dense(bodies: list[bytes | None], dimension: int) -> Dense | None:
    """The column as a matrix, where each is a vector, or a halfvec, of this dimension."""
    head = struct.pack(">HH", dimension, 0)
    for width, kind in ((4, ">f4"), (2, ">f2")):
        length = 4 + width * dimension
        if all(body is None or (len(body) == length and body.startswith(head)) for body in bodies):
            present = np.array([body is not None for body in bodies])
            matrix = np.zeros((len(bodies), dimension), np.float32)
            whole = b"".join(body[4:] for body in bodies if body is not None)
            matrix[present] = np.frombuffer(whole, kind).reshape(-1, dimension)
            return Dense(matrix, present)
    return None


def _value(body: bytes | None, config: VectorConfig) -> Any:
    """As the API takes it; what it is not is told where the chunk is checked."""
    if body is None:
        return None
    try:
        if config.kind == "sparse":
            sparse = SparseVector.from_binary(body)
            return {"indices": sparse.indices(), "values": sparse.values()}
        if config.kind == "multi":
            return [Vector.from_binary(vector).to_list() for vector in elements(body)]
        return Vector.from_binary(body).to_list()
    except (ValueError, struct.error):
        return "unreadable"


def elements(body: bytes) -> Iterable[bytes]:
    """Those of an array of one dimension."""
    (dimensions,) = _int.unpack_from(body)
    at = 12 + 8 * dimensions
    while at < len(body):
        (length,) = _int.unpack_from(body, at)
        yield body[at + 4 : at + 4 + length]
        at += 4 + max(length, 0)
