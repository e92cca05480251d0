"""Objects as they are, and rows of JSONL and Parquet files."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import ExtractionFailed
from app.extractors import rows
from app.extractors.base import Blob, Extracted, Rejected
from tests.extractors.extracting import documents, extractor, items, problems_of

VECTOR = {"field": "e", "name": "v", "dimensions": 2}


def parquet(columns: dict[str, Any], **more: Any) -> Blob:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written, **more)
    return Blob(content=written.getvalue())


def test_an_object_is_one_document() -> None:
    fields = {"title": "Amp", "price": 10, "tags": ["a"], "big": 12345678901234567890123}
    assert documents(extractor("passthrough_extractor"), None, fields) == [Extracted(key="0000", payload=fields)]
    bare = extractor("passthrough_extractor", preserve_metadata=False)
    assert documents(bare, None, fields) == [Extracted(key="0000", payload={})]


def test_rows_with_vectors_and_ids() -> None:
    lines = [
        '{"sku": "a", "e": [1, 2.5], "title": "Amp"}',
        "",
        '{"sku": 7, "e": [3, 4], "brand": "own"}',
    ]
    made = extractor("passthrough_extractor", vector_fields=[VECTOR], id_field="sku")
    assert documents(made, Blob.of("\n".join(lines)), {"brand": "all"}) == [
        Extracted(key="a", payload={"brand": "all", "sku": "a", "title": "Amp"}, vectors={"v": [1.0, 2.5]}),
        Extracted(key="7", payload={"brand": "own", "sku": 7}, vectors={"v": [3.0, 4.0]}),
    ]


def test_rows_without_vectors_are_numbered() -> None:
    made = extractor("passthrough_extractor", row_format="jsonl", preserve_metadata=False)
    found = documents(made, Blob(content=b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}\n'), {"brand": "all"})
    assert found == [Extracted(key="0000", payload={"n": 1}), Extracted(key="0001", payload={"n": 2})]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"no json", "bad_row"),
        (b"[1]", "bad_row"),
        (b'{"id": "a", "e": [1, 2]', "bad_row"),
        (b"[" * 100_000, "bad_row"),
        (b'{"id": "\xff", "e": [1, 2]}', "bad_row"),
        (b'{"id": "a"}', "bad_vector"),
        (b'{"id": "a", "e": null}', "bad_vector"),
        (b'{"id": "a", "e": [1]}', "bad_vector"),
        (b'{"id": "a", "e": [1, "2"]}', "bad_vector"),
        (b'{"id": "a", "e": [1, true]}', "bad_vector"),
        (b'{"id": "a", "e": [1, 1e39]}', "bad_vector"),
        (b'{"id": "a", "e": [0, 0]}', "bad_vector"),
        (b'{"e": [1, 2]}', "bad_key"),
        (b'{"id": "", "e": [1, 2]}', "bad_key"),
        (b'{"id": 1.5, "e": [1, 2]}', "bad_key"),
        (b'{"id": "a\\nb", "e": [1, 2]}', "bad_key"),
        (b'{"id": "' + b"x" * 256 + b'", "e": [1, 2]}', "bad_key"),
        (b'{"id": "first", "e": [1, 2]}', "duplicate_key"),
        (b'{"id": "a", "e": [1, 2], "t": ["\\u0000"]}', "nul_character"),
        (b'{"id": "a", "e": [1, 2], "\\u0000": 1}', "nul_character"),
    ],
)
def test_a_bad_row_fails_alone(line: bytes, code: str) -> None:
    content = b'{"id": "first", "e": [1, 2]}\n' + line + b'\n{"id": "last", "e": [1, 2]}'
    first, bad, last = items(
        extractor("passthrough_extractor", vector_fields=[VECTOR], id_field="id"), Blob(content=content)
    )
    assert isinstance(bad, Rejected)
    assert bad.code == code
    assert bad.message
    assert [item.key for item in (first, last)] == ["first", "last"]


def test_parquet_of_every_type() -> None:
    blob = parquet(
        {
            "sku": ["a", "b"],
            "e": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
            "n": [1, None],
            "x": [float("nan"), 0.5],
            "price": [Decimal("12.50"), Decimal("3.00")],
            "day": [date(2024, 5, 17)] * 2,
            "at": [datetime(2024, 5, 17, 8, 30, tzinfo=UTC)] * 2,
            "tags": [["x", "y"], []],
            "size": [{"w": 1, "h": 2}] * 2,
        }
    )
    made = extractor("passthrough_extractor", vector_fields=[VECTOR], id_field="sku")
    same = {"day": "2024-05-17", "at": "2024-05-17T08:30:00+00:00", "size": {"w": 1, "h": 2}}
    assert documents(made, blob) == [
        Extracted(
            key="a",
            payload={"sku": "a", "n": 1, "x": None, "price": 12.5, "tags": ["x", "y"], **same},
            vectors={"v": [1.0, 2.0]},
        ),
        Extracted(
            key="b",
            payload={"sku": "b", "n": None, "x": 0.5, "price": 3, "tags": [], **same},
            vectors={"v": [3.0, 4.0]},
        ),
    ]


def test_parquet_bytes_are_no_json() -> None:
    made = extractor("passthrough_extractor", row_format="parquet")
    [found] = items(made, parquet({"raw": [b"\x00"]}))
    assert isinstance(found, Rejected)
    assert found.code == "bad_row"


def test_parquet_is_read_in_batches_and_its_rows_keep_their_order() -> None:
    made = extractor("passthrough_extractor", row_format="parquet")
    found = documents(made, parquet({"n": list(range(1_000))}, row_group_size=300))
    assert [document.payload["n"] for document in found] == list(range(1_000))
    assert found[-1].key == "0999"


def failure(blob: Blob, **settings: Any) -> str:
    with pytest.raises(ExtractionFailed) as failed:
        items(extractor("passthrough_extractor", row_format="parquet"), blob, **settings)
    return failed.value.error_code


def test_parquet_files_that_are_refused() -> None:
    small = parquet({"n": [1, 2, 3], "text": ["x" * 1_000] * 3}, use_dictionary=False, compression="gzip")
    assert failure(Blob(content=b"PAR1 and no more")) == "unreadable_file"
    assert failure(Blob(content=small.content[:40] + small.content[60:])) == "unreadable_file"
    assert failure(small, extract_max_documents=2) == "too_many_extracted"
    assert failure(small, extract_max_inflated_bytes=1_024) == "inflates_too_far"


def test_parquet_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "find_spec", lambda _name: None)
    with pytest.raises(ExtractionFailed, match=r"pip install 'pgretrieve\[parquet\]'") as failed:
        items(extractor("passthrough_extractor", row_format="parquet"), parquet({"n": [1]}))
    assert (failed.value.error_code, failed.value.retryable) == ("package_missing", True)


def test_the_format_follows_from_the_file() -> None:
    made = extractor("passthrough_extractor", vector_fields=[VECTOR])
    with_vectors = {"e": [[1.0, 2.0]]}
    assert documents(made, parquet(with_vectors))[0].vectors == {"v": [1.0, 2.0]}
    assert documents(made, Blob(content=b'{"e": [1, 2]}', name="a.ndjson"))[0].vectors == {"v": [1.0, 2.0]}


def test_every_problem_of_the_parameters_is_told() -> None:
    twice = [VECTOR, {**VECTOR, "name": "w"}, {**VECTOR, "field": "f"}]
    assert problems_of("passthrough_extractor", {"vector_fields": twice}) == [
        "bad_parameter@parameters.vector_fields.2.name",
        "bad_parameter@parameters.vector_fields.1.field",
    ]
    assert problems_of("passthrough_extractor", {"id_field": "x"}) == ["bad_parameter@parameters.id_field"]
    wrong = {"vector_fields": [{**VECTOR, "dimensions": 0}], "row_format": "csv"}
    assert problems_of("passthrough_extractor", wrong) == [
        "bad_parameter@parameters.vector_fields",
        "bad_parameter@parameters.row_format",
    ]
