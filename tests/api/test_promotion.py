"""Promotion over HTTP: exactly its answer, every refusal without any change, and what works after it."""

import pytest

from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.state import rows, state

TEXT = ("text_embedding", 1536)
LOCAL = ("summary", 384)


def test_the_answer_of_the_mission(api: Api, conninfo: str) -> None:
    api.standalone(TEXT)
    answer = api.promote(
        {
            "vector_mappings": [{"existing_index": "text_embedding", "inference_service": "openai_text_3_small"}],
            "add_vectors": [{"name": "image", "dimension": 1536, "inference_service": "openai_text_3_small"}],
        }
    )
    assert answer == {
        "namespace_id": api.namespace,
        "previous_mode": "standalone",
        "mode": "managed",
        "status": "active",
        "vector_configs": [
            {"name": "text_embedding", "dimension": 1536, "metric": "cosine"},
            {"name": "image", "dimension": 1536, "metric": "cosine"},
        ],
        "vector_inference_map": {"text_embedding": "openai_text_3_small", "image": "openai_text_3_small"},
    }
    mode, version, configs, services, promotions, jobs, columns = state(conninfo, api.namespace)
    assert (mode, version, configs) == ("managed", 2, ["text_embedding", "image"])
    assert services == answer["vector_inference_map"]
    assert (promotions, jobs) == (1, 1)
    assert columns[-1] == "image"


def test_both_parts_are_optional_and_the_body_too(api: Api) -> None:
    api.standalone(LOCAL)
    answer = api.promote()
    assert answer["mode"] == "managed"
    assert answer["vector_inference_map"] == {}


def test_documents_vectors_and_answers_stay_the_same(api: Api, conninfo: str) -> None:
    api.standalone(LOCAL)
    api.upsert([document(str(n), {"summary": [1.0, n / 7] + [0.0] * 382}, n=n) for n in range(20)])
    api.retriever("r", feature_search(search("summary", "{{INPUT.v}}"), final_top_k=10))
    query = [0.3, 0.7] + [0.1] * 382
    before = api.execute("r", inputs={"v": query}, return_vectors=True)["documents"]
    stored = rows(conninfo, api.namespace)
    api.promote(
        {
            "vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}],
            "add_vectors": [{"name": "more", "dimension": 3}],
        }
    )
    after = api.execute("r", inputs={"v": query}, return_vectors=True)["documents"]
    assert after == before
    assert rows(conninfo, api.namespace) == stored


BAD = {
    "unknown_index": {"vector_mappings": [{"existing_index": "nope", "inference_service": "minilm_l6_v2"}]},
    "bad_field": {
        "vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2", "source_field": "a..b"}]
    },
    "unknown_service": {"vector_mappings": [{"existing_index": "summary", "inference_service": "nope"}]},
    "dimension_mismatch": {"vector_mappings": [{"existing_index": "summary", "inference_service": "clip_vit_b32"}]},
    "duplicate_mapping": {
        "vector_mappings": [
            {"existing_index": "summary", "inference_service": "minilm_l6_v2"},
            {"existing_index": "summary", "inference_service": "minilm_l6_v2"},
        ]
    },
    "name_conflict": {"add_vectors": [{"name": "summary", "dimension": 3}]},
    "duplicate_name": {"add_vectors": [{"name": "x", "dimension": 3}, {"name": "x", "dimension": 3}]},
    "unknown_metric": {"add_vectors": [{"name": "x", "dimension": 3, "metric": "manhattan"}]},
    "bad_dimension": {"add_vectors": [{"name": "x", "dimension": 16001}]},
    "bad_name": {"add_vectors": [{"name": "", "dimension": 3}]},
    "extra_forbidden": {"vector_mapping": []},
    "bad_type": {"add_vectors": [{"name": "x", "dimension": "3"}]},
}


@pytest.mark.parametrize("code", BAD)
def test_a_refusal_changes_nothing(api: Api, conninfo: str, code: str) -> None:
    api.standalone(LOCAL)
    before = state(conninfo, api.namespace)
    assert api.refused("POST", f"/namespaces/{api.namespace}/promote", BAD[code])[0] == code
    assert state(conninfo, api.namespace) == before


def test_every_problem_is_told_at_once(api: Api) -> None:
    api.standalone(LOCAL, ("other", 3))
    body = {
        "vector_mappings": [
            {"existing_index": "nope", "inference_service": "gone"},
            {"existing_index": "other", "inference_service": "minilm_l6_v2"},
        ],
        "add_vectors": [
            {"name": "summary", "dimension": 0, "metric": "x", "inference_service": "gone"},
            {"name": "new", "dimension": 3, "inference_service": "minilm_l6_v2"},
        ],
    }
    _, problems = api.refused("POST", f"/namespaces/{api.namespace}/promote", body)
    assert problems == [
        "unknown_index@body.vector_mappings.0.existing_index",
        "unknown_service@body.vector_mappings.0.inference_service",
        "dimension_mismatch@body.vector_mappings.1.inference_service",
        "name_conflict@body.add_vectors.0.name",
        "unknown_metric@body.add_vectors.0.metric",
        "bad_dimension@body.add_vectors.0.dimension",
        "unknown_service@body.add_vectors.0.inference_service",
        "dimension_mismatch@body.add_vectors.1.inference_service",
    ]


def test_an_unknown_index_is_refused_with_those_that_exist(api: Api) -> None:
    api.standalone(LOCAL, ("other", 3))
    answer = api("POST", f"/namespaces/{api.namespace}/promote", BAD["unknown_index"], status=422)
    assert "'summary', 'other'" in answer["error"]["message"]


def test_only_once_and_only_standalone(api: Api) -> None:
    api.standalone(LOCAL)
    api.promote()
    assert api.refused("POST", f"/namespaces/{api.namespace}/promote", status=409)[0] == "not_standalone"
    assert api.refused("POST", "/namespaces/nowhere/promote", status=404)[0] == "not_found"


def test_a_service_that_cannot_be_used_here_is_mapped_with_a_warning(api: Api) -> None:
    api.standalone(("image", 512))
    mapping = {"existing_index": "image", "inference_service": "clip_vit_b32"}
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    url = f"/namespaces/{api.namespace}/promote"
    promoted = api.http.post(url, json={"vector_mappings": [mapping]}, headers=headers)
    assert "PGRETRIEVE_CLIP_CHECKPOINT" in promoted.headers["X-Promotion-Warnings"]
    answer = promoted.json()
    assert answer["vector_inference_map"] == {"image": "clip_vit_b32"}
    assert "warnings" not in answer
    warned = api("POST", f"/namespaces/{api.namespace}/promote/validate", {"vector_mappings": [mapping]})
    assert "PGRETRIEVE_CLIP_CHECKPOINT" in warned["warnings"][0]
    api.retriever("r", feature_search(search("image", "{{INPUT.q}}", mode="text")))
    code, _ = api.refused("POST", "/retrievers/r/execute", {"inputs": {"q": "a cat"}}, status=503)
    assert code == "inference_unavailable"


def test_validate_tells_and_changes_nothing(api: Api, conninfo: str) -> None:
    api.standalone(LOCAL, ("free", 512))
    before = state(conninfo, api.namespace)
    path = f"/namespaces/{api.namespace}/promote/validate"
    empty = api("POST", path)
    assert (empty["valid"], empty["current_mode"]) == (True, "standalone")
    assert {s["existing_index"]: s["candidates"] for s in empty["suggestions"]} == {
        "summary": [
            {"inference_service": "minilm_l6_v2", "confidence": "low"},
            {"inference_service": "multilingual_e5_small", "confidence": "low"},
        ],
        "free": [{"inference_service": "clip_vit_b32", "confidence": "low"}],
    }
    good = api("POST", path, {"add_vectors": [{"name": "x", "dimension": 3}]})
    assert [config["name"] for config in good["vector_configs"]] == ["summary", "free", "x"]
    bad = api("POST", path, BAD["name_conflict"])
    assert bad["valid"] is False
    assert bad["errors"][0]["code"] == "name_conflict"
    assert api.refused("POST", path, BAD["unknown_index"])[0] == "unknown_index"
    assert state(conninfo, api.namespace) == before

    api.promote()
    after = api("POST", path)
    assert after["valid"] is False
    assert after["errors"][0]["code"] == "not_standalone"


def test_text_needs_promotion_and_a_mapping_and_the_refusal_names_the_remedy(api: Api) -> None:
    api.standalone(LOCAL, ("plain", 384))
    by_text = {"retriever_name": "r", "stages": [feature_search(search("summary", "{{INPUT.q}}", mode="text"))]}
    answer = api("POST", "/retrievers", by_text, status=422)
    assert answer["error"]["code"] == "text_needs_promotion"
    assert f"/v1/namespaces/{api.namespace}/promote" in answer["error"]["message"]

    api.promote({"vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}]})
    api("POST", "/retrievers", by_text)
    unmapped = {"retriever_name": "u", "stages": [feature_search(search("plain", "{{INPUT.q}}", mode="text"))]}
    answer = api("POST", "/retrievers", unmapped, status=422)
    assert answer["error"]["code"] == "text_needs_service"
    assert "'summary'" in answer["error"]["message"]


def test_the_same_retriever_flips_to_text(api: Api) -> None:
    texts = {"tags": "Edit audio file metadata", "chess": "Play chess against the computer", "mail": "Read your email"}
    api.standalone(LOCAL)
    api.promote({"vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}]})
    embedded = {name: vector(api, text) for name, text in texts.items()}
    api.upsert([document(name, {"summary": found}, text=texts[name]) for name, found in embedded.items()])
    first = api.retriever("r", feature_search(search("summary", "{{INPUT.v}}")), input_schema={"v": {"type": "array"}})
    assert api.ids("r", inputs={"v": embedded["chess"]})[0] == "chess"
    flipped = api.retriever(
        "r",
        feature_search(search("summary", "{{INPUT.q}}", mode="text")),
        input_schema={"q": {"type": "string", "required": True}},
    )
    assert (flipped["retriever_id"], flipped["version"]) == (first["retriever_id"], first["version"] + 1)
    assert api.ids("r", inputs={"q": "a board game with kings and queens"})[0] == "chess"
    assert api.ids("r", inputs={"q": "tag my songs"})[0] == "tags"
    assert api.refused("POST", "/retrievers/r/execute", {"inputs": {}})[0] == "missing_input"


def vector(_api: Api, text: str) -> list[float]:
    """What a caller of a standalone namespace computes for itself."""
    import asyncio

    from app.inference.registry import Inference
    from app.settings import Settings

    found: list[float] = asyncio.run(Inference.from_settings(Settings()).embed("minilm_l6_v2", [text]))[0].tolist()
    return found
