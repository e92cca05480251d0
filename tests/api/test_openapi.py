"""The OpenAPI document is whole and true, and its page needs no network."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from schemathesis import GenerationMode

from app import service
from app.settings import Settings
from tests import contract, fuzz
from tests.http import ROOT_KEY, Api

METHODS_WITH_BODY = {"post", "put", "patch"}


@pytest.fixture
def document(base_url: str) -> dict[str, Any]:
    return contract.document(base_url)


def described(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, op) for path, item in document["paths"].items() for method, op in item.items()]


def test_every_operation_says_all_that_callers_need(document: dict[str, Any]) -> None:
    operations = described(document)
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids) > 30
    # Given by hand, so that they stay when a function is renamed.
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    for path, _method, operation in operations:
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path
        answers = operation["responses"]
        assert (answers.get("200") or answers["202"])["content"], path
        if path.startswith("/v1/"):
            assert operation["security"] == [{"key": []}]
            errors = {"400", "401", "403", "404", "409", "413", "422", "429", "500", "503"}
            assert errors <= set(operation["responses"]), path
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_namespaces_are_said_where_they_are_needed(document: dict[str, Any]) -> None:
    for path, _method, operation in described(document):
        header = [p for p in operation["parameters"] if (p["in"], p["name"]) == ("header", "X-Namespace")]
        query = [p for p in operation["parameters"] if (p["in"], p["name"]) == ("query", "namespace")]
        needed = path.startswith("/v1/") and path.split("/")[2] not in (
            "namespaces",
            "inference",
            "keys",
            "organizations",
        )
        assert len(header) == len(query) == (1 if needed else 0), path


def test_changes_of_the_configuration_take_a_reason(document: dict[str, Any]) -> None:
    taking = {
        f"{method} {path}"
        for path, method, operation in described(document)
        if any((p["in"], p["name"]) == ("header", "X-Change-Reason") for p in operation["parameters"])
    }
    assert {"post /v1/keys", "delete /v1/namespaces/{namespace_id}", "put /v1/lookups/{name}"} <= taking
    assert taking.isdisjoint({"get /v1/keys", "post /v1/namespaces/{namespace_id}/documents/upsert"})


def test_bodies_are_described(document: dict[str, Any]) -> None:
    upsert = document["paths"]["/v1/namespaces/{namespace_id}/documents/upsert"]["post"]["requestBody"]
    assert upsert["required"] is True
    assert upsert["content"]["application/json"]["schema"]["$ref"].endswith("/UpsertInput")
    promote = document["paths"]["/v1/namespaces/{namespace_id}/promote"]["post"]["requestBody"]
    assert promote == {
        "required": False,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PromoteOrRehearseInput"}}},
    }
    names = set(re.findall(r'#/components/schemas/([^"]+)"', str(document).replace("'", '"')))
    assert names <= set(document["components"]["schemas"])


def test_the_document_is_found_where_tools_look(base_url: str) -> None:
    found = [httpx.get(f"{base_url}{path}") for path in ("/openapi.json", "/docs/openapi.json")]
    assert found[0].json() == found[1].json()
    assert found[0].headers["content-type"].startswith("application/json")


def test_the_page_needs_no_network(base_url: str) -> None:
    page = httpx.get(f"{base_url}/docs", follow_redirects=True)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert re.findall(r"https?:|[\"'(]//", page.text) == []
    sources = re.findall(r"(?:src|href|url)[=:]\s*[\"']([^\"']+)", page.text)
    assert len(sources) == 4
    for source in sources:
        answer = httpx.get(f"{base_url}{source}")
        assert answer.status_code == 200, source
        if source.endswith(".css"):
            assert re.findall(r"url\(\s*[\"']?(?:https?:)?//", answer.text) == []


def test_what_is_not_declared_is_found(base_url: str, api: Api) -> None:
    json = {"content-type": "application/json"}
    path = f"/v1/namespaces/{api.namespace}/stats"
    good = b'{"namespace_id": "x", "document_count": 0, "document_count_complete": true}'
    with pytest.raises(AssertionError, match="not declared"):
        contract.held(base_url, "GET", path, 418, json, b"{}")
    with pytest.raises(AssertionError, match="not declared"):
        contract.held(base_url, "GET", path, 200, {"content-type": "text/html"}, b"")
    with pytest.raises(AssertionError, match="not as declared"):
        contract.held(base_url, "GET", path, 200, json, good.replace(b"0", b'"many"'))
    with pytest.raises(AssertionError, match="no operation"):
        contract.held(base_url, "GET", "/v1/nothing", 200, json, b"{}")
    api("GET", "/nothing", status=404)


def test_made_up_requests_find_no_fault(settings: Settings, fresh_database: Callable[[], str]) -> None:
    with service.in_background(settings, fresh_database(), ROOT_KEY) as url:
        fuzz.prepare(url)
        for operation in fuzz.operations(url):
            fuzz.fuzz(url, operation, 5, GenerationMode.POSITIVE)
            fuzz.fuzz(url, operation, 3, GenerationMode.NEGATIVE)
