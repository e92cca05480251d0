"""The stages that ask a language model, over HTTP, with an endpoint on this machine that answers as each test says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.test_host_stages import everything, run, told
from tests.http import Api, document, stage
from tests.openai_server import OTHER_KEY, OpenAIServer, echo

TEXTS = {"a": "cats and dogs", "b": "dogs alone", "c": "cats alone", "d": "birds"}


@pytest.fixture
def model(openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("PGRETRIEVE_SECRET_MINE", OTHER_KEY)
    openai.requests.clear()
    openai.keys.clear()
    yield openai
    openai.chat, openai.statuses = echo, []


@pytest.fixture
def pets(api: Api) -> Api:
    api.standalone(("v", 2))
    kinds = {"a": "pets", "b": "pets", "c": "pets", "d": "wild"}
    api.upsert([document(name, content=text, n=1, kind=kinds[name]) for name, text in TEXTS.items()])
    return api


def prompts(model: OpenAIServer) -> list[str]:
    return [request["messages"][-1]["content"] for request in model.requests]


def keeps_cats(prompt: str, request: dict[str, Any]) -> Any:
    document = json.loads(prompt.partition("Document:\n")[2])
    return {"keep": "cats" in document["content"], "reason": document["content"]}


# llm_filter


def test_documents_that_fit_the_criteria_stay(pets: Api, model: OpenAIServer) -> None:
    model.chat = keeps_cats
    kept = stage("llm_filter", criteria="Keep {{INPUT.what}}, not {{DOC.kind}}", include_reasoning=True)
    answer = run(pets, everything(), kept, inputs={"what": "cats"})
    assert [found["document_id"] for found in answer["documents"]] == ["a", "c"]
    about = told(answer, "llm_filter")
    assert about["reasoning"] == TEXTS
    assert (about["llm"]["calls"], about["llm"]["model"]) == (4, "gpt-4o-mini")
    assert about["llm"]["input_tokens"] > 20
    assert about["llm"]["output_tokens"] > 4
    assert sorted(prompts(model))[0].startswith("Criteria: Keep cats, not pets\n")
    assert model.requests[0]["response_format"]["json_schema"]["schema"]["required"] == ["keep", "reason"]


@pytest.mark.parametrize("criteria", ["", None, "{{ INPUT.none|default('') }}"])
def test_no_criteria_ask_nobody(pets: Api, model: OpenAIServer, criteria: str | None) -> None:
    answer = run(pets, everything(), stage("llm_filter", criteria=criteria), inputs={})
    assert len(answer["documents"]) == 4
    assert not model.requests


def test_a_judgement_that_fails_fails_the_filter(pets: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: {"keep": "perhaps"} if "birds" in prompt else {"keep": True, "reason": ""}
    broken = stage("llm_filter", criteria="x")
    pets.retriever("r", everything(), broken)
    assert pets.refused("POST", "/retrievers/r/execute", {}, status=503)[0] == "inference_bad_answer"
    answer = run(pets, everything(), broken | {"on_error": "skip"}, inputs={})
    assert len(answer["documents"]) == 4
    assert answer["status"] == "degraded"


# llm_enrich


def test_an_answer_becomes_a_field(pets: Api, model: OpenAIServer) -> None:
    enriched = stage(
        "llm_enrich",
        prompt="About {{DOC.content}} for {{INPUT.who}}",
        output_field="meta.said",
        model_name="gpt-4o",
        temperature=0.5,
        max_tokens=100,
        when={"AND": [{"field": "kind", "operator": "eq", "value": "{{INPUT.kind}}"}]},
        api_key="{{secrets.mine}}",
        provider="openai",
    )
    answer = run(pets, everything(), enriched, inputs={"who": "me", "kind": "pets"})
    said = [found.get("meta", {}).get("said") for found in answer["documents"]]
    assert said == ["About cats and dogs for me", "About dogs alone for me", "About cats alone for me", None]
    assert set(model.keys) == {OTHER_KEY}
    assert (model.requests[0]["model"], model.requests[0]["temperature"], model.requests[0]["max_tokens"]) == (
        "gpt-4o",
        0.5,
        100,
    )
    assert told(answer, "llm_enrich")["llm"]["calls"] == 3
    assert OTHER_KEY not in json.dumps(answer)


def test_json_of_a_schema_and_pictures(pets: Api, model: OpenAIServer) -> None:
    schema = {"type": "object", "properties": {"said": {"type": "string"}}}
    enriched = stage("llm_enrich", schema=schema, multimodal_inputs={"image": "image"})
    answer = run(pets, everything(), enriched, inputs={"image": "data:image/png;base64,AA=="})
    assert answer["documents"][3]["summary"] == {
        "said": f"Summarize the following content in 2-3 sentences: {TEXTS['d']}"
    }
    assert model.requests[0]["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,AA=="
    pets.retriever("r", everything(), enriched)
    body = {"inputs": {"image": "AA=="}}
    assert pets.refused("POST", "/retrievers/r/execute", body)[1] == ["bad_input@body.inputs.image"]


def test_some_calls_that_fail_are_counted_and_all_fail_the_stage(pets: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: "no JSON" if "birds" in prompt else {"a": 1}
    answer = run(pets, everything(), stage("llm_enrich", schema={}), inputs={})
    assert [found.get("summary") for found in answer["documents"]] == [{"a": 1}] * 3 + [None]
    assert told(answer, "llm_enrich")["failed"] == 1
    assert "failed for 1 of 4 documents" in answer["warnings"][0]
    model.chat = lambda prompt, request: "no JSON"
    pets.retriever("r", everything(), stage("llm_enrich", schema={}))
    assert pets.refused("POST", "/retrievers/r/execute", {}, status=503)[0] == "inference_bad_answer"
    pets.retriever("r", everything(), stage("llm_enrich", prompt="{{INPUT.q}}"))
    assert pets.refused("POST", "/retrievers/r/execute", {})[1] == ["missing_input@body.inputs.q"]


def test_a_stage_has_a_budget(api: Api, model: OpenAIServer) -> None:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n:03}", n=1, content="x") for n in range(103)])
    answer = run(api, everything(), stage("llm_enrich"), inputs={}, limit=200)
    assert len(model.requests) == 100
    assert told(answer, "llm_enrich")["failed"] == 3
    assert "PGRETRIEVE_CHAT_MAX_CALLS" in answer["warnings"][0]


# summarize


def test_one_summary_of_all(pets: Api, model: OpenAIServer) -> None:
    answer = run(pets, everything(), stage("summarize", model="gpt-4o"), inputs={})
    (made,) = answer["documents"]
    documents = "[1] cats and dogs\n[2] dogs alone\n[3] cats alone\n[4] birds\n"
    assert prompts(model) == [f"Summarize the following 4 documents concisely:\n\n{documents}"]
    assert made["summary"].startswith("Summarize the following 4 documents")
    assert made["source_document_ids"] == ["a", "b", "c", "d"]
    assert made["document_count"] == 4
    assert made["tokens_used"] == sum(
        told(answer, "summarize")["llm"][name] for name in ("input_tokens", "output_tokens")
    )
    assert model.requests[0]["temperature"] == 0.3


def test_a_summary_of_each_group(pets: Api, model: OpenAIServer) -> None:
    grouped = stage(
        "summarize",
        prompt="{{GROUP_VALUE}} ({{DOC_COUNT}}): {{DOCUMENTS}}",
        document_template="{{INDEX}}{{DOC.content}};",
        content_field="n",
        group_by="kind",
        output_field="out",
        include_sources=False,
        include_metadata=False,
    )
    first, second = run(pets, everything(), grouped, inputs={})["documents"]
    assert (first["kind"], first["out"]) == ("pets", "pets (3): 11;21;31;")
    assert (second["kind"], second["out"]) == ("wild", "wild (1): 11;")
    assert "source_document_ids" not in first
    assert "document_count" not in first


@pytest.mark.parametrize(("strategy", "seen"), [("drop_last", 1), ("truncate_each", 3), ("smart", 2)])
def test_documents_are_cut_to_a_budget(api: Api, model: OpenAIServer, strategy: str, seen: int) -> None:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", n=1, content=f"begin{n} " + "word " * 70) for n in range(3)])
    cut = stage("summarize", max_input_tokens=100, truncation_strategy=strategy)
    answer = run(api, everything(), cut, inputs={})
    (prompt,) = prompts(model)
    assert [f"begin{n}" in prompt for n in range(3)] == [n < seen for n in range(3)]
    assert told(answer, "summarize")["input_truncation"] == {"documents": 3, "included": seen}
    assert "cut 3 documents to 100 tokens" in answer["warnings"][0]


def test_a_summary_of_nothing_asks_nobody(pets: Api, model: OpenAIServer) -> None:
    nothing = stage("attribute_filter", field="n", operator="eq", value=7)
    assert run(pets, nothing, stage("summarize"), inputs={})["documents"] == []
    assert not model.requests


def test_a_structured_summary(pets: Api, model: OpenAIServer) -> None:
    made = run(pets, everything(), stage("summarize", output_schema={"type": "object"}), inputs={})["documents"][0]
    assert made["summary"].keys() == {"said"}


# query_expand


@pytest.fixture
def managed(api: Api) -> Api:
    vectors = [{"name": "text", "dimension": 384, "metric": "cosine", "inference_service": "minilm_l6_v2"}]
    api("POST", "/namespaces", {"namespace_name": api.namespace, "vector_configs": vectors})
    texts = {"car": "a red automobile", "dog": "a small puppy", "pie": "apple pie", "jam": "strawberry jam"}
    embedded = api("POST", "/inference", {"inference_name": "minilm_l6_v2", "inputs": {"texts": list(texts.values())}})
    found = zip(texts, embedded["data"]["embeddings"], strict=True)
    api.upsert([document(name, {"text": vector}, content=texts[name]) for name, vector in found])
    return api


def expand(*, top_k: int = 2, **more: Any) -> dict[str, Any]:
    search = {"feature_uri": "text", "query": {"input_mode": "text", "value": "{{INPUT.q}}"}, "top_k": top_k}
    return stage("query_expand", feature_search_config={"searches": [search], "final_top_k": 3}, **more)


def test_variations_are_searched_and_fused(managed: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: '1. puppies\n- dogs\n\nvehicle\n"puppies"\ncars\none more'
    answer = run(managed, expand(num_expansions=3, top_k=1), inputs={"q": "vehicle"})
    assert told(answer, "query_expand")["queries"] == ["vehicle", "puppies", "dogs", "cars"]
    assert "Write 3 other search queries" in prompts(model)[0]
    assert prompts(model)[0].endswith("\n\nvehicle")
    assert [found["document_id"] for found in answer["documents"]] == ["car", "dog"]
    assert [found["score"] for found in answer["documents"]] == pytest.approx([2 / 61, 2 / 61])
    answer = run(managed, expand(num_expansions=1, top_k=1, rrf_k=9), inputs={"q": "vehicle"})
    assert [found["score"] for found in answer["documents"]] == pytest.approx([1 / 10, 1 / 10])


def test_a_mean_of_scores_without_the_original(managed: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: "puppies\ndogs"
    wanted = expand(
        fusion_strategy="linear",
        include_original=False,
        expansion_prompt="{{NUM_EXPANSIONS}}|{{QUERY}}",
        model="gpt-4o",
    )
    answer = run(managed, wanted, inputs={"q": "vehicle"})
    assert answer["documents"][0]["document_id"] == "dog"
    assert 0.4 < answer["documents"][0]["score"] < 1
    assert prompts(model) == ["3|vehicle"]
    assert model.requests[0]["model"] == "gpt-4o"


def test_without_an_answer_the_query_is_searched_alone(managed: Api, model: OpenAIServer) -> None:
    for statuses, chat in (([401], echo), ([], lambda prompt, request: " \n")):
        model.statuses, model.chat = statuses, chat
        answer = run(managed, expand(include_original=False), inputs={"q": "vehicle"})
        assert answer["documents"][0]["document_id"] == "car"
        assert "the original query alone" in answer["warnings"][0]
        assert told(answer, "query_expand")["expanded"] is False


def test_a_later_stage_searches_what_it_is_given(managed: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: "cars"
    for kept, found in (("pie", ["pie"]), ("nothing", [])):
        before = stage("attribute_filter", field="content", operator="contains", value=kept)
        answer = run(managed, before, expand(), inputs={"q": "vehicle"})
        assert [each["document_id"] for each in answer["documents"]] == found


def test_filters_of_the_request_hold(managed: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: "cars"
    managed.retriever("r", expand())
    only = {"field": "content", "operator": "contains", "value": "jam"}
    assert managed.ids("r", inputs={"q": "vehicle"}, filters=only) == ["jam"]
    managed.retriever("elsewhere", expand(), collection_identifiers=["elsewhere"])
    assert managed.ids("elsewhere", inputs={"q": "vehicle"}) == []


def test_what_comes_after_may_be_a_statement_and_a_reranker(managed: Api, model: OpenAIServer) -> None:
    model.chat = lambda prompt, request: "puppies"
    stages = [expand(), stage("rerank", query="{{INPUT.q}}"), stage("limit", limit=1)]
    assert managed.retriever("r", *stages)
    assert managed.ids("r", inputs={"q": "vehicle"}) == ["car"]


# What is refused when a retriever is made


@pytest.mark.parametrize(
    ("stage_id", "parameters", "problem"),
    [
        ("llm_filter", {"provider": "google"}, "not_offered"),
        ("llm_filter", {"include_media": True}, "not_offered"),
        ("llm_filter", {"inference_name": "gemini:x"}, "not_offered"),
        ("llm_filter", {"criteria": 3}, "bad_parameter"),
        ("llm_filter", {"criteria": "{{SECRET.mine}}"}, "secret_refused"),
        ("llm_enrich", {"api_key": "sk-plain"}, "secret_refused"),
        ("llm_enrich", {"api_key": "{{INPUT.key}}"}, "secret_refused"),
        ("llm_enrich", {"prompt": "{{SECRET.mine}}"}, "secret_refused"),
        ("llm_enrich", {"prompt": ""}, "bad_parameter"),
        ("llm_enrich", {"temperature": 1.5}, "bad_parameter"),
        ("llm_enrich", {"multimodal_inputs": {"x": "video"}}, "not_offered"),
        ("llm_enrich", {"use_vcache": True}, "not_offered"),
        ("llm_enrich", {"when": {"field": "n", "operator": "eq", "value": "{{DOC.n}}"}}, "bad_filter"),
        ("llm_enrich", {"schema": {"x": "y" * 20_000}}, "out_of_range"),
        ("summarize", {"prompt": "no documents"}, "bad_parameter"),
        ("summarize", {"prompt": "{{DOCUMENTS}}{{DOC.x}}"}, "bad_parameter"),
        ("summarize", {"max_output_tokens": 5}, "bad_parameter"),
        ("summarize", {"nonsense": 5}, "bad_parameter"),
        ("query_expand", {}, "bad_parameter"),
        ("query_expand", {"feature_search_config": {"query": {"text": "x"}}}, "bad_parameter"),
        ("query_expand", {"feature_search_config": {"searches": []}}, "out_of_range"),
    ],
)
def test_parameters_that_are_refused(pets: Api, stage_id: str, parameters: dict[str, Any], problem: str) -> None:
    body = {"retriever_name": "r", "stages": [everything(), stage(stage_id, **parameters)]}
    code, problems = pets.refused("POST", "/retrievers", body)
    assert code == problem, problems
    shown = json.dumps(pets("POST", "/retrievers", body, status=422))
    assert "sk-plain" not in shown


def test_the_search_of_query_expand_is_checked_at_its_place(managed: Api) -> None:
    search = {"feature_uri": "nowhere", "query": "{{INPUT.q}}", "top_k": 0}
    body = {"retriever_name": "r", "stages": [stage("query_expand", feature_search_config={"searches": [search]})]}
    _, problems = managed.refused("POST", "/retrievers", body)
    place = "body.stages.0.config.parameters.feature_search_config.searches.0"
    assert any(problem.endswith(f"{place}.feature_uri") for problem in problems)
    assert any(problem.endswith(f"{place}.top_k") for problem in problems)
