"""Rows of JSONL and Parquet files, one after the other, in memory that does not grow with the file."""

import io
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Limits

RowFormat = Literal["jsonl", "parquet"]
SUFFIXES: dict[str, RowFormat] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
PARQUET = b"PAR1"
BATCH_ROWS = 256


class BadRow(Exception):
    """A row that cannot be read; the others can."""


def rows(blob: Blob, declared: RowFormat | None, limits: Limits) -> Iterator[dict[str, Any] | BadRow]:
    """Raises `ExtractionFailed` where the file as a whole cannot be read."""
    suffix = PurePosixPath(blob.name or "").suffix.lower()
    kind = declared or ("parquet" if blob.content.startswith(PARQUET) else SUFFIXES.get(suffix, "jsonl"))
    return _parquet(blob.content, limits) if kind == "parquet" else _jsonl(blob.content)


def _jsonl(content: bytes) -> Iterator[dict[str, Any] | BadRow]:
    decoder = msgspec.json.Decoder()
    for line in io.BytesIO(content.removeprefix(b"\xef\xbb\xbf")):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield BadRow(f"The line is no JSON: {error}.")
            continue
        yield row if isinstance(row, dict) else BadRow("The line is no JSON object.")


def _parquet(content: bytes, limits: Limits) -> Iterator[dict[str, Any] | BadRow]:
    if find_spec("pyarrow") is None:
        raise ExtractionFailed(
            "Parquet files need pyarrow on the worker: pip install 'pgretrieve[parquet]'. JSONL files need nothing.",
            code="package_missing",
            retryable=True,
        )
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        _check_size(file.metadata, limits)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            for row in batch.to_pylist():
                try:
                    yield {name: _json(value) for name, value in row.items()}
                except (TypeError, ValueError, RecursionError) as error:
                    yield BadRow(f"{error}.")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ExtractionFailed(f"The Parquet file cannot be read: {error}"[:500], code="unreadable_file") from error


def _check_size(told: Any, limits: Limits) -> None:
    inflated = sum(told.row_group(n).total_byte_size for n in range(told.num_row_groups))
    if told.num_rows > limits.documents:
        message = f"The file has {told.num_rows:,} rows, more than {limits.documents:,}"
        raise ExtractionFailed(f"{message} (PGRETRIEVE_EXTRACT_MAX_DOCUMENTS).", code="too_many_extracted")
    if inflated > limits.inflated_bytes:
        message = f"The file unfolds to {inflated:,} bytes, more than {limits.inflated_bytes:,}"
        raise ExtractionFailed(f"{message} (PGRETRIEVE_EXTRACT_MAX_INFLATED_BYTES).", code="inflates_too_far")


def _json(value: Any) -> Any:
    """A column's value as JSON: dates as ISO 8601, NaN as null, exact decimals as numbers."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case list() | tuple():
            return [_json(inner) for inner in value]
        case dict():
            return {str(name): _json(inner) for name, inner in value.items()}
    raise TypeError(f"A value of the type {type(value).__name__} is no JSON")
