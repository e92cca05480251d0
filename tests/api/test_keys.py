"""Keys over HTTP: made, listed, revoked; what each kind may do on every route; and that the hidden looks absent."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from app import service
from app.api.auth import check_scopes, routes
from app.domain.security.access import SCOPES
from app.main import create_app
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document, feature_search, search

# Sorted: the routes' methods are sets, and every process that runs tests must collect the same ones in the same order.
ROUTES = sorted(
    (method, path, handler.opt["scope"])
    for path, method, handler in routes(create_app(Settings(), "postgresql://nowhere"))
    if path.startswith("/v1/")
)
NEAR = {"retriever_name": "near", "stages": [feature_search(search("v", [1, 0, 0]))]}
BODIES: dict[str, Any] = {
    "POST /namespaces/{}/documents/upsert": {"documents": [document("d", {"v": [1, 0, 0]})]},
    "POST /retrievers": NEAR,
    "PATCH /retrievers/near": {"description": "changed"},
}
Call = Callable[..., httpx.Response]


@pytest.fixture
def call(api: Api) -> Call:
    """A request under a key, with a namespace in the header."""

    def send(key: str | None, method: str, path: str, body: Any = None, namespace: str | None = None) -> httpx.Response:
        headers = {"X-Namespace": namespace or api.namespace}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return api.http.request(method, path, json=body, headers=headers)

    return send


def made(api: Api, *scopes: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = api("POST", "/keys", {"name": "a test's", "scopes": scopes, **more})
    return found


def filled(path: str, namespace: str) -> str:
    """A path with everything that it needs: the namespace, and ids that `prepared` makes."""
    ids = {"namespace_id": namespace, "retriever_id": "near", "document_id": "d", "collection": "_direct_upsert"}
    ids |= {"version": "1", "other": "1"}
    return re.sub(r"/{(\w+):\w+}", lambda found: f"/{ids.get(found[1], 'x')}", path).removeprefix("/v1")


def body_of(method: str, path: str, namespace: str) -> Any:
    return BODIES.get(f"{method} {path.replace(namespace, '{}')}")


def test_a_route_that_does_not_say_who_may_use_it_stops_the_start(settings: Settings) -> None:
    app = create_app(settings, "postgresql://nowhere")
    _path, _method, handler = next(route for route in routes(app) if route[0] == "/v1/keys")
    for wrong in (None, "everything", "open"):
        handler.opt["scope"] = wrong
        with pytest.raises(TypeError, match="/v1/keys must declare one scope"):
            check_scopes(app)


def test_keys_are_made_shown_once_listed_and_read(api: Api, conninfo: str) -> None:
    api.standalone(("v", 3), namespace_name=f"{api.namespace} by name")
    key = made(api, "write", "read", "read", namespaces=[f"{api.namespace} by name"], ttl_seconds=3600)
    assert key["key"].startswith("pgr_")
    assert (key["scopes"], key["namespaces"]) == (["read", "write"], [api.namespace])
    assert (key["status"], key["created_by"], key["last_used_at"]) == ("active", "root", None)
    ends = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < ends <= timedelta(hours=1)
    shown = api("GET", f"/keys/{key['key_id']}")
    assert shown == {name: value for name, value in key.items() if name not in ("key", "warnings")}
    listed: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api("GET", f"/keys?page_size=3{cursor and f'&cursor={cursor}'}")
        listed, cursor = listed + page["results"], page["pagination"]["next_cursor"]
    assert shown in listed
    assert len(listed) == page["total_count"]
    assert key["key"] not in str(listed)
    with psycopg.connect(conninfo) as conn:
        stored = conn.execute("SELECT * FROM pgretrieve.api_keys").fetchall()
    assert key["key"] not in str(stored)
    api("GET", "/keys/key_none", status=404)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"name": "", "scopes": ["read"]}, "bad_name@body.name"),
        ({"name": "k", "scopes": []}, "no_scopes@body.scopes"),
        ({"name": "k", "scopes": ["read", "root"]}, "unknown_scope@body.scopes.1"),
        ({"name": "k", "scopes": ["*"], "namespaces": ["n"]}, "scope_of_whole_server@body.scopes.0"),
        ({"name": "k", "scopes": ["admin"], "namespaces": ["n"]}, "scope_of_whole_server@body.scopes.0"),
        ({"name": "k", "scopes": ["read"], "namespaces": []}, "no_namespaces@body.namespaces"),
        ({"name": "k", "scopes": ["read"], "namespaces": [""]}, "bad_name@body.namespaces.0"),
        ({"name": "k", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "bad_expiry@body.expires_at"),
        ({"name": "k", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00"}, "bad_type@body.expires_at"),
        ({"name": "k", "scopes": ["read"], "ttl_seconds": 0}, "bad_type@body.ttl_seconds"),
        (
            {"name": "k", "scopes": ["read"], "ttl_seconds": 9, "expires_at": "2099-01-01T00:00:00Z"},
            "both_expiries@body.ttl_seconds",
        ),
        ({"name": "k", "scopes": ["read"], "key": "mine"}, "extra_forbidden@body"),
    ],
)
def test_bad_keys_are_refused(api: Api, body: Any, problem: str) -> None:
    assert api.refused("POST", "/keys", body)[1] == [problem]


def test_a_key_gives_no_right_that_it_lacks(api: Api, call: Call) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    maker = made(api, "admin", "read", expires_at=soon.isoformat())
    for wanted in ({"scopes": ["write"]}, {"scopes": ["*"]}, {"scopes": ["read"], "ttl_seconds": 7200}):
        answer = call(maker["key"], "POST", "/keys", {"name": "more", **wanted})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    answer = call(maker["key"], "POST", "/keys", {"name": "as much", "scopes": ["admin", "read"]})
    child = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (child["created_by"], child["expires_at"]) == (maker["key_id"], maker["expires_at"])
    assert call(child["key"], "GET", "/keys").status_code == 200


def test_a_key_of_a_namespace_to_come_is_warned_about(api: Api, call: Call) -> None:
    key = made(api, "manage", "read", namespaces=[api.namespace])
    assert api.namespace in key["warnings"][0]
    assert call(key["key"], "GET", f"/namespaces/{api.namespace}").status_code == 404
    other = call(key["key"], "POST", "/namespaces/standalone", {"namespace_id": f"{api.namespace}_b"})
    assert (other.status_code, other.json()["error"]["code"]) == (403, "outside_namespaces")
    assert call(key["key"], "POST", "/namespaces/standalone", {"namespace_id": api.namespace}).status_code == 200
    assert call(key["key"], "GET", f"/namespaces/{api.namespace}").status_code == 200


def test_revoking_works_at_once_and_twice(api: Api, call: Call) -> None:
    key = made(api, "read")
    assert call(key["key"], "GET", "/namespaces").status_code == 200
    revoked = api("DELETE", f"/keys/{key['key_id']}")
    assert revoked["status"] == "revoked"
    answer = call(key["key"], "GET", "/namespaces")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_revoked")
    assert api("DELETE", f"/keys/{key['key_id']}") == revoked
    api("DELETE", "/keys/key_none", status=404)
    assert api.refused("DELETE", "/keys/root", status=409)[0] == "root_key"
    api("GET", "/namespaces")


def test_an_expired_key_is_401_although_it_was_trusted(api: Api, call: Call) -> None:
    key = made(api, "read", ttl_seconds=1)
    assert call(key["key"], "GET", "/namespaces").status_code == 200
    deadline = time.monotonic() + 3  # the second for which it holds; `key_cache_s` is five
    while (answer := call(key["key"], "GET", "/namespaces")).status_code == 200:
        assert time.monotonic() < deadline, "the cache outlasts the key"
        time.sleep(0.05)
    assert answer.json()["error"]["code"] == "key_expired"
    assert api("GET", f"/keys/{key['key_id']}")["status"] == "expired"


def test_revoking_reaches_other_processes_and_uses_are_noted(api: Api, conninfo: str, settings: Settings) -> None:
    """Another service on the database: it believes its cache for `key_cache_s`, and notes uses when it ends."""
    key = made(api, "read")
    headers = {"Authorization": f"Bearer {key['key']}"}
    quick = settings.model_copy(update={"key_cache_s": 0.3})
    with service.in_background(quick, conninfo, ROOT_KEY) as url:
        assert httpx.get(f"{url}/v1/namespaces", headers=headers).status_code == 200
        api("DELETE", f"/keys/{key['key_id']}")
        deadline = time.monotonic() + 5
        while httpx.get(f"{url}/v1/namespaces", headers=headers).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert api("GET", f"/keys/{key['key_id']}")["last_used_at"] is None
    used = datetime.fromisoformat(api("GET", f"/keys/{key['key_id']}")["last_used_at"])
    assert timedelta(0) <= datetime.now(UTC) - used < timedelta(minutes=1)


@pytest.fixture(scope="module")
def kinds(base_url: str) -> Iterator[dict[str, str | None]]:
    """A key of every kind; those of scopes see every namespace."""
    with httpx.Client(base_url=f"{base_url}/v1") as http:
        api = Api(http, f"test_{uuid4().hex[:12]}")
        kinds: dict[str, str | None] = {"none": None, "unknown": "pgr_no_such_key_at_all"}
        kinds |= {scope: made(api, scope)["key"] for scope in SCOPES}
        kinds |= {"*": made(api, "*")["key"]}
        kinds["limited"] = made(api, "read", "write", "manage", namespaces=[api.namespace])["key"]
        revoked = made(api, "*")
        api("DELETE", f"/keys/{revoked['key_id']}")
        kinds["revoked"] = revoked["key"]
        yield kinds


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_route_takes_the_keys_of_its_scope_and_no_other(
    call: Call, kinds: dict[str, str | None], method: str, path: str, scope: str
) -> None:
    nowhere = f"absent_{uuid4().hex[:8]}"
    for kind, key in kinds.items():
        at = filled(path, nowhere)
        status = call(key, method, at, body_of(method, at, nowhere), nowhere).status_code
        if kind in ("none", "unknown", "revoked"):
            assert status == 401, kind
        elif kind in ("*", scope) or (kind == "limited" and scope != "admin"):
            assert status not in (401, 403), kind
            assert status < 500, kind
        else:
            assert status == 403, kind


@pytest.fixture
def prepared(api: Api) -> Iterator[tuple[Api, Api]]:
    """Two namespaces alike, the second one hidden from the key under test; each with a document and a retriever."""
    hidden = Api(api.http, f"{api.namespace}_hidden")
    for each in (api, hidden):
        each.standalone(("v", 3), namespace_name=f"{each.namespace} by name")
        each.upsert([document("d", {"v": [1, 0, 0]}, secret="of its own")])
        each("POST", "/retrievers", NEAR)
        each.execute("near")  # prepared, and so kept
    yield api, hidden
    hidden("DELETE", f"/namespaces/{hidden.namespace}")


def test_a_hidden_namespace_is_answered_as_one_that_is_not_there(prepared: tuple[Api, Api], call: Call) -> None:
    """On every route, by id and by name, word for word; and nothing happens to it."""
    api, hidden = prepared
    key = made(api, "read", "write", "manage", namespaces=[api.namespace])["key"]
    before = hidden("GET", f"/namespaces/{hidden.namespace}")
    reached = set()
    for method, path, scope in ROUTES:
        if scope == "admin":
            continue
        for name in (hidden.namespace, f"{hidden.namespace} by name"):
            answers = []
            for namespace in (name, name.replace("hidden", "absent")):
                at = filled(path, namespace)
                answer = call(key, method, at, body_of(method, at, namespace), namespace)
                answers.append((answer.status_code, answer.text.replace(namespace, "…")))
            assert answers[0] == answers[1], f"{method} {path}"
            assert "of its own" not in answers[0][1]
            if answers[0][0] == 404:
                reached.add(f"{method} {path}")
    assert len(reached) >= 18
    unlisted = call(key, "GET", "/retrievers", None, hidden.namespace)
    assert (unlisted.json()["results"], unlisted.headers["x-namespace-unresolved"]) == ([], "true")
    assert hidden("GET", f"/namespaces/{hidden.namespace}") == before
    assert hidden.ids("near") == ["d"]


def test_lists_show_only_what_the_key_sees(prepared: tuple[Api, Api], call: Call) -> None:
    api, _hidden = prepared
    key = made(api, "read", namespaces=[f"{api.namespace} by name"])["key"]
    for method, path in (("GET", "/namespaces?include_total=true"), ("POST", "/namespaces/list")):
        page = call(key, method, path).json()
        assert [namespace["namespace_id"] for namespace in page["results"]] == [api.namespace]
        assert page["total_count"] == 1


@pytest.mark.parametrize("namespaces", [True, False])
def test_the_workflow_with_just_the_scopes_that_it_needs(api: Api, call: Call, *, namespaces: bool) -> None:
    """Each step passes with its scope alone and is 403 with all the others."""
    limits = {"namespaces": [api.namespace]} if namespaces else {}
    scopes = [scope for scope in SCOPES if not (namespaces and scope == "admin")]
    alone = {scope: made(api, scope, **limits)["key"] for scope in scopes}
    others = {scope: made(api, *(set(scopes) - {scope}), **limits)["key"] for scope in scopes}
    here = f"/namespaces/{api.namespace}"
    configs = [{"name": "v", "dimension": 3}]
    steps: list[tuple[str, str, str, Any]] = [
        ("manage", "POST", "/namespaces/standalone", {"namespace_id": api.namespace, "vector_configs": configs}),
        ("write", "POST", f"{here}/documents/upsert", {"documents": [document("d", {"v": [1, 0, 0]})]}),
        ("read", "GET", here, None),
        ("read", "GET", f"{here}/documents/d", None),
        ("read", "GET", "/documents/d", None),
        ("read", "POST", "/documents/list", None),
        ("manage", "POST", "/retrievers", NEAR),
        ("read", "POST", "/retrievers/near/execute", {}),
        ("read", "GET", "/retrievers", None),
        ("manage", "PATCH", "/retrievers/near", {"description": "changed"}),
        ("manage", "POST", f"{here}/promote/validate", None),
        ("manage", "POST", f"{here}/promote", None),
        ("read", "GET", "/inference/services", None),
        ("write", "DELETE", "/documents/d", None),
        ("manage", "DELETE", "/retrievers/near", None),
        ("manage", "DELETE", here, None),
    ]
    for scope, method, path, body in steps:
        assert call(others[scope], method, path, body).status_code == 403, f"{method} {path}"
        answer = call(alone[scope], method, path, body)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
