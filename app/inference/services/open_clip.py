"""`clip_vit_b32`: texts and images in one space, from the checkpoint of PGRETRIEVE_CLIP_CHECKPOINT.

Always registered, so that a namespace may be mapped to it; usable with the extra and a checkpoint.
"""

from pathlib import Path

from app.inference.base import Service
from app.inference.definition import Definition
from app.inference.files import NotLocated
from app.inference.providers.open_clip import OpenClip, clip_info
from app.settings import Settings

ARCHITECTURE = "ViT-B-32"


def services(settings: Settings) -> list[Service]:
    return [clip_vit_b32(settings.clip_checkpoint, settings.inference_threads)]


def clip_vit_b32(checkpoint: Path | None, threads: int) -> OpenClip:
    def located() -> Path:
        if checkpoint is None:
            raise NotLocated(
                f"PGRETRIEVE_CLIP_CHECKPOINT is not set: name an open_clip checkpoint of {ARCHITECTURE}, and restart."
            )
        if not checkpoint.is_file():
            raise NotLocated(f"PGRETRIEVE_CLIP_CHECKPOINT: there is no file {checkpoint}.")
        return checkpoint

    definition = Definition("clip_vit_b32", "open_clip", ARCHITECTURE, 512, {"checkpoint": str(checkpoint)})
    info = clip_info(
        definition,
        description="Texts (the first 77 tokens) and images in one space. Runs on this server, with torch.",
        licence="that of the checkpoint (LAION's are MIT)",
    )
    return OpenClip(info, located, threads)
