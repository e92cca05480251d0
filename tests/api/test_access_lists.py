"""Access lists of documents over the API: stored, changed, answered, and taken along."""

from typing import Any

import psycopg
import pytest
from psycopg import sql

from app.db import namespace_migrations
from tests.http import Api, document

LIST = {"read": ["anna"], "write": ["ben"], "public": False}


@pytest.fixture
def shop(api: Api) -> Api:
    api.standalone(("v", 2))
    return api


def listed(api: Api, document_id: str) -> Any:
    return api("GET", f"/documents/{document_id}")["_internal"].get("_acl")


def patch(api: Api, document_id: str, **change: Any) -> Any:
    return api("PATCH", f"/collections/_direct_upsert/documents/{document_id}/acl", change)


def readers(conninfo: str, namespace: str) -> dict[str, list[str] | None]:
    query = sql.SQL("SELECT document_id, readers FROM {}").format(sql.Identifier(namespace, "documents"))
    with psycopg.connect(conninfo) as conn:
        found: dict[str, list[str] | None] = dict(conn.execute(query).fetchall())
    return {name: None if names is None else sorted(names) for name, names in found.items()}


def test_an_upsert_brings_a_list_and_replaces_it_with_the_rest(shop: Api, conninfo: str) -> None:
    shop.upsert([document("a") | {"acl": {"read": ["anna"], "write": ["ben"]}}, document("b")])
    shop.upsert([document("c") | {"acl": {"public": True}}, document("d") | {"acl": {}}])
    assert [listed(shop, name) for name in "abcd"] == [
        LIST,
        None,
        {"read": [], "write": [], "public": True},
        {"read": [], "write": [], "public": False},
    ]
    assert readers(conninfo, shop.namespace) == {"a": ["anna", "ben"], "b": None, "c": ["*"], "d": []}
    shop.upsert([document("a")])
    assert listed(shop, "a") is None, "as its metadata: an upsert replaces a document whole"


def test_a_created_document_has_its_list_and_lists_show_it(shop: Api) -> None:
    made = shop("POST", "/collections/things/documents", {"document_id": "a", "title": "A", "acl": LIST})
    assert made["_internal"]["_acl"] == LIST
    assert "acl" not in made["payload"]
    shown = shop("POST", "/collections/things/documents/list", {})["results"]
    assert [one["_internal"]["_acl"] for one in shown] == [LIST]


def test_a_change_sets_what_it_names_and_leaves_the_rest(shop: Api, conninfo: str) -> None:
    shop.upsert([document("a", title="A"), document("with/acl")])
    assert patch(shop, "a", read=["anna"])["_internal"]["_acl"] == {"read": ["anna"], "write": [], "public": False}
    assert patch(shop, "a", write=["ben"])["title"] == "A"
    assert listed(shop, "a") == LIST
    assert patch(shop, "a", read=[], public=True)["_internal"]["_acl"] == {**LIST, "read": [], "public": True}
    patch(shop, "with/acl", read=["anna"])
    assert readers(conninfo, shop.namespace) == {"a": ["*", "ben"], "with/acl": ["anna"]}
    shop("PATCH", "/documents/a", {"title": "B"})
    assert listed(shop, "a") is not None, "other changes leave it"
    assert shop.refused("PATCH", "/collections/_direct_upsert/documents/none/acl", {}, status=404)[0] == "not_found"
    assert shop.refused("PATCH", "/collections/others/documents/a/acl", {}, status=404)[0] == "not_found"


@pytest.mark.parametrize(
    ("acl", "place"),
    [
        ({"read": ["x"] * 257}, "read"),
        ({"read": [""]}, "read"),
        ({"write": ["*"]}, "write"),
        ({"write": ["a\0b"]}, "write"),
        ({"read": ["x" * 201]}, "read"),
    ],
)
def test_what_is_no_list_is_refused(shop: Api, acl: dict[str, Any], place: str) -> None:
    shop.upsert([document("a")])
    path = f"/namespaces/{shop.namespace}/documents/upsert"
    _, problems = shop.refused("POST", path, {"documents": [document("b"), document("a") | {"acl": acl}]})
    assert problems == [f"bad_acl@body.documents.1.acl.{place}"]
    _, problems = shop.refused("PATCH", "/collections/_direct_upsert/documents/a/acl", acl)
    assert problems == [f"bad_acl@body.{place}"]
    assert listed(shop, "a") is None


def test_unknown_fields_and_types_are_refused(shop: Api) -> None:
    shop.upsert([document("a")])
    path = "/collections/_direct_upsert/documents/a/acl"
    assert shop.refused("PATCH", path, {"owner": "anna"})[1] == ["bad_acl@body"]
    assert shop.refused("PATCH", path, {"public": 1, "read": "anna"})[1] == ["bad_acl@body.read", "bad_acl@body.public"]


def test_exports_and_imports_take_it_along(shop: Api, conninfo: str) -> None:
    shop.upsert([document("a", {"v": [1, 0]}) | {"acl": LIST}, document("b", {"v": [0, 1]})])
    lines = shop.http.get(
        f"/namespaces/{shop.namespace}/documents/export", headers={"Authorization": shop.authorization}
    ).content
    assert lines.count(b'"acl"') == 1, "a line without a list says nothing of one"
    before = readers(conninfo, shop.namespace)
    shop("DELETE", "/documents/a")
    shop.upsert([document("b") | {"acl": {"public": True}}])
    wrong = b'{"document_id": "w", "acl": {"read": "anna"}}\n{"document_id": "n", "acl": 3}\n'
    answer = shop.http.post(
        f"/namespaces/{shop.namespace}/documents/import",
        content=lines + wrong,
        headers={"Authorization": shop.authorization, "Content-Type": "application/x-ndjson"},
    ).json()
    assert answer["stored"] == 2
    assert [problem["type"] for problem in answer["problems"]] == ["bad_acl", "bad_acl"]
    assert readers(conninfo, shop.namespace) == before
    assert listed(shop, "a") == LIST


def test_a_clone_has_the_lists(shop: Api, conninfo: str) -> None:
    shop.upsert([document("a") | {"acl": LIST}])
    name = f"{shop.namespace}_copy"
    shop("POST", f"/namespaces/{shop.namespace}/clone", {"namespace_name": name})
    query = "SELECT schema_name FROM pgretrieve.namespaces WHERE namespace_name = %s"
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(query, [name]).fetchone()
    assert found is not None
    assert readers(conninfo, found[0]) == {"a": ["anna", "ben"]}


def test_a_namespace_of_before_has_none_until_it_is_migrated(shop: Api, conninfo: str) -> None:
    shop.upsert([document("a", {"v": [1, 0]})])
    with psycopg.connect(conninfo) as conn:
        table = sql.Identifier(shop.namespace, "documents")
        for policy in ("readers", "everybody"):
            conn.execute(sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(policy), table))
        conn.execute(sql.SQL("ALTER TABLE {} DROP COLUMN acl, DROP COLUMN readers").format(table))
        conn.execute(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(table))
        conn.execute(
            "UPDATE pgretrieve.namespaces SET schema_revision = 0, version = version + 1 WHERE namespace_id = %s",
            [shop.namespace],
        )
    path = f"/namespaces/{shop.namespace}/documents/upsert"
    sent = {"documents": [document("b") | {"acl": LIST}]}
    assert shop.refused("POST", path, sent, status=409)[0] == "not_migrated"
    shop.upsert([document("b")])
    assert listed(shop, "b") is None
    assert namespace_migrations.run(conninfo) == 1
    shop("POST", path, sent)
    assert listed(shop, "b") == LIST
    assert readers(conninfo, shop.namespace) == {"a": None, "b": ["anna", "ben"]}
