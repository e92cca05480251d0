"""Drawings of emoji in a style that the models of `app/inference/emoji` never saw, with their names."""

import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ARCHIVE = Path(__file__).with_name("emoji.zip")


@dataclass(frozen=True)
class Drawing:
    """A PNG of 32 × 32 pixels."""

    name: str
    keywords: tuple[str, ...]
    png: bytes


@cache
def drawings() -> list[Drawing]:
    """All 1,586, in Unicode's order."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        captions = json.loads(archive.read("captions.json"))
        return [
            Drawing(about["name"], tuple(about["keywords"]), archive.read(file)) for file, about in captions.items()
        ]


def drawing(name: str) -> bytes:
    """The PNG of the drawing of this name."""
    return next(each.png for each in drawings() if each.name == name)
