"""Limits of requests by key: refused in the envelope, told by headers, over as the clock goes on; nothing else is."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import mixpeek
import pytest
import throttled.utils
from mixpeek import Mixpeek

from app import service
from app.api.rate_limits import KEYS, RateLimits
from app.domain.security.access import Principal
from app.errors import TooManyRequests
from app.settings import Settings
from tests.http import ROOT_KEY, Api

LIMIT = 3


class Clock:
    """The limiter's clock: it stands still until a test, or a client that waits, moves it on."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throttled.utils, "now_mono_f", lambda: made.now)
    return made


@pytest.fixture(scope="module")
def limited_url(conninfo: str, settings: Settings) -> Iterator[str]:
    update = {"rate_limit_per_minute": LIMIT}
    with service.in_background(settings.model_copy(update=update), conninfo, ROOT_KEY) as url:
        yield url


@pytest.fixture
def limited(limited_url: str) -> Iterator[Api]:
    with httpx.Client(base_url=f"{limited_url}/v1", timeout=30) as http:
        yield Api(http, "rate_limits")


def made(api: Api, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = api("POST", "/keys", {"name": "limited", "scopes": ["read"], **more})
    return found


def get(api: Api, key: dict[str, Any], path: str = "/namespaces") -> httpx.Response:
    return api.http.get(path, headers={"Authorization": f"Bearer {key['key']}"})


def left(answer: httpx.Response) -> str:
    return answer.headers["X-RateLimit-Remaining"]


def test_a_key_beyond_its_limit_is_refused_until_its_requests_come_back(limited: Api, clock: Clock) -> None:
    key, other = made(limited), made(limited)
    assert [left(get(limited, key)) for _ in range(LIMIT)] == ["2", "1", "0"]
    refused = get(limited, key)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "20"
    told = {name: refused.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset", "Window")}
    assert told == {"Limit": "3", "Remaining": "0", "Reset": "60", "Window": "60"}
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("TooManyRequestsError", "rate_limited")
    details = {"limit": 3, "window": 60, "retry_after": 20, "retryable": True, "retry_after_seconds": 20}
    assert error["details"] == details
    assert get(limited, other).status_code == 200
    clock.now += 19.9
    assert get(limited, key).status_code == 429
    clock.now += 0.2
    assert [get(limited, key).status_code for _ in range(2)] == [200, 429]
    clock.now += 60
    assert [get(limited, key).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_what_is_refused_for_its_scope_counts_and_so_does_a_key_before_it_was_rotated(
    limited: Api, clock: Clock
) -> None:
    key = made(limited)
    assert get(limited, key, "/keys").status_code == 403
    rotated = limited("POST", f"/keys/{key['key_id']}/rotate", {})
    assert [left(get(limited, secret)) for secret in (key, rotated)] == ["1", "0"]
    assert get(limited, rotated).status_code == 429


def test_a_keys_own_limit_wins_and_changes_at_once(limited: Api, clock: Clock) -> None:
    key = made(limited, rate_limit_override=1)
    assert key["rate_limit_override"] == 1
    assert [get(limited, key).status_code for _ in range(2)] == [200, 429]
    path = f"/keys/{key['key_id']}"
    assert limited("PATCH", path, {"rate_limit_override": 120})["rate_limit_override"] == 120
    assert get(limited, key).headers["X-RateLimit-Limit"] == "120"
    changed = limited("PATCH", path, {"name": "another name", "rate_limit_override": None})
    assert (changed["name"], changed["rate_limit_override"]) == ("another name", None)
    assert get(limited, key).headers["X-RateLimit-Limit"] == str(LIMIT)
    assert limited("GET", path) == changed


@pytest.mark.parametrize("wrong", [0, -1, 1_000_001, "many", 1.5])
def test_a_limit_that_is_none_is_refused(api: Api, wrong: Any) -> None:
    body = {"name": "k", "scopes": ["read"], "rate_limit_override": wrong}
    assert api.refused("POST", "/keys", body)[1] == ["bad_type@body.rate_limit_override"]


def test_the_root_key_is_neither_renamed_nor_limited(limited: Api, clock: Clock) -> None:
    assert limited("PATCH", "/keys/root", {"name": "mine"}, status=409)["error"]["code"] == "root_key"
    assert limited.refused("PATCH", f"/keys/{made(limited)['key_id']}", {"name": ""})[1] == ["bad_name@body.name"]
    limited("PATCH", "/keys/key_none", {"name": "k"}, status=404)
    root = {"key": ROOT_KEY}
    answers = [get(limited, root) for _ in range(LIMIT + 1)]
    assert {(answer.status_code, "X-RateLimit-Limit" in answer.headers) for answer in answers} == {(200, False)}


def test_without_a_setting_there_is_no_limit_but_a_keys_own(api: Api, clock: Clock) -> None:
    assert "X-RateLimit-Limit" not in get(api, made(api)).headers
    assert left(get(api, made(api, rate_limit_override=10))) == "9"


def test_health_metrics_and_the_documentation_are_not_limited(limited_url: str, limited: Api, clock: Clock) -> None:
    key = made(limited, rate_limit_override=1)
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"):
        for _ in range(2):
            answer = httpx.get(f"{limited_url}{path}", headers={"Authorization": f"Bearer {key['key']}"})
            assert answer.status_code == 200
            assert "X-RateLimit-Limit" not in answer.headers
    assert get(limited, key).status_code == 200


def test_refusals_are_counted_by_scope_and_name_no_key(limited_url: str, limited: Api, clock: Clock) -> None:
    def counted() -> float:
        text = httpx.get(f"{limited_url}/metrics").text
        assert key["key_id"] not in text
        found = re.search(r'^pgretrieve_rate_limited_requests_total\{scope="read"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    key = made(limited, rate_limit_override=1)
    before = counted()
    assert [get(limited, key).status_code for _ in range(3)] == [200, 429, 429]
    assert counted() == before + 2


@pytest.mark.parametrize(("method", "path"), [("GET", "/namespaces"), ("POST", "/namespaces/list")])
def test_the_official_client_waits_as_it_is_told(
    limited_url: str, limited: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """GET: urllib3 by itself, for the header says how long; POST: the client's own retries."""
    monkeypatch.setattr("time.sleep", clock.sleep)
    key = made(limited, rate_limit_override=3)
    assert [get(limited, key).status_code for _ in range(3)] == [200] * 3
    client = Mixpeek(key["key"], base_url=f"{limited_url}/v1")
    assert "results" in client._request(method, path)
    assert clock.slept == [20]
    client._http.clear()


def test_the_generated_client_raises_what_it_has_for_429(limited_url: str, limited: Api, clock: Clock) -> None:
    key = made(limited, rate_limit_override=1)
    assert get(limited, key).status_code == 200
    client = mixpeek.ApiClient(mixpeek.Configuration(host=limited_url, access_token=key["key"]))
    with pytest.raises(mixpeek.ApiException) as refused:
        mixpeek.NamespacesApi(client).list_namespaces()
    assert refused.value.status == 429
    assert "rate_limited" in refused.value.body
    client.rest_client.pool_manager.clear()


def test_memory_is_bounded_by_a_number_of_keys(clock: Clock) -> None:
    limits = RateLimits(Settings(rate_limit_per_minute=1))

    def take(name: str) -> dict[str, Any]:
        state: dict[str, Any] = {}
        limits.take(Principal(name, frozenset(["read"])), "read", state)
        return state

    take("first")
    for n in range(KEYS - 1):
        take(f"key_{n}")
    with pytest.raises(TooManyRequests):
        take("first")
    for n in range(KEYS):
        take(f"another_{n}")
    assert take("first")
