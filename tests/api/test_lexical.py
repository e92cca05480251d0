"""Lexical search over HTTP: declared and undeclared fields, languages, phrases, prefixes, filters, pipelines."""

from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage

TEXTS = {
    "a": "The quick brown fox jumps over the lazy dog",
    "b": "A quick fox, quickly",
    "c": "Dogs and foxes are animals; a brown dog is a dog",
    "d": "Nothing of the kind",
}


def lexical(query: Any = "{{INPUT.q}}", **more: Any) -> dict[str, Any]:
    return feature_search(search("lexical", query, mode="text", lexical=True, **more))


def declare(*fields: str, **options: Any) -> list[dict[str, Any]]:
    schema = {"field_schema": options} if options else {}
    return [{"field_name": field, "type": "text", **schema} for field in fields]


def create(api: Api, indexes: list[dict[str, Any]]) -> None:
    configs = [{"name": "v", "dimension": 2}]
    names = {"namespace_id": api.namespace, "namespace_name": api.namespace}
    api("POST", "/namespaces", {**names, "vector_configs": configs, "payload_indexes": indexes})


def fill(api: Api, texts: dict[str, str] = TEXTS, field: str = "text") -> None:
    api.upsert([document(name, {"v": [1, 0]}, **{field: text}) for name, text in texts.items()])


@pytest.fixture(params=["declared", "undeclared"])
def words(request: pytest.FixtureRequest, api: Api) -> Api:
    """The same documents, with postings and without."""
    create(api, declare("text") if request.param == "declared" else [])
    fill(api)
    api.retriever("words", lexical())
    return api


def found(api: Api, query: str, name: str = "words", **body: Any) -> list[str]:
    return api.ids(name, inputs={"q": query}, **body)


def test_a_standalone_namespace_finds_words_without_a_service(words: Api) -> None:
    assert found(words, "quick") == ["b", "a"]  # shorter, and twice
    assert found(words, "foxes dog") == ["c", "a", "b"]
    assert found(words, "DOGS") == ["c", "a"]
    assert found(words, "cat") == []


def test_phrases_must_stand_in_a_document_and_prefixes_stand_for_words(words: Api) -> None:
    assert found(words, '"brown dog"') == ["c"]
    assert found(words, '"brown fox" nothing') == ["a"]
    assert found(words, '"fox brown"') == []
    assert sorted(found(words, "anim*")) == ["c"]
    assert sorted(found(words, "qu* noth*")) == ["a", "b", "d"]
    assert found(words, "qui") == []


def test_an_empty_query_is_refused_or_skipped(words: Api) -> None:
    body = {"inputs": {"q": " "}}
    assert words.refused("POST", "/retrievers/words/execute", body)[1] == ["bad_input@body.inputs.q"]
    skipped = search("words", "{{INPUT.q}}", mode="text", lexical=True, on_empty="skip")
    words.retriever("skipping", feature_search(search("v", [1, 0], top_k=1), skipped))
    assert found(words, "", "skipping") == ["a"]
    assert sorted(found(words, "quick", "skipping")) == ["a", "b"]


@pytest.mark.parametrize("query", ["the of and", '"', '""', "*", "* *", "' | & ! : \\", "\u0000", '"the" "of"', "%s"])
def test_queries_without_words_find_nothing(words: Api, query: str) -> None:
    assert found(words, query) == []


def test_long_and_odd_queries_are_cut(words: Api) -> None:
    assert found(words, "quick " * 5_000) == ["b", "a"]
    assert found(words, " ".join(f"w{n}" for n in range(300)) + " quick") == []
    assert found(words, "x" * 100_000) == []
    assert found(words, "a-b-c " * 5_000) == []


def test_a_query_that_is_no_text_is_refused(words: Api) -> None:
    body = {"inputs": {"q": [1, 2]}}
    assert words.refused("POST", "/retrievers/words/execute", body)[1] == ["bad_input@body.inputs.q"]
    vector = feature_search(search("v", [1, 0], lexical=True))
    assert words.refused("POST", "/retrievers", {"retriever_name": "x", "stages": [vector]})[1] == [
        "bad_query@body.stages.0.config.parameters.searches.0.query.input_mode"
    ]


def test_writes_of_every_kind_are_searchable_at_once(words: Api) -> None:
    words.upsert([document("a", {"v": [1, 0]}, text="a cat")])
    assert (found(words, "cat"), found(words, "quick")) == (["a"], ["b"])
    words("PATCH", "/documents/b", {"text": "two cats"})
    assert (found(words, "cat"), found(words, "quick")) == (["a", "b"], [])
    words("DELETE", "/documents/a")
    assert found(words, "cat") == ["b"]
    copy = words("POST", f"/namespaces/{words.namespace}/clone", {"namespace_name": f"{words.namespace} copy"})
    of_copy = {"X-Namespace": copy["namespace"]["namespace_id"]}
    answer = words("POST", "/retrievers/words/execute", {"inputs": {"q": "cat"}}, headers=of_copy)
    assert [each["document_id"] for each in answer["documents"]] == ["b"]
    assert len(answer.get("warnings") or []) == len(words.execute("words", inputs={"q": "cat"}).get("warnings") or [])


def test_filters_scores_and_pages(words: Api) -> None:
    kept = {"must": [{"key": "text", "match": {"text": "lazy"}}]}
    words.retriever("filtered", lexical(filters=kept))
    assert found(words, "quick", "filtered") == ["a"]
    assert found(words, "quick", filters=kept) == ["a"]
    best, least = (each["score"] for each in words.execute("words", inputs={"q": "quick"})["documents"])
    words.retriever("good", lexical(min_score=(best + least) / 2))
    assert found(words, "quick", "good") == ["b"]
    assert found(words, "quick", limit=1) == ["b"]


def test_beside_and_after_other_stages(words: Api) -> None:
    both = [search("v", [1, 0]), search("words", "{{INPUT.q}}", mode="text", lexical=True)]
    words.retriever("hybrid", feature_search(*both))
    assert found(words, "quick", "hybrid")[0] in ("a", "b")
    assert len(found(words, "quick", "hybrid")) == 4
    first = stage("attribute_filter", field="text", operator="contains", value="lazy")
    words.retriever("after", first, lexical())
    assert found(words, "quick dog", "after") == ["a"]


def test_an_undeclared_field_is_searched_and_the_warning_says_what_to_declare(api: Api) -> None:
    create(api, [])
    fill(api)
    api.retriever("words", lexical())
    api.retriever("named", lexical(fields=["text"]))
    for name, field in (("words", "<field>"), ("named", "text")):
        answer = api.execute(name, inputs={"q": "quick"})
        assert [each["document_id"] for each in answer["documents"]] == ["b", "a"]
        (warning,) = answer["warnings"]
        assert f'"field_name":"{field}","type":"text"' in warning
    api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": declare("text")})
    for name in ("words", "named"):
        answer = api.execute(name, inputs={"q": "quick"})
        assert [each["document_id"] for each in answer["documents"]] == ["b", "a"]
        assert not answer.get("warnings")
    ensured = api("POST", f"/namespaces/{api.namespace}/ensure-indexes")
    assert "text" in ensured["ensured"]
    rebuilt = api("POST", f"/namespaces/{api.namespace}/ensure-indexes?force_rebuild=true")
    assert "text" in rebuilt["rebuilt"]
    assert found(api, "quick") == ["b", "a"]
    api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": []})
    assert found(api, "quick") == ["b", "a"]


def test_fields_have_languages_and_their_scores_add_up(api: Api) -> None:
    indexes = declare("title") + declare("de", language="german") + declare("plain.text", language="simple")
    create(api, indexes)
    api.upsert(
        [
            document("a", title="House", de="Die Häuser", plain={"text": "the houses"}),
            document("b", title="Houses", de="Katze", plain={"text": ["the", "house"]}),
            document("c", title="A cat", de="Hunde"),
        ]
    )
    for name, fields in (("every", []), ("title", ["title"]), ("de", ["de"]), ("plain", ["plain.text"])):
        api.retriever(name, lexical(fields=fields))
    assert sorted(found(api, "house", "title")) == ["a", "b"]
    assert found(api, "haus", "de") == ["a"]
    assert found(api, "hund", "de") == ["c"]
    assert found(api, "house", "plain") == ["b"]
    assert sorted(found(api, "the", "plain")) == ["a", "b"]
    assert found(api, "the", "title") == []
    scores = {
        name: {
            each["document_id"]: each["score"] for each in api.execute(name, inputs={"q": "house häuser"})["documents"]
        }
        for name in ("every", "title", "de", "plain")
    }
    for name, score in scores["every"].items():
        assert score == pytest.approx(sum(scores[field].get(name, 0) for field in ("title", "de", "plain")))


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"language": "klingon"}, "unknown_language@body.payload_indexes.0.field_schema.language"),
        ({"tokenizer": "prefix"}, "not_offered@body.payload_indexes.0.field_schema.tokenizer"),
        ({"lowercase": False}, "not_offered@body.payload_indexes.0.field_schema.lowercase"),
        ({"min_token_len": 0}, "out_of_range@body.payload_indexes.0.field_schema.min_token_len"),
        ({"stemmer": "x"}, "extra_forbidden@body.payload_indexes.0.field_schema.stemmer"),
    ],
)
def test_options_that_are_not_known_are_refused(api: Api, options: dict[str, Any], problem: str) -> None:
    body = {"namespace_name": api.namespace, "payload_indexes": declare("text", **options)}
    assert api.refused("POST", "/namespaces", body)[1] == [problem]


def test_lexemes_may_have_a_least_and_a_greatest_length(api: Api) -> None:
    create(api, declare("text", min_token_len=3, max_token_len=5, language="simple"))
    fill(api, {"a": "is brown", "b": "is animals"})
    api.retriever("words", lexical())
    assert found(api, "brown") == ["a"]
    assert found(api, "is animals") == []
