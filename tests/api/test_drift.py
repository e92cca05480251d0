"""Drift over HTTP: probed on demand, shown with the services, and said where an index is mapped."""

from collections.abc import Iterator

import pytest

from tests.http import Api
from tests.openai_server import OpenAIServer


@pytest.fixture
def service(api: Api, openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service of this test's own."""
    monkeypatch.setenv("PGRETRIEVE_SECRET_DRIFT", openai.key)
    name = f"far_{api.namespace}"
    settings = {"base_url": openai.base_url, "api_key_ref": "PGRETRIEVE_SECRET_DRIFT", "send_dimensions": True}
    about = {"provider": "openai", "model": "text-embedding-3-small", "dimension": 16, "settings": settings}
    api("POST", "/inference/services", {"name": name, **about})
    yield name
    openai.model_number = 0


def test_a_changed_model_is_shown_and_said(api: Api, openai: OpenAIServer, service: str) -> None:
    path = f"/inference/services/{service}"
    assert api("GET", path)["drift"] is None
    assert api("POST", f"{path}/probe")["verdict"] == "first"
    assert api("POST", f"{path}/probe", {})["verdict"] == "same"
    openai.model_number = 3
    told = api("POST", f"{path}/probe")
    assert told["verdict"] == "changed"
    assert told["min_cosine"] < 0.9
    assert api("GET", path)["drift"] == told
    shown = {each["name"]: each["drift"] for each in api("GET", "/inference/services")["results"]}
    assert shown[service] == told

    api.standalone(("text", 16))
    mapping = {"vector_mappings": [{"existing_index": "text", "inference_service": service}]}
    validated = api("POST", f"/namespaces/{api.namespace}/promote/validate", mapping)
    assert validated["warnings"] == [told["warning"]]
    assert api("POST", f"{path}/probe", {"accept": True})["verdict"] == "first"
    assert api("GET", path)["drift"]["warning"] is None


def test_an_unknown_service_cannot_be_probed(api: Api) -> None:
    assert api.refused("POST", "/inference/services/none/probe", status=404)[0] == "not_found"
