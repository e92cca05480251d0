"""Access lists for those who log in to the database: row-level security by the roles that they have."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from app import service
from app.settings import Settings
from tests.conftest import database
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.roles import RoleDatabase, made_in


@pytest.fixture(scope="module")
def db(server_url: str, template_db: str) -> Iterator[RoleDatabase]:
    with database(server_url, template_db) as url, made_in(url) as made:
        yield made


@pytest.fixture(scope="module")
def shop(db: RoleDatabase, settings: Settings) -> Iterator[Api]:
    """Documents of every kind of list, served by the API's login."""
    configs = [{"name": "v", "dimension": 2}, {"name": "m", "dimension": 2, "kind": "multi"}]
    with (
        service.in_background(settings, db.as_("api"), ROOT_KEY) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=30) as http,
    ):
        api = Api(http, f"rls_{uuid4().hex[:12]}")
        api("POST", "/namespaces/standalone", {"namespace_id": api.namespace, "vector_configs": configs})
        fields = [{"field_name": "title", "type": "text"}]
        api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": fields})
        api.upsert([made(name, acl) for name, acl in lists(db).items()])
        api.retriever("near", feature_search(search("v", [1, 0])))
        api.retriever("many", feature_search(search("m", [[1, 0]])))
        api.retriever("words", feature_search(search("lexical", "amplifier", mode="text", lexical=True)))
        for name in ("near", "many", "words"):
            api("PUT", f"/retrievers/{name}/function", {})
        yield api


def lists(db: RoleDatabase) -> dict[str, Any]:
    return {
        "open": None,
        "closed": {},
        "public": {"public": True},
        "mine": {"read": [f"{db.login}_analyst"]},
        "written": {"write": [f"{db.login}_analyst", "somebody"]},
        "groups": {"read": ["pgretrieve_analyst"]},
        "others": {"read": ["somebody"], "write": ["pgretrieve_api"]},
    }


def made(name: str, acl: Any) -> dict[str, Any]:
    found = document(name, {"v": [1, len(name)], "m": [[1, len(name)], [0, 1]]}, title=f"{name} amplifier")
    return found if acl is None else found | {"acl": acl}


SEEN = ["groups", "mine", "open", "public", "written"]
QUERIES = {
    "documents": "SELECT document_id FROM {}.documents",
    "multi": "SELECT DISTINCT document_id FROM {}.documents_m",
    "words": "SELECT document_id FROM {}.lexical_documents",
    "nearest": "SELECT document_id FROM (SELECT * FROM {}.documents ORDER BY v <=> '[1, 0]' LIMIT 10) d",
    "function": "SELECT document_id FROM {}.near()",
    "function of many": "SELECT document_id FROM {}.many()",
    "function of words": "SELECT document_id FROM {}.words()",
    "join": "SELECT document_id FROM {}.near() JOIN (VALUES ('mine'), ('closed'), ('others'), ('open'), ('public'),"
    " ('written'), ('groups')) AS own (document_id) USING (document_id)",
}


def found(db: RoleDatabase, shop: Api, query: str, role: str = "analyst") -> list[str]:
    text = sql.SQL(query).format(sql.Identifier(shop.namespace))
    return sorted(row[0] for row in db.query(role, text))


@pytest.mark.parametrize("query", QUERIES)
def test_an_analyst_finds_what_is_open_and_what_names_a_role_of_theirs(db: RoleDatabase, shop: Api, query: str) -> None:
    assert found(db, shop, QUERIES[query]) == SEEN


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("role", ["api", "worker", "migrator"])
def test_those_who_own_the_documents_find_all(db: RoleDatabase, shop: Api, query: str, role: str) -> None:
    assert found(db, shop, QUERIES[query], role) == sorted(lists(db))


def test_a_role_that_is_given_and_taken_counts_at_once(db: RoleDatabase, shop: Api) -> None:
    role, login = sql.Identifier("somebody"), sql.Identifier(f"{db.login}_analyst")
    with psycopg.connect(db.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            admin.execute(sql.SQL("GRANT {} TO {}").format(role, login))
            assert found(db, shop, QUERIES["documents"]) == sorted([*SEEN, "others"])
            admin.execute(sql.SQL("REVOKE {} FROM {}").format(role, login))
            assert found(db, shop, QUERIES["documents"]) == SEEN
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(role))


def test_no_setting_of_a_session_widens_it(db: RoleDatabase, shop: Api) -> None:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(shop.namespace, "documents"))
    with psycopg.connect(db.as_("analyst"), autocommit=True) as conn:
        conn.execute("SET search_path = pg_temp, public")
        conn.execute(
            "CREATE FUNCTION pg_temp.session_roles() RETURNS text[] LANGUAGE sql AS $$ SELECT '{somebody}'::text[] $$"
        )
        assert conn.execute(query).fetchone() == (len(SEEN),)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SET ROLE pgretrieve_api")
        conn.execute("SET row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            conn.execute(query)


def test_a_policy_keeps_nobody_from_the_vector_index(db: RoleDatabase, shop: Api) -> None:
    query = sql.SQL("EXPLAIN SELECT document_id FROM {} ORDER BY v <=> '[1, 0]' LIMIT 3")
    with psycopg.connect(db.as_("analyst")) as conn:
        conn.execute("SET enable_seqscan = off")
        plan = conn.execute(query.format(sql.Identifier(shop.namespace, "documents"))).fetchall()
    assert "Index Scan using" in str(plan)
    assert "session_roles" in str(plan) or "readers" in str(plan)


def test_every_table_that_is_made_later_is_protected_too(db: RoleDatabase, shop: Api) -> None:
    name = f"{shop.namespace}_more"
    shop("POST", f"/namespaces/{shop.namespace}/clone", {"namespace_name": name})
    with psycopg.connect(db.url) as conn:
        tables = conn.execute(
            """
            SELECT c.relname, c.relrowsecurity FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
            JOIN pgretrieve.namespaces n ON n.schema_name = s.nspname
            WHERE n.namespace_name = %s AND c.relkind = 'r' AND EXISTS (SELECT FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attname = 'document_id') ORDER BY 1
            """,
            [name],
        ).fetchall()
    assert tables == [("documents", True), ("documents_m", True), ("lexical_documents", True)]


def test_a_revoked_document_is_absent_from_the_next_query(db: RoleDatabase, shop: Api) -> None:
    path = "/collections/_direct_upsert/documents/mine/acl"
    for reading in (False, True):
        shop("PATCH", path, {"read": [f"{db.login}_analyst"] if reading else []})
        for query in QUERIES.values():
            assert ("mine" in found(db, shop, query)) is reading
