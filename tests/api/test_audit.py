"""The audit log: what an event has and has not, that it stands or falls with its change, that it stays, and reading."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import mixpeek
import psycopg
import pytest
from click.testing import CliRunner
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.cli import main
from app.db.engine import transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.runtime import Runtime
from app.domain.security import audit, keys
from app.settings import Settings
from tests.http import ROOT_KEY, Api, feature_search, search, stage

LOGS = "/organizations/audit/logs"
OLD = """
    INSERT INTO pgretrieve.audit_events (happened_at, actor_type, actor_id, action, resource_type, resource_id, changes)
    SELECT now() - make_interval(days => %s), 'command', %s, 'a', 'b', 'c', '{}' FROM generate_series(1, %s)
"""


def events(api: Api, **wanted: str) -> list[dict[str, Any]]:
    query = httpx.QueryParams({"namespace_id": api.namespace, **wanted})
    found: list[dict[str, Any]] = api("GET", f"{LOGS}?{query}")["results"]
    return found


def named(conninfo: str, resource_id: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo) as conn:
        text = """SELECT action, actor_type, actor_id = session_user, operation_id, changes FROM pgretrieve.audit_events
            WHERE resource_id = %s ORDER BY audit_id"""
        return conn.execute(text, [resource_id]).fetchall()


def test_an_event_says_who_changed_what_when_why_and_from_where(api: Api) -> None:
    key = api("POST", "/keys", {"name": "deployments", "scopes": ["*"]})
    before = datetime.now(UTC)
    body = {"namespace_id": api.namespace, "vector_configs": [{"name": "v", "dimension": 3}]}
    headers: dict[str, Any] = {"Authorization": f"Bearer {key['key']}", "X-Request-Id": f"req-{api.namespace}"}
    headers["X-Change-Reason"] = "für den Katalog".encode()
    api("POST", "/namespaces/standalone", body, headers=headers)
    (event,) = events(api)
    assert before - timedelta(minutes=1) < datetime.fromisoformat(event.pop("timestamp")) <= datetime.now(UTC)
    assert api("GET", f"{LOGS}/{event.pop('audit_id')}")["resource_id"] == api.namespace
    assert event == {
        "resource_type": "namespace",
        "resource_id": api.namespace,
        "action": "namespace_created",
        "actor_id": key["key_id"],
        "actor_type": "api_key",
        "actor_key_name": "deployments",
        "namespace_id": api.namespace,
        "status": "success",
        "changes": {"mode": "standalone", "namespace_name": api.namespace, "vector_indexes": ["v"]},
        "reason": "für den Katalog",
        "ip_address": "127.0.0.1",
        "request_id": f"req-{api.namespace}",
        "operation_id": "create_standalone_namespace",
    }


def test_no_event_holds_a_secret_or_a_content(api: Api, conninfo: str) -> None:
    api.standalone(("v", 3))
    secret = f"secret-{uuid4().hex}"
    call = stage("api_call", url="https://example.com", allowed_domains=["example.com"], body={"note": secret})
    near = feature_search(search("v", [0.123, 0.456, 0.789]))
    api("PATCH", f"/namespaces/{api.namespace}", {"description": secret})
    made = api("POST", "/retrievers", {"retriever_name": "r", "description": secret, "stages": [near, call]})
    key = api("POST", "/keys", {"name": "k", "scopes": ["read"]})
    rotated = api("POST", f"/keys/{key['key_id']}/rotate", {})
    with psycopg.connect(conninfo) as conn:
        stored = str(conn.execute("SELECT t::text FROM pgretrieve.audit_events t").fetchall())
    assert made["retriever_id"] in stored
    for text in (secret, key["key"], rotated["key"], "0.123"):
        assert text not in stored
    (created, _) = named(conninfo, key["key_id"])
    assert created[4] == {"name": "k", "scopes": ["read"]}


def test_what_is_long_is_cut(api: Api) -> None:
    api.standalone(*((f"v{n}", 2) for n in range(64)))
    api("POST", "/buckets", {"bucket_name": "b" * 255, "bucket_schema": {"properties": {}}})
    made, first = events(api)
    assert made["changes"]["bucket_name"] == f"{'b' * 200}…"
    assert len(first["changes"]["vector_indexes"]) == 50


def test_what_is_refused_leaves_no_event(api: Api) -> None:
    api.standalone(("v", 3))
    before = events(api)
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace}, status=409)
    api.refused("POST", f"/namespaces/{api.namespace}/promote", {"add_vectors": [{"name": "v", "dimension": 3}]})
    api("POST", "/retrievers", {"retriever_name": "r", "stages": [{}]}, status=422)
    api("DELETE", f"/namespaces/{api.namespace}/vector-indexes/none", status=404)
    assert events(api) == before


async def test_an_event_and_its_change_commit_together(engine: AsyncEngine, settings: Settings, conninfo: str) -> None:
    name = f"test_{uuid4().hex[:12]}"
    with pytest.raises(RuntimeError):
        async with transaction(engine, settings) as conn:
            await namespaces.create_standalone(conn, settings, namespace_id=name, vectors=[NewVector("v", 3)])
            raise RuntimeError("the request fails after create() returned")
    assert named(conninfo, name) == []
    async with transaction(engine, settings) as conn:
        await namespaces.create_standalone(conn, settings, namespace_id=name, vectors=[NewVector("v", 3)])
        assert named(conninfo, name) == []  # nobody sees it before the change
    assert [event[:3] for event in named(conninfo, name)] == [("namespace_created", "command", True)]


def test_a_change_tells_what_was_given_and_what_was_taken_back(api: Api, conninfo: str) -> None:
    key_id = api("POST", "/keys", {"name": "k", "scopes": ["read"], "rate_limit_override": 5})["key_id"]
    for body in ({"name": "other"}, {"rate_limit_override": 9}, {"rate_limit_override": None}):
        api("PATCH", f"/keys/{key_id}", body)
    assert [event[4] for event in named(conninfo, key_id)[1:]] == [
        {"changed": ["name"], "name": "other"},
        {"changed": ["rate_limit_override"], "rate_limit_override": 9},
        {"changed": ["rate_limit_override"]},
    ]
    shown = api("GET", f"/keys/{key_id}")
    assert (shown["name"], shown["rate_limit_override"]) == ("other", None)


def test_doing_nothing_again_is_no_event(api: Api, conninfo: str) -> None:
    key = api("POST", "/keys", {"name": "k", "scopes": ["read"]})
    for _ in range(2):
        api("DELETE", f"/keys/{key['key_id']}")
    assert [event[0] for event in named(conninfo, key["key_id"])] == ["api_key_created", "api_key_revoked"]


@pytest.mark.parametrize("reason", ["x" * 501, "two\tcolumns"])
def test_a_reason_that_is_none_is_refused_and_nothing_is_done(api: Api, reason: str) -> None:
    body = {"namespace_id": api.namespace, "vector_configs": []}
    error = api("POST", "/namespaces/standalone", body, headers={"X-Change-Reason": reason}, status=422)["error"]
    assert error["code"] == "bad_reason"
    api("GET", f"/namespaces/{api.namespace}", status=404)
    api("GET", "/namespaces", headers={"X-Change-Reason": reason})  # what changes nothing has no use for it


def test_addresses_are_kept_only_where_the_settings_say_so(settings: Settings, conninfo: str) -> None:
    chosen = settings.model_copy(update={"audit_addresses": False})
    with (
        service.in_background(chosen, conninfo, ROOT_KEY) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=30) as http,
    ):
        api = Api(http, f"test_{uuid4().hex[:12]}")
        api.standalone(("v", 3))
        assert [event["ip_address"] for event in events(api)] == [None]


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE pgretrieve.audit_events SET reason = 'another'",
        "DELETE FROM pgretrieve.audit_events",
        "TRUNCATE pgretrieve.audit_events",
        "SET pgretrieve.forgetting_audit_events = 'on'; UPDATE pgretrieve.audit_events SET reason = 'another'",
        "SET pgretrieve.forgetting_audit_events = 'on'; TRUNCATE pgretrieve.audit_events",
    ],
)
def test_events_are_not_changed_or_removed_even_by_a_superuser(api: Api, conninfo: str, text: str) -> None:
    api.standalone(("v", 3))
    with psycopg.connect(conninfo) as conn, pytest.raises(InsufficientPrivilege, match="not changed or removed"):
        conn.execute(text.encode())
    assert len(events(api)) == 1


async def test_old_events_are_forgotten_in_batches_and_a_month_is_kept(runtime: Runtime, conninfo: str) -> None:
    mark = uuid4().hex
    with psycopg.connect(conninfo) as conn:
        for days, count in ((41, 2 * audit.FORGOTTEN_AT_ONCE + 1), (39, 3), (0, 1)):
            conn.execute(OLD, [days, mark, count])

    def left() -> int:
        with psycopg.connect(conninfo) as conn:
            text = "SELECT count(*) FROM pgretrieve.audit_events WHERE actor_id = %s"
            return int(conn.execute(text, [mark]).fetchall()[0][0])

    def keeping(days: int) -> Runtime:
        update = {"audit_retention_days": days}
        return Runtime(runtime.settings.model_copy(update=update), runtime.engine, runtime.inference)

    assert await audit.forget_old(keeping(0)) == 0
    assert await audit.forget_old(keeping(40)) == 2 * audit.FORGOTTEN_AT_ONCE + 1
    assert left() == 4
    with psycopg.connect(conninfo) as conn, pytest.raises(InvalidParameterValue, match="30 days at least"):
        conn.execute("SELECT pgretrieve.forget_audit_events('29 days', 1000)")
    for wrong in (-1, 1, 29):
        with pytest.raises(ValidationError):
            Settings(audit_retention_days=wrong)
    assert await audit.forget_old(keeping(30)) == 3
    assert left() == 1


def test_events_are_found_by_what_they_are_about_and_when(api: Api) -> None:
    api.standalone(("v", 3))
    first = api.retriever("r", feature_search(search("v", [1, 0, 0])))["retriever_id"]
    api("PATCH", "/retrievers/r", {"description": "changed"})
    api("DELETE", "/retrievers/r")

    def actions(**wanted: str) -> list[str]:
        return [event["action"] for event in events(api, **wanted)]

    every = ["retriever_deleted", "retriever_updated", "retriever_created", "namespace_created"]
    assert actions() == every
    assert actions(resource_type="retriever") == every[:3]
    assert actions(resource_type="namespace", resource_id=api.namespace) == every[3:]
    assert actions(resource_id=first, action="retriever_updated") == every[1:2]
    assert actions(actor_id="root") == every
    assert actions(actor_id="key_none") == []
    times = [event["timestamp"] for event in events(api)]
    assert actions(start=times[2]) == every[:3]
    assert actions(end=times[2]) == every[3:]
    assert actions(start=times[2].replace("Z", "").replace("+00:00", ""), end=times[1]) == every[2:3]


def test_events_are_paged_by_cursor_and_by_skipping(api: Api) -> None:
    api.standalone(("v", 3))
    for n in range(4):
        api("PATCH", f"/namespaces/{api.namespace}", {"description": str(n)})
    every = [event["audit_id"] for event in events(api)]
    cursor, found = "", []
    for total in (5, 6, 7):
        page = api("GET", f"{LOGS}?namespace_id={api.namespace}&limit=2{cursor}")
        assert (page["total"], page["skip"], page["limit"]) == (total, 0, 2)
        found += [event["audit_id"] for event in page["results"]]
        cursor = f"&cursor={page['pagination']['next_cursor']}"
        api("PATCH", f"/namespaces/{api.namespace}", {"description": "meanwhile"})
    assert found == every
    assert page["pagination"]["next_cursor"] is None
    assert [event["audit_id"] for event in events(api, skip="3", limit="2")] == every[:2]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("start=yesterday", "bad_time@query.start"),
        ("end=2030-13-01", "bad_time@query.end"),
        ("skip=-1", "out_of_range@query.skip"),
        ("skip=10001", "out_of_range@query.skip"),
        ("limit=0", "out_of_range@query.limit"),
        ("cursor=bm9uZQ", "bad_cursor@query.cursor"),
        ("action=%00", "nul_character@query.action"),
    ],
)
def test_a_list_that_cannot_be_is_refused(api: Api, query: str, problem: str) -> None:
    assert api.refused("GET", f"{LOGS}?{query}")[1] == [problem]


def test_who_is_no_administrator_reads_no_events(api: Api) -> None:
    key = api("POST", "/keys", {"name": "k", "scopes": ["read", "write", "manage"]})["key"]
    api("GET", LOGS, headers={"Authorization": f"Bearer {key}"}, status=403)
    for audit_id in ("none", "1" * 30, "999999999999999"):
        api("GET", f"{LOGS}/{audit_id}", status=404)
    for path in ("logs/export", "settings"):
        api("GET", f"/organizations/audit/{path}", status=501)


def test_the_official_client_reads_events(api: Api, base_url: str) -> None:
    api.standalone(("v", 3))
    client = mixpeek.ApiClient(mixpeek.Configuration(host=base_url, access_token=ROOT_KEY))
    logs = mixpeek.OrganizationAuditApi(client)
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    chosen = {"action": mixpeek.AuditAction.NAMESPACE_CREATED, "resource_id": api.namespace, "start": since}
    (event,) = logs.list_audit_logs_organizations(skip=0, limit=10, **chosen).results
    assert (event.resource_type, event.actor_id, event.status) == ("namespace", "root", "success")
    assert logs.get_audit_log_organizations(event.audit_id).changes["vector_indexes"] == ["v"]
    client.rest_client.pool_manager.clear()


@pytest.fixture
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.commands.options.configure_logging", lambda *_: None)


def test_commands_write_events_as_the_login_of_the_database(conninfo: str, keep_logging: None) -> None:
    def run(*arguments: str) -> Any:
        unset = dict.fromkeys((n for n in os.environ if n.startswith(("PGRETRIEVE_", "DATABASE_URL"))), None)
        told = CliRunner().invoke(main, arguments, env={**unset, "DATABASE_URL": conninfo}, prog_name="pgretrieve")
        assert told.exit_code == 0, told.output
        return json.loads(told.stdout)

    made = run("keys", "create", "--name", "k", "--scope", "read", "--rate-limit", "60", "--json")
    assert made["rate_limit_override"] == 60
    run("keys", "rotate", made["key_id"], "--json")
    run("keys", "revoke", made["key_id"], "--json")
    found = named(conninfo, made["key_id"])
    commands = ["create", "rotate", "revoke"]
    done = [f"api_key_{name}" for name in ("created", "rotated", "revoked")]
    assert [event[:4] for event in found] == [
        (action, "command", True, f"pgretrieve keys {name}") for action, name in zip(done, commands, strict=True)
    ]


async def test_another_root_key_is_an_event_and_the_same_one_is_none(
    engine: AsyncEngine, settings: Settings, conninfo: str
) -> None:
    before = len(named(conninfo, "root"))
    for key in ("pgr_another_root_key", "pgr_another_root_key", ROOT_KEY, ROOT_KEY):
        async with transaction(engine, settings) as conn:
            await keys.set_root(conn, key)
    assert [event[0] for event in named(conninfo, "root")[before:]] == ["api_key_rotated"] * 2
