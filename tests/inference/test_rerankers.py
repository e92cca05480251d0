"""Rerankers: late interaction with the real model, a cross-encoder made here, endpoints of both protocols."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from app.errors import InferenceUnavailable, InvalidRequest
from app.inference.registry import discover
from app.inference.rerankers.late_interaction import late_interaction
from app.inference.rerankers.registry import DEFAULT, Rerankers
from tests.fakes import settings_of
from tests.openai_server import OpenAIServer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "apple", "car"]


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    running.requests.clear()
    monkeypatch.setenv("PGRETRIEVE_SECRET_RERANK", running.key)
    yield running
    running.statuses, running.answer = [], "right"


@pytest.fixture(scope="module")
async def late() -> AsyncIterator[Rerankers]:
    settings = settings_of()
    services = discover(settings)
    yield Rerankers(settings, services.values())
    for service in services.values():
        await service.close()


def make_cross_encoder(folder: Path, columns: int = 1) -> None:
    """A network whose logit is 4 for each token of the text, and -9 else: its ids are 6 (apple), its types 1."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("input_ids", "attention_mask", "token_type_ids")
    weights = np.full((1, columns), 4.0, np.float32) * np.arange(1, columns + 1, dtype=np.float32)
    nodes = [
        helper.make_node("Equal", ["input_ids", "apple"], ["is_apple"]),
        helper.make_node("Cast", ["is_apple"], ["apples"], to=TensorProto.INT64),
        helper.make_node("Mul", ["apples", "token_type_ids"], ["in_text"]),
        helper.make_node("Mul", ["in_text", "attention_mask"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "axis"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "weights"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cross",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "m"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", columns])],
        [
            numpy_helper.from_array(np.array(6, np.int64), "apple"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(2.0, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))


async def test_late_interaction_finds_what_the_query_means(late: Rerankers) -> None:
    texts = [
        "a recipe for tomato soup",
        "wireless headphones with noise cancelling",
        "",
        "the headphone jack of a phone",
    ]
    scores = await late.scores(DEFAULT, "bluetooth headphones", texts, 10)
    assert int(np.argmax(scores)) == 1
    assert scores[3] > scores[0]
    assert all(-1 <= score <= 1 for score in scores)
    again = await late.scores(DEFAULT, "bluetooth headphones", texts[1:2], 10)
    assert again[0] == pytest.approx(scores[1], abs=1e-6), "a score does not depend on its neighbours"
    assert (await late.scores(DEFAULT, "", ["x", ""], 10))[1] == pytest.approx(0.5, abs=1e-3)


def test_late_interaction_by_hand() -> None:
    mark = np.zeros((1, 2), np.float32)
    query = np.concatenate([mark, np.array([[1, 0], [0, 2]], np.float32), mark])
    text = np.concatenate([mark, np.array([[3, 0]], np.float32), mark])
    whole = 1 / np.sqrt(5)  # of (1, 2) and (3, 0)
    score = late_interaction(query, text, np.array([3, 1], np.float32))
    assert score == pytest.approx((whole + (3 * 1 + 1 * 0) / 4) / 2)


@pytest.mark.parametrize("columns", [1, 2])
async def test_a_cross_encoder(tmp_path: Path, columns: int) -> None:
    make_cross_encoder(tmp_path / "cross", columns)
    rerankers = Rerankers(settings_of(model_dir=tmp_path, rerankers={"x": {"kind": "onnx", "path": "cross"}}), [])
    texts = ["red car", "apple apple blue", "an apple", "red " * 9_000]
    scores = await rerankers.scores("x", "apple", texts, 10)
    logits = 4 * np.array([0, 2, 1, 0]) - (2 if columns == 1 else 0)
    assert scores == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-4)
    await rerankers.close()


async def test_a_cross_encoder_that_cannot_be_used(tmp_path: Path) -> None:
    make_cross_encoder(tmp_path / "wide", 3)
    (tmp_path / "broken").mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / "broken" / name).write_text("{}")
    found = {name: {"kind": "onnx", "path": name} for name in ("wide", "broken", "missing")}
    rerankers = Rerankers(settings_of(model_dir=tmp_path, rerankers=found), [])
    for name, message in (("wide", "3 numbers a pair"), ("broken", "can be loaded"), ("missing", "put it there")):
        with pytest.raises(InferenceUnavailable, match=message):
            await rerankers.scores(name, "q", ["t"], 10)
    await rerankers.close()


def remote(server: OpenAIServer, **more: Any) -> Rerankers:
    key = {"api_key_ref": "PGRETRIEVE_SECRET_RERANK"}
    found = {
        "tei": {"kind": "tei", "base_url": server.base_url.replace("/v1", "/tei"), **key},
        "cohere": {"kind": "cohere", "base_url": server.base_url, "model": "m", **key},
        "keyless": {"kind": "tei", "base_url": server.base_url.replace("/v1", "/tei")},
        "gone": {"kind": "cohere", "base_url": server.base_url + "/x", "model": "m", **key},
    }
    return Rerankers(settings_of(rerankers=found, inference_retries=1, **more), [])


@pytest.mark.parametrize("name", ["tei", "cohere"])
async def test_an_endpoint(server: OpenAIServer, name: str) -> None:
    rerankers = remote(server)
    server.statuses = [503, 200]
    assert await rerankers.scores(name, "red car", ["blue", "a red car", "red"], 10) == pytest.approx([0, 2 / 3, 1 / 3])
    assert len(server.requests) == 2
    body = server.requests[1]
    assert body["query"] == "red car"
    assert body.get("texts", body.get("documents")) == ["blue", "a red car", "red"]
    server.answer = "too_few"
    with pytest.raises(InferenceUnavailable, match="other than a score for each"):
        await rerankers.scores(name, "red car", ["blue", "red"], 10)
    server.answer = "not_json"
    with pytest.raises(InferenceUnavailable, match="other than a score for each"):
        await rerankers.scores(name, "red car", ["blue", "red"], 10)
    await rerankers.close()


async def test_an_endpoint_that_refuses(server: OpenAIServer) -> None:
    rerankers = remote(server)
    for name, message in (("keyless", "HTTP 401"), ("gone", "HTTP 404")):
        with pytest.raises(InferenceUnavailable, match=message) as failed:
            await rerankers.scores(name, "q", ["t"], 10)
        assert server.key not in failed.value.message
    await rerankers.close()


async def test_a_name_that_is_not_known(late: Rerankers) -> None:
    with pytest.raises(InvalidRequest, match=r"No reranker 'BAAI__bge_reranker_v2_m3' .*has: late_interaction\."):
        await late.scores("BAAI__bge_reranker_v2_m3", "q", ["t"], 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "onnx", "path": "../x"}, "neither '..'"),
        ({"kind": "tei", "base_url": "ftp://x"}, "begins with http"),
        ({"kind": "tei", "base_url": "http://x", "api_key_ref": "DATABASE_URL"}, "never the secret itself"),
        ({"kind": "cohere", "base_url": "http://x"}, "missing required field `model`"),
        ({"kind": "nonsense"}, "Invalid value"),
        ({"kind": "onnx", "path": "x", "more": 1}, "unknown field `more`"),
    ],
)
def test_a_definition_that_cannot_be_right(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rerankers(settings_of(rerankers={"mine": given}), [])
