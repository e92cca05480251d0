"""`clip_vit_b32` without torch: it is registered, and says all that it lacks."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from app.errors import InferenceUnavailable
from app.inference.registry import Inference
from app.inference.services.open_clip import clip_vit_b32
from tests.fakes import settings_of

without_torch = pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")


@without_torch
async def test_it_says_everything_that_is_missing() -> None:
    inference = Inference.from_settings(settings_of(clip_checkpoint=None))
    with pytest.raises(InferenceUnavailable) as refused:
        await inference.embed("clip_vit_b32", ["a dog"])
    assert "pip install 'pgretrieve[clip]'" in refused.value.message
    assert "PGRETRIEVE_CLIP_CHECKPOINT is not set" in refused.value.message
    await inference.close()


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vit.pt"
    assert f"there is no file {path}" in str(clip_vit_b32(path, 1).unavailable())


@without_torch
async def test_a_checkpoint_alone_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "vit.pt"
    path.touch()
    service = clip_vit_b32(path, 1)
    reason = service.unavailable()
    assert reason is not None
    assert "torch" in reason and "CHECKPOINT" not in reason
    with pytest.raises(InferenceUnavailable, match="torch"):
        await service.embed_texts(["a dog"], "query")
    await service.close()
