"""Services of open_clip: texts and images in one space, from a checkpoint of the operator's own."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import msgspec

from app.errors import InferenceUnavailable
from app.inference import definition as definitions
from app.inference.base import Answer, ServiceInfo, Task, Vectors
from app.inference.definition import Definition
from app.inference.files import NotLocated, escapes, locate
from app.inference.thread import ModelThread
from app.settings import Settings


class Options(definitions.Options, frozen=True, kw_only=True):
    """A model of open_clip; the service's `model` is its architecture, such as `ViT-B-32`.

    `checkpoint` is a file (`.pt` or `.safetensors`), relative to `PGRETRIEVE_MODEL_DIR`. Needs the extra `clip`.
    """

    checkpoint: Annotated[str, msgspec.Meta(max_length=500)]


def check(options: Options, settings: Settings) -> Iterable[tuple[str, str]]:
    if reason := escapes(settings.model_dir, options.checkpoint):
        yield "checkpoint", reason


def build(definition: Definition, options: Options, settings: Settings) -> "OpenClip":
    def checkpoint() -> Path:
        return locate(settings.model_dir, options.checkpoint)

    info = clip_info(definition, description=definition.description, licence="that of the checkpoint")
    return OpenClip(replace(info, stored=True), checkpoint, settings.inference_threads)


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


class OpenClip:
    """`checkpoint` answers the file, or raises `NotLocated`."""

    def __init__(self, info: ServiceInfo, checkpoint: Callable[[], Path], threads: int) -> None:
        self.info = info
        self._checkpoint = checkpoint
        self._threads = threads
        self._loaded: tuple[Any, Any] | None = None
        self._thread = ModelThread(info.name)

    def unavailable(self) -> str | None:
        reasons = []
        if missing := [name for name in ("open_clip", "torch", "torchvision") if find_spec(name) is None]:
            reasons.append(f"{', '.join(missing)} not installed: pip install 'pgretrieve[clip]'.")
        try:
            self._checkpoint()
        except NotLocated as error:
            reasons.append(str(error))
        return " ".join(reasons) or None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:  # noqa: ARG002 - one embedding for both
        return Answer(await self._thread.run(self._run, texts))

    async def close(self) -> None:
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _run(self, texts: Sequence[str]) -> Vectors:
        model, tokenizer = self._load()
        import torch

        with torch.inference_mode():
            vectors: Vectors = model.encode_text(tokenizer(list(texts)), normalize=True).float().cpu().numpy()
        return vectors

    def _load(self) -> tuple[Any, Any]:
        """Model and tokenizer; 4 s of imports and 2 s of loading at the first call."""
        if self._loaded is None:
            if reason := self.unavailable():
                raise InferenceUnavailable(reason, service=self.info.name)
            import torch

            define_torchvision_operators(torch)
            import open_clip

            torch.set_num_threads(self._threads)
            checkpoint = self._checkpoint()
            try:
                model, _, _ = open_clip.create_model_and_transforms(self.info.model, pretrained=str(checkpoint))
            except Exception as error:
                raise InferenceUnavailable(
                    f"{checkpoint.name} is not a checkpoint of {self.info.model} "
                    f"that open_clip can load ({type(error).__name__}).",
                    service=self.info.name,
                ) from error
            model.eval()
            self._loaded = model, open_clip.get_tokenizer(self.info.model)
        return self._loaded


def define_torchvision_operators(torch: Any) -> None:
    """Declare two operators that torchvision's Python part looks up when it is imported.

    PyPI pairs the CPU build of torch with a torchvision built for CUDA, whose library does not load; without
    them its import ends with "operator torchvision::nms does not exist". The transforms call neither.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with suppress(RuntimeError):  # a torchvision that fits has declared it
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
