"""Inference over HTTP: services made and used without a restart, in every process; secrets, failures, the cache."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import psycopg
import pytest

from app import service
from app.inference.services import minilm
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.openai_server import Answer, OpenAIServer

SECRET = "PGRETRIEVE_SECRET_TEST"
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with MiniLM's files in `minilm/`."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "minilm").mkdir()
    spec = find_spec(minilm.PACKAGE)
    assert spec and spec.origin
    shutil.copy(Path(spec.origin).with_name("model.onnx"), folder / "minilm")
    shutil.copy(minilm.TOKENIZER, folder / "minilm" / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def urls(conninfo: str, settings: Settings, models: Path) -> Iterator[list[str]]:
    """Two processes' worth of services on one database."""
    chosen = settings.model_copy(update={"model_dir": models, "inference_retries": 0, "inference_timeout_s": 5.0})
    with ExitStack() as stack:
        yield [stack.enter_context(service.in_background(chosen, conninfo, ROOT_KEY)) for _ in range(2)]


@pytest.fixture
def apis(urls: list[str]) -> Iterator[list[Api]]:
    namespace = f"test_{uuid4().hex[:12]}"
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=f"{url}/v1", timeout=30)) for url in urls]
        yield [Api(client, namespace) for client in clients]


@pytest.fixture
def api(apis: list[Api]) -> Api:
    return apis[0]


@pytest.fixture
def provider(openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """The endpoint, with its key in the environment."""
    monkeypatch.setenv(SECRET, openai.key)
    openai.requests.clear()
    yield openai
    openai.statuses, openai.answer, openai.quote_key, openai.retry_after_ms = [], "right", False, 1


@pytest.fixture
def make(api: Api, provider: OpenAIServer) -> Iterator[Make]:
    """Makes services, by default of the endpoint; they go with the test, and the namespaces before them."""
    made: list[str] = []

    def make(**changed: Any) -> Any:
        settings = {"base_url": provider.base_url, "api_key_ref": SECRET}
        body: dict[str, Any] = {"name": f"s_{uuid4().hex[:8]}", "provider": "openai", "model": "text-embedding-3-small"}
        body |= {"dimension": 1536, "settings": settings} | changed
        answer = api("POST", "/inference/services", body)
        made.append(answer["name"])
        return answer

    yield make
    authorization = {"Authorization": f"Bearer {ROOT_KEY}"}
    api.http.delete(f"/namespaces/{api.namespace}", headers=authorization)
    for name in made:
        api.http.delete(f"/inference/services/{name}", headers=authorization)


def embed(api: Api, text: str, name: str, task: str = "query") -> list[float]:
    body = {"inference_name": name, "inputs": {"text": text}, "parameters": {"task": task}}
    (vector,) = api("POST", "/inference", body)["data"]["embeddings"]
    assert isinstance(vector, list)
    return vector


def managed(api: Api, name: str, dimension: int = 1536) -> None:
    """A namespace with three documents and a text retriever, mapped to the service."""
    texts = {"a": "wireless headphones", "b": "tomato soup", "c": "garden chair"}
    api.standalone(("text", dimension))
    api.upsert([document(key, {"text": embed(api, text, name, "document")}, text=text) for key, text in texts.items()])
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": name}]})
    api.retriever("r", feature_search(search("text", "{{INPUT.q}}", mode="text"), final_top_k=1))


def test_a_service_is_made_shown_used_and_deleted_without_a_restart(apis: list[Api], make: Make) -> None:
    api, other = apis
    before = other("GET", "/inference/services")["total"]
    made = make(description="ours")
    name = made["name"]
    assert made["available"]
    assert made["settings"]["api_key_ref"] == SECRET
    assert (made["created_by"], made["built_in"], made["provider"]) == ("root", False, "openai")
    for each in apis:
        assert each("GET", f"/inference/services/{name}") == made
        assert each("GET", "/inference/services")["total"] == before + 1
        answer = each("POST", "/inference", {"inference_name": name, "inputs": {"texts": ["a", "b"]}})
        assert np.shape(answer["data"]["embeddings"]) == (2, 1536)
        assert (answer["provider"], answer["model"]) == ("openai", "text-embedding-3-small")
        assert answer["latency_ms"] > 0
    api("DELETE", f"/inference/services/{name}")
    for each in apis:
        assert each.refused("GET", f"/inference/services/{name}", status=404)[0] == "not_found"
        body = {"inference_name": name, "inputs": {"text": "a"}}
        assert each.refused("POST", "/inference", body, status=404)[0] == "not_found"


def test_text_finds_documents_through_a_service_that_was_just_made(apis: list[Api], make: Make) -> None:
    api, other = apis
    name = make()["name"]
    managed(api, name)
    for each in (other, api):
        assert each.ids("r", inputs={"q": "headphones without wires"}) == ["a"]
    named = {"feature_uri": "text", "inputs": {"text": "wireless headphones"}}
    assert other("POST", "/inference", named)["data"]["embeddings"] == [embed(api, "wireless headphones", name)]
    error = api("DELETE", f"/inference/services/{name}", status=409)["error"]
    assert error["code"] == "in_use"
    assert api.namespace in error["message"]
    api("DELETE", f"/namespaces/{api.namespace}")
    api("DELETE", f"/inference/services/{name}")


def test_a_name_that_is_used_anew_means_the_new_service_everywhere(apis: list[Api], make: Make) -> None:
    api, other = apis
    made = make()
    before = [embed(each, "headphones", made["name"]) for each in apis]
    api("DELETE", f"/inference/services/{made['name']}")
    settings = {**made["settings"], "query_prefix": "soup "}
    make(name=made["name"], settings=settings)
    assert [embed(each, "headphones", made["name"]) for each in apis] != before
    managed(api, made["name"])
    assert other.ids("r", inputs={"q": "tomato"}) == ["b"]


def test_a_folder_of_onnx_files_is_a_service_with_prefixes(api: Api, make: Make) -> None:
    settings = {"path": "minilm", "query_prefix": "query: ", "pooling": "mean"}
    made = make(provider="onnx", model="MiniLM", dimension=384, settings=settings)
    assert made["available"]
    assert made["normalized"]
    name = made["name"]
    assert embed(api, "headphones", name) == embed(api, "query: headphones", minilm.NAME)
    assert embed(api, "headphones", name, "document") == embed(api, "headphones", minilm.NAME)
    managed(api, name, 384)
    assert api.ids("r", inputs={"q": "bluetooth headset"}) == ["a"]


@pytest.mark.parametrize("path", ["../minilm", "/etc", "minilm/../../x", ""])
def test_no_path_leads_out_of_the_folder_of_models(api: Api, path: str) -> None:
    body = {"name": "bad", "provider": "onnx", "model": "m", "dimension": 384, "settings": {"path": path}}
    assert api.refused("POST", "/inference/services", body) == ("bad_setting", ["bad_setting@body.settings.path"])


def test_every_problem_of_a_service_is_told_at_once(api: Api) -> None:
    body: dict[str, Any] = {"name": "Bad name", "provider": "openai", "model": "", "dimension": 0, "description": "a\0"}
    body["settings"] = {"base_url": "ftp://x", "api_key_ref": "DATABASE_URL", "what": 1}
    code, problems = api.refused("POST", "/inference/services", body)
    places = [problem.partition("@body")[2] for problem in problems]
    assert code == "bad_name"
    assert places == [".name", ".model", ".dimension", "", ".settings.what"]
    del body["settings"]["what"]
    assert api.refused("POST", "/inference/services", body)[1][-2:] == [
        "bad_setting@body.settings.base_url",
        "bad_setting@body.settings.api_key_ref",
    ]


def test_taken_names_and_services_of_the_installation(api: Api, make: Make) -> None:
    made = make()
    taken = {key: made[key] for key in ("name", "provider", "model", "dimension", "settings")}
    assert api.refused("POST", "/inference/services", taken, status=409)[0] == "already_exists"
    taken["name"] = minilm.NAME
    assert api.refused("POST", "/inference/services", taken, status=409)[0] == "already_exists"
    assert api.refused("DELETE", f"/inference/services/{minilm.NAME}", status=409)[0] == "built_in"
    assert api.refused("DELETE", "/inference/services/nobody", status=404)[0] == "not_found"
    assert api("GET", f"/inference/services/{minilm.NAME}")["built_in"]


def test_only_administrators_make_services(api: Api) -> None:
    key = api("POST", "/keys", {"name": "reader", "scopes": ["read", "write", "manage"]})["key"]
    headers = {"Authorization": f"Bearer {key}"}
    body = {"name": "x", "provider": "openai", "model": "m", "dimension": 8}
    assert api("POST", "/inference/services", body, status=403, headers=headers)["error"]["code"] == "forbidden"
    api("DELETE", "/inference/services/x", status=403, headers=headers)
    assert api("GET", "/inference/services", headers=headers)["total"]


@pytest.mark.parametrize("statuses", [[], [400], [401], [429], [500]])
def test_a_secret_is_in_no_answer_log_or_table(
    api: Api, make: Make, provider: OpenAIServer, conninfo: str, caplog: pytest.LogCaptureFixture, statuses: list[int]
) -> None:
    caplog.set_level(logging.DEBUG)
    told = [json.dumps(made := make()), json.dumps(api("GET", "/inference/services"))]
    provider.statuses, provider.quote_key = statuses, True
    body = {"inference_name": made["name"], "inputs": {"text": f"secret {statuses}"}}
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    told.append(api.http.post("/inference", json=body, headers=headers).text)
    wrong = {"name": "wrong", "provider": "openai", "model": "m", "dimension": 8}
    for settings in ({"api_key_ref": provider.key}, {"api_key": provider.key}):
        refused = api.http.post("/inference/services", json={**wrong, "settings": settings}, headers=headers)
        assert refused.status_code == 422
        told.append(refused.text)
    with psycopg.connect(conninfo) as conn:
        for table in ("inference_services", "embedding_cache"):
            rows = conn.execute(f"SELECT t::text FROM pgretrieve.{table} t").fetchall()
            told.append(str(rows))
    told.append(caplog.text)
    assert not [text for text in told if provider.key in text]


@pytest.mark.parametrize("answer", ["wrong_length", "nan", "too_few", "not_json"])
def test_a_provider_that_answers_otherwise_is_refused(
    api: Api, make: Make, provider: OpenAIServer, answer: Answer
) -> None:
    name = make()["name"]
    provider.answer = answer
    body = {"inference_name": name, "inputs": {"texts": [f"{answer} a", f"{answer} b"]}}
    error = api("POST", "/inference", body, status=503)["error"]
    assert error["code"] == "inference_bad_answer"
    assert name in error["message"]


def test_a_provider_that_is_down_is_a_503_that_says_what_to_do(api: Api, make: Make) -> None:
    name = make(settings={"base_url": "http://127.0.0.1:9/v1", "api_key_ref": SECRET})["name"]
    error = api("POST", "/inference", {"inference_name": name, "inputs": {"text": "a"}}, status=503)["error"]
    assert error["code"] == "inference_unavailable"
    assert "Check the network and its base_url" in error["message"]


def test_a_key_that_is_missing_is_a_503_that_says_what_to_set(api: Api, make: Make) -> None:
    made = make(settings={"api_key_ref": "PGRETRIEVE_SECRET_NOT_THERE"})
    assert not made["available"]
    assert "set PGRETRIEVE_SECRET_NOT_THERE and restart" in made["reason"]
    error = api("POST", "/inference", {"inference_name": made["name"], "inputs": {"text": "a"}}, status=503)["error"]
    assert error["code"] == "inference_unavailable"
    assert "set PGRETRIEVE_SECRET_NOT_THERE and restart" in error["message"]


def test_a_limit_of_the_provider_is_told_with_its_pause(api: Api, make: Make, provider: OpenAIServer) -> None:
    name = make()["name"]
    provider.statuses, provider.retry_after_ms = [429], 7_000
    error = api("POST", "/inference", {"inference_name": name, "inputs": {"text": "429"}}, status=503)["error"]
    assert error["details"]["retry_after_seconds"] == 7
    assert error["details"]["retryable"] is True


def test_a_text_is_embedded_once_for_all_processes(apis: list[Api], make: Make, provider: OpenAIServer) -> None:
    api, other = apis
    name = make()["name"]
    body = {"inference_name": name, "inputs": {"texts": ["one", "two", "one"]}}
    first = api("POST", "/inference", body)
    assert (first["cached"], first["tokens_used"]) == (False, 2)
    assert provider.requests.pop()["input"] == ["one", "two"]
    for each in apis:
        again = each("POST", "/inference", body)
        assert (again["cached"], again["tokens_used"]) == (True, None)
        assert again["data"] == first["data"]
    assert provider.requests == []
    more = other("POST", "/inference", {**body, "inputs": {"texts": ["two", "three"]}})
    assert not more["cached"]
    assert provider.requests.pop()["input"] == ["three"]
    managed(api, name)
    provider.requests.clear()
    for each in (api, other, api):
        each.ids("r", inputs={"q": "a query that is asked thrice"})
    assert len(provider.requests) == 1


def test_what_a_deleted_service_embedded_goes_with_it(api: Api, make: Make, conninfo: str) -> None:
    name = make()["name"]
    embed(api, "kept", name)
    query = "SELECT count(*) FROM pgretrieve.embedding_cache WHERE service = %s"
    with psycopg.connect(conninfo, autocommit=True) as conn:
        assert conn.execute(query, [name]).fetchone() == (1,)
        api("DELETE", f"/inference/services/{name}")
        assert conn.execute(query, [name]).fetchone() == (0,)


def test_a_service_is_found_by_provider_and_model(api: Api) -> None:
    body = {"provider": "openai", "model": "text-embedding-3-large", "inputs": {"text": "a"}, "parameters": {}}
    assert np.shape(api("POST", "/inference", body)["data"]["embeddings"]) == (1, 3072)
    body["model"] = "gpt-4o-mini"
    assert api.refused("POST", "/inference", body)[0] == "unknown_service"


BAD: dict[str, dict[str, Any]] = {
    "one_service@body": {"inputs": {"text": "a"}},
    "one_service@body ": {"inputs": {"text": "a"}, "inference_name": "x", "feature_uri": "y"},
    "one_service@body  ": {"inputs": {"text": "a"}, "provider": "openai"},
    "missing_input@body.inputs": {"inputs": {}, "inference_name": minilm.NAME},
    "missing_input@body.inputs ": {"inputs": {"text": "a", "texts": ["b"]}, "inference_name": minilm.NAME},
    "out_of_range@body.inputs.texts": {"inputs": {"texts": []}, "inference_name": minilm.NAME},
    "out_of_range@body.inputs.texts ": {"inputs": {"texts": ["a"] * 257}, "inference_name": minilm.NAME},
    "text_too_long@body.inputs.texts.1": {"inputs": {"texts": ["a", "b" * 100_001]}, "inference_name": minilm.NAME},
    "text_too_long@body.inputs.text": {"inputs": {"text": "b" * 100_001}, "inference_name": minilm.NAME},
    "service_without_images@body.inputs.image_url": {
        "inputs": {"image_url": "http://x"},
        "inference_name": minilm.NAME,
    },
    "not_offered@body.inputs.video_url": {"inputs": {"video_url": "http://x"}, "inference_name": minilm.NAME},
    "not_offered@body.inputs.prompts": {"inputs": {"prompts": ["hi"]}, "provider": "openai", "model": "gpt-4o"},
    "not_offered@body.enable_semantic_cache": {
        "inputs": {"text": "a"},
        "inference_name": minilm.NAME,
        "enable_semantic_cache": True,
    },
    "extra_forbidden@body.parameters": {
        "inputs": {"text": "a"},
        "inference_name": minilm.NAME,
        "parameters": {"temperature": 1},
    },
}


@pytest.mark.parametrize("problem", BAD)
def test_what_cannot_be_inferred(api: Api, problem: str) -> None:
    assert api.refused("POST", "/inference", BAD[problem]) == (problem.partition("@")[0], [problem.strip()])


def test_an_index_without_a_service(api: Api) -> None:
    api.standalone(("text", 8))
    body = {"inputs": {"text": "a"}, "feature_uri": "mixpeek://x@v1/text"}
    assert api.refused("POST", "/inference", body) == ("text_needs_service", ["text_needs_service@body.feature_uri"])
    body["feature_uri"] = "none"
    assert api.refused("POST", "/inference", body) == ("unknown_index", ["unknown_index@body.feature_uri"])
    api("DELETE", f"/namespaces/{api.namespace}")
