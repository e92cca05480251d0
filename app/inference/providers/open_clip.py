"""Services of open_clip: texts and images in one space, from a checkpoint of the operator's own."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Annotated, Any

import msgspec
import numpy as np
from PIL import Image

from app.errors import InferenceUnavailable
from app.inference import definition as definitions
from app.inference.base import Answer, ServiceInfo, Task, Vectors
from app.inference.batching import Batches
from app.inference.checkpoints import OnDisk, Published, Source, is_published
from app.inference.definition import Definition
from app.inference.files import NotLocated, escapes, locate
from app.inference.pictures import Pictures, Pixels
from app.inference.thread import ModelThread
from app.settings import Settings


class Options(definitions.Options, frozen=True, kw_only=True):
    """A model of open_clip; the service's `model` is its architecture, such as `ViT-B-32`.

    `checkpoint` is a file (`.pt` or `.safetensors`) relative to `PGRETRIEVE_MODEL_DIR`, or a folder there that holds
    `open_clip_config.json` beside the weights, as they are published; or the name of published weights, such as
    `laion2b_s34b_b79k`, that lie in the cache of Hugging Face: nothing is downloaded. A folder's path ends with `/`.
    Needs the extra `clip`.
    """

    checkpoint: Annotated[str, msgspec.Meta(max_length=500)]


def check(options: Options, settings: Settings) -> Iterable[tuple[str, str]]:
    if reason := escapes(settings.model_dir, options.checkpoint):
        yield "checkpoint", reason


def build(definition: Definition, options: Options, settings: Settings) -> "OpenClip":
    def source() -> Source:
        if is_published(options.checkpoint):
            return Published(options.checkpoint)
        return OnDisk(locate(settings.model_dir, options.checkpoint, folders=True))

    info = clip_info(definition, description=definition.description, licence="that of the checkpoint")
    return OpenClip(replace(info, stored=True), source, settings)


def clip_info(definition: Definition, *, description: str, licence: str) -> ServiceInfo:
    return ServiceInfo(
        name=definition.name,
        provider="open_clip",
        model=definition.model,
        dimension=definition.dimension,
        modalities=("text", "image"),
        normalized=True,
        description=description,
        licence=licence,
        max_batch=16,  # 1.3 s of one thread for ViT-B-32, for which a query has to wait
        fingerprint=definition.fingerprint,
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with what stands before its two sides."""

    model: Any
    tokenizer: Any
    preprocess: Callable[[Image.Image], Any]

    def prepare(self, picture: Image.Image) -> Pixels:
        pixels: Pixels = self.preprocess(picture).numpy()
        return pixels


class OpenClip:
    """`source` answers where the model is, or raises `NotLocated`."""

    def __init__(self, info: ServiceInfo, source: Callable[[], Source], settings: Settings) -> None:
        self.info = info
        self._source = source
        self._threads = settings.inference_threads
        self._loaded: Loaded | None = None
        self._thread = ModelThread(info.name)
        self._pictures = Pictures(info.name, settings.max_image_pixels)
        limits = info.max_batch, settings.inference_queue
        self._texts = Batches[str](info.name, lambda texts: self._thread.run(self._run_texts, texts), *limits)
        self._images = Batches[Pixels](info.name, lambda pixels: self._thread.run(self._run_images, pixels), *limits)

    def unavailable(self) -> str | None:
        reasons = []
        if missing := [name for name in ("open_clip", "torch", "torchvision") if find_spec(name) is None]:
            reasons.append(f"{', '.join(missing)} not installed: pip install 'pgretrieve[clip]'.")
        try:
            self._source()
        except NotLocated as error:
            reasons.append(str(error))
        return " ".join(reasons) or None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:  # noqa: ARG002 - one embedding for both
        return Answer(await self._texts.embed(texts))

    async def embed_images(self, images: Sequence[bytes]) -> Answer:
        loaded = await self._thread.run(self._load)
        return Answer(await self._images.embed(await self._pictures.prepared(images, loaded.prepare)))

    async def close(self) -> None:
        await self._pictures.close()
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _run_texts(self, texts: list[str]) -> Vectors:
        loaded = self._load()
        import torch

        with torch.inference_mode():
            return _vectors(loaded.model.encode_text(loaded.tokenizer(texts), normalize=True))

    def _run_images(self, pictures: list[Pixels]) -> Vectors:
        loaded = self._load()
        import torch

        with torch.inference_mode():
            return _vectors(loaded.model.encode_image(torch.from_numpy(np.stack(pictures)), normalize=True))

    def _load(self) -> Loaded:
        """4 s of imports and 2 s of loading at the first call."""
        if self._loaded is None:
            if reason := self.unavailable():
                raise InferenceUnavailable(reason, service=self.info.name)
            # A tokenizer of some architectures is a hub's: it is in the cache, or missing at once.
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
            import torch

            import_torchvision()
            import open_clip

            torch.set_num_threads(self._threads)
            try:
                name, given = self._source().resolved(self.info.model)
                model, _, preprocess = open_clip.create_model_and_transforms(name, **given)
                tokenizer = open_clip.get_tokenizer(name)
            except NotLocated as error:
                raise InferenceUnavailable(str(error), service=self.info.name) from None
            except Exception as error:
                raise InferenceUnavailable(
                    f"{self._source()} is not a checkpoint of {self.info.model} "
                    f"that open_clip can load ({type(error).__name__}).",
                    service=self.info.name,
                ) from error
            model.eval()
            self._loaded = Loaded(model, tokenizer, preprocess)
        return self._loaded


def _vectors(encoded: Any) -> Vectors:
    vectors: Vectors = encoded.float().cpu().numpy()
    return vectors


DECLARED: list[Any] = []  # what declares operators: they go when it does


def import_torchvision() -> None:
    """Import torchvision, also where its compiled part does not load.

    PyPI pairs the CPU build of torch with a torchvision built for CUDA, whose import ends with "operator
    torchvision::nms does not exist". It looks up two operators; the transforms call neither.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            DECLARED[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
