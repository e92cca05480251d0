"""Who may read an adopted table: whom its owner has granted that, as its row-level security says, and no others."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from app import service
from app.settings import Settings
from tests.adopting import adopt, films
from tests.conftest import database
from tests.http import ROOT_KEY, Api, feature_search, search
from tests.roles import RoleDatabase, made_in


@pytest.fixture
def db(server_url: str, template_db: str) -> Iterator[RoleDatabase]:
    with database(server_url, template_db) as url, made_in(url) as made:
        yield made


@pytest.fixture
def role_api(db: RoleDatabase, settings: Settings) -> Iterator[Api]:
    with (
        service.in_background(settings, db.as_("api"), ROOT_KEY) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=30) as http,
    ):
        yield Api(http, f"adopted_{uuid4().hex[:12]}")


def test_rights_and_row_level_security_of_the_table_hold_for_all_who_read_it(db: RoleDatabase, role_api: Api) -> None:
    api = role_api
    with films(db.url) as table, psycopg.connect(db.url, autocommit=True) as owner:
        schema = table.split(".")[0]
        answer = adopt(api, table, status=422)
        (problem,) = answer["error"]["details"]["validation_errors"]
        assert problem["type"] == "no_privilege"
        grants = problem["message"].split("allows it: ")[1]
        assert (
            grants
            == f"GRANT USAGE ON SCHEMA {schema} TO pgretrieve_owner; GRANT SELECT ON {table} TO pgretrieve_owner;"
        )
        owner.execute(grants.encode())
        adopt(api, table)
        api.retriever("near", feature_search(search("embedding", [1, 0, 0, 0, 0, 0, 0, 0], top_k=100)))
        assert len(api.ids("near")) == 25

        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(api.namespace, "documents"))
        with pytest.raises(InsufficientPrivilege, match="films"):
            db.query("analyst", count)
        owner.execute(grants.replace("pgretrieve_owner", "pgretrieve_analyst").encode())
        assert db.query("analyst", count) == [(60,)]
        owner.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(sql.Identifier(*table.split("."))))
        policies = (("pgretrieve_owner", "year < 2000"), ("pgretrieve_analyst", "genre = 'war'"))
        for role, rows in policies:
            policy = f"CREATE POLICY of_{role} ON {table} TO {role} USING ({rows})"
            owner.execute(policy.encode())
        assert db.query("analyst", count) == [(20,)]
        assert 0 < len(api.ids("near")) <= 20
        assert all(d["year"] < 2000 for d in api.execute("near")["documents"])

        owner.execute(f"REVOKE SELECT ON {table} FROM pgretrieve_owner".encode())
        assert api.refused("POST", "/retrievers/near/execute", {}, status=503)[0] == "no_privilege"
        api("DELETE", f"/namespaces/{api.namespace}")
