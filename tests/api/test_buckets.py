"""Buckets: made with a schema, found by id and name, listed, changed, deleted with all that they have."""

from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.http import Api

SCHEMA: dict[str, Any] = {
    "properties": {
        "title": {"type": "string", "required": True},
        "year": {"type": "integer", "default": 2026},
        "photo": {"type": "image"},
        "content": {"type": "text"},
    }
}


def bucket(api: Api, name: str = "photos", **more: Any) -> Any:
    body = {"bucket_name": name, "bucket_schema": SCHEMA, **more}
    return api("POST", "/buckets", body)


def test_a_bucket_is_made_and_found_by_id_and_by_name(api: Api) -> None:
    api.standalone()
    made = bucket(api, description="Pictures", metadata={"team": "red"}, unique_key={"fields": ["title"]})
    assert made["bucket_id"].startswith("bkt_")
    assert made["bucket_schema"] == {
        "properties": {
            "title": {"type": "string", "required": True},
            "year": {"type": "integer", "required": False, "default": 2026},
            "photo": {"type": "image", "required": False},
            "content": {"type": "text", "required": False},
        }
    }
    assert made["unique_key"] == {"fields": ["title"], "default_policy": None}
    assert (made["object_count"], made["total_size_bytes"], made["status"]) == (0, 0, "ACTIVE")
    assert api("GET", f"/buckets/{made['bucket_id']}") == api("GET", "/buckets/photos") == made


def test_every_problem_of_a_new_bucket_is_told_at_once(api: Api) -> None:
    api.standalone()
    properties = {
        "status": {"type": "string"},
        "n": {"type": "integer", "default": "many", "properties": {"a": {"type": "string"}}},
        "size": {"type": "integer", "default": "many"},
        "colour": {"type": "string", "enum": ["red", 3]},
        "tags": {"type": "array", "items": {"type": "string", "items": {"type": "string"}}},
    }
    body = {
        "bucket_name": "a/b",
        "bucket_schema": {"properties": properties},
        "unique_key": {"fields": ["tags", "none", "size", "size"], "default_policy": "replace"},
        "metadata": {"a": "\0"},
    }
    code, problems = api.refused("POST", "/buckets", body)
    assert code == "bad_name"
    here = "body.bucket_schema.properties"
    assert sorted(problems) == sorted(
        [
            "bad_name@body.bucket_name",
            "nul_character@body.metadata",
            f"bad_schema@{here}.status",
            f"bad_schema@{here}.n.properties",
            f"bad_schema@{here}.n.default",
            f"bad_schema@{here}.size.default",
            f"bad_schema@{here}.colour.enum.1",
            f"bad_schema@{here}.tags.items.items",
            "bad_unique_key@body.unique_key.fields",
            "bad_unique_key@body.unique_key.fields.0",
            "bad_unique_key@body.unique_key.fields.1",
            "bad_policy@body.unique_key.default_policy",
        ]
    )


@pytest.mark.parametrize(
    ("more", "code", "at"),
    [
        (
            {"bucket_schema": {"properties": {"a": {"type": "keyword"}}}},
            "bad_type",
            "bucket_schema.properties.....type",
        ),
        ({"bucket_schema": {"properties": {"a": {"type": "string", "minimum": 1}}}}, "extra_forbidden", ""),
        ({"bucket_schema": {"properties": {f"f{n}": {"type": "string"} for n in range(501)}}}, "too_many_fields", ""),
        ({"storage_class": "archive"}, "not_offered", "storage_class"),
        ({"source_adapter": {"adapter_type": "bucket"}}, "not_offered", "source_adapter"),
        ({"colour": "red"}, "extra_forbidden", ""),
    ],
)
def test_what_a_bucket_cannot_have_is_refused_by_name(api: Api, more: dict[str, Any], code: str, at: str) -> None:
    api.standalone()
    found, problems = api.refused("POST", "/buckets", {"bucket_name": "b", "bucket_schema": SCHEMA, **more})
    assert found == code
    assert at in problems[0]


def test_a_schema_that_nests_without_end_is_refused(api: Api) -> None:
    api.standalone()
    field: dict[str, Any] = {"type": "string"}
    for _ in range(9):
        field = {"type": "array", "items": field}
    assert api.refused("POST", "/buckets", {"bucket_name": "b", "bucket_schema": {"properties": {"a": field}}})[0] == (
        "bad_schema"
    )


def test_names_are_unique_in_a_namespace_only(api: Api) -> None:
    api.standalone()
    bucket(api)
    assert api.refused("POST", "/buckets", {"bucket_name": "photos", "bucket_schema": SCHEMA}, status=409)[0] == (
        "already_exists"
    )
    other = f"{api.namespace}_2"
    api("POST", "/namespaces/standalone", {"namespace_id": other})
    body = {"bucket_name": "photos", "bucket_schema": SCHEMA}
    made = api("POST", "/buckets", body, headers={"X-Namespace": other})
    for path in (f"/buckets/{made['bucket_id']}", f"/buckets/{made['bucket_id']}/objects"):
        api("GET", path, status=404)


def test_lists_are_filtered_searched_sorted_and_paged(api: Api) -> None:
    api.standalone()
    names = [bucket(api, f"b{n}", metadata={"n": n}, description="Even" if n % 2 == 0 else None) for n in range(5)]
    ids = [made["bucket_id"] for made in names]
    assert [found["bucket_id"] for found in api("POST", "/buckets/list")["results"]] == ids[::-1]
    assert [found["bucket_id"] for found in api("GET", "/buckets")["results"]] == ids[::-1]

    def listed(**body: Any) -> list[str]:
        return [found["bucket_name"] for found in api("POST", "/buckets/list", body)["results"]]

    assert listed(filters={"metadata.n": 3}) == ["b3"]
    assert listed(filters={"bucket_id": ids[1]}) == ["b1"]
    assert listed(filters={"must": [{"key": "object_count", "range": {"gt": 0}}]}) == []
    assert listed(search="eVEN", sort={"field": "bucket_name"}) == ["b0", "b2", "b4"]
    assert listed(sorts=[{"field": "bucket_name", "direction": "desc"}]) == ["b4", "b3", "b2", "b1", "b0"]
    orders: list[dict[str, str] | None] = [None, {"field": "bucket_name"}, {"field": "created_at", "direction": "desc"}]
    for order in orders:
        seen: list[str] = []
        cursor = None
        while True:
            body = {"page_size": 2, "cursor": cursor, "sort": order, "include_total": True}
            page = api("POST", "/buckets/list", body)
            assert (page["total_count"], page["pagination"]["total"], page["pagination"]["total_pages"]) == (5, 5, 3)
            seen += [found["bucket_name"] for found in page["results"]]
            cursor = page["pagination"]["next_cursor"]
            if cursor is None:
                break
        assert sorted(seen) == [f"b{n}" for n in range(5)]
        assert len(seen) == 5
    refused: list[tuple[dict[str, Any], str]] = [
        ({"sort": {"field": "metadata.n"}}, "bad_sort"),
        ({"cursor": "x"}, "bad_cursor"),
        ({"filters": {"AND": 3}}, "bad_filter"),
        ({"filters": {"bucket_name": "{{INPUT.x}}"}}, "bad_filter"),
        ({"search": "\0"}, "nul_character"),
        ({"page_size": 0}, "out_of_range"),
        ({"offset": 5}, "not_offered"),
    ]
    for body, code in refused:
        assert api.refused("POST", "/buckets/list", body)[0] == code


def test_a_list_of_a_namespace_that_is_not_there_is_empty_and_says_so(api: Api) -> None:
    found = api("POST", "/buckets/list")
    assert (found["results"], found["total_count"]) == ([], 0)
    assert found["warnings"][0]["reason"] == "unresolved"
    api("POST", "/buckets", {"bucket_name": "b", "bucket_schema": SCHEMA}, status=404)


HOSTILE = ["a'; DROP TABLE pgretrieve.buckets; --", 'a"b', "a\\", "%s", ":bind", "$1", "{INPUT.x}", "🦉", "x" * 255]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_names(api: Api, name: str) -> None:
    api.standalone()
    schema = {"properties": {name[:100]: {"type": "string"}}}
    made = api("POST", "/buckets", {"bucket_name": name, "bucket_schema": schema})
    path = f"/buckets/{quote(name, safe='')}"
    assert api("GET", path)["bucket_id"] == made["bucket_id"]
    stored = api("POST", f"{path}/objects", {name[:100]: name, "other": 1})
    assert stored[name[:100]] == name
    found = api("POST", f"{path}/objects/list", {"filters": {"other": 1}, "search": name})["results"]
    assert [each["object_id"] for each in found] == [stored["object_id"]]
    assert api("POST", "/buckets/list", {"filters": {"bucket_name": name}, "search": name})["total_count"] == 1
    stats = api("GET", f"/namespaces/{api.namespace}/stats")
    assert (stats["bucket_count"], stats["object_count"]) == (1, 1)
    api("DELETE", path)


@pytest.mark.parametrize("name", ["", "list", "..", " a", "a ", "a/b", "a\n", "\0", "\u202e", "x" * 256])
def test_names_that_paths_lose_are_refused(api: Api, name: str) -> None:
    api.standalone()
    assert api.refused("POST", "/buckets", {"bucket_name": name, "bucket_schema": SCHEMA})[0] == "bad_name"


def test_a_bucket_changes_and_what_breaks_its_objects_must_be_forced(api: Api) -> None:
    api.standalone()
    made = bucket(api, unique_key={"fields": ["title", "year"]})
    changed = api(
        "PATCH",
        "/buckets/photos",
        {
            "bucket_name": "pictures",
            "description": "New",
            "unique_key": {"fields": ["year", "title"], "default_policy": "upsert"},
        },
    )
    assert (changed["bucket_name"], changed["description"]) == ("pictures", "New")
    assert changed["unique_key"] == {"fields": ["title", "year"], "default_policy": "upsert"}
    assert changed["bucket_schema"] == made["bucket_schema"]
    assert api("PUT", "/buckets/pictures", {"description": None})["description"] is None
    broken = {"title": {"type": "string"}, "year": {"type": "string"}, "content": {"type": "text", "required": True}}
    code, problems = api.refused("PATCH", "/buckets/pictures", {"bucket_schema": {"properties": broken}})
    here = "body.bucket_schema.properties"
    assert code == "schema_break"
    assert sorted(problems) == [f"schema_break@{here}.{name}" for name in ("content", "photo", "year")]
    forced = api("PATCH", "/buckets/pictures?force_schema_break=true", {"bucket_schema": {"properties": broken}})
    assert set(forced["bucket_schema"]["properties"]) == set(broken)
    for body in ({"unique_key": {"fields": ["title"]}}, {"bucket_schema": {"properties": {"year": {"type": "date"}}}}):
        assert "bad_unique_key" in api.refused("PATCH", "/buckets/pictures?force_schema_break=true", body)[0]
    bucket(api, "other")
    assert api.refused("PATCH", "/buckets/other", {"bucket_name": "pictures"}, status=409)[0] == "already_exists"


def test_deleting_a_bucket_or_its_namespace_leaves_nothing(api: Api, conninfo: str) -> None:
    api.standalone()
    blob = {"property": "content", "type": "text", "data": "words"}
    for name in ("one", "two"):
        bucket(api, name)
        api("POST", f"/buckets/{name}/objects", {"title": "a", "blobs": [blob]})
        upload = {"filename": "a.txt", "content_type": "text/plain", "blob_property": "content"}
        api("POST", f"/buckets/{name}/uploads", {**upload, "object_metadata": {"title": "x"}})
    gone = api("DELETE", "/buckets/one")
    assert (gone["object_count"], gone["success"], gone["task_id"]) == (1, True, None)
    api("GET", "/buckets/one", status=404)
    with psycopg.connect(conninfo) as conn:
        left = """
            SELECT (SELECT count(*) FROM pgretrieve.buckets WHERE namespace_id = %(ns)s),
                (SELECT count(*) FROM pgretrieve.objects JOIN pgretrieve.buckets b USING (bucket_id)
                    WHERE b.namespace_id = %(ns)s),
                (SELECT count(*) FROM pgretrieve.uploads JOIN pgretrieve.buckets b USING (bucket_id)
                    WHERE b.namespace_id = %(ns)s)
        """
        assert conn.execute(left, {"ns": api.namespace}).fetchone() == (1, 1, 1)
        objects = "SELECT object_id FROM pgretrieve.objects WHERE bucket_id = %s"
        bucket_id = api("GET", "/buckets/two")["bucket_id"]
        assert len(conn.execute(objects, [bucket_id]).fetchall()) == 1
        conn.rollback()
        api("DELETE", f"/namespaces/{api.namespace}")
        assert conn.execute(left, {"ns": api.namespace}).fetchone() == (0, 0, 0)
        assert conn.execute(objects, [bucket_id]).fetchall() == []
