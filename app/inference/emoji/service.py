"""`emoji_minilm`: drawings of emoji in MiniLM's space, without torch."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from app.inference import emoji
from app.inference.base import Answer, Task, Vectors
from app.inference.batching import Batches
from app.inference.pictures import Pictures, Pixels
from app.inference.providers.onnx import OnnxText, session
from app.inference.thread import ModelThread
from app.settings import Settings


class EmojiMiniLM:
    """Texts are embedded by MiniLM itself, images by a small network that learned to meet MiniLM's vectors of their
    names: so both kinds of vectors, and those of `minilm_l6_v2`, may be in one index."""

    def __init__(self, texts: OnnxText, settings: Settings) -> None:
        self.info = replace(
            texts.info,
            name="emoji_minilm",
            model=f"{texts.info.model}, and a tower for drawings",
            modalities=("text", "image"),
            description="Texts as minilm_l6_v2, and images in the same space; knows drawings of emoji and the like, no "
            "photographs. Runs on this server, without torch.",
            licence="Apache-2.0; of the tower for images CC-BY-4.0",
            sample=True,
            fingerprint=f"{texts.info.fingerprint} {emoji.TRAINED_ON}",
        )
        self._text_side = texts
        self._loaded: Any = None
        self._threads = settings.inference_threads
        self._thread = ModelThread(self.info.name)
        self._pictures = Pictures(self.info.name, settings.max_image_pixels)
        limits = self.info.max_batch, settings.inference_queue
        self._batches = Batches[Pixels](self.info.name, lambda pixels: self._thread.run(self._run, pixels), *limits)

    def unavailable(self) -> str | None:
        return self._text_side.unavailable() or (None if find_spec("onnxruntime") else "pip install onnxruntime")

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        return await self._text_side.embed_texts(texts, task)

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return await self._text_side.count_tokens(texts)

    async def embed_images(self, images: Sequence[bytes]) -> Answer:
        return Answer(await self._batches.embed(await self._pictures.prepared(images, prepare)))

    async def close(self) -> None:
        """The text side is `minilm_l6_v2`'s, which closes it."""
        await self._pictures.close()
        await self._thread.close()
        self._loaded = None

    def _run(self, pictures: list[Pixels]) -> Vectors:
        """In the model's thread."""
        if self._loaded is None:
            self._loaded = session(emoji.TOWER.read_bytes(), self._threads)
        vectors: Vectors
        (vectors,) = self._loaded.run(None, {"pixels": np.stack(pictures)})
        return vectors


def prepare(picture: Image.Image) -> Pixels:
    """The whole picture on a white square, its pixels from -1 to 1."""
    square = ImageOps.pad(picture, (emoji.SIZE, emoji.SIZE), Image.Resampling.BICUBIC, color="white")
    return np.asarray(square, np.float32).transpose(2, 0, 1) / 127.5 - 1
