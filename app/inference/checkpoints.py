"""Where the weights of an open_clip model lie: on disk, or published ones in the cache of Hugging Face.

Nothing is ever downloaded: what is missing is told at once, with the command that brings it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.inference.files import NotLocated

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")

Given = dict[str, Any]


def is_published(checkpoint: str) -> bool:
    """Whether this is a name of weights and no path: it has neither a slash nor a dot."""
    return re.fullmatch(r"[A-Za-z0-9_-]+", checkpoint) is not None


class Source(Protocol):
    def resolved(self, architecture: str) -> tuple[str, Given]:
        """What `open_clip.create_model_and_transforms` takes; called once open_clip is imported. `NotLocated`."""
        ...


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A checkpoint's file, or a folder with its configuration and its weights."""

    path: Path

    def resolved(self, architecture: str) -> tuple[str, Given]:
        if self.path.is_dir():
            return f"local-dir:{self.path}", {}
        return architecture, {"pretrained": str(self.path)}

    def __str__(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Published:
    """Weights by the name that open_clip gives them."""

    name: str

    def resolved(self, architecture: str) -> tuple[str, Given]:
        import open_clip

        about = open_clip.get_pretrained_cfg(architecture, self.name)
        if not about:
            known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
            raise NotLocated(f"{architecture} has no published weights {self.name!r}; there are: {known}.")
        repository, _, file = about["hf_hub"].rpartition("/")
        path = _cached(repository, (file,) if file else WEIGHTS)
        if path is None:
            wanted = file or "'open_clip_*'"
            command = f"hf download {repository} {wanted}" if file else f"hf download {repository} --include {wanted}"
            raise NotLocated(
                f"The weights {self.name!r} of {architecture} are not in this machine's cache of Hugging Face, and "
                f"nothing is downloaded by itself: run `{command}`, or name a file."
            )
        # By its path, since by its name open_clip would ask the hub; so what the name stands for goes with it.
        given = {"pretrained": str(path), "force_quick_gelu": about.get("quick_gelu", False)}
        parts = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation"}
        parts["resize_mode"] = "image_resize_mode"
        return architecture, given | {theirs: about[ours] for ours, theirs in parts.items() if ours in about}

    def __str__(self) -> str:
        return self.name


def _cached(repository: str, files: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        if isinstance(path := try_to_load_from_cache(repository, file), str):
            return Path(path)
    return None
