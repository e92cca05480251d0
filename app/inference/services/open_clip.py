"""`clip_vit_b32`, from the checkpoint of PGRETRIEVE_CLIP_CHECKPOINT, and `clip_micro`, whose weights come with it.

Always registered, so that a namespace may be mapped to them; usable with the extra `clip`, the first one with a
checkpoint.
"""

from dataclasses import replace
from pathlib import Path

from app.inference import emoji
from app.inference.base import Service
from app.inference.checkpoints import OnDisk, Published, Source, is_published
from app.inference.definition import Definition
from app.inference.files import NotLocated
from app.inference.providers.open_clip import OpenClip, clip_info
from app.settings import Settings

ARCHITECTURE = "ViT-B-32"
SETTING = "PGRETRIEVE_CLIP_CHECKPOINT"


def services(settings: Settings) -> list[Service]:
    return [clip_vit_b32(settings), clip_micro(settings)]


def clip_vit_b32(settings: Settings) -> OpenClip:
    checkpoint = settings.clip_checkpoint

    def source() -> Source:
        if checkpoint is None:
            raise NotLocated(
                f"{SETTING} is not set: name an open_clip checkpoint of {ARCHITECTURE}, a file or published weights "
                "such as laion2b_s34b_b79k, and restart."
            )
        if Path(checkpoint).exists():
            return OnDisk(Path(checkpoint))
        if is_published(checkpoint):
            return Published(checkpoint)
        raise NotLocated(f"{SETTING}: there is no file {checkpoint}.")

    definition = Definition("clip_vit_b32", "open_clip", ARCHITECTURE, 512, {"checkpoint": str(checkpoint)})
    info = clip_info(
        definition,
        description="Texts (the first 77 tokens) and images in one space. Runs on this server, with torch.",
        licence="that of the checkpoint (LAION's are MIT)",
    )
    return OpenClip(info, source, settings)


def clip_micro(settings: Settings) -> OpenClip:
    definition = Definition("clip_micro", "open_clip", emoji.CLIP.name, 128, {"trained": emoji.TRAINED_ON})
    info = clip_info(
        definition,
        description="Texts and images in one space; knows drawings of emoji and the words for them, no photographs: to "
        "try things out. Runs on this server, with torch.",
        licence="CC-BY-4.0",
    )
    return OpenClip(replace(info, sample=True), lambda: OnDisk(emoji.CLIP), settings)
