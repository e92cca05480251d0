"""The further local models for real: `wordllama_256` and `multilingual_e5_small`, and the traps of each."""

from collections.abc import AsyncIterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from app.errors import InferenceUnavailable
from app.inference.base import Service
from app.inference.registry import Inference
from app.inference.services import multilingual_e5, wordllama
from tests.fakes import settings_of

WORDS, E5 = "wordllama_256", "multilingual_e5_small"
TEXTS = ["hello world", "naïve café 東京 ☕", "HEADPHONES", "headphones", "a longer text about wireless " * 12, "a\0b"]
EMPTY = ["", " ", "\n\n", "\u200b"]


@pytest.fixture(scope="module")
async def inference() -> AsyncIterator[Inference]:
    services: dict[str, Service] = {WORDS: wordllama.WordLlama(), E5: multilingual_e5.MultilingualE5()}
    inference = Inference(services, settings_of())
    yield inference
    await inference.close()


@pytest.mark.parametrize("name", [WORDS, E5])
async def test_every_text_has_a_unit_vector_the_same_alone_and_in_any_batch(inference: Inference, name: str) -> None:
    texts = TEXTS + EMPTY
    together = await inference.embed(name, texts, "document")
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.vstack([await inference.embed(name, [text], "document") for text in texts])
    assert np.array_equal(alone, together)


async def test_word_vectors_are_those_of_the_package(inference: Inference) -> None:
    """Vectors that callers made with the package itself go on to be found after a promotion."""
    import wordllama as package

    folder = Path(package.__file__).parent
    theirs = package.WordLlama.load(cache_dir=folder, disable_download=True).embed(TEXTS, norm=True)
    np.testing.assert_allclose(await inference.embed(WORDS, TEXTS), theirs, atol=1e-6)


async def test_word_vectors_of_related_texts_are_near_and_mind_case(inference: Inference) -> None:
    vectors = await inference.embed(WORDS, ["wireless headphones", "a headset without wires", "tomato soup"])
    assert vectors[0] @ vectors[1] > 0.3 > 0.2 > vectors[0] @ vectors[2]
    upper, lower = await inference.embed(WORDS, ["HEADPHONES", "headphones"])
    assert upper @ lower < 0.7  # the model's own; changing it here would set its vectors apart from the package's


async def test_e5_crosses_languages(inference: Inference) -> None:
    questions = ["Wie bekomme ich mein Geld zurück?", "une recette de soupe à la tomate"]
    answers = ["Our refund policy: returns are accepted within 30 days", "Simmer tomatoes with onion, then blend"]
    similarity = await inference.embed(E5, questions) @ (await inference.embed(E5, answers, "document")).T
    assert (similarity.argmax(axis=1) == [0, 1]).all()


async def test_e5_embeds_queries_and_documents_differently(inference: Inference) -> None:
    (query,) = await inference.embed(E5, ["wireless headphones"])
    (document,) = await inference.embed(E5, ["wireless headphones"], "document")
    assert 0.8 < query @ document < 0.999


async def test_e5_sees_a_bounded_part_of_a_text(inference: Inference, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine itself has no bound, and would run for minutes."""
    monkeypatch.setattr(multilingual_e5, "HEAD_CHARS", 100)
    long = "word " * 20_000
    vectors = await inference.embed(E5, [long, long[:100]], "document")
    assert np.array_equal(vectors[0], vectors[1])


@pytest.mark.parametrize("module", [wordllama, multilingual_e5])
async def test_without_its_package_it_says_what_to_install(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(module, "find_spec", none)
    service = wordllama.WordLlama() if module is wordllama else multilingual_e5.MultilingualE5()
    assert "pip install 'pgretrieve[local]'" in str(service.unavailable())
    with pytest.raises(InferenceUnavailable, match="not installed"):
        await service.embed_texts(["a"], "query")
    await service.close()
