"""The document_enrich stage joins what a plain reading of its documentation joins."""

import copy
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.documents.documents import Document
from app.errors import InvalidRequest
from app.settings import Settings
from tests.stages import Stages, stages_on

Json = dict[str, Any]
TARGETS: dict[str, Json] = {
    "m1": {"sku": 5, "name": "Anna", "at": {"city": "Rome", "zip": 1}, "tags": ["a"]},
    "m2": {"sku": "5", "name": None, "at": {"zip": 2}},
    "m3": {"sku": 5, "name": "Carla", "at": "nowhere"},
    "m4": {"sku": [1, "x"], "name": {"first": "Dora"}},
    "m5": {"sku": True, "deep": {"ref": "five"}},
    "5": {"sku": None, "name": "Five"},
}


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    makers = [Document(name, {}, json.dumps(payload).encode()) for name, payload in TARGETS.items()]
    others = [Document("m0", {}, json.dumps({"sku": 5, "name": "elsewhere"}).encode())]
    async with stages_on(conninfo, settings, "stage_enrich", stored={"makers": makers, "others": others}) as made:
        yield made


# The plain reading


def at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def same(a: Any, b: Any) -> bool:
    return json.dumps(a) == json.dumps(b)


def put(fields: Json, path: str, value: Any) -> None:
    *inner, last = path.split(".")
    for key in inner:
        if not isinstance(fields.get(key), dict):
            fields[key] = {}
        fields = fields[key]
    fields[last] = value


def match(row: Json, asked: Json) -> Json | None:
    """The target's document, with its id, that matches this row."""
    wanted = at(row, asked["source_field"])
    for name in sorted(TARGETS):
        value = name if asked["target_field"] == "document_id" else at(TARGETS[name], asked["target_field"])
        if wanted is not None and same(value, wanted):
            return {"document_id": name, **TARGETS[name]}
    return None


def merged_of(asked: Json, found: Json) -> Json:
    if "fields_to_merge" not in asked:
        whole = {**found, "collection_id": "makers"}
        return copy.deepcopy(whole if "output_field" in asked else TARGETS[found["document_id"]])
    merged: Json = {}
    for field in asked["fields_to_merge"]:
        if (value := at(found, field)) is not None:
            put(merged, field, copy.deepcopy(value))
    return merged


def enriched(row: Json, asked: Json, found: Json) -> Json:
    row, wanted = copy.deepcopy(row), asked.get("fields_to_merge")
    merged = merged_of(asked, found)
    if "output_field" not in asked:
        if asked["strategy"] == "replace":
            return merged
        for field in merged if wanted is None else wanted:
            if at(found, field) is not None or wanted is None:
                put(row, field, at(merged, field))
        return row
    path: str = asked["output_field"]
    there = at(row, path)
    if asked["strategy"] == "append":
        there = [] if there is None else there if isinstance(there, list) else [there]
        put(row, path, [*there, merged])
    elif asked["strategy"] == "replace" or (wanted is None and not isinstance(there, dict)):
        put(row, path, merged)
    else:
        for field in merged if wanted is None else wanted:
            if at(found, field) is not None or wanted is None:
                put(row, f"{path}.{field}", at(merged, field))
    return row


references = st.sampled_from([5, "5", 5.5, "m1", "m4", True, None, [1, "x"], "nothing", "five"])
rows = st.fixed_dictionaries(
    {},
    optional={
        "ref": references,
        "in": st.one_of(st.fixed_dictionaries({"ref": references}), st.just("flat")),
        "at": st.sampled_from([{"street": "Via"}, "home", None]),
        "maker": st.sampled_from([{"name": "old", "kept": 1}, ["one"], "text", None]),
        "ok": st.booleans(),
    },
)
definitions = st.fixed_dictionaries(
    {
        "target_collection_id": st.just("makers"),
        "source_field": st.sampled_from(["ref", "in.ref"]),
        "target_field": st.sampled_from(["sku", "document_id", "deep.ref"]),
        "strategy": st.sampled_from(["enrich", "replace", "append"]),
        "allow_missing": st.booleans(),
    },
    optional={
        "fields_to_merge": st.sampled_from([["name"], ["at.city", "name"], ["name.first", "tags"], ["sku", "at"]]),
        "output_field": st.sampled_from(["maker", "maker.deep.er"]),
        "when": st.just({"field": "ok", "operator": "eq", "value": True}),
    },
).filter(lambda asked: asked["strategy"] != "append" or "output_field" in asked)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, max_size=6), definitions)
def test_joins_as_they_are_read(stages: Stages, given_rows: list[Json], asked: Json) -> None:
    expected, matched = [], 0
    for n, row in enumerate(given_rows):
        if "when" in asked and row.get("ok") is not True:
            expected.append((f"r{n}", row))
            continue
        found = match(row, asked)
        matched += found is not None
        if found is not None:
            expected.append((f"r{n}", enriched(row, asked, found)))
        elif asked["allow_missing"]:
            expected.append((f"r{n}", row))
    answer = stages([(f"r{n}", float(n), row) for n, row in enumerate(given_rows)], ("document_enrich", asked))
    assert [(row.document_id, row.fields) for row in answer.rows] == expected
    assert all(row.score == float(row.document_id[1:]) for row in answer.rows)
    assert answer.told[1] == {"matched_count": matched}


def test_what_a_host_stage_made_may_be_joined_by_the_systems_fields(stages: Stages) -> None:
    asked = {"target_collection_id": "makers", "source_field": "document_id", "fields_to_merge": ["name"]}
    answer = stages([("m1", None, {}), ("m1", None, {"a": 1}), ("new", None, {})], ("document_enrich", asked))
    assert [row.fields for row in answer.rows] == [{"name": "Anna"}, {"a": 1, "name": "Anna"}, {}]


def test_later_stages_see_what_was_joined(stages: Stages) -> None:
    join = {"target_collection_id": "makers", "source_field": "ref", "target_field": "sku", "output_field": "m"}
    kept = {"field": "m.at.zip", "operator": "gte", "value": 1}
    rows = [(name, None, {"ref": ref}) for name, ref in (("a", 5), ("b", "5"), ("c", "none"))]
    answer = stages(
        rows,
        ("document_enrich", join),
        ("attribute_filter", kept),
        ("sort_attribute", {"field": "m.at.zip"}),
        ("document_enrich", join | {"output_field": "m.again", "fields_to_merge": ["document_id"]}),
    )
    assert [(row.document_id, row.fields["m"]["again"]) for row in answer.rows] == [
        ("b", {"document_id": "m2"}),
        ("a", {"document_id": "m1"}),
    ]


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"target_collection_id": ""}, "bad_name@target_collection_id"),
        ({"source_field": "a..b"}, "bad_field@source_field"),
        ({"retriever_id": "ret_1"}, "not_offered@retriever_id"),
        ({"retriever_inputs": {}}, "not_offered@retriever_inputs"),
        ({"strategy": "append"}, "bad_parameter@output_field"),
        ({"output_field": "_internal.x"}, "bad_field@output_field"),
        ({"output_field": ".".join("x" * 17)}, "bad_field@output_field"),
        ({"fields_to_merge": []}, "out_of_range@fields_to_merge"),
        ({"fields_to_merge": ["name", "document_id"]}, "bad_field@fields_to_merge.1"),
        ({"when": {"field": "a", "operator": "near", "value": 1}}, "unknown_operator@when.operator"),
    ],
)
def test_what_is_refused(stages: Stages, asked: Json, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stages([], ("document_enrich", {"target_collection_id": "makers"} | asked))
    places = [(each.code, each.location[5:]) for each in refused.value.problems]
    assert [f"{code}@{'.'.join(map(str, place))}" for code, place in places] == [problem]
