"""Versions of retrievers over HTTP: each kept as it was, compared, and gone with the retriever."""

import copy
from typing import Any

import jsonpatch
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.retrieving.retriever_versions import changes
from tests.http import Api, document, feature_search, search, stage

NEAR = feature_search(search("v", "{{INPUT.v}}"))
Versions = list[dict[str, Any]]


@pytest.fixture
def shop(api: Api) -> Api:
    """Four documents, and a retriever `near` with three versions, of which the third is called `nearest`."""
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", {"v": [1, n]}, n=n) for n in range(4)])
    api.retriever("near", NEAR, stage("limit", limit=1))
    api.retriever("near", NEAR, stage("limit", limit=2), description="two")
    api(
        "PATCH", "/retrievers/near", {"retriever_name": "nearest", "stages": [stage("sort_attribute", field="n"), NEAR]}
    )
    return api


def definition(version: dict[str, Any]) -> dict[str, Any]:
    return {"limits": [s["parameters"].get("limit") for s in version["stages"]], "description": version["description"]}


def test_every_change_is_kept_as_it_was(shop: Api) -> None:
    key = shop("POST", "/keys", {"name": "another", "scopes": ["manage"]})
    shop("PATCH", "/retrievers/nearest", {"tags": ["t"]}, headers={"Authorization": f"Bearer {key['key']}"})
    listed = shop("GET", "/retrievers/nearest/versions")
    assert listed["retriever_id"] == shop("GET", "/retrievers/nearest")["retriever_id"]
    told = [(v["version"], v["retriever_name"], v["created_by"], v["current"]) for v in listed["results"]]
    assert told == [
        (4, "nearest", key["key_id"], True),
        (3, "nearest", "root", False),
        (2, "near", "root", False),
        (1, "near", "root", False),
    ]
    first, second = (shop("GET", f"/retrievers/nearest/versions/{n}") for n in (1, 2))
    assert definition(first) == {"limits": [None, 1], "description": None}
    assert definition(second) == {"limits": [None, 2], "description": "two"}
    assert (first["retriever_name"], first["version"], first["current"]) == ("near", 1, False)
    assert shop("GET", f"/retrievers/{listed['retriever_id']}/versions/1") == first
    shop("POST", "/retrievers", {name: first[name] for name in ("retriever_name", "stages", "input_schema")})
    assert shop.ids("near", inputs={"v": [1, 0]}) == ["d0"]


def test_versions_are_walked_page_by_page(shop: Api) -> None:
    found: list[int] = []
    path = "/retrievers/nearest/versions?limit=2"
    page = shop("GET", path)
    while True:
        found += [version["version"] for version in page["results"]]
        if (cursor := page["pagination"]["next_cursor"]) is None:
            break
        page = shop("GET", f"{path}&cursor={cursor}")
    assert (found, page["total"]) == ([3, 2, 1], 3)
    for bad in ("AAAA", "YWJj", "OTk5OTk5OTk5OTk5"):
        assert shop.refused("GET", f"{path}&after={bad}")[1] == ["bad_cursor@query.after"]


def test_what_differs_is_a_patch_that_says_what_was(shop: Api) -> None:
    diff = shop("GET", "/retrievers/nearest/versions/1/diff/2")
    assert (diff["from_version"]["version"], diff["to_version"]["version"]) == (1, 2)
    assert diff["changes"] == [
        {"op": "add", "path": "/description", "value": "two"},
        {"op": "replace", "path": "/stages/1/config/parameters/limit", "value": 2, "was": 1},
    ]
    back = shop("GET", "/retrievers/nearest/versions/2/diff/1")["changes"]
    assert {"op": "remove", "path": "/description", "was": "two"} in back
    third = shop("GET", "/retrievers/nearest/versions/2/diff/3")["changes"]
    assert {"op": "replace", "path": "/retriever_name", "value": "nearest", "was": "near"} in third
    assert shop("GET", "/retrievers/nearest/versions/3/diff/3")["changes"] == []


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text("a/~1", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("a/~0", max_size=2), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text("ab/~", max_size=2), values, max_size=4)


@settings(max_examples=50)
@given(objects, objects)
def test_changes_turn_the_one_into_the_other_and_keep_what_was(before: dict[str, Any], after: dict[str, Any]) -> None:
    untouched = copy.deepcopy((before, after))
    told = changes(before, after)
    assert (before, after) == untouched
    reached = copy.deepcopy(before)
    for operation in told:
        if "was" in operation:
            assert jsonpatch.JsonPointer(operation["path"]).resolve(reached) == operation["was"]
        reached = jsonpatch.apply_patch(reached, [operation])
    assert repr(reached) == repr(after) or reached == after


def test_very_deep_definitions_have_a_difference_too() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    assert [operation["op"] for operation in changes({"metadata": deep}, {"metadata": [deep]})] == ["replace"]


def test_what_is_not_there_is_404(shop: Api) -> None:
    for path in ("9", "0", "99999999999999999999", "1/diff/4", "4/diff/1"):
        shop("GET", f"/retrievers/nearest/versions/{path}", status=404)
    assert "1 to 3" in shop("GET", "/retrievers/nearest/versions/9", status=404)["error"]["message"]
    shop("GET", "/retrievers/near/versions", status=404)
    shop("GET", "/retrievers/nearest/versions/first", status=404)


def test_versions_never_change_and_go_with_their_retriever(shop: Api, conninfo: str) -> None:
    retriever_id = shop("GET", "/retrievers/nearest")["retriever_id"]
    count = "SELECT count(*) FROM pgretrieve.retriever_versions WHERE retriever_id = %s"
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for change in ("definition = '{}'", "created_by = 'me'", "version = 9"):
            with pytest.raises(psycopg.errors.RestrictViolation, match="never change"):
                conn.execute(
                    f"UPDATE pgretrieve.retriever_versions SET {change} WHERE retriever_id = %s", [retriever_id]
                )
        assert conn.execute(count, [retriever_id]).fetchone() == (3,)
        shop("DELETE", "/retrievers/nearest")
        assert conn.execute(count, [retriever_id]).fetchone() == (0,)


def test_a_cloned_namespace_has_first_versions_of_its_own(shop: Api) -> None:
    copied = shop("POST", f"/namespaces/{shop.namespace}/clone", {"namespace_name": f"{shop.namespace} copy"})
    other = Api(shop.http, f"{shop.namespace} copy")
    (version,) = other("GET", "/retrievers/nearest/versions")["results"]
    assert (version["version"], version["retriever_name"], version["created_by"]) == (1, "nearest", "root"), copied


V = {"inputs": {"v": [1, 0]}}
EXECUTE = "/retrievers/nearest/execute"


def ids(answer: Any) -> list[str]:
    return [found["document_id"] for found in answer["documents"]]


def test_a_version_can_be_pinned_wherever_a_retriever_is_executed(shop: Api) -> None:
    for version, expected in ((1, ["d0"]), (2, ["d0", "d1"]), (3, ["d0", "d1", "d2", "d3"])):
        answer = shop("POST", EXECUTE, {**V, "version": version})
        assert (ids(answer), answer["retriever_version"]) == (expected, version)
        assert ids(shop("POST", f"{EXECUTE}?version={version}", V)) == expected
        (in_batch,) = shop("POST", f"{EXECUTE}/batch", {"queries": [V], "version": version})["results"]
        assert ids(in_batch) == expected
        assert ids(shop("POST", f"{EXECUTE}/batch?version={version}", {"queries": [V]})["results"][0]) == expected
        explained = shop("POST", f"{EXECUTE}/explain", {"version": version})
        assert [s["stage_name"] for s in explained["execution_plan"]][-1] == (
            "limit" if version < 3 else "feature_search"
        )
    assert shop("POST", EXECUTE, V)["retriever_version"] == 3
    assert ids(shop("POST", f"{EXECUTE}?version=2", {**V, "version": 2})) == ["d0", "d1"]


def test_a_version_that_cannot_be_is_refused(shop: Api) -> None:
    for version in (4, 10**12):
        shop("POST", EXECUTE, {**V, "version": version}, status=404)
        shop("POST", f"{EXECUTE}/batch", {"queries": [V], "version": version}, status=404)
        shop("POST", f"{EXECUTE}/explain", {"version": version}, status=404)
    for below in (-1, 0):
        shop("POST", f"{EXECUTE}?version={below}", V, status=404)
    assert shop.refused("POST", EXECUTE, {**V, "version": 0})[1] == ["bad_type@body.version"]
    assert shop.refused("POST", f"{EXECUTE}?version=1", {**V, "version": 2})[1] == ["bad_value@query.version"]
    adhoc = {"stages": [stage("limit", limit=1)], "version": 1}
    assert shop.refused("POST", "/retrievers/execute", adhoc)[1] == ["not_offered@body.version"]


def test_a_pinned_version_stays_what_it_was_until_the_retriever_goes(shop: Api) -> None:
    """Whatever is kept of it: a newer version, another name, another retriever of the old name, the end."""
    pinned = {**V, "version": 2}
    assert ids(shop("POST", EXECUTE, pinned)) == ["d0", "d1"]
    shop("PATCH", "/retrievers/nearest", {"stages": [stage("limit", limit=4)]})
    assert ids(shop("POST", EXECUTE, pinned)) == ["d0", "d1"]
    shop("PATCH", "/retrievers/nearest", {"retriever_name": "moved"})
    shop("POST", EXECUTE, pinned, status=404)
    assert ids(shop("POST", "/retrievers/moved/execute", pinned)) == ["d0", "d1"]
    shop.retriever("nearest", stage("limit", limit=3))
    shop("POST", EXECUTE, pinned, status=404)
    assert len(ids(shop("POST", EXECUTE, {**V, "version": 1}))) == 3
    shop("DELETE", "/retrievers/moved")
    shop("POST", "/retrievers/moved/execute", pinned, status=404)


def test_a_cursor_belongs_to_its_version(shop: Api) -> None:
    cursor = shop("POST", EXECUTE, {**V, "version": 2, "limit": 1})["pagination"]["cursor"]
    page = {"pagination": {"method": "cursor", "limit": 1, "cursor": cursor}}
    assert ids(shop("POST", EXECUTE, {**V, **page, "version": 2})) == ["d1"]
    assert shop.refused("POST", EXECUTE, {**V, **page})[0] == "other_query"


def test_a_version_that_no_longer_fits_says_so(api: Api, conninfo: str) -> None:
    """Its index is dropped, as an operator may do."""
    api.standalone(("v", 2), ("w", 2))
    api.upsert([document("d0", {"v": [1, 0]})])
    api.retriever("near", feature_search(search("w", [1, 0])))
    api.retriever("near", feature_search(search("v", [1, 0])))
    assert api("POST", "/retrievers/near/execute", {"version": 1})["documents"] == []
    with psycopg.connect(conninfo) as conn:
        conn.execute("DELETE FROM pgretrieve.vector_configs WHERE namespace_id = %s AND name = 'w'", [api.namespace])
        conn.execute("UPDATE pgretrieve.namespaces SET version = version + 1 WHERE namespace_id = %s", [api.namespace])
    for path in ("execute", "execute/explain"):
        error = api("POST", f"/retrievers/near/{path}", {"version": 1}, status=409)["error"]
        assert error["code"] == "no_longer_fits"
        assert "Version 1 of 'near' no longer fits" in error["message"]
        assert "stages.0.config.parameters.searches.0" in error["details"]["problems"][0]
    assert api.ids("near", version=2) == api.ids("near") == ["d0"]
