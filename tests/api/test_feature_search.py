"""feature_search over HTTP: the modes of a query, what happens without one, and what is told beside the documents."""

from typing import Any

import pytest

from app.domain.retrieving.adhoc import lift_queries
from tests.http import Api, document, feature_search, search, stage

DIRECTIONS = {"a": [1, 0], "b": [3, 1], "c": [1, 1], "d": [0, 1]}


@pytest.fixture
def plane(api: Api) -> Api:
    """Four documents in a plane; one more has no vector."""
    api.standalone(("v", 2), ("other", 2))
    named = enumerate(DIRECTIONS.items())
    api.upsert([document(name, {"v": v}, kind=f"k{n % 2}", title=f"The {name}") for n, (name, v) in named])
    api.upsert([document("none", kind="k0")])
    return api


@pytest.fixture
def words(api: Api) -> Api:
    """A managed namespace whose texts are embedded."""
    api.standalone(("text", 384))
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": "minilm_l6_v2"}]})
    texts = {"dog": "a dog barks", "cat": "a cat purrs", "car": "a fast red car", "boat": "a sailing boat"}
    vectors = api("POST", "/inference", {"inference_name": "minilm_l6_v2", "inputs": {"texts": list(texts.values())}})
    pairs = zip(texts.items(), vectors["data"]["embeddings"], strict=True)
    api.upsert([document(name, {"text": vector}, title=text) for (name, text), vector in pairs])
    return api


def adhoc(api: Api, *stages: dict[str, Any], status: int = 200, **inputs: Any) -> Any:
    return api("POST", "/retrievers/execute", {"stages": list(stages), "inputs": inputs}, status=status)


def ids(answer: Any) -> list[str]:
    return [found["document_id"] for found in answer["documents"]]


def query(index: str, **of: Any) -> dict[str, Any]:
    return {"feature_uri": index, "query": of}


# Queries


def test_a_stored_document_is_the_query(plane: Api) -> None:
    reference = {"document_id": "{{INPUT.id}}", "collection_id": "_direct_upsert"}
    plane.retriever("like", feature_search(query("v", input_mode="document", document_ref=reference)))
    assert plane.ids("like", inputs={"id": "a"}) == ["b", "c", "d"]
    for missing in ("none", "nobody", "no\0body"):
        refused = plane("POST", "/retrievers/like/execute", {"inputs": {"id": missing}}, status=422)["error"]
        problem = refused["details"]["validation_errors"][0]
        assert problem["type"] == ("bad_input" if "\0" in missing else "no_query_document")
    for collection in ("no\0body", {"a": 1}, 5):
        strange = query("v", input_mode="document", document_ref={"document_id": "a", "collection_id": "{{INPUT.c}}"})
        refused = adhoc(plane, feature_search(strange), status=422, c=collection)
        assert refused["error"]["code"] == "bad_input"
    elsewhere = {"document_id": "a", "collection_id": "another"}
    refused = adhoc(plane, feature_search(query("v", input_mode="document", document_ref=elsewhere)), status=422)
    assert refused["error"]["code"] == "no_query_document"


def test_the_mean_of_several_is_the_query(words: Api) -> None:
    texts = feature_search(query("text", input_mode="multi_content", values=["puppy", "kitten"]), final_top_k=2)
    assert sorted(ids(adhoc(words, texts))) == ["cat", "dog"]
    values = ["{{INPUT.one}}", "{{INPUT.other}}"]
    words.retriever("several", feature_search(query("text", input_mode="multi_content", values=values), final_top_k=1))
    assert words.ids("several", inputs={"one": "ship", "other": ""}) == ["boat"]
    refused = words(
        "POST", "/retrievers/several/execute", {"inputs": {"one": "https://a.b/c.png", "other": "x"}}, status=422
    )
    assert refused["error"]["code"] == "service_without_images"
    refused = words("POST", "/retrievers/several/execute", {"inputs": {"one": " ", "other": ""}}, status=422)
    assert "empty" in refused["error"]["message"]


def test_vectors_count_by_direction_in_a_mean(plane: Api) -> None:
    answer = adhoc(plane, feature_search(query("v", input_mode="multi_content", values=[[100, 0], [0, 1]])))
    assert ids(answer)[0] == "c"
    assert answer["documents"][0]["score"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("of", "problem"),
    [
        ({"input_mode": "content", "value": "https://a.b/c.png"}, "text_needs_promotion@query.input_mode"),
        ({"input_mode": "content", "content": {"url": "https://a.b"}}, "text_needs_promotion@query.input_mode"),
        ({"input_mode": "multi_content", "values": [[1, 0], "s3://a/b"]}, "text_needs_promotion@query.input_mode"),
        ({"input_mode": "multi_content", "values": [[1, 0], [1]]}, "bad_query@query.values"),
        ({"input_mode": "multi_content", "values": [[1, 0]] * 17}, "bad_query@query.values"),
        ({"input_mode": "document"}, "bad_query@query.document_ref"),
        ({"input_mode": "document", "document_ref": {}}, "bad_query@query.document_ref"),
        ({"input_mode": "document", "document_ref": {"document_id": 5}}, "bad_query@query.document_ref"),
        (
            {"input_mode": "vector", "value": [1, 0], "document_ref": {"document_id": "a"}},
            "bad_query@query.document_ref",
        ),
        ({"input_mode": "vector", "value": []}, "bad_vector@query.value"),
        ({"input_mode": "vector", "value": [[1, 0], [0, 1]]}, "bad_vector@query.value"),
        ({"input_mode": "vector"}, "bad_query@query.value"),
        ({"input_mode": "image", "value": "x"}, "bad_query@query"),
        ({"input_mode": "vector", "value": [1, 0], "wat": 1}, "bad_query@query"),
    ],
)
def test_queries_that_are_refused(plane: Api, of: dict[str, Any], problem: str) -> None:
    body = {"retriever_name": "r", "stages": [feature_search({"feature_uri": "v", "query": of})]}
    _, problems = plane.refused("POST", "/retrievers", body)
    code, place = problem.split("@")
    assert problems == [f"{code}@body.stages.0.config.parameters.searches.0.{place}"]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"rrf_k": 0}, "out_of_range@rrf_k"),
        ({"hard_timeout_ms": 0}, "out_of_range@hard_timeout_ms"),
        ({"facets": [{"key": "kind", "limit": 0}]}, "out_of_range@facets.0.limit"),
        ({"facets": ["a."]}, "bad_field@facets.0.key"),
        ({"facets": ["a"] * 21}, "out_of_range@facets"),
        ({"group_by": {"field": "", "limit": 501}}, "bad_field@group_by.field"),
        ({"group_by": {"field": "a", "max_per_group": 2, "group_size": 2}}, "bad_parameter@group_by.group_size"),
        ({"group_size": 2}, "bad_parameter@group_size"),
        ({"learning_config": {"a": 1}}, "not_offered@learning_config"),
        ({"query_preprocessing": {"a": 1}}, "not_offered@query_preprocessing"),
        ({"fusion": "learned"}, "bad_parameter@"),
    ],
)
def test_parameters_that_are_refused(plane: Api, parameters: dict[str, Any], problem: str) -> None:
    body = {"retriever_name": "r", "stages": [feature_search(search("v", [1, 0]), **parameters)]}
    _, problems = plane.refused("POST", "/retrievers", body)
    code, place = problem.split("@")
    assert f"{code}@body.stages.0.config.parameters{'.' if place else ''}{place}" in problems


# Without a query


def test_an_empty_query_is_refused_skipped_or_random(plane: Api) -> None:
    one, other = search("v", "{{INPUT.one}}"), search("v", "{{INPUT.other}}")
    plane.retriever("error", feature_search(one))
    nothings: list[dict[str, Any]] = [{}, {"one": None}, {"one": []}]
    for inputs in nothings:
        plane("POST", "/retrievers/error/execute", {"inputs": inputs}, status=422)
    skipping = [each | {"on_empty": "skip"} for each in (one, other)]
    plane.retriever("skip", feature_search(*skipping, explain_scores=True))
    both = plane.execute("skip", inputs={"one": [1, 0], "other": [0, 1]})
    assert both["documents"][0]["scores"].keys() == {"search_1", "search_2"}
    for inputs in [{"other": [0, 1]}, {"one": [], "other": [0, 1]}]:
        answer = plane.execute("skip", inputs=inputs)
        assert ids(answer) == ["d", "c", "b", "a"]
        assert all(found["scores"].keys() == {"search_2"} for found in answer["documents"])
        told = answer["stage_statistics"]["stages"]["feature_search"]["metadata"]["searches"]
        assert [(each["returned"], each.get("skipped")) for each in told] == [(0, "empty_query"), (4, None)]
        assert any("its query is empty" in warning for warning in answer["warnings"])
    for inputs in nothings:
        refused = plane("POST", "/retrievers/skip/execute", {"inputs": inputs}, status=422)
        assert refused["error"]["code"] == "empty_query"
    plane.retriever("random", feature_search(one | {"on_empty": "random"}))
    firsts = {plane.ids("random", inputs={"one": []})[0] for _ in range(40)}
    assert len(firsts) > 1


def test_an_empty_text_is_no_query(words: Api) -> None:
    text = search("text", "{{INPUT.q}}", mode="text")
    words.retriever("error", feature_search(text))
    refused = words("POST", "/retrievers/error/execute", {"inputs": {"q": "  "}}, status=422)
    assert "on_empty" in refused["error"]["message"]
    lexical = {"feature_uri": "text", "lexical": True, "query": "{{INPUT.w}}", "on_empty": "skip"}
    words.retriever("skip", feature_search(text | {"on_empty": "skip"}, lexical))
    assert words.ids("skip", inputs={"w": "purrs"}) == ["cat"]
    assert words.ids("skip", inputs={"q": "a car that is fast", "w": ""})[0] == "car"
    refused = words("POST", "/retrievers/skip/execute", {"inputs": {"w": ""}}, status=422)
    assert refused["error"]["code"] == "empty_query"
    vector = {"feature_uri": "text", "lexical": True, "query": {"input_mode": "vector", "value": [1]}}
    words.refused("POST", "/retrievers", {"retriever_name": "r", "stages": [feature_search(vector)]})


def test_an_optional_search_does_without_its_index(plane: Api) -> None:
    wanted, empty = search("v", [1, 0]), search("other", [1, 0], optional=True)
    answer = adhoc(plane, feature_search(wanted, empty))
    assert ids(answer) == ["a", "b", "c", "d"]
    assert any("no document has a vector in its index" in warning for warning in answer["warnings"])
    missing = search("missing", [1, 0], optional=True)
    answer = adhoc(plane, feature_search(wanted, missing))
    assert ids(answer) == ["a", "b", "c", "d"]
    assert any("'missing'" in warning for warning in answer["warnings"])
    body = {"retriever_name": "r", "stages": [feature_search(missing)]}
    assert plane.refused("POST", "/retrievers", body)[0] == "unknown_index"


# Beside the documents


def test_facets_groups_and_scores(plane: Api) -> None:
    found = adhoc(plane, feature_search(search("v", [1, 0]), facets=["kind"], final_top_k=1, explain_scores=True))
    assert found["facets"] == [{"key": "kind", "values": [{"value": "k0", "count": 2}, {"value": "k1", "count": 2}]}]
    assert found["documents"][0]["scores"] == {"search_1": {"rank": 1, "score": 1}}
    assert found["documents"][0]["title"] == "The a"
    grouped = adhoc(plane, feature_search(search("v", [1, 0]), group_by={"field": "kind", "output_mode": "first"}))
    assert ids(grouped) == ["a", "b"]


def test_what_was_searched_is_told(plane: Api) -> None:
    answer = adhoc(plane, feature_search(search("v", [1, 0], top_k=3), search("v", [0, 1], top_k=2)))
    told = answer["stage_statistics"]["stages"]["feature_search"]["metadata"]["searches"]
    expected = [(1, "v", 3, 3), (2, "v", 2, 2)]
    assert [(each["search"], each["index"], each["asked"], each["returned"]) for each in told] == expected


def test_a_statement_ends_at_the_hard_timeout(plane: Api) -> None:
    plane.upsert([document(f"n{n}", {"v": [n % 7 + 1, 1]}) for n in range(1_000)])
    slow = [search("v", [1, n], top_k=1000) for n in range(10)]
    refused = adhoc(plane, feature_search(*slow, hard_timeout_ms=1), status=503)
    assert refused["error"]["details"]["retryable"] is False


def test_a_branch_is_fused_with_the_rows_before_it(words: Api) -> None:
    first = feature_search(search("text", "a dog", mode="text"), final_top_k=2)
    branch = feature_search(search("text", "a boat", mode="text"), final_top_k=2)
    alone = ids(adhoc(words, first)), ids(adhoc(words, branch))
    both = [first, {**branch, "output_alias": "boats", "stage_name": "boats"}]
    answer = words("POST", "/retrievers/execute", {"stages": both, "limit": 10})
    votes: dict[str, float] = {}
    for rows in alone:
        for rank, name in enumerate(rows, start=1):
            votes[name] = votes.get(name, 0.0) + 1 / (60 + rank)
    assert ids(answer) == sorted(votes, key=lambda name: (-votes[name], name))
    assert [found["score"] for found in answer["documents"]] == pytest.approx(sorted(votes.values(), reverse=True))
    within = adhoc(words, first, {**branch, "stage_name": "boats"})
    assert sorted(ids(within)) == sorted(alone[0])


def test_a_branch_carries_fields_that_were_changed(words: Api) -> None:
    mmr = stage("mmr", diversity_fields=["title"])
    first = feature_search(search("text", "a dog", mode="text"), final_top_k=2)
    branch = feature_search(search("text", "a boat", mode="text"), final_top_k=3, explain_scores=True)
    answer = adhoc(words, first, mmr, {**branch, "output_alias": "boats", "stage_name": "boats"})
    before = ids(adhoc(words, first))
    for found in answer["documents"]:
        assert ("mmr" in found.get("scores", {})) == (found["document_id"] in before)
        assert found["title"].startswith("a ")
    assert any("search_1" in found["scores"] for found in answer["documents"])


# Kinds of vectors


@pytest.fixture
def kinds(api: Api) -> Api:
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace})  # which takes what is written
    documents = [
        document(f"d{n}", {"sparse": {"indices": [n], "values": [1.0]}, "multi": [[1, n], [n, 1]]}) for n in range(1, 4)
    ]
    api.upsert(documents)
    return api


def test_sparse_and_multi_vectors_as_literals_and_inputs(kinds: Api) -> None:
    sparse, multi = {"indices": [2, 3], "values": [1, 2]}, [[1, 3], [3, 1]]
    for value, index, expected in ((sparse, "sparse", ["d3", "d2"]), (multi, "multi", ["d3", "d2", "d1"])):
        assert ids(adhoc(kinds, feature_search({"feature_uri": index, "query": value}))) == expected
        assert ids(adhoc(kinds, feature_search(search(index, value)))) == expected
        assert ids(adhoc(kinds, feature_search(search(index, "{{INPUT.q}}")), q=value)) == expected
        body = {"query": {"input_mode": "vector", "vector": value}, "feature_uri": index}
        assert ids(kinds("POST", "/features/search", body)) == expected
        found = kinds(
            "POST", "/retrievers", {"retriever_name": index, "stages": [feature_search(search(index, value))]}
        )
        shown = kinds("GET", f"/retrievers/{found['retriever_id']}/sql")
        assert shown["sql"]
    reference = {"document_id": "d2"}
    for index in ("sparse", "multi"):
        like = adhoc(kinds, feature_search(query(index, input_mode="document", document_ref=reference)))
        assert "d2" not in ids(like)
    rerank = stage("maxsim_rerank", feature_uri="multi", query=[[1, 2]])
    found = adhoc(kinds, feature_search(search("multi", multi)), rerank)
    assert ids(found)[0] == "d2"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"indices": [1], "values": [1.0]}, {"indices": [1, 2], "values": [2, 3]}),
        ([[1, 2]], [[1, 2], [3, 4]]),
        ({"input_mode": "vector", "value": [[1, 2]]}, {"input_mode": "vector", "value": [[5, 6]]}),
        ({"input_mode": "multi_content", "values": ["a"]}, {"input_mode": "multi_content", "values": ["b", [1, 2]]}),
        (
            {"input_mode": "document", "document_ref": {"document_id": "a"}},
            {"input_mode": "document", "document_ref": {"document_id": "b"}},
        ),
    ],
)
def test_searches_of_one_form_share_their_plan(one: Any, other: Any) -> None:
    lifted = [lift_queries({"stages": [feature_search({"feature_uri": "v", "query": q})]}, {}) for q in (one, other)]
    assert lifted[0][0] == lifted[1][0]
    assert lifted[0][1] != lifted[1][1]
