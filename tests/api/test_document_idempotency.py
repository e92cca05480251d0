"""Upserts that are repeated under a key, and write tokens."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.http import Api, document


@pytest.fixture
def shop(api: Api) -> Api:
    api.standalone(("v", 2))
    return api


def upsert(api: Api, n: int, key: str | None = "k", **options: Any) -> Any:
    return api.upsert([document("d", {"v": [1, n]}, n=n)], options={"idempotency_key": key, **options})


def path(api: Api) -> str:
    return f"/namespaces/{api.namespace}/documents/upsert"


def test_a_repeated_request_is_answered_again_and_does_nothing(shop: Api) -> None:
    first = upsert(shop, 1, write_token=True)
    assert first["write_token"].startswith("wt_")
    assert first["consistency"]["write_token_available"] is True
    shop("PATCH", "/documents/d", {"n": 2})
    assert upsert(shop, 1, write_token=True) == first
    assert shop("GET", "/documents/d")["n"] == 2
    upsert(shop, 3, key="another")
    assert shop("GET", "/documents/d")["n"] == 3


def test_another_body_under_the_same_key_is_refused(shop: Api) -> None:
    upsert(shop, 1)
    body = {"documents": [document("e")], "options": {"idempotency_key": "k"}}
    assert shop.refused("POST", path(shop), body, status=409)[0] == "idempotency_conflict"
    shop("GET", "/documents/e", status=404)


def test_a_refused_request_leaves_its_key_free(shop: Api) -> None:
    body = {"documents": [document("d", {"v": [1]})], "options": {"idempotency_key": "k"}}
    assert shop.refused("POST", path(shop), body)[0] == "bad_vector"
    upsert(shop, 1)


def test_keys_are_of_one_namespace(shop: Api) -> None:
    upsert(shop, 1)
    other = Api(shop.http, f"{shop.namespace}_b")
    other.standalone(("v", 2))
    upsert(other, 2)
    assert other("GET", "/documents/d")["n"] == 2


@pytest.mark.parametrize("declared", [True, False])
def test_the_same_request_at_the_same_time_is_done_once(api: Api, declared: bool) -> None:
    configs = [{"name": "v", "dimension": 2}] if declared else None
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace, "vector_configs": configs})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: upsert(api, 1, write_token=True), range(8)))
    assert len({answer["write_token"] for answer in answers}) == 1
    found = api("GET", "/documents/d")["_internal"]
    assert found["updated_at"] == found["created_at"]


def test_keys_are_forgotten_after_a_day(shop: Api, conninfo: str) -> None:
    upsert(shop, 1)
    upsert(shop, 1, key="old")
    with psycopg.connect(conninfo) as connection:
        age = "UPDATE pgretrieve.idempotency_keys SET created_at = now() - interval '25 hours' WHERE namespace_id = %s"
        connection.execute(age, [shop.namespace])
    upsert(shop, 2)
    assert shop("GET", "/documents/d")["n"] == 2
    with psycopg.connect(conninfo) as connection:
        keys = "SELECT idempotency_key FROM pgretrieve.idempotency_keys WHERE namespace_id = %s"
        assert connection.execute(keys, [shop.namespace]).fetchall() == [("k",)]


def test_what_a_key_may_be(shop: Api) -> None:
    for key in ("", "x" * 256, "a\0b"):
        body = {"documents": [document("d")], "options": {"idempotency_key": key}}
        assert shop.refused("POST", path(shop), body)[0] in ("bad_type", "nul_character")
    assert (
        shop.refused("POST", path(shop), {"documents": [document("d") | {"source_type": "bucket"}]})[0] == "not_offered"
    )
