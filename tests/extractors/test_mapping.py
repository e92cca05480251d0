"""What goes into an extractor, and what past it."""

from typing import Any

import pytest

from app.errors import ExtractionFailed, Problems
from app.extractors import REGISTRY
from app.extractors.base import Blob
from app.extractors.mapping import (
    FieldPassthrough,
    Paths,
    mapped_inputs,
    passed_fields,
    read_mappings,
    read_passthrough,
)

TEXT, IMAGE, PASS = (REGISTRY[f"{name}_extractor_v1"] for name in ("text", "image", "passthrough"))
TYPES = {"title": "string", "body": "text", "photo": "image", "price": "number", "meta": "object"}


def mapped(raw: Any, extractor: Any = TEXT, types: dict[str, str] | None = TYPES) -> tuple[Paths, list[str]]:
    problems = Problems()
    paths = read_mappings(raw, extractor, types, problems)
    return paths, [f"{p.code}@{'.'.join(map(str, p.location[3:]))}" for p in problems.found]


@pytest.mark.parametrize(
    "raw",
    [
        {"text": "body"},
        {"text": ["body"]},
        [{"input_key": "text", "source_type": "payload", "path": "body"}],
        [{"input_key": "text", "source_type": "blob", "path": "body", "override": None}],
    ],
)
def test_forms_of_input_mappings(raw: Any) -> None:
    assert mapped(raw) == ({"text": ("body",)}, [])


def test_an_input_that_is_not_mapped_takes_the_field_that_suits() -> None:
    assert mapped(None, IMAGE) == ({"image": ("photo",)}, [])
    assert mapped({}, TEXT, {"text": "string", "body": "text"}) == ({"text": ("text",)}, [])
    assert mapped(None, TEXT, None) == ({"text": ("text",)}, [])
    assert mapped(None, TEXT) == ({}, ["input_not_mapped@text"])
    assert mapped(None, IMAGE, {"title": "string"}) == ({}, ["input_not_mapped@image"])
    assert mapped(None, PASS, {"photo": "image"}) == ({}, [])


def test_every_problem_of_mappings_is_told() -> None:
    wrong = {"text": ["title", "body", "no"], "image": "photo", "x": 1}
    assert mapped(wrong)[1] == [
        "too_many_inputs@text",
        "unknown_field@text",
        "unknown_extractor_input@image",
        "unknown_extractor_input@x",
    ]
    assert mapped({"text": "photo"})[1] == ["unsuitable_field@text"]
    assert mapped({"text": ""})[1] == ["bad_field@text", "input_not_mapped@text"]
    assert mapped("text")[1] == ["bad_type@", "input_not_mapped@text"]
    assert mapped([{"input_key": "text", "source_type": "literal", "override": "x"}, 1])[1] == [
        "not_offered@0.source_type",
        "bad_type@1",
        "input_not_mapped@text",
    ]
    assert mapped({"text": "meta.summary"})[1] == []


def test_inputs_are_blobs_or_texts_in_fields() -> None:
    fields = {"title": "Amp", "meta": {"summary": "Loud"}, "price": 3, "a.b": "dotted"}
    blobs = {"body": [Blob(content=b"file", content_type="text/plain")]}
    paths = {
        "one": ("body",),
        "two": ("title", "meta.summary"),
        "three": ("price", "none", "meta.none"),
        "four": ("a.b",),
    }
    assert mapped_inputs(paths, fields, blobs) == {
        "one": (blobs["body"][0],),
        "two": (Blob.of("Amp"), Blob.of("Loud")),
        "four": (Blob.of("dotted"),),
    }


def passthrough(raw: Any, known: Any = TYPES) -> tuple[tuple[FieldPassthrough, ...], list[str]]:
    problems = Problems()
    passed = read_passthrough(raw, TEXT, known, problems)
    return passed, [f"{p.code}@{'.'.join(map(str, p.location[3:]))}" for p in problems.found]


def test_fields_pass_renamed_nested_and_by_default() -> None:
    fields = {"title": "Amp", "meta": {"author": "Ann"}, "price": 3, "none": None}
    passed, problems = passthrough(
        [
            {"source_path": "title", "target_path": "name"},
            {"source_path": "meta.author"},
            {"source_path": "meta.year", "default": 2024},
            {"source_path": "meta.gone"},
        ]
    )
    assert problems == []
    assert passed_fields(fields, passed) == {"name": "Amp", "author": "Ann", "year": 2024}
    assert passed_fields(fields, passed, include_all=True) == {
        "name": "Amp",
        "author": "Ann",
        "year": 2024,
        "price": 3,
        "none": None,
        "meta": {"author": "Ann"},
    }
    assert passed_fields(fields, ()) == {}
    assert passed_fields(
        {"a": 1, "b": 2}, (FieldPassthrough("a", "b"), FieldPassthrough("b", "a")), include_all=True
    ) == {
        "b": 1,
        "a": 2,
    }


def test_every_field_that_is_missing_is_named() -> None:
    needed = tuple(FieldPassthrough(name, required=True) for name in ("title", "sku", "brand"))
    with pytest.raises(ExtractionFailed, match="sku, brand") as failed:
        passed_fields({"title": "Amp"}, needed)
    assert failed.value.error_code == "field_missing"


def test_every_problem_of_field_passthrough_is_told() -> None:
    wrong: list[Any] = [
        {"source_path": "none"},
        {"source_path": "title", "target_path": "document_id"},
        {"source_path": "title", "target_path": "text"},
        {"source_path": "title", "target_path": "a b"},
        {"source_path": "price"},
        {"source_path": "meta.price"},
        {"source_path": "title", "as": "x"},
        {"source_path": "a..b"},
        3,
    ]
    assert passthrough(wrong)[1] == [
        "unknown_field@0.source_path",
        "reserved_field@1.target_path",
        "reserved_field@2.target_path",
        "bad_field@3.target_path",
        "duplicate_field@5.target_path",
        "bad_field@6",
        "bad_field@7.source_path",
        "bad_field@8",
    ]
    assert passthrough({"source_path": "title"})[1] == ["bad_type@"]
    assert passthrough(None) == ((), [])
