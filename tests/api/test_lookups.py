"""Stored look-ups: an administrator's queries, run read-only as the analysts' login, for all documents at once."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app import service
from app.settings import Settings
from tests.api.test_host_stages import told
from tests.db.test_requested_embeddings import role
from tests.http import ROOT_KEY, Api, document, stage

PRICES = "SELECT p.sku, p.price FROM prices p WHERE p.sku = given.sku AND p.price >= given.least ORDER BY p.price"
TAKES = {"sku": "text", "least": "numeric"}
GIVEN = {"sku": "{{DOC.sku}}", "least": "{{INPUT.least}}"}


@pytest.fixture
def shop(fresh_database: Callable[[], str], settings: Settings) -> Iterator[Api]:
    url = fresh_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE TABLE prices (sku text, price numeric)")
        conn.execute("INSERT INTO prices VALUES ('a', 1.50), ('a', 2), ('b', 7), ('it''s', 3), ('%s', 4)")
        conn.execute("CREATE TABLE secrets (word text)")
        conn.execute(
            "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS $$ INSERT INTO prices VALUES ('x', 1) RETURNING 1 $$"
        )
    grants = ("GRANT SELECT, INSERT ON prices TO {}",)
    with role(url, *grants) as own:
        chosen = settings.model_copy(update={"analyst_database_url": SecretStr(own)})
        with (
            service.in_background(chosen, url, ROOT_KEY) as base_url,
            httpx.Client(base_url=f"{base_url}/v1", timeout=30) as http,
        ):
            api = Api(http, f"test_{uuid4().hex[:12]}")
            api.standalone(("v", 2))
            skus = ["a", "b", "c", "it's", "%s"]
            api.upsert([document(f"d{n}", {"v": [1, n]}, sku=sku) for n, sku in enumerate(skus)])
            yield api


def stored(api: Api, name: str, query: str, parameters: dict[str, str], **more: Any) -> Any:
    return api("PUT", f"/lookups/{name}", {"query": query, "parameters": parameters, **more})


def found(api: Api, /, inputs: dict[str, Any] | None = None, **parameters: Any) -> Any:
    first = stage("sort_attribute", field="document_id", direction="asc")
    api.retriever("r", first, stage("sql_lookup", lookup="prices", **{"parameters": GIVEN, **parameters}))
    return api.execute("r", inputs=inputs or {"least": 0})


def results(answer: Any) -> list[Any]:
    return [d.get("sql_result") for d in answer["documents"]]


def test_each_document_gets_the_rows_that_its_own_values_find(shop: Api) -> None:
    told_ = stored(shop, "prices", PRICES, TAKES)
    assert (told_["name"], told_["parameters"], told_["timeout_ms"]) == ("prices", TAKES, 1000)
    firsts = results(found(shop))
    assert [row and row["price"] for row in firsts] == [1.5, 7, None, 3, 4]
    assert firsts[3]["sku"] == "it's"
    every = results(found(shop, result_handling="all"))
    assert [[row["price"] for row in rows or []] for rows in every] == [[1.5, 2], [7], [], [3], [4]]
    assert [row and row["price"] for row in results(found(shop, {"least": 2}))] == [2, 7, None, 3, 4]
    kept = found(shop, on_no_results="skip", when={"field": "sku", "operator": "ne", "value": "b"})
    assert ["sql_result" in d for d in kept["documents"]] == [True, False, False, True, True]
    assert shop("GET", "/lookups")["total_count"] == 1
    shop("DELETE", "/lookups/prices")
    shop("GET", "/lookups/prices", status=404)


def test_a_query_writes_nothing_and_reads_what_the_login_may_read(shop: Api) -> None:
    for query, said in (
        ("WITH w AS (INSERT INTO prices VALUES ('x', 1) RETURNING 1) SELECT * FROM w", "top level"),
        ("DELETE FROM prices WHERE sku = given.sku", "syntax"),
        ("SELECT 1) AS x; DROP TABLE prices; --", "syntax"),
        ("SELECT 1) AS found; DROP TABLE prices; SELECT FROM (SELECT 1", "multiple commands"),
        ("SELECT word FROM secrets", "permission denied"),
        ("SELECT * FROM none", "does not exist"),
        ("SELECT given.other", "does not exist"),
    ):
        body = {"query": query, "parameters": {"sku": "text"}}
        error = shop("PUT", "/lookups/prices", body, status=422)["error"]
        assert (error["code"], said in error["message"]) == ("bad_lookup", True), error["message"]
    # What only running shows: a function that writes.
    stored(shop, "prices", "SELECT note() AS price WHERE given.sku IS NOT NULL", {"sku": "text"})
    one = {"sku": "{{DOC.sku}}"}
    answer = found(shop, parameters=one)
    assert results(answer) == [None] * 5
    assert "read-only transaction" in answer["warnings"][0]
    assert told(answer, "sql_lookup")["failed"] == 5
    assert found(shop, parameters=one, on_error="remove")["documents"] == []
    shop.retriever("r", stage("limit", limit=1), stage("sql_lookup", lookup="prices", parameters=one, on_error="raise"))
    assert shop.refused("POST", "/retrievers/r/execute", {}, status=503)[0] == "lookup_failed"


def test_one_that_is_too_slow_ends_by_its_own_limit(shop: Api) -> None:
    slow = "SELECT pg_sleep(20) WHERE given.sku IS NOT NULL"
    stored(shop, "prices", slow, {"sku": "text"}, timeout_ms=100)
    one = stage("sql_lookup", lookup="prices", parameters={"sku": "{{DOC.sku}}"}, on_error="raise")
    shop.retriever("r", stage("limit", limit=2), one)
    assert shop.refused("POST", "/retrievers/r/execute", {}, status=503)[0] == "lookup_timeout"


def test_values_are_bound_and_what_does_not_fit_is_told(shop: Api) -> None:
    stored(shop, "prices", PRICES, TAKES)
    hostile = "0); DROP TABLE prices; --"
    for inputs, given, code, status in (
        ({"least": hostile}, GIVEN, "bad_lookup_value", 422),
        ({"least": "much"}, GIVEN, "bad_lookup_value", 422),
        ({}, GIVEN, "missing_input", 422),
        ({"least": 0}, {"sku": "{{DOC.sku}}"}, "bad_lookup_parameters", 422),
        ({"least": 0}, {**GIVEN, "more": 1}, "bad_lookup_parameters", 422),
    ):
        shop.retriever(
            "r", stage("limit", limit=5), stage("sql_lookup", lookup="prices", parameters=given, on_error="raise")
        )
        assert shop.refused("POST", "/retrievers/r/execute", {"inputs": inputs}, status=status)[0] == code
    shop.retriever("r", stage("limit", limit=1), stage("sql_lookup", lookup="none", on_error="raise"))
    assert shop.refused("POST", "/retrievers/r/execute", {}, status=404)[0] == "not_found"
    answer = found(shop, {"least": 0}, parameters={"sku": hostile, "least": 0})
    assert results(answer) == [None] * 5
    for more, code in (
        ({"result_handling": "error_if_multiple"}, "lookup_multiple"),
        ({"on_no_results": "error"}, "lookup_empty"),
    ):
        shop.retriever(
            "r",
            stage("limit", limit=5),
            stage("sql_lookup", lookup="prices", parameters=GIVEN, on_error="raise", **more),
        )
        assert shop.refused("POST", "/retrievers/r/execute", {"inputs": {"least": 0}}, status=409)[0] == code


def test_rows_are_bounded_and_definitions_checked(shop: Api) -> None:
    stored(shop, "prices", PRICES, TAKES, row_limit=2)
    answer = found(shop, result_handling="all")
    assert sum(len(rows or []) for rows in results(answer)) == 2
    assert "answers 2 rows; there were more" in answer["warnings"][0]
    body = {"query": " ", "parameters": {"Bad Name": "text", "x": "money"}, "timeout_ms": 0, "row_limit": 0}
    problems = shop.refused("PUT", "/lookups/Bad", body)[1]
    assert len(problems) == 6
    shop("PUT", "/lookups/x", {"query": PRICES, "parameters": TAKES, "sql": 1}, status=422)
    error = shop.refused(
        "POST", "/retrievers", {"retriever_name": "q", "stages": [stage("sql_lookup", lookup="x", query="SELECT 1")]}
    )
    assert error[0] == "not_offered"


def test_without_a_login_of_the_analysts_there_are_none(api: Api) -> None:
    body = {"query": "SELECT 1", "parameters": {"x": "text"}}
    assert api.refused("PUT", "/lookups/x", body, status=503)[0] == "lookups_off"


def test_only_an_administrators_key_stores_them(shop: Api) -> None:
    made = shop("POST", "/keys", {"name": "author", "scopes": ["read", "manage"]})
    headers = {"Authorization": f"Bearer {made['key']}"}
    body = {"query": "SELECT 1 AS one", "parameters": {"x": "text"}}
    assert shop.http.put("/lookups/x", json=body, headers=headers).status_code == 403
    assert shop.http.get("/lookups", headers=headers).status_code == 403
