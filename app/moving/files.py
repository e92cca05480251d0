"""The formats of files by their names: one reader and one writer each."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from app.errors import Unavailable
from app.moving import copying, jsonl
from app.moving.rows import Layout, Rows
from app.retrieval.catalog import VectorConfig

FORMATS = ("jsonl", "parquet", "arrow", "copy")
ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".copy": "copy",
    ".pgcopy": "copy",
}


class Writer(Protocol):
    """Takes chunks one by one."""

    def add(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


def format_of(path: Path) -> str | None:
    """The format that the ending of a name tells."""
    return ENDINGS.get(path.suffix.lower())


def read(
    form: str,
    file: BinaryIO,
    configs: Mapping[str, VectorConfig],
    layout: Layout,
    *,
    skip: int = 0,
    columns: Sequence[str] = (),
) -> Iterator[Rows]:
    """Chunks of the rows of a file after the first `skip`."""
    if form == "jsonl":
        layout.check(configs)
        return jsonl.read(jsonl.lines_of(file), configs, layout, skip)
    if form == "copy":
        return copying.read(file, configs, layout, skip, columns)
    reader = columnar().read_parquet if form == "parquet" else columnar().read_arrow
    found: Iterator[Rows] = reader(file, configs, layout, skip)
    return found


def write(form: str, file: BinaryIO, configs: Sequence[VectorConfig]) -> Writer:
    """What writes such a file."""
    if form == "jsonl":
        return jsonl.Writer(file)
    if form == "copy":
        return copying.Writer(file, configs)
    writer: Writer = columnar().Writer(file, configs, parquet=form == "parquet")
    return writer


def columnar() -> Any:
    """The module that needs pyarrow."""
    try:
        from app.moving import columnar as module
    except ImportError as error:
        message = f"Arrow and Parquet need pyarrow ({error}): pip install 'pgretrieve[parquet]'."
        raise Unavailable(message, code="not_installed") from None
    return module
