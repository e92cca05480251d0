"""Objects as they are, and files of rows that bring their vectors."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.extractors.base import Check, Extracted, Extractor, InputSpec, Item, Limits, Rejected, Source
from app.extractors.rows import BadRow, RowFormat, rows

LARGEST = 3.4028234e38  # of float32, as which vectors are stored


class VectorField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vector that each row brings: `field` is its key in the row, `name` the vector index that takes it."""

    field: Annotated[str, Meta(min_length=1, max_length=255)]
    name: Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_]{0,63}$")]
    dimensions: Annotated[int, Meta(ge=1, le=65_536)]
    distance: Literal["cosine", "dot", "euclidean"] = "cosine"


class PassthroughExtractor(Extractor, frozen=True):
    """Make one document of an object's fields, or one of each row of a JSONL or Parquet file.

    With `vector_fields` or `row_format`, the object's file is read as rows: each becomes a document whose payload
    are the row's fields but for its vectors, which go to the indexes that `vector_fields` names; where
    `preserve_metadata` is set, the object's own fields are added, the row's winning. `id_field` names the field
    that tells rows apart, so that a row stays the same document when the file's order changes; without it that is
    the row's number. A row without one of its vectors, with one of a wrong length, or with an id that came before
    is rejected alone; the others are stored.

    Without either parameter, the document is of the object's own fields, or, where `preserve_metadata` is off, of
    those alone that the collection passes through.

    `row_format` follows from the file where it is not given. Parquet needs `pip install 'pgretrieve[parquet]'`. Its
    NaN become null, and its decimals numbers of double precision.
    """

    extractor_name: ClassVar[str] = "passthrough_extractor"
    category: ClassVar[str] = "utility"
    icon: ClassVar[str] = "arrow-right"
    inputs: ClassVar[dict[str, InputSpec]] = {
        "rows": InputSpec(description="A JSONL or Parquet file.", types=("text", "string", "excel"), required=False)
    }
    example: ClassVar[dict[str, Any]] = {
        "vector_fields": [{"field": "embedding", "name": "text", "dimensions": 384}],
        "id_field": "sku",
    }

    extractor_type: Literal["passthrough_extractor"] = "passthrough_extractor"
    preserve_metadata: bool = True
    vector_fields: list[VectorField] | None = None
    row_format: RowFormat | None = None
    id_field: str | None = None

    def check(self, check: Check) -> None:
        for what in ("name", "field"):
            given = [getattr(vector, what) for vector in self.vector_fields or ()]
            for n, value in enumerate(given):
                if value in given[:n]:
                    check.add("bad_parameter", f"Two vectors have the {what} {value!r}.", "vector_fields", n, what)
        if self.id_field is not None and not self._by_rows:
            check.add("bad_parameter", "id_field is for files of rows: give vector_fields or row_format.", "id_field")

    @property
    def _by_rows(self) -> bool:
        return bool(self.vector_fields or self.row_format)

    def extract(self, source: Source, limits: Limits) -> Iterator[Item]:
        fields = dict(source.fields) if self.preserve_metadata else {}
        if not self._by_rows:
            yield Extracted(key="0000", payload=fields)
            return
        seen: set[str] = set()
        for blob in source.inputs.get("rows", ()):
            for number, row in enumerate(rows(blob, self.row_format, limits)):
                yield self._document(row, f"{number:04d}", fields, seen)

    def _document(self, row: dict[str, Any] | BadRow, key: str, fields: dict[str, Any], seen: set[str]) -> Item:
        if isinstance(row, BadRow):
            return Rejected(key=key, code="bad_row", message=str(row))
        if self.id_field is not None:
            value = row.get(self.id_field)
            if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
                message = f"The row's id, {self.id_field!r}, is a text or a whole number."
                return Rejected(key=key, code="bad_key", message=message)
            key = str(value)
            if key in seen:
                return Rejected(key=key, code="duplicate_key", message="Another row of the file has this id.")
            seen.add(key)
        vectors, payload = {}, fields | row
        for wanted in self.vector_fields or ():
            vector = payload.pop(wanted.field, None) if wanted.field in row else None
            if problem := _problem(vector, wanted):
                return Rejected(key=key, code="bad_vector", message=problem)
            vectors[wanted.name] = [float(number) for number in vector or ()]
        return Extracted(key=key, payload=payload, vectors=vectors)


def _problem(vector: Any, wanted: VectorField) -> str | None:
    if not isinstance(vector, list):
        return f"The row has no vector in the field {wanted.field!r}."
    if len(vector) != wanted.dimensions:
        return f"The vector in the field {wanted.field!r} has {len(vector)} numbers, not {wanted.dimensions}."
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= LARGEST for x in vector)
    if not numbers or not all(map(math.isfinite, vector)):
        return f"The vector in the field {wanted.field!r} holds what is no finite float32."
    if wanted.distance == "cosine" and not any(vector):
        return f"The vector in the field {wanted.field!r} is zero, which has no cosine."
    return None
