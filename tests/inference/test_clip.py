"""open_clip for real: `clip_micro` on drawings of a style that it never saw; what may be wrong with checkpoints."""

import asyncio
import io
import json
import shutil
import socket
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import InferenceUnavailable, InvalidRequest
from app.inference import emoji
from app.inference.base import Vectors
from app.inference.definition import Definition
from app.inference.providers import build
from app.inference.providers.open_clip import import_torchvision
from app.inference.registry import Inference
from app.inference.services.open_clip import clip_micro, clip_vit_b32
from tests.data.emoji import drawings
from tests.fakes import settings_of

NAMES = [drawing.name for drawing in drawings()]
IMAGES = [drawing.png for drawing in drawings()]


@pytest.fixture(scope="module")
async def inference() -> AsyncIterator[Inference]:
    made = Inference.from_settings(settings_of(inference_threads=1, inference_timeout_s=100))
    yield made
    await made.close()


def recall(queries: Vectors, found: Vectors, k: int = 10) -> float:
    """What share of the queries has the row of its own number among the k nearest."""
    alike = queries @ found.T
    ranks = (alike > alike.diagonal()[:, None]).sum(axis=1)
    return float((ranks < k).mean())


@pytest.mark.parametrize(("service", "least"), [("clip_micro", 0.45), ("emoji_minilm", 0.55)])
async def test_words_find_drawings_of_a_style_that_was_never_seen(
    inference: Inference, service: str, least: float
) -> None:
    """By chance it were 0.006."""
    images = (await inference.answer_images(service, IMAGES)).vectors
    assert images.shape == (len(IMAGES), inference.info(service).dimension)
    assert recall(await inference.embed(service, NAMES), images) > least
    spoken = [f"a picture of a {name}" for name in NAMES]
    assert recall(await inference.embed(service, spoken), images) > least - 0.05


@pytest.mark.parametrize("service", ["clip_micro", "emoji_minilm"])
async def test_an_image_has_one_vector_alone_in_a_batch_and_among_other_callers(
    inference: Inference, service: str
) -> None:
    some = IMAGES[:20]
    together = (await inference.answer_images(service, some)).vectors
    alone = await asyncio.gather(*(inference.answer_images(service, [image]) for image in some))
    np.testing.assert_allclose(np.concatenate([answer.vectors for answer in alone]), together, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


async def test_texts_and_images_are_asked_for_at_the_same_time(inference: Inference) -> None:
    texts, images = await asyncio.gather(
        asyncio.gather(*(inference.embed("clip_micro", [name]) for name in NAMES[:20])),
        asyncio.gather(*(inference.answer_images("clip_micro", [image]) for image in IMAGES[:20])),
    )
    assert np.concatenate(texts).shape == (20, 128)
    assert recall(np.concatenate(texts), np.concatenate([answer.vectors for answer in images]), 10) > 0.6


async def test_the_emoji_service_has_minilms_own_texts(inference: Inference) -> None:
    its = await inference.embed("minilm_l6_v2", ["a red car"])
    assert (await inference.embed("emoji_minilm", ["a red car"]) == its).all()
    counted = [await inference.count_tokens(name, ["a red car"]) for name in ("emoji_minilm", "minilm_l6_v2")]
    assert counted == [5, 5]


async def test_a_bad_image_is_named_by_its_place_and_disturbs_no_other(inference: Inference) -> None:
    bad = [*IMAGES[:17], b"no image", *IMAGES[:2]]
    good, refused = await asyncio.gather(
        inference.answer_images("clip_micro", IMAGES[:3]),
        inference.answer_images("clip_micro", bad),
        return_exceptions=True,
    )
    assert not isinstance(good, BaseException)
    assert isinstance(refused, InvalidRequest)
    assert [(problem.location, problem.code) for problem in refused.problems] == [(("images", 17), "bad_image")]


async def test_a_service_of_texts_says_what_to_use_instead(inference: Inference) -> None:
    with pytest.raises(InvalidRequest, match=r"clip_micro, clip_vit_b32, emoji_minilm") as refused:
        await inference.answer_images("minilm_l6_v2", IMAGES[:1])
    assert refused.value.error_code == "service_without_images"


async def test_a_stored_service_reads_the_same_weights_from_a_folder_and_from_a_file(
    inference: Inference, tmp_path: Path
) -> None:
    """The way of published checkpoints, ViT-B-32's among them: a folder, or a file and its architecture's name."""
    import open_clip

    shutil.copytree(emoji.CLIP, tmp_path / "micro")
    open_clip.add_model_config(write_config(tmp_path))
    settings = settings_of(model_dir=tmp_path, inference_timeout_s=100)
    expected = (await inference.answer_images("clip_micro", IMAGES[:3])).vectors
    for checkpoint in ("micro/", "micro/open_clip_model.safetensors"):
        definition = Definition("mine", "open_clip", "test-micro", 128, {"checkpoint": checkpoint})
        mine = Inference({"mine": build(definition, settings)}, settings)
        vectors = (await mine.answer_images("mine", IMAGES[:3])).vectors
        texts = await mine.embed("mine", NAMES[:3])
        await mine.close()
        if checkpoint.endswith("/"):
            np.testing.assert_allclose(vectors, expected, atol=1e-6)
        np.testing.assert_allclose(texts, await inference.embed("clip_micro", NAMES[:3]), atol=1e-6)


def write_config(folder: Path) -> Path:
    config = json.loads((emoji.CLIP / "open_clip_config.json").read_text())["model_cfg"]
    path = folder / "test-micro.json"
    path.write_text(json.dumps(config))
    return path


# What may be missing or wrong


async def refusal(checkpoint: str | None) -> str:
    service = clip_vit_b32(settings_of(clip_checkpoint=checkpoint))
    with pytest.raises(InferenceUnavailable) as refused:
        await service.embed_texts(["a dog"], "query")
    await service.close()
    return refused.value.message


async def test_a_checkpoint_that_is_missing_is_told_at_once_with_what_to_do(tmp_path: Path) -> None:
    assert "PGRETRIEVE_CLIP_CHECKPOINT is not set" in await refusal(None)
    path = tmp_path / "vit.pt"
    assert f"there is no file {path}" in await refusal(str(path))


async def test_published_weights_are_never_asked_of_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    message = await refusal("laion2b_s34b_b79k")
    assert "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in message
    assert "laion400m_e32" in await refusal("no_such_weights")


async def test_published_weights_are_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ViT-B-32 of random numbers stands for the published one, whose weights come in no package."""
    cached = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    await asyncio.to_thread(write_vit_b32, cached / "snapshots" / "abc" / "open_clip_model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    settings = settings_of(clip_checkpoint="laion2b_s34b_b79k", inference_timeout_s=100)
    inference = Inference({"clip": clip_vit_b32(settings)}, settings)
    assert (await inference.embed("clip", ["a dog"])).shape == (1, 512)
    assert (await inference.answer_images("clip", [photo()])).vectors.shape == (1, 512)
    await inference.close()


def write_vit_b32(path: Path) -> None:
    import_torchvision()
    import open_clip
    from safetensors.torch import save_file

    save_file(open_clip.create_model("ViT-B-32").half().state_dict(), path)


def photo() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((640, 480), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", IMAGES[0]])
async def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    for name in ("vit.pt", "vit.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        assert f"{name} is not a checkpoint of ViT-B-32" in await refusal(str(path))


async def test_without_torch_everything_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        return None if name in ("torch", "torchvision", "open_clip") else find_spec(name)

    monkeypatch.setattr("app.inference.providers.open_clip.find_spec", find)
    message = await refusal(None)
    assert "pip install 'pgretrieve[clip]'" in message
    assert "PGRETRIEVE_CLIP_CHECKPOINT is not set" in message
    assert "torch" in str(clip_micro(settings_of()).unavailable())
