"""A walk of grants and revocations: the next query after each, over the API and in SQL, shows what a model says."""

import random
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
from tests.http import ROOT_KEY, Api, document, feature_search, search, stage
from tests.roles import RoleDatabase, made_in

IDS = [f"d{n}" for n in range(12)]
LEXICAL = search("lexical", "amplifier", mode="text", lexical=True)
DENSE = search("v", [1, 0], top_k=50)
FORMS: dict[str, list[dict[str, Any]]] = {
    "dense": [feature_search(DENSE, final_top_k=50)],
    "lexical": [feature_search({**LEXICAL, "top_k": 50}, final_top_k=50)],
    "hybrid": [feature_search(DENSE, {**LEXICAL, "top_k": 50}, final_top_k=50)],
    "all": [stage("limit", limit=50)],
}
IN_SQL = {
    "select": "SELECT document_id FROM {0}.documents",
    "function": "SELECT document_id FROM {0}.dense()",
    "words": "SELECT document_id FROM {0}.lexical()",
    "join": "SELECT document_id FROM {0}.dense() JOIN pg_temp.own USING (document_id)",
}
Acl = dict[str, Any] | None


@pytest.fixture(scope="module")
def db(server_url: str, template_db: str) -> Iterator[RoleDatabase]:
    with database(server_url, template_db) as url, made_in(url) as made:
        yield made


@pytest.fixture(scope="module")
def http(db: RoleDatabase, settings: Settings) -> Iterator[httpx.Client]:
    with (
        service.in_background(settings, db.as_("api"), ROOT_KEY) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=30) as client,
    ):
        yield client


class Walk:
    """The documents' lists as they should be, and the three who look: two keys and a login of the same name as one."""

    def __init__(self, db: RoleDatabase, http: httpx.Client, seed: int) -> None:
        self.random = random.Random(seed)
        self.api = Api(http, f"walk_{uuid4().hex[:12]}")
        self.login = f"{db.login}_analyst"
        self.lists: dict[str, Acl] = {}
        self.api.standalone(("v", 2))
        fields = [{"field_name": "title", "type": "text"}]
        self.api("PATCH", f"/namespaces/{self.api.namespace}", {"payload_indexes": fields})
        for name, stages in FORMS.items():
            self.api.retriever(name, *stages)
        for name in ("dense", "lexical"):
            self.api("PUT", f"/retrievers/{name}/function", {})
        self.keys = {name: self.key(name) for name in (self.login, "ben")}
        self.analyst = psycopg.connect(db.as_("analyst"), autocommit=True)
        self.analyst.execute("CREATE TEMP TABLE own (document_id text)")
        self.analyst.execute("INSERT INTO own SELECT unnest(%s::text[])", [IDS])

    def key(self, principal: str) -> str:
        made = self.api("POST", "/keys", {"name": "k", "scopes": ["read"], "principal_id": principal})
        return str(made["key"])

    # Steps

    def step(self) -> str:
        choices = [self.upsert, self.upsert, self.patch, self.patch, self.patch, self.rename, self.delete]
        return str(self.random.choice(choices)())

    def names(self) -> list[str]:
        return self.random.sample([self.login, "ben", "carl", "pgretrieve_analyst"], self.random.randint(0, 2))

    def upsert(self) -> str:
        chosen = self.random.sample(IDS, self.random.randint(1, 4))
        sent = []
        for name in chosen:
            acl: Acl = None
            if self.random.random() < 0.7:
                acl = {"read": self.names(), "write": self.names(), "public": self.random.random() < 0.2}
            self.lists[name] = acl
            made = document(name, {"v": [1, int(name[1:])]}, title="amplifier")
            sent.append(made if acl is None else made | {"acl": acl})
        self.api.upsert(sent)
        return f"upsert {[(name, self.lists[name]) for name in chosen]}"

    def patch(self) -> str:
        if not self.lists:
            return self.upsert()
        name = self.random.choice(sorted(self.lists))
        change: dict[str, Any] = {}
        if self.random.random() < 0.6:
            change["read"] = self.names()
        if self.random.random() < 0.6:
            change["write"] = self.names()
        if self.random.random() < 0.3:
            change["public"] = self.random.random() < 0.5
        self.api("PATCH", f"/collections/_direct_upsert/documents/{name}/acl", change)
        self.lists[name] = {"read": [], "write": [], "public": False, **(self.lists[name] or {}), **change}
        return f"patch {name} {change}"

    def rename(self) -> str:
        if not self.lists:
            return self.upsert()
        name = self.random.choice(sorted(self.lists))
        self.api("PATCH", f"/documents/{name}", {"title": "an amplifier"})
        return f"rename {name}"

    def delete(self) -> str:
        if not self.lists:
            return self.upsert()
        name = self.random.choice(sorted(self.lists))
        self.api("DELETE", f"/documents/{name}")
        del self.lists[name]
        return f"delete {name}"

    # What is seen

    def named(self, names: set[str], *, without: bool) -> list[str]:
        """The documents whose lists name one of these, or everybody; and perhaps those without a list."""
        return sorted(
            name
            for name, acl in self.lists.items()
            if (without if acl is None else acl["public"] or names & {*acl["read"], *acl["write"]})
        )

    def by_key(self, principal: str) -> dict[str, list[str]]:
        headers = {"Authorization": f"Bearer {self.keys[principal]}"}
        found = {}
        for name in FORMS:
            body = {"pagination": {"method": "offset", "page_size": 50, "page_number": 1}}
            answer = self.api("POST", f"/retrievers/{name}/execute", body, headers=headers)
            found[name] = sorted(one["document_id"] for one in answer["documents"])
        listed = self.api("POST", "/documents/list", {"limit": 50}, headers=headers)
        found["listing"] = sorted(one["document_id"] for one in listed["results"])
        return found

    def in_sql(self) -> dict[str, list[str]]:
        place = sql.Identifier(self.api.namespace)
        return {
            name: sorted(row[0] for row in self.analyst.execute(sql.SQL(text).format(place)))
            for name, text in IN_SQL.items()
        }


@pytest.mark.parametrize("seed", range(3))
def test_the_very_next_query_shows_what_each_may_see(db: RoleDatabase, http: httpx.Client, seed: int) -> None:
    walk = Walk(db, http, seed)
    with walk.analyst:
        for n in range(25):
            told = f"seed {seed}, step {n}: {walk.step()}"
            for principal in walk.keys:
                expected = walk.named({principal}, without=False)
                assert walk.by_key(principal) == dict.fromkeys([*FORMS, "listing"], expected), told
            expected = walk.named({walk.login, "pgretrieve_analyst"}, without=True)
            assert walk.in_sql() == dict.fromkeys(IN_SQL, expected), told
