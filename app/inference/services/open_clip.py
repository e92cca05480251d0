"""`clip_vit_b32`: texts and images in one space, through open_clip and a checkpoint of the operator's own."""

from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.errors import InferenceUnavailable
from app.inference.base import Service, ServiceInfo, Task, Vectors
from app.inference.thread import ModelThread
from app.settings import Settings

ARCHITECTURE = "ViT-B-32"


def services(settings: Settings) -> list[Service]:
    return [ClipViTB32(settings.clip_checkpoint, settings.inference_threads)]


class ClipViTB32:
    """Always registered, so that a namespace may be mapped to it; usable with the extra and a checkpoint."""

    info = ServiceInfo(
        name="clip_vit_b32",
        provider="open_clip",
        model=ARCHITECTURE,
        dimension=512,
        modalities=("text", "image"),
        normalized=True,
        description="Texts (the first 77 tokens) and images in one space. Runs on this server, with torch.",
        licence="that of the checkpoint (LAION's are MIT)",
        max_batch=16,  # 1.3 s of one thread, for which a query has to wait
    )

    def __init__(self, checkpoint: Path | None, threads: int) -> None:
        self._checkpoint = checkpoint
        self._threads = threads
        self._loaded: tuple[Any, Any] | None = None
        self._thread = ModelThread("clip")

    def unavailable(self) -> str | None:
        reasons = []
        if missing := [name for name in ("open_clip", "torch", "torchvision") if find_spec(name) is None]:
            reasons.append(f"{', '.join(missing)} not installed: pip install 'pgretrieve[clip]'.")
        if self._checkpoint is None:
            reasons.append(f"PGRETRIEVE_CLIP_CHECKPOINT is not set: name an open_clip checkpoint of {ARCHITECTURE}.")
        elif not self._checkpoint.is_file():
            reasons.append(f"PGRETRIEVE_CLIP_CHECKPOINT: there is no file {self._checkpoint}.")
        return " ".join(reasons) or None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Vectors:  # noqa: ARG002 - one embedding for both
        return await self._thread.run(self._run, texts)

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
            try:
                model, _, _ = open_clip.create_model_and_transforms(ARCHITECTURE, pretrained=str(self._checkpoint))
            except Exception as error:
                raise InferenceUnavailable(
                    f"PGRETRIEVE_CLIP_CHECKPOINT: {self._checkpoint} is not a checkpoint of {ARCHITECTURE} "
                    f"that open_clip can load ({type(error).__name__}).",
                    service=self.info.name,
                ) from error
            model.eval()
            self._loaded = model, open_clip.get_tokenizer(ARCHITECTURE)
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
