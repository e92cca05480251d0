"""The stages that run in the service: rerank, json_transform, rag_prepare, api_call; over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.http import Api, document, stage
from tests.openai_server import OpenAIServer

TEXTS = {
    "a": "red apple pie with cinnamon",
    "b": "wireless noise cancelling headphones",
    "c": "the headphone jack of a phone",
    "d": "a car that is red",
}


@pytest.fixture
def shop(api: Api) -> Api:
    """Four documents; found by `attribute_filter` in the order of their ids, without scores."""
    api.standalone(("v", 2))
    documents = [
        document(name, content=text, n=n, meta={"title": text.title(), "url": f"https://x.example/{name}"})
        for n, (name, text) in enumerate(TEXTS.items(), start=1)
    ]
    api.upsert([*documents, document("e", n=5)])
    return api


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, openai: OpenAIServer) -> None:
    monkeypatch.setenv("PGRETRIEVE_SECRET_RERANK", openai.key)
    monkeypatch.setenv("PGRETRIEVE_SECRET_CALL", "s3cret-value")


def everything(**more: Any) -> dict[str, Any]:
    return stage("attribute_filter", field="n", operator="gt", value=0, **more)


def run(api: Api, *stages: dict[str, Any], **body: Any) -> Any:
    api.retriever("r", *stages)
    return api.execute("r", **body)


def told(answer: Any, stage_id: str) -> Any:
    return answer["stage_statistics"]["stages"][stage_id]["metadata"]


# rerank


def test_late_interaction_orders_the_candidates(shop: Api) -> None:
    answer = run(shop, everything(), stage("rerank", max_candidates=None), inputs={"query": "bluetooth headphones"})
    documents = answer["documents"]
    assert [found["document_id"] for found in documents][:2] == ["b", "c"]
    assert documents[-1]["document_id"] == "e", "no text: after those that were read, unscored"
    assert "score" not in documents[-1]
    assert documents[0]["score"] == documents[0]["scores"]["rerank"] > documents[1]["score"]
    assert told(answer, "rerank")["reranked"] == 4


def test_rerank_by_an_endpoint_with_every_parameter(shop: Api, openai: OpenAIServer) -> None:
    openai.requests.clear()
    again = stage(
        "rerank",
        inference_name="tei",
        query="{{INPUT.q}}",
        document_field="meta.title",
        score_field="s",
        max_candidates=3,
        batch_size=2,
        max_document_chars=100,
        top_k=4,
    )
    answer = run(shop, everything(), again, inputs={"q": "phone jack"})
    assert [found["document_id"] for found in answer["documents"]] == ["c", "a", "b", "d"], "d was not a candidate"
    assert answer["documents"][0]["s"] == pytest.approx(2 / 3)
    assert "s" not in answer["documents"][3]
    assert [len(request["texts"]) for request in openai.requests] == [2, 1]


def test_rerank_through_its_older_names(shop: Api) -> None:
    answer = run(shop, everything(), stage("rerank", model="tei", top_n=1), inputs={"query": "red car"})
    assert [found["document_id"] for found in answer["documents"]] == ["d"]


def test_a_reranker_that_is_not_there(shop: Api) -> None:
    shop.retriever("r", everything(), stage("rerank", inference_name="BAAI__bge_reranker_v2_m3"))
    error = shop("POST", "/retrievers/r/execute", {"inputs": {"query": "x"}}, status=422)["error"]
    assert error["code"] == "unknown_reranker"
    assert "down, late_interaction, tei" in error["message"]


def test_a_reranker_that_is_down(shop: Api) -> None:
    broken = stage("rerank", inference_name="down")
    shop.retriever("r", everything(), broken)
    assert shop.refused("POST", "/retrievers/r/execute", {"inputs": {"query": "x"}}, status=503)[0]
    answer = run(shop, everything(), broken | {"on_error": "skip"}, inputs={"query": "x"})
    assert [found["document_id"] for found in answer["documents"]] == ["a", "b", "c", "d", "e"]
    assert answer["status"] == "degraded"
    assert "cannot be reached" in answer["warnings"][0]


def test_rerank_ends_in_time_and_leaves_the_order(shop: Api, openai: OpenAIServer) -> None:
    openai.hold = threading.Event()
    try:
        slow = stage("rerank", inference_name="tei", hard_timeout_ms=50)
        answer = run(shop, everything(), slow, inputs={"query": "red car"})
    finally:
        openai.hold.set()
        openai.hold = None
    assert [found["document_id"] for found in answer["documents"]] == ["a", "b", "c", "d", "e"]
    assert "did not end within 0.05 s" in answer["warnings"][0]


def test_the_query_of_rerank_is_needed(shop: Api) -> None:
    shop.retriever("r", everything(), stage("rerank"))
    assert shop.refused("POST", "/retrievers/r/execute", {})[1] == ["missing_input@body.inputs.query"]


# json_transform


def test_json_transform_replaces_the_fields(shop: Api) -> None:
    template = '{"t": {{ DOC.content|tojson }}, "of": "{{INPUT.shop}}", "id": "{{doc.document_id}}", "n": {{DOC.n}}}'
    answer = run(shop, everything(), stage("json_transform", template=template), inputs={"shop": "mine"})
    first = answer["documents"][0]
    assert (first["t"], first["of"], first["id"], first["n"]) == (TEXTS["a"], "mine", "a", 1)
    assert "content" not in first
    assert first["payload"]["content"] == TEXTS["a"], "what is stored stays"
    assert len(answer["documents"]) == 4, "e has no content"
    assert told(answer, "json_transform")["failed"].keys() == {"e"}
    assert "left out 1 of 5" in answer["warnings"][0]


def test_json_transform_may_refuse(shop: Api) -> None:
    for template in ("{{ DOC.content|tojson }}", "{", '{"a": {{ DOC.nowhere }}}', "[]"):
        shop.retriever("r", everything(), stage("json_transform", template=template, fail_on_error=True))
        assert shop.refused("POST", "/retrievers/r/execute", {}, status=422)[0] in ("bad_json", "bad_input")
    assert run(shop, everything(), stage("json_transform", template="{"), inputs={})["documents"] == []


def test_what_a_later_statement_sees_is_what_json_transform_made(shop: Api) -> None:
    made = stage("json_transform", template='{"twice": {{ DOC.n + DOC.n }}}')
    kept = stage("attribute_filter", field="twice", operator="gte", value=6) | {"stage_name": "later"}
    answer = run(shop, everything(), made, kept, inputs={})
    assert [found["twice"] for found in answer["documents"]] == [6, 8, 10]


def test_aliases_are_context(shop: Api) -> None:
    before = everything() | {"output_alias": "all"}
    made = stage("json_transform", template='{"all": {{ CONTEXT.all|length }}, "of": {{ STAGE.input_count }}}')
    answer = run(shop, before, stage("limit", limit=1), made, inputs={})
    assert (answer["documents"][0]["all"], answer["documents"][0]["of"]) == (5, 1)


def test_what_is_written_is_bounded(shop: Api) -> None:
    shop.upsert([document(f"x{n:02}", n=9) for n in range(25)])
    shop.retriever("r", everything(), stage("json_transform", template='{"a": "{{INPUT.long}}"}'))
    body = {"inputs": {"long": "x" * 1_000_000}, "limit": 100}
    assert shop.refused("POST", "/retrievers/r/execute", body)[0] == "written_too_much"


# rag_prepare


def test_one_context_with_citations(shop: Api) -> None:
    prepared = stage("rag_prepare", citation={"include_url": True})
    answer = run(shop, everything(), stage("limit", limit=2), prepared, inputs={})
    (made,) = answer["documents"]
    assert made["rag_context"] == f"[1] {TEXTS['a']}\n\n\n[2] {TEXTS['b']}\n\n"
    assert [cited["document_id"] for cited in made["citations"]] == ["a", "b"]
    assert made["citations"][0]["marker"] == "[1]"
    assert made["document_count"] == 2
    assert 10 < made["token_count"] < 30
    assert told(answer, "rag_prepare")["tokens"] == made["token_count"]


@pytest.mark.parametrize("tokenizer", ["cl100k_base", "o200k_base", "minilm_l6_v2"])
@pytest.mark.parametrize("strategy", ["priority_truncate", "proportional", "drop_last"])
def test_the_budget_is_kept(api: Api, tokenizer: str, strategy: str) -> None:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", n=1, content=f"number {n} " * 30) for n in range(4)])
    options = {"max_tokens": 150, "tokenizer": tokenizer, "truncation_strategy": strategy}
    (made,) = run(api, everything(), stage("rag_prepare", **options), inputs={})["documents"]
    assert made["token_count"] <= 150
    cut = [cited["truncated"] for cited in made["citations"]]
    if strategy == "proportional":
        assert cut == [True] * 4
    else:
        assert cut[:-1] == [False] * (len(cut) - 1)
        assert cut[-1] == (strategy == "priority_truncate")


def test_a_formatted_list(shop: Api) -> None:
    prepared = stage(
        "rag_prepare",
        output_mode="formatted_list",
        content_field="meta.title",
        document_template="{{CONTEXT.CITATION}} {{DOC.content}} {{ DOC.nowhere|default('-') }}",
        citation={"style": "footnote"},
        formatted_content_field="out.text",
    )
    documents = run(shop, everything(), prepared, inputs={})["documents"]
    assert documents[1]["out"]["text"] == f"² {TEXTS['b'].title()} -"
    assert documents[1]["content"] == TEXTS["b"]
    assert documents[1]["citations"] == [{"index": 2, "marker": "²", "document_id": "b", "truncated": False}]
    assert len(documents) == 4


# api_call


@pytest.fixture
def weather() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on this machine: answers what it was asked; 404 for /c, no JSON for /d. Its URL, and the requests."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            seen.append({"path": self.path, "headers": dict(self.headers), "body": body, "method": self.command})
            content = json.dumps({"data": [{"path": self.path}]}).encode()
            if self.path.startswith("/d"):
                content = b"<html>"
            self.send_response(404 if self.path.startswith("/c") else 200)
            self.send_header("Content-Type", "text/html" if self.path.startswith("/d") else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def call(url: str, **more: Any) -> dict[str, Any]:
    parameters = {"url": url + "/{{ DOC.document_id|urlencode }}", "allowed_domains": ["127.0.0.1"]}
    return stage("api_call", **(parameters | more))


def test_an_api_is_called_for_each_document(shop: Api, weather: tuple[str, list[dict[str, Any]]]) -> None:
    url, seen = weather
    asked = call(
        url,
        method="POST",
        body={"q": "{{INPUT.q}}", "n": "{{DOC.n}}"},
        headers={"X-Shop": "of {{INPUT.q}}"},
        auth={"type": "bearer", "secret_ref": "call"},
        response_path="$.data[0].path",
        output_field="meta.answer",
        when={"field": "n", "operator": "lte", "value": 2},
    )
    answer = run(shop, everything(), asked, inputs={"q": "x"})
    assert [found.get("meta", {}).get("answer") for found in answer["documents"]] == ["/a", "/b", None, None, None]
    assert answer["documents"][0]["meta"]["title"], "beside what is there"
    assert sorted((request["path"], request["body"]["n"]) for request in seen) == [("/a", 1), ("/b", 2)]
    assert {request["headers"]["Authorization"] for request in seen} == {"Bearer s3cret-value"}
    assert {request["headers"]["X-Shop"] for request in seen} == {"of x"}
    assert told(answer, "api_call")["calls"] == 2
    assert "s3cret-value" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("auth", "place", "sent"),
    [
        ({"type": "basic", "secret_ref": "call"}, "Authorization", "Basic czNjcmV0LXZhbHVl"),
        ({"type": "api_key", "secret_ref": "call", "key": "X-Key"}, "X-Key", "s3cret-value"),
        ({"type": "custom_header", "secret_ref": "CALL", "key": "X-Key"}, "X-Key", "s3cret-value"),
        ({"type": "api_key", "secret_ref": "call", "key": "k", "location": "query"}, None, "/a?k=s3cret-value"),
    ],
)
def test_ways_to_send_a_secret(
    shop: Api, weather: tuple[str, list[dict[str, Any]]], auth: dict[str, Any], place: str | None, sent: str
) -> None:
    url, seen = weather
    run(shop, everything(), stage("limit", limit=1), call(url, auth=auth), inputs={})
    assert (seen[0]["headers"][place] if place else seen[0]["path"]) == sent


def test_what_fails_is_left_removed_or_raised(shop: Api, weather: tuple[str, list[dict[str, Any]]]) -> None:
    url, _ = weather
    skipped = run(shop, everything(), call(url), inputs={})
    assert [bool(found.get("api_response")) for found in skipped["documents"]] == [True, True, False, False, True]
    assert "failed for 2 of 5" in skipped["warnings"][0]
    removed = run(shop, everything(), call(url, on_error="remove"), inputs={})
    assert [found["document_id"] for found in removed["documents"]] == ["a", "b", "e"]
    shop.retriever("r", everything(), call(url, on_error="raise"))
    assert shop.refused("POST", "/retrievers/r/execute", {}, status=503)[0] in ("api_failed", "not_fetched")


@pytest.mark.parametrize("host", ["10.1.2.3", "169.254.169.254", "[::1]", "192.168.0.1"])
def test_no_address_inside_is_called(shop: Api, host: str) -> None:
    within = {"url": f"http://{host}/", "allowed_domains": ["127.0.0.1", "x.example"], "on_error": "raise"}
    shop.retriever("r", everything(), stage("api_call", **within))
    assert shop.refused("POST", "/retrievers/r/execute", {}, status=503)[0] == "domain_refused"
    if not host.startswith("["):
        shop.retriever("r", everything(), stage("api_call", **(within | {"allowed_domains": [host]})))
        assert shop.refused("POST", "/retrievers/r/execute", {}, status=503)[0] == "address_refused"


def test_a_secret_goes_to_named_hosts_alone(shop: Api, weather: tuple[str, list[dict[str, Any]]]) -> None:
    url, seen = weather
    elsewhere = call(
        url.replace("127.0.0.1", "localhost"),
        allowed_domains=["localhost"],
        headers={"X-Key": "{{SECRET.call}}"},
    )
    shop.retriever("r", everything(), elsewhere)
    assert shop.refused("POST", "/retrievers/r/execute", {})[0] == "secret_refused"
    assert not seen
    shop.retriever("r", everything(), call(url, auth={"type": "bearer", "secret_ref": "nowhere"}, on_error="raise"))
    assert shop.refused("POST", "/retrievers/r/execute", {})[0] == "bad_input"


def test_a_rate_limit_is_kept(shop: Api, weather: tuple[str, list[dict[str, Any]]]) -> None:
    url, seen = weather
    answer = run(shop, everything(), call(url, rate_limit={"requests_per_minute": 2}), inputs={})
    assert len(seen) == 2
    assert told(answer, "api_call")["failed"] == 3 + sum(request["path"] in ("/c", "/d") for request in seen)
    assert "failed for" in answer["warnings"][0]


# What is refused when a retriever is made


@pytest.mark.parametrize(
    ("stage_id", "parameters", "problem"),
    [
        ("rerank", {"query": 3}, "bad_parameter"),
        ("rerank", {"max_candidates": 1001}, "bad_parameter"),
        ("rerank", {"batch_size": 0}, "bad_parameter"),
        ("rerank", {"nonsense": 1}, "bad_parameter"),
        ("rerank", {"feature_uri": "mixpeek://x@v1/y"}, "not_offered"),
        ("rerank", {"query": "{{DOC.x}}"}, "bad_template"),
        ("rerank", {"model": "x", "inference_name": "y"}, "bad_parameter"),
        ("rerank", {"score_field": "a..b"}, "bad_field"),
        ("json_transform", {"template": ""}, "bad_parameter"),
        ("json_transform", {"template": "{{ SECRET.x }}"}, "bad_template"),
        ("json_transform", {"template": "{{ DOC.x.upper() }}"}, "bad_template"),
        ("rag_prepare", {"tokenizer": "gpt2"}, "unknown_tokenizer"),
        ("rag_prepare", {"max_tokens": 99}, "bad_parameter"),
        ("rag_prepare", {"citation": {"style": "x"}}, "bad_parameter"),
        ("rag_prepare", {"context_field": ""}, "bad_field"),
        ("api_call", {"url": "http://x.example"}, "bad_parameter"),
        ("api_call", {"url": "ftp://x.example", "allowed_domains": ["x.example"]}, "bad_parameter"),
        ("api_call", {"url": "http://x.example", "allowed_domains": []}, "bad_parameter"),
        ("api_call", {"url": "http://x.example", "allowed_domains": ["*"]}, "bad_parameter"),
        ("api_call", {"url": "http://x/{{SECRET.a}}", "allowed_domains": ["x"]}, "bad_parameter"),
        (
            "api_call",
            {"url": "http://x", "allowed_domains": ["x"], "headers": {"Authorization": "k"}},
            "secret_refused",
        ),
        ("api_call", {"url": "http://x", "allowed_domains": ["x"], "headers": {"a b": "k"}}, "bad_parameter"),
        ("api_call", {"url": "http://x", "allowed_domains": ["x"], "auth": {"type": "bearer"}}, "bad_parameter"),
        (
            "api_call",
            {"url": "http://x", "allowed_domains": ["x"], "auth": {"type": "bearer", "secret_ref": "sk-1 2"}},
            "secret_refused",
        ),
        ("api_call", {"url": "http://x", "allowed_domains": ["x"], "response_path": "$..a"}, "bad_parameter"),
        ("api_call", {"url": "http://x", "allowed_domains": ["x"], "timeout": 61}, "bad_parameter"),
        (
            "api_call",
            {"url": "http://x", "allowed_domains": ["x"], "when": {"field": "n", "operator": "?"}},
            "unknown_operator",
        ),
    ],
)
def test_parameters_that_are_refused(shop: Api, stage_id: str, parameters: dict[str, Any], problem: str) -> None:
    body = {"retriever_name": "r", "stages": [everything(), stage(stage_id, **parameters)]}
    code, problems = shop.refused("POST", "/retrievers", body)
    assert code == problem, problems


def test_a_host_stage_needs_documents(shop: Api) -> None:
    body = {"retriever_name": "r", "stages": [stage("rerank")]}
    assert shop.refused("POST", "/retrievers", body)[1] == ["needs_documents@body.stages.0"]
