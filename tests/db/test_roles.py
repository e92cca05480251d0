"""The roles of the database: each does its walk, and cannot do what it must not."""

import json
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from app import service
from app.cli import main
from app.db import roles
from app.settings import Settings
from tests.conftest import database
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.roles import RoleDatabase, made_in


@pytest.fixture(scope="module")
def db(server_url: str, template_db: str) -> Iterator[RoleDatabase]:
    with database(server_url, template_db) as url, made_in(url) as made:
        yield made


@pytest.fixture(scope="module")
def role_url(db: RoleDatabase, settings: Settings) -> Iterator[str]:
    """A service that is logged in as a member of pgretrieve_api."""
    with service.in_background(settings, db.as_("api"), ROOT_KEY) as url:
        yield url


@pytest.fixture
def role_api(role_url: str) -> Iterator[Api]:
    with httpx.Client(base_url=f"{role_url}/v1", timeout=30) as http:
        yield Api(http, f"roles_{uuid4().hex[:12]}")


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.commands.options.configure_logging", lambda *_: None)


def run(*arguments: str, **more: str) -> Result:
    unset = dict.fromkeys((n for n in os.environ if n.startswith(("PGRETRIEVE_", "DATABASE_URL"))), None)
    return CliRunner().invoke(main, arguments, env={**unset, **more}, prog_name="pgretrieve")


RIGHTS = """
    SELECT c.oid::regclass::text, c.relowner::regrole::text, c.relacl::text FROM pg_class c
    JOIN pg_namespace s ON s.oid = c.relnamespace WHERE s.nspname IN ('pgretrieve', 'pgretrieve_queue')
    UNION ALL SELECT p.oid::regprocedure::text, p.proowner::regrole::text, p.proacl::text FROM pg_proc p
    JOIN pg_namespace s ON s.oid = p.pronamespace WHERE s.nspname IN ('pgretrieve', 'pgretrieve_queue') ORDER BY 1
"""


def test_making_the_roles_again_changes_nothing(db: RoleDatabase) -> None:
    with psycopg.connect(db.url, autocommit=True) as conn:
        before = conn.execute(RIGHTS).fetchall()
        told = run("roles", DATABASE_URL=db.url)
        assert told.exit_code == 0, told.output
        assert conn.execute(RIGHTS).fetchall() == before
    assert run("roles", "--sql").stdout == roles.script()


def test_every_probe_holds_and_leaves_nothing_behind(db: RoleDatabase) -> None:
    told = run("roles", "--check", "--json", DATABASE_URL=db.url)
    assert told.exit_code == 0, told.output
    outcomes = json.loads(told.stdout)
    assert len(outcomes) == len(roles.probes()) > 40
    assert {o["probe"]["role"] for o in outcomes} == {
        f"pgretrieve_{r}" for r in ("api", "worker", "analyst", "migrator")
    }
    with psycopg.connect(db.url) as conn:
        left = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgretrieve_%probe%'").fetchall()
    assert left == []


def test_a_right_too_many_and_a_right_too_few_are_told(db: RoleDatabase) -> None:
    with psycopg.connect(db.url, autocommit=True) as conn:
        conn.execute("GRANT SELECT ON pgretrieve.api_keys TO pgretrieve_analyst")
        conn.execute("REVOKE DELETE ON pgretrieve.work FROM pgretrieve_worker")
        try:
            told = run("roles", "--check", DATABASE_URL=db.url)
            assert told.exit_code == 1
            wrong = [line for line in told.stdout.splitlines() if "NO:" in line]
            assert len(wrong) == 2, told.stdout
            assert "pgretrieve_worker" in wrong[0] and "end work" in wrong[0] and "permission denied" in wrong[0]
            assert "pgretrieve_analyst" in wrong[1] and "read keys" in wrong[1]
        finally:
            conn.execute("REVOKE SELECT ON pgretrieve.api_keys FROM pgretrieve_analyst")
            roles.make(conn)  # gives back what was missing
    assert run("roles", "--check", DATABASE_URL=db.url).exit_code == 0


@pytest.fixture
def walked(db: RoleDatabase, role_api: Api, settings: Settings) -> Api:
    """The main walk: created, written to, promoted by the API's login; its new index built by the worker's."""
    api = role_api
    api.standalone(("v", 3))
    payloads = [{"title": "red amplifier"}, {"title": "blue guitar"}, {"title": "green drum"}]
    api.upsert([document(f"d{n}", {"v": [1, n, 0]}, **payload) for n, payload in enumerate(payloads)])
    fields = [{"field_name": "title", "type": "text"}]
    api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": fields})
    api.promote({"add_vectors": [{"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2"}]})
    api("POST", f"/namespaces/{api.namespace}/documents/upsert", {"documents": [document("late", {"v": [0, 0, 1]})]})
    db.work(settings)
    return api


OWNERS = """
    SELECT c.relowner::regrole::text FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname = %(schema)s AND c.relkind IN ('r', 'i', 'S')
    UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = %(schema)s
"""


def test_the_service_walks_as_its_roles(db: RoleDatabase, walked: Api) -> None:
    with psycopg.connect(db.url) as conn:
        found = conn.execute(
            "SELECT index_state, index_is_valid FROM pgretrieve.all_vector_configs WHERE namespace_id = %s",
            [walked.namespace],
        ).fetchall()
        owners = conn.execute(OWNERS, {"schema": walked.namespace}).fetchall()
    assert found == [("ready", True), ("ready", True)]
    assert owners == [("pgretrieve_owner",)]
    walked.retriever("near", feature_search(search("v", [1, 0, 0])))
    assert walked.ids("near")[0] == "d0"
    walked.retriever("words", feature_search(search("lexical", "guitar", mode="text", lexical=True)))
    assert walked.ids("words") == ["d1"]
    walked("DELETE", f"/namespaces/{walked.namespace}")


def test_an_analyst_reads_a_new_namespace_and_its_copy_at_once(db: RoleDatabase, walked: Api) -> None:
    copy = f"copy_{walked.namespace}"
    walked("POST", f"/namespaces/{walked.namespace}/clone", {"namespace_name": copy})
    where = "SELECT schema_name FROM pgretrieve.all_namespaces WHERE namespace_name = %s"
    for name in (walked.namespace, copy):
        ((schema,),) = db.query("analyst", where, [name])
        count = sql.SQL("SELECT count(*), count(v) FROM {}").format(sql.Identifier(schema, "documents"))
        assert db.query("analyst", count) == [(4, 4)]
        words = sql.SQL("SELECT document_id FROM {} WHERE words @@ 'guitar'::tsquery")
        assert db.query("analyst", words.format(sql.Identifier(schema, "lexical_documents"))) == [("d1",)]
    made = db.query(
        "analyst",
        "SELECT document_id, made_by FROM pgretrieve.vector_provenance "
        "WHERE namespace_id = %s AND index_name = 'v' ORDER BY 1",
        [walked.namespace],
    )
    assert made == [(d, "caller") for d in ("d0", "d1", "d2", "late")]


WRITES = [
    "INSERT INTO {} (document_id, collection_id, payload, metadata) VALUES ('x', 'c', '{{}}', '{{}}')",
    "UPDATE {} SET payload = '{{}}'",
    "DELETE FROM {}",
    "TRUNCATE {}",
    "ALTER TABLE {} ADD COLUMN x text",
    "DROP TABLE {}",
    "CREATE INDEX ON {} (collection_id)",
]


@pytest.mark.parametrize("write", WRITES)
def test_an_analyst_changes_no_document(db: RoleDatabase, role_api: Api, write: Any) -> None:
    role_api.standalone(("v", 3))
    with psycopg.connect(db.as_("analyst")) as conn, pytest.raises(InsufficientPrivilege):
        conn.execute(sql.SQL(write).format(sql.Identifier(role_api.namespace, "documents")))


def test_an_analyst_reads_no_table_of_the_catalogue_but_three(db: RoleDatabase) -> None:
    tables = db.query(
        "analyst",
        "SELECT c.relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') "
        "AND s.nspname IN ('pgretrieve', 'pgretrieve_queue') AND has_any_column_privilege(c.oid, 'SELECT') ORDER BY 1",
    )
    assert tables == [("namespaces",), ("vector_configs",), ("vector_inference_map",)]
