"""Keys get another secret: both work for a while, then one; nobody gains rights by it."""

from typing import Any

import psycopg
import pytest

from tests.http import ROOT_KEY, Api


def made(api: Api, *scopes: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = api("POST", "/keys", {"name": "rotating", "scopes": scopes, **more})
    return found


def status(api: Api, key: str) -> tuple[int, str]:
    """What the service says to a key, beside its cache: the code of the error, where it is one."""
    answer = api.http.get("/retrievers", headers={"Authorization": f"Bearer {key}", "X-Namespace": api.namespace})
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def rotate(api: Api, key_id: str, by: str = ROOT_KEY, expected: int = 200, **body: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {by}"}
    found: dict[str, Any] = api("POST", f"/keys/{key_id}/rotate", body, status=expected, headers=headers)
    return found


def test_both_secrets_work_then_only_the_new_one(api: Api, conninfo: str) -> None:
    first = made(api, "read", namespaces=[api.namespace])
    second = rotate(api, first["key_id"])
    assert second["key"] != first["key"]
    assert {n: second[n] for n in ("key_id", "name", "scopes", "namespaces", "status")} == {
        n: first[n] for n in ("key_id", "name", "scopes", "namespaces", "status")
    }
    assert second["previous_until"]
    api.standalone(("v", 3))
    assert [status(api, key["key"])[0] for key in (first, second)] == [200, 200]
    with psycopg.connect(conninfo) as conn:  # the day is over
        conn.execute("UPDATE pgretrieve.api_keys SET previous_until = now() WHERE key_id = %s", [first["key_id"]])
    api("DELETE", f"/keys/{made(api, 'read')['key_id']}")  # the service looks every key up again
    assert status(api, first["key"]) == (401, "key_rotated")
    assert status(api, second["key"])[0] == 200
    assert api("GET", f"/keys/{first['key_id']}")["previous_until"] is None


def test_without_grace_the_old_secret_ends_at_once_and_a_third_ends_the_first(api: Api) -> None:
    api.standalone(("v", 3))
    first = made(api, "read")
    assert status(api, first["key"])[0] == 200  # is trusted from now on
    second = rotate(api, first["key_id"], grace_seconds=0)
    assert status(api, first["key"]) == (401, "key_rotated")
    third = rotate(api, first["key_id"], grace_seconds=60)
    assert [status(api, key["key"])[0] for key in (first, second, third)] == [401, 200, 200]
    api("DELETE", f"/keys/{first['key_id']}")
    assert [status(api, key["key"]) for key in (second, third)] == [(401, "key_revoked")] * 2


def test_an_ended_key_and_the_root_key_are_not_rotated(api: Api) -> None:
    ended = made(api, "read")
    api("DELETE", f"/keys/{ended['key_id']}")
    assert rotate(api, ended["key_id"], expected=409)["error"]["code"] == "key_ended"
    assert rotate(api, "root", expected=409)["error"]["code"] == "root_key"
    rotate(api, "key_none", expected=404)


@pytest.mark.parametrize("grace", [-1, 31 * 86_400, 10**30])
def test_a_grace_that_is_none_is_refused(api: Api, grace: int) -> None:
    rotate(api, made(api, "read")["key_id"], expected=422, grace_seconds=grace)


def test_nobody_gains_a_scope_or_time_by_rotating(api: Api) -> None:
    admin = made(api, "admin", "read")
    short = made(api, "admin", "read", ttl_seconds=3600)
    writer, reader = made(api, "write"), made(api, "read")
    assert rotate(api, writer["key_id"], by=admin["key"], expected=403)["error"]["type"] == "ForbiddenError"
    rotate(api, reader["key_id"], by=short["key"], expected=403)  # it has no end
    rotate(api, reader["key_id"], by=admin["key"])
