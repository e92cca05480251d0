"""Arrow streams and Parquet files: a column for each part of a document and for each vector.

Imported where such a file is read or written: pyarrow is an extra.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

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
    as_payload,
)
from app.retrieval.catalog import VectorConfig

ABOUT = b"pgretrieve"  # in the schema's metadata: the vector configs


def schema_of(configs: Sequence[VectorConfig]) -> Any:
    """Payload and metadata are JSON as text, so that numbers keep their digits; vectors are what Arrow has for them."""
    fields = [pa.field(name, pa.string(), False) for name in (DOCUMENT_ID, COLLECTION_ID, PAYLOAD, METADATA)]
    fields.append(pa.field(ACL, pa.string()))
    fields += [pa.field(PREFIX + config.name, _type(config)) for config in configs]
    about = [{n: getattr(config, n) for n in ("name", "dimension", "metric", "kind")} for config in configs]
    return pa.schema(fields, metadata={ABOUT: msgspec.json.encode(about)})


def _type(config: VectorConfig) -> Any:
    vector = pa.list_(pa.float32(), config.dimension)
    sparse = pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
    return {"dense": vector, "sparse": sparse, "multi": pa.list_(vector)}[config.kind]


class Writer:
    """Writes chunks as an Arrow stream, or as row groups of a Parquet file."""

    def __init__(self, file: BinaryIO, configs: Sequence[VectorConfig], *, parquet: bool) -> None:
        self.configs, self.schema = configs, schema_of(configs)
        self.writer = (
            pq.ParquetWriter(file, self.schema, compression="zstd") if parquet else pa.ipc.new_stream(file, self.schema)
        )

    def add(self, rows: Rows) -> None:
        columns = [pa.array(rows.ids, pa.string()), pa.array(rows.collections, pa.string())]
        columns += [
            pa.array([text.decode() for text in texts], pa.string()) for texts in (rows.payloads, rows.metadata)
        ]
        acls = rows.acls or [None] * len(rows.ids)
        columns.append(pa.array([None if text is None else text.decode() for text in acls], pa.string()))
        columns += [_column(rows.vectors[config.name], config) for config in self.configs]
        self.writer.write_batch(pa.record_batch(columns, schema=self.schema))

    def close(self) -> None:
        self.writer.close()


def _column(column: Dense | list[Any], config: VectorConfig) -> Any:
    if not isinstance(column, Dense):
        return pa.array(column, _type(config))
    flat = pa.array(column.matrix.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, config.dimension, mask=pa.array(~column.present))


def read_arrow(file: BinaryIO, configs: Mapping[str, VectorConfig], layout: Layout, skip: int) -> Iterator[Rows]:
    """Chunks of a stream, or of a file of the IPC format."""
    try:
        opened: Any = pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        file.seek(0)
        try:
            whole = pa.ipc.open_file(file)
        except pa.ArrowInvalid as error:
            raise ExtractionFailed(f"This is no Arrow file: {error}", code="unreadable_file") from None
        opened = (whole.get_batch(n) for n in range(whole.num_record_batches))
    yield from _chunks(opened, configs, layout, skip)


def read_parquet(
    file: BinaryIO, configs: Mapping[str, VectorConfig], layout: Layout, skip: int, rows: int = CHUNK_ROWS
) -> Iterator[Rows]:
    """Chunks of a Parquet file, of so many rows at most; fewer where those of a row group are large on average."""
    opened = _parquet(file)
    groups = [opened.metadata.row_group(n) for n in range(opened.num_row_groups)]
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    try:
        batches = opened.iter_batches(batch_size=max(1, min(rows, CHUNK_BYTES // max(largest, 1))))
        yield from _chunks(batches, configs, layout, skip, rows)
    except (pa.ArrowException, OSError) as error:
        raise ExtractionFailed(f"The Parquet file is broken: {_first(error)}", code="unreadable_file") from None


def rows_in_parquet(file: BinaryIO) -> int:
    """How many rows a Parquet file says that it has."""
    return int(_parquet(file).metadata.num_rows)


def _parquet(file: BinaryIO) -> Any:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ExtractionFailed(f"This is no Parquet file: {_first(error)}", code="unreadable_file") from None


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def _chunks(
    batches: Any, configs: Mapping[str, VectorConfig], layout: Layout, skip: int, rows: int = CHUNK_ROWS
) -> Iterator[Rows]:
    done = 0
    for batch in batches:
        if not done:
            layout.check(configs, set(batch.schema.names))
        begin, done = done, done + batch.num_rows
        if done <= skip:
            continue
        rest = batch.slice(max(skip - begin, 0))
        at = done - rest.num_rows
        each = max(1, min(rows, CHUNK_BYTES * rest.num_rows // max(rest.nbytes, 1)))
        for first in range(0, rest.num_rows, each):
            yield _rows(rest.slice(first, each), at + first, configs, layout)


def _rows(batch: Any, before: int, configs: Mapping[str, VectorConfig], layout: Layout) -> Rows:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    named = {name: layout.column(config, set(columns)) for name, config in configs.items()}
    vectors = {name: _vectors(columns[column], configs[name]) for name, column in named.items() if column}
    identifier = layout.document_id or DOCUMENT_ID
    own = {identifier, DOCUMENT_ID, COLLECTION_ID, PAYLOAD, METADATA, ACL, *named.values()}
    # A dense column that no index takes is no field of a payload: a vector as JSON is of use to nobody.
    others = {name: column.to_pylist() for name, column in columns.items() if name not in own}
    count = batch.num_rows
    nothing: list[Any] = [None] * count
    payloads = columns[PAYLOAD].to_pylist() if PAYLOAD in columns else nothing
    metadata = columns[METADATA].to_pylist() if METADATA in columns else nothing
    acls = columns[ACL].to_pylist() if ACL in columns else nothing
    return Rows(
        before + count,
        list(range(before + 1, before + count + 1)),
        columns[identifier].to_pylist(),
        columns[COLLECTION_ID].to_pylist() if COLLECTION_ID in columns else nothing,
        [_payload(given, {name: column[n] for name, column in others.items()}) for n, given in enumerate(payloads)],
        [_payload(given, {}) for given in metadata],
        vectors,
        acls=[None if given is None else as_payload(given, {}) for given in acls],
    )


def _payload(given: Any, fields: Mapping[str, Any]) -> bytes:
    """The payload; what is no JSON object is told where the chunk is checked."""
    try:
        return as_payload(given, fields)
    except (msgspec.DecodeError, TypeError, ValueError):
        return b"no object"


def _vectors(column: Any, config: VectorConfig) -> Dense | list[Any]:
    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if config.kind != "dense" or not is_list or not pa.types.is_floating(kind.value_type):
        found: list[Any] = column.to_pylist()
        return found
    present = np.asarray(pc.is_valid(column))
    flat = pc.list_flatten(column)
    lengths = pc.list_value_length(column.filter(pa.array(present))).unique().to_pylist()
    if lengths not in ([], [config.dimension]) or flat.null_count:
        return list(column.to_pylist())
    matrix = np.zeros((len(column), config.dimension), np.float32)
    with np.errstate(over="ignore"):
        matrix[present] = flat.to_numpy(zero_copy_only=False).reshape(-1, config.dimension)
    return Dense(matrix, present)
