"""Lists of documents over HTTP: sorted, searched, grouped and narrowed, page by page; by ids; counted."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http import ROOT_KEY, Api, document

LIST = "/documents/list"


def ids(answer: Any) -> list[str]:
    return [found["document_id"] for found in answer["results"]]


def walk(api: Api, path: str = LIST, **body: Any) -> list[str]:
    """All pages, by their cursors."""
    found, cursor = [], None
    while True:
        page = api("POST", path, body | {"cursor": cursor})
        assert len(page["results"]) <= body.get("limit", 10)
        found += ids(page)
        if (cursor := page["pagination"]["next_cursor"]) is None:
            return found


@pytest.fixture
def library(api: Api) -> Api:
    api.standalone(("v", 2), ("w", 1, "dot"))
    documents = [
        document("a", {"v": [1, 0]}, kind="book", year=1999, title="Ünder the volcano", by=[{"name": "L", "born": 1}]),
        document("b", {"v": [1, 1], "w": [2]}, kind="book", year=None, title="100% \\d .*", tags=["x", "y"]),
        document("c", {}, kind="film", year=1999.0, title="The THIRD man", deep={"er": ["Volcanoes"]}),
        document("d", {}, year=1949, title="none"),
    ]
    api.upsert(documents[:3])
    api.upsert(documents[3:], collection_id="other")
    return api


def test_lists_are_sorted(library: Api) -> None:
    def sorted_by(field: str, direction: str | None = None) -> list[str]:
        return ids(library("POST", LIST, {"sort": {"field": field, "direction": direction}}))

    assert sorted_by("year", "asc") == ["d", "a", "c", "b"]
    assert sorted_by("year", "desc") == ["a", "c", "d", "b"]
    assert sorted_by("year") == ["d", "a", "c", "b"]
    assert sorted_by("by") == ["a", "b", "c", "d"]
    assert sorted_by("_internal.created_at", "desc")[0] == "d"
    answer = library("GET", "/collections/_direct_upsert/documents?sort=year:desc&limit=2&include_total=true")
    assert (ids(answer), answer["pagination"]["total"], answer["total_documents"]) == (["a", "c"], 3, 3)
    sort = json.dumps({"field": "year", "direction": "asc"})
    answer = library("GET", f"/collections/_direct_upsert/documents?sort={sort}&page=2&page_size=2")
    assert (ids(answer), answer["pagination"]["page"]) == (["b"], 2)
    assert library.refused("GET", "/collections/c/documents?sort=a:up") == ("bad_value", ["bad_value@query.sort"])
    assert library.refused("POST", LIST, {"sort": {"field": "a..b"}}) == ("bad_field", ["bad_field@body.sort.field"])
    assert library.refused("POST", LIST, {"sort": {"field": "a", "direction": "up"}})[0] == "bad_type"


def test_lists_are_searched(library: Api) -> None:
    def found(text: str) -> list[str]:
        return ids(library("POST", LIST, {"search": text, "sort": {"field": "title"}}))

    assert sorted(found("VOLCANO")) == ["a", "c"]
    assert found("üNDER") == ["a"]
    assert found("third m") == ["c"]
    assert found("%") == found("\\d .*") == ["b"]
    assert found("book") == found("Book") != []
    assert found("1999") == found("kind") == []
    assert len(found("")) == 4
    assert library("POST", LIST, {"search": "volcano", "include_total": True, "limit": 1})["pagination"]["total"] == 2
    assert ids(library("GET", "/collections/other/documents?search=NONE")) == ["d"]
    assert library.refused("POST", LIST, {"search": "a\0"})[0] == "bad_value"
    assert library.refused("POST", LIST, {"search": "a" * 1001})[0] == "bad_type"


def test_pages_by_offset_and_number(library: Api) -> None:
    assert ids(library("POST", LIST, {"offset": 1, "limit": 2})) == ["b", "c"]
    answer = library("POST", LIST, {"page": 2, "page_size": 3, "include_total": True})
    assert ids(answer) == ["d"]
    assert answer["pagination"] == {
        "total": 4,
        "page": 2,
        "page_size": 3,
        "total_pages": 2,
        "next_page": None,
        "previous_page": None,
        "next_cursor": None,
    }
    first = library("POST", LIST, {"offset": 1, "limit": 1})["pagination"]["next_cursor"]
    assert ids(library("POST", LIST, {"cursor": first, "offset": 100, "limit": 1})) == ["c"]
    assert ids(library("POST", f"{LIST}?page=2&limit=3", None)) == ["d"]
    assert library.refused("POST", LIST, {"page": 0})[0] == "out_of_range"
    assert library.refused("POST", LIST, {"offset": -1})[0] == "out_of_range"
    assert library.refused("POST", LIST, {"limit": 1001})[0] == "out_of_range"


def test_a_cursor_belongs_to_its_order(library: Api) -> None:
    cursor = library("POST", LIST, {"limit": 1, "sort": {"field": "year"}})["pagination"]["next_cursor"]
    assert library.refused("POST", LIST, {"cursor": cursor}) == ("bad_cursor", ["bad_cursor@body.cursor"])
    assert library.refused("POST", LIST, {"cursor": cursor, "sort": {"field": "kind"}})[0] == "bad_cursor"
    for bad in ("x", "e30", "W10", "{}", "WyJzb3J0Il0", "W1tdLCJcdTAwMDAiLG51bGxd"):
        assert library.refused("POST", LIST, {"cursor": bad})[0] == "bad_cursor"
    library("DELETE", "/documents/d")
    assert ids(library("POST", LIST, {"cursor": cursor, "sort": {"field": "year"}})) == ["a", "c", "b"]


def test_documents_are_grouped(library: Api) -> None:
    answer = library("POST", LIST, {"group_by": "kind", "include_total": True, "sort": {"field": "year"}})
    assert "results" not in answer
    assert answer["group_by_field"] == "kind"
    assert answer["pagination"]["total"] == answer["stats"]["total_groups"] == 3
    shown = [(g["group_key"], g["count"], [d["document_id"] for d in g["documents"]]) for g in answer["groups"]]
    assert shown == [("book", 2, ["a", "b"]), ("film", 1, ["c"]), (None, 1, ["d"])]
    keys, cursor = [], None
    for _ in range(3):
        body = {"group_by": {"field": "year"}, "limit": 1, "cursor": cursor}
        page = library("POST", LIST, body)
        keys += [(group["group_key"], group["count"]) for group in page["groups"]]
        cursor = page["pagination"]["next_cursor"]
    assert (keys, cursor) == ([(1949, 1), (1999, 2), (None, 1)], None)
    assert [g["count"] for g in library("POST", LIST, {"group_by": "kind", "offset": 1})["groups"]] == [1, 1]
    library.upsert([document(f"m{n:03}", {}, kind="many") for n in range(101)])
    answer = library("POST", LIST, {"group_by": "kind", "filters": {"kind": "many"}})
    assert (answer["groups"][0]["count"], len(answer["groups"][0]["documents"])) == (101, 100)
    assert answer["warnings"]


def test_fields_are_selected(library: Api) -> None:
    def selected(document_id: str, *fields: str) -> Any:
        body = {"select": fields, "filters": {"document_id": document_id}}
        (found,) = library("POST", LIST, body)["results"]
        assert found.keys() == found["payload"].keys() | {"document_id", "collection_id", "payload", "_internal"}
        return found["payload"]

    assert selected("a", "kind", "by.name", "none.such", "title.x") == {"kind": "book", "by": [{"name": "L"}]}
    assert selected("c", "deep.er", "deep", "year") == {"deep": {"er": ["Volcanoes"]}, "year": 1999.0}
    assert selected("c") == {}
    assert library.refused("POST", LIST, {"select": ["a", ".b"]})[1] == ["bad_field@body.select.1"]


def test_vectors_are_named(library: Api) -> None:
    answer = library("POST", LIST, {"return_vector_names": True})
    assert [found["_vectors"] for found in answer["results"]] == [["v"], ["v", "w"], [], []]
    assert "vectors" not in answer["results"][0]
    answer = library("POST", LIST, {"return_vector_names": ["w"], "select": []})
    assert [found["vectors"] for found in answer["results"]] == [{}, {"w": [2]}, {}, {}]
    assert library("GET", "/documents/b?return_vector_names=true")["_vectors"] == ["v", "w"]
    assert library("GET", "/documents/b?return_vector_names=w,v")["vectors"] == {"w": [2], "v": [1, 1]}
    assert "_vectors" not in library("GET", "/documents/b?return_vector_names=false")
    assert library.refused("GET", "/documents/b?return_vector_names=x")[0] == "unknown_vector"
    assert library.refused("POST", LIST, {"return_vector_names": ["x"]})[0] == "unknown_vector"


def test_several_lists_at_once(library: Api) -> None:
    queries = [
        {"key": "books", "request": {"filters": {"kind": "book"}, "include_total": True}},
        {"key": "bad", "request": {"sort": {"field": ""}}},
        {"key": "regex", "request": {"filters": {"field": "kind", "operator": "regex", "value": "("}}},
        {"key": "groups", "request": {"group_by": "kind", "collection_ids": ["other"]}},
    ]
    results = library("POST", f"{LIST}/batch", {"queries": queries})["results"]
    assert [(found["key"], found["error"] is None) for found in results] == [
        ("books", True),
        ("bad", False),
        ("regex", False),
        ("groups", True),
    ]
    assert ids(results[0]["response"]) == ["a", "b"]
    assert results[3]["response"]["groups"][0]["count"] == 1
    assert library.refused("POST", f"{LIST}/batch", {"queries": queries * 3})[0] == "bad_type"


def test_documents_by_ids_and_counts(library: Api) -> None:
    answer = library(
        "POST", "/documents/batch-get", {"document_ids": ["d", "x", "a", "d", "\0"], "return_vectors": True}
    )
    assert [found["document_id"] for found in answer["documents"]] == ["d", "a"]
    assert answer["documents"][1]["vectors"] == {"v": [1, 0]}
    assert answer["not_found"] == ["x", "\0"]
    count = library("GET", "/collections/_direct_upsert/documents/count")
    assert count == {"collection_id": "_direct_upsert", "count": 3}
    assert library("GET", "/collections/none/documents/count")["count"] == 0


@pytest.mark.parametrize("name", ["partition", "expand", "return_presigned_urls"])
def test_what_lists_do_not_offer_is_refused(library: Api, name: str) -> None:
    assert library.refused("POST", LIST, {name: {"index": 0, "count": 1}})[0] == "not_offered"


# Walks over any JSON, against a reference in Python

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.5, 1.0, 1e20])
    | st.sampled_from(["", "A", "a", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)
MISSING = object()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(VALUES | st.just(MISSING), max_size=12),
    limit=st.integers(1, 5),
    descending=st.booleans(),
)
def test_a_walk_loses_nothing_and_repeats_nothing(
    walking: httpx.Client, values: list[Any], limit: int, descending: bool
) -> None:
    namespace = walking.headers["X-Namespace"]
    walking.request("DELETE", "/collections/c/documents/batch", json={"filters": {"all": True}})
    documents = [document(f"d{n:02}", {}, all=True, **({} if v is MISSING else {"x": v})) for n, v in enumerate(values)]
    if documents:
        new = {"documents": documents, "collection_id": "c"}
        assert walking.post(f"/namespaces/{namespace}/documents/upsert", json=new).is_success
    sort = {"field": "x", "direction": "desc" if descending else "asc"}
    body: dict[str, Any] = {"limit": limit, "sort": sort, "include_total": True}
    found: list[Any] = []
    while True:
        page = walking.post("/collections/c/documents/list", json=body).json()
        assert page["pagination"]["total"] == len(values)
        found += page["results"]
        if (cursor := page["pagination"]["next_cursor"]) is None:
            break
        assert len(page["results"]) == limit
        body["cursor"] = cursor
    whole = walking.post("/collections/c/documents/list", json={"limit": 1000, "sort": sort}).json()["results"]
    assert [one["document_id"] for one in found] == [one["document_id"] for one in whole]
    assert sorted(one["document_id"] for one in found) == [one["document_id"] for one in documents]
    keys: list[Key] = [(one["document_id"], one["payload"].get("x")) for one in found]
    assert all(compared(a, b, descending) <= 0 for n, a in enumerate(keys) for b in keys[n:])


Key = tuple[str, Any]


def compared(a: Key, b: Key, descending: bool) -> int:
    """Nulls last; scalars of one type by value, else by the order of types; then by id. Containers: as they came."""
    if (a[1] is None) != (b[1] is None):
        return 1 if a[1] is None else -1
    types = [type_of(a[1]), type_of(b[1])]
    if a[1] is not None and types[0] != types[1]:
        return (1 if types[0] > types[1] else -1) * (-1 if descending else 1)
    if a[1] is not None and types[0] in (1, 2, 3) and a[1] != b[1] and types[0] != 1:
        return (1 if a[1] > b[1] else -1) * (-1 if descending else 1)
    if a[1] == b[1]:
        return (a[0] > b[0]) - (a[0] < b[0])
    return 0


def type_of(value: Any) -> int:
    """PostgreSQL's order of jsonb: texts, numbers, booleans, arrays, objects."""
    match value:
        case bool():
            return 3
        case int() | float():
            return 2
        case str():
            return 1
        case list():
            return 4 if value else 0  # an empty array comes first of all
        case dict():
            return 5
    return -1


@pytest.fixture
def walking(api: Api) -> httpx.Client:
    api.standalone(("v", 1))
    api.http.headers.update({"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace})
    return api.http


@pytest.mark.parametrize("text", ["{{INPUT.x}}", "{{ 7 * 7 }}", "{% for x in y %}", "{{"])
def test_in_filters_of_requests_without_inputs_braces_are_braces(api: Api, text: str) -> None:
    api.standalone(("v", 2))
    api.upsert([document("a", {}, title=text), document("b", {}, title="49")])
    at, equal = "/collections/_direct_upsert/documents", {"field": "title", "operator": "eq", "value": text}
    for filters in (equal, {"title": text}, {"must": [{"key": "title", "match": {"value": text}}]}):
        assert ids(api("POST", LIST, {"filters": filters})) == ["a"]
        count = [{"function": "count", "alias": "n"}]
        body = {"filters": filters, "group_by": [{"field": "title"}], "aggregations": count}
        assert len(api("POST", f"{at}/aggregate", body)["results"]) == 1
        assert len(api("POST", f"{at}/distinct", {"filters": filters, "field": "title"})["values"]) == 1
    assert api("PATCH", f"{at}/bulk", {"filters": equal, "update_data": {"n": 1}})["updated_count"] == 1
    api("DELETE", f"{at}/batch", {"filters": equal})
    assert ids(api("POST", LIST, {})) == ["b"]
