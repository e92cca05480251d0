"""Emoji as five families of artists drew them, with names and keywords, from npm packages.

    npm install --ignore-scripts @iconify-json/{noto@1.2.9,twemoji@1.2.5,emojione@1.2.3,fxemoji@1.2.2} \\
        @iconify-json/fluent-emoji-flat@1.2.6 emojilib@4.0.3 emojibase-data@17.0.0
    pip install pillow resvg-py
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.inference.emoji import SIZE

TRAINED = ("noto", "twemoji", "emojione", "fxemoji")
HELD_OUT = "fluent-emoji-flat"
"""No drawing of this style is seen in training: finding its drawings is what the models are judged by."""

COMPONENTS, FLAGS = 2, 9  # emojibase's groups that are left out: parts of emoji, and flags, which are all alike
KEYWORDS = 8


@dataclass(frozen=True, slots=True)
class Concept:
    """An emoji whatever its drawing: the name that Unicode gives it, and what people say about it."""

    hexcode: str
    name: str
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawings:
    """The drawings of one style; `pixels` has shape (n, SIZE, SIZE, 3), `rows` are their concepts' numbers."""

    rows: list[int]
    pixels: NDArray[np.uint8]


def concepts(packages: Path) -> list[Concept]:
    """All but flags and components, in Unicode's order."""
    said = _read(packages, "emojilib/dist/emoji-en-US.json")
    found = []
    for entry in _read(packages, "emojibase-data/en/data.json"):
        if entry.get("group") in (None, COMPONENTS, FLAGS):
            continue
        # Those of emojilib first, which has the common ones first; emojibase has them by the alphabet.
        words = [*(word.replace("_", " ") for word in said.get(entry["emoji"], ())), *entry.get("tags", ())]
        letters = (word for word in dict.fromkeys(words) if re.fullmatch("[a-z][a-z '-]+", word))
        keywords = tuple(word for word in letters if word != entry["label"])[:KEYWORDS]
        found.append(Concept(entry["hexcode"], entry["label"], keywords))
    return found


def drawn(packages: Path, style: str, known: list[Concept], size: int = SIZE) -> Drawings:
    """The concepts that this style has a drawing of."""
    pictures = list(_pictures(packages, style, known))
    pixels = np.stack([np.asarray(rendered(svg, size)) for _, svg in pictures])
    return Drawings([row for row, _ in pictures], pixels)


def rendered(svg: str, size: int) -> Image.Image:
    """On white, as a transparent picture is seen by the services; four times as large first, for smooth lines."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * size, height=4 * size))
    with Image.open(io.BytesIO(png)) as picture:
        whole = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return whole.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)


def _pictures(packages: Path, style: str, known: list[Concept]) -> Iterator[tuple[int, str]]:
    icons = _read(packages, f"@iconify-json/{style}/icons.json")
    by_name = {_letters(name): name for name in icons["icons"]}
    by_alias = {_letters(name): alias["parent"] for name, alias in icons.get("aliases", {}).items() if len(alias) == 1}
    unicode_names = _read(packages, "emojibase-data/meta/unicode-names.json")
    chars = packages / f"@iconify-json/{style}/chars.json"
    by_code = json.loads(chars.read_text()) if chars.is_file() else {}
    for row, concept in enumerate(known):
        icon = by_code.get(concept.hexcode.lower().replace("-fe0f", ""))
        # Two packages name no code points: there the names must agree, Unicode's older ones included.
        for name in (concept.name, unicode_names.get(concept.hexcode, "")):
            icon = icon or by_name.get(_letters(name)) or by_alias.get(_letters(name))
        if icon is not None and icon in icons["icons"]:
            yield row, _svg(icons, icon)


def _svg(icons: dict[str, Any], name: str) -> str:
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _read(packages: Path, path: str) -> Any:
    return json.loads((packages / path).read_text())
