"""Proof over HTTP, with real services: what validate and promote answer of it, what require refuses, what it costs."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from app.demo.data import load_apps
from app.inference.base import Task, Vectors
from app.inference.registry import Inference
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document
from tests.openai_server import OpenAIServer
from tests.state import state

MINILM, E5, WORDS = "minilm_l6_v2", "multilingual_e5_small", "wordllama_256"
APPS = load_apps()[:20]


@cache
def vectors(service: str, task: Task = "document") -> Vectors:
    """Of the texts of `APPS`, as a caller of a standalone namespace computes them for itself."""

    async def embed() -> Vectors:
        inference = Inference.from_settings(Settings())
        try:
            return await inference.embed(service, [app.text for app in APPS], task)
        finally:
            await inference.close()

    return asyncio.run(embed())


def filled(api: Api, **indexes: Any) -> None:
    """A standalone namespace whose indexes hold these vectors of the texts, which are in the field `about.text`."""
    api.standalone(*((name, found.shape[1]) for name, found in indexes.items()))
    rows = [
        document(
            app.id,
            {name: found[n].tolist() for name, found in indexes.items()},
            about={"text": app.text, "name": app.name},
        )
        for n, app in enumerate(APPS)
    ]
    api.upsert(rows)


def mapping(service: str, index: str = "v", **more: Any) -> dict[str, Any]:
    return {"existing_index": index, "inference_service": service, **more}


def promoted(api: Api, body: Any) -> tuple[Any, Any]:
    """The answer and its headers."""
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    answer = api.http.post(f"/namespaces/{api.namespace}/promote", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers


def validated(api: Api, body: Any = None) -> Any:
    return api("POST", f"/namespaces/{api.namespace}/promote/validate", body)


def test_promote_tells_its_proof_in_a_header_and_where_it_was_asked_for_in_the_answer(api: Api) -> None:
    filled(api, v=vectors(MINILM))
    checked = validated(api, {"vector_mappings": [mapping(MINILM)]})
    (proof,) = checked["proofs"]
    assert (proof["verdict"], proof["usable"], proof["variants"]) == ("match", True, [])
    assert proof["source"] == {"field": "about.text", "how": "found"}
    assert (proof["numbers"]["rows"], proof["numbers"]["self_recall"], proof["numbers"]["scale"]) == (20, 1, "same")
    answer, headers = promoted(api, {"vector_mappings": [mapping(MINILM)]})
    assert set(answer) == {
        "namespace_id", "previous_mode", "mode", "status", "vector_configs", "vector_inference_map",
    }  # fmt: skip
    assert headers["X-Promotion-Proof"] == "v=match"


def test_asked_for_it_is_in_the_answer(api: Api) -> None:
    filled(api, v=vectors(E5, "query"), w=vectors(MINILM))
    body = {"vector_mappings": [mapping(E5, source_field="about.text"), mapping(E5, "w", source_field="about.text")]}
    answer, headers = promoted(api, {**body, "verify": "sample"})
    queries, wrong = answer["proofs"]
    assert (queries["verdict"], queries["variants"], queries["usable"]) == ("variant", ["query prefix"], True)
    assert queries["source"] == {"field": "about.text", "how": "given"}
    assert (wrong["verdict"], wrong["usable"]) == ("mismatch", False)
    assert wrong["numbers"]["self_recall"] < 0.3
    assert headers["X-Promotion-Proof"] == "v=variant; w=mismatch"
    assert answer["mode"] == "managed"  # sample refuses nothing


def test_off_proves_nothing(api: Api) -> None:
    filled(api, v=vectors(MINILM))
    assert validated(api, {"vector_mappings": [mapping(E5)], "verify": "off"})["proofs"] == []
    answer, headers = promoted(api, {"vector_mappings": [mapping(E5)], "verify": "off"})
    assert answer["proofs"] == []
    assert "X-Promotion-Proof" not in headers
    assert api.refused("POST", f"/namespaces/{api.namespace}/promote", {"verify": "perhaps"})[0] == "bad_type"


def test_require_refuses_a_mismatch_and_the_unknown_and_changes_nothing(api: Api, conninfo: str) -> None:
    api.standalone(("v", 384), ("w", 384), ("empty", 384))
    v, w = vectors(MINILM), vectors(E5)
    api.upsert([document(a.id, {"v": v[n].tolist(), "w": w[n].tolist()}, text=a.text) for n, a in enumerate(APPS)])
    before = state(conninfo, api.namespace)
    body = {
        "verify": "require",
        "vector_mappings": [
            mapping(MINILM, "empty"),
            mapping(MINILM, source_field="text"),
            mapping(MINILM, "w", source_field="text"),
        ],
        "add_vectors": [{"name": "x", "dimension": 3}],
    }
    code, problems = api.refused("POST", f"/namespaces/{api.namespace}/promote", body)
    assert code == "proof_unknown"
    assert problems == [
        "proof_unknown@body.vector_mappings.0.inference_service",
        "proof_mismatch@body.vector_mappings.2.inference_service",
    ]
    checked = validated(api, body)
    assert (checked["valid"], [error["code"] for error in checked["errors"]]) == (
        False, ["proof_unknown", "proof_mismatch"],
    )  # fmt: skip
    assert state(conninfo, api.namespace) == before
    rehearsed = api("POST", f"/namespaces/{api.namespace}/promote", {**body, "dry_run": "rehearse"})
    assert (rehearsed["verdict"], rehearsed["error"]["code"]) == ("refused", "proof_unknown")
    assert state(conninfo, api.namespace) == before
    good = {"verify": "require", "vector_mappings": [mapping(MINILM), mapping(E5, "w")]}
    assert [proof["verdict"] for proof in api.promote(good)["proofs"]] == ["match", "match"]


def test_require_refuses_a_variant_that_cannot_be_used(api: Api) -> None:
    api.standalone(("v", 384, "dot"))
    api.upsert(
        [document(app.id, {"v": (vectors(MINILM)[n] * 7).tolist()}, text=app.text) for n, app in enumerate(APPS)]
    )
    body = {"vector_mappings": [mapping(MINILM)], "verify": "require"}
    assert api.refused("POST", f"/namespaces/{api.namespace}/promote", body)[0] == "proof_mismatch"
    (proof,) = validated(api, body)["proofs"]
    assert (proof["verdict"], proof["variants"], proof["usable"]) == ("variant", ["not normalized"], False)


def test_what_promotion_refuses_anyway_is_not_proven(api: Api) -> None:
    filled(api, v=vectors(MINILM))
    body = {"vector_mappings": [mapping(E5, source_field="about.text"), mapping("nope")], "verify": "require"}
    code, problems = api.refused("POST", f"/namespaces/{api.namespace}/promote", body)
    assert code == "duplicate_mapping"
    assert not any("proof" in problem for problem in problems)
    api.promote()
    answer = api.refused("POST", f"/namespaces/{api.namespace}/promote", {**body, "vector_mappings": []}, status=409)
    assert answer[0] == "not_standalone"


def test_the_service_that_made_the_vectors_is_suggested(api: Api) -> None:
    cut = vectors(MINILM)[:, :256]
    filled(api, v=vectors(E5), short=cut / np.linalg.norm(cut, axis=1, keepdims=True), words=vectors(WORDS))
    found = {each["existing_index"]: each["candidates"] for each in validated(api)["suggestions"]}
    shown = {
        index: [(c["inference_service"], c["confidence"], c["proof"]["verdict"]) for c in candidates if "proof" in c]
        for index, candidates in found.items()
    }
    assert shown["v"] == [(E5, "high", "match"), (MINILM, "low", "unknown")]
    assert shown["words"][0] == (WORDS, "high", "match")
    assert shown["short"][0] == (MINILM, "high", "variant")
    (best, *_) = found["short"]
    assert (best["proof"]["variants"], best["proof"]["usable"]) == (["truncated to 256"], False)
    off = {each["existing_index"]: each["candidates"] for each in validated(api, {"verify": "off"})["suggestions"]}
    assert off["short"] == [{"inference_service": WORDS, "confidence": "low"}]

    # A mapping to the service of more dimensions stays an error, which says what the vectors are.
    body = {"vector_mappings": [mapping(MINILM, "short")]}
    refused = api("POST", f"/namespaces/{api.namespace}/promote/validate", body, status=422)
    assert refused["error"]["code"] == "dimension_mismatch"
    assert "the first 256 of the service's 384 dimensions" in refused["error"]["message"]
    wrong = api("POST", f"/namespaces/{api.namespace}/promote", body, status=422)
    assert wrong["error"]["code"] == "dimension_mismatch"


def embedded(openai: OpenAIServer, before: int) -> Sequence[str]:
    return [text for request in openai.requests[before:] for text in request.get("input", ())]


def test_texts_go_to_a_remote_service_only_where_that_was_asked_for(api: Api, openai: OpenAIServer) -> None:
    api.standalone(("v", 1536))
    api.upsert([document(app.id, {"v": np.eye(1, 1536, n)[0].tolist()}, text=app.text) for n, app in enumerate(APPS)])
    body: dict[str, Any] = {"vector_mappings": [mapping("openai_text_3_small")]}
    before = len(openai.requests)
    assert validated(api)["proofs"] == []
    assert validated(api, body)["proofs"] == []
    assert embedded(openai, before) == []
    (found,) = validated(api, {**body, "verify": "sample"})["proofs"]
    assert found["source"] == {"field": "text", "how": "found"}
    assert set(embedded(openai, before)) <= {app.text for app in APPS}
    assert len(embedded(openai, before)) == 20
    (given,) = validated(api, {"vector_mappings": [mapping("openai_text_3_small", source_field="text")]})["proofs"]
    assert (given["verdict"], given["source"]) == ("mismatch", {"field": "text", "how": "given"})


def test_a_provider_that_fails_fails_no_promotion(
    api: Api, openai: OpenAIServer, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.standalone(("v", 1536))
    texts = [f"failing {api.namespace} {app.text}" for app in APPS]
    api.upsert([document(str(n), {"v": np.eye(1, 1536, n)[0].tolist()}, text=text) for n, text in enumerate(texts)])
    monkeypatch.setattr(openai, "statuses", [500])
    before = state(conninfo, api.namespace)
    body = {"vector_mappings": [mapping("openai_text_3_small", source_field="text")], "verify": "require"}
    assert api.refused("POST", f"/namespaces/{api.namespace}/promote", body)[0] == "proof_unknown"
    assert state(conninfo, api.namespace) == before
    answer, headers = promoted(api, {**body, "verify": "sample"})
    assert (answer["mode"], headers["X-Promotion-Proof"]) == ("managed", "v=unknown")
    assert "openai_text_3_small" in answer["proofs"][0]["reasons"][0]
