"""Trains the two models of emoji on one thread of a CPU, in some minutes each, and writes their files beside this one.

    python -m app.inference.emoji.train NODE_MODULES clip --seconds 300                # clip_micro/
    python -m app.inference.emoji.train NODE_MODULES tower --seconds 350 --rate 2e-3   # emoji_tower.onnx
    python -m app.inference.emoji.train NODE_MODULES test    # tests/data/emoji.zip: the style that is held out

These made the files that are here. Another run ends a little elsewhere, since it is cut by the clock. Needs the extra
`clip`, `onnx`, and what `drawings` needs.

Each batch holds a concept once, in any of its drawings, turned, moved and coloured a little, with any of its captions.
"""

import argparse
import asyncio
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from app.inference.base import Vectors
from app.inference.emoji import CLIP, SIZE, TOWER
from app.inference.emoji.drawings import HELD_OUT, TRAINED, Concept, concepts, drawn
from app.inference.providers.open_clip import import_torchvision
from app.inference.services.minilm import minilm

TEST = Path(__file__).parents[3] / "tests" / "data" / "emoji.zip"

Tensor = Any


class Batches:
    """Numbers of concepts, their pixels from -1 to 1, and numbers of their captions."""

    def __init__(self, packages: Path, known: list[Concept], captions: list[list[str]], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        styles = [drawn(packages, style, known) for style in TRAINED]
        self._pixels = torch.from_numpy(np.concatenate([style.pixels for style in styles])).permute(0, 3, 1, 2)
        self._of: list[list[int]] = [[] for _ in known]
        for picture, row in enumerate(row for style in styles for row in style.rows):
            self._of[row].append(picture)
        self.texts = [text for those in captions for text in those]
        ends = np.cumsum([len(those) for those in captions])
        self._first, self._count = ends - [len(those) for those in captions], [len(those) for those in captions]

    def epoch(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = [row for row in self._rng.permutation(len(self._of)) if self._of[row]]
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            pictures = torch.tensor([self._rng.choice(self._of[row]) for row in rows])
            texts = [int(self._first[row] + self._rng.integers(self._count[row])) for row in rows]
            yield altered(self._pixels[pictures].float() / 127.5 - 1), torch.tensor(texts)


def altered(pixels: Tensor) -> Tensor:
    """Each turned by up to 17 degrees, scaled, moved, sometimes mirrored, its colours and contrast changed."""
    n = len(pixels)
    angle, scale = (torch.rand(n) - 0.5) * 0.6, 0.85 + torch.rand(n) * 0.4
    mirror = torch.where(torch.rand(n) < 0.3, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = (torch.rand(n, 2) - 0.5) * 0.3
    theta = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, pixels.shape, align_corners=False)
    moved = 1 + F.grid_sample(pixels - 1, grid, align_corners=False)  # what comes in from outside is white
    gain, tint = 0.8 + 0.4 * torch.rand(n, 3, 1, 1), 0.2 * (torch.rand(n, 3, 1, 1) - 0.5)
    grey = (torch.rand(n, 1, 1, 1) < 0.1).float()
    coloured = moved * gain + tint
    return (grey * coloured.mean(1, keepdim=True) + (1 - grey) * coloured).clamp(-1, 1)


def captions(concept: Concept) -> list[str]:
    """The name more often than the rest; words of other sentences, so that queries may be either."""
    name, words = concept.name, concept.keywords
    said = [name, name, f"a picture of {name}", f"an emoji of a {name}", f"{name} icon"]
    if words:
        said += [", ".join([name, *words[:3]]), ", ".join(words[:4]), " ".join(words[3:6] or words), *words[:4]]
    return said


def contrast(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss: each picture is to find its own text among the batch's, and each text its picture."""
    alike, right = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T, torch.arange(len(images))
    return (
        F.cross_entropy(alike, right, label_smoothing=0.1) + F.cross_entropy(alike.T, right, label_smoothing=0.1)
    ) / 2


def fit(parameters: list[Any], loss_of: Callable[[Tensor, Tensor], Tensor], batches: Batches, options: Any) -> None:
    """Adam with a warm-up, then a cosine down to nothing, by the clock of this process's CPU."""
    decayed = [each for each in parameters if each.ndim > 1]
    rest = [each for each in parameters if each.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98))
    began, epoch = time.process_time(), 0
    while (done := (time.process_time() - began) / options.seconds) < 1:
        losses = []
        for pixels, texts in batches.epoch(options.batch):
            done = min(1.0, (time.process_time() - began) / options.seconds)
            rate = options.rate * min(1, done / 0.1) * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(pixels, texts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1
        if epoch % 10 == 0:
            print(f"epoch {epoch}, {done:.0%}: loss {np.mean(losses):.3f}", flush=True)


def train_clip(packages: Path, options: Any) -> None:
    import_torchvision()
    import open_clip
    from open_clip.factory import create_model, get_tokenizer
    from safetensors.torch import save_file

    config = json.loads((CLIP / "open_clip_config.json").read_text())["model_cfg"]
    open_clip.factory._MODEL_CONFIGS["clip_micro"] = config
    model, tokenizer = create_model("clip_micro"), get_tokenizer("clip_micro")
    known = concepts(packages)
    batches = Batches(packages, known, [captions(concept) for concept in known], options.seed)
    tokens = tokenizer(batches.texts)

    def loss_of(pixels: Tensor, texts: Tensor) -> Tensor:
        scale = model.logit_scale.exp().clamp(max=100)
        return contrast(model.encode_image(pixels), model.encode_text(tokens[texts]), scale)

    fit(list(model.parameters()), loss_of, batches, options)
    state = model.state_dict()
    unseen = torch.ones(len(state["token_embedding.weight"]), dtype=torch.bool)
    unseen[tokens.unique()] = False
    # Words that no caption holds have learned nothing: they say nothing, and their rows compress to nothing.
    state["token_embedding.weight"][unseen] = 0
    save_file({name: value.half().contiguous() for name, value in state.items()}, CLIP / "open_clip_model.safetensors")
    model.eval()
    with torch.inference_mode():
        report(
            packages,
            known,
            model.encode_image,
            lambda texts: model.encode_text(tokenizer(texts)),
        )


def tower(dimension: int) -> Any:
    """A plain network: convolutions, some of which halve the picture, then the mean, then one layer. Strides instead of
    pooling, and channels last, make a step 0.22 s of CPU instead of 0.68."""
    layers: list[Any] = []
    before = 3
    for width, stride in ((32, 2), (64, 2), (128, 1), (128, 2), (256, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(before, dimension)]
    return nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)


def embedded(texts: list[str]) -> Tensor:
    """MiniLM's vectors, which are not trained: the tower learns to reach them."""

    async def run() -> Vectors:
        service = minilm(1)
        vectors = (await service.embed_texts(texts, "document")).vectors
        await service.close()
        return vectors

    return torch.from_numpy(asyncio.run(run()))


def train_tower(packages: Path, options: Any) -> None:
    known = concepts(packages)
    batches = Batches(packages, known, [captions(concept) for concept in known], options.seed)
    different = list(dict.fromkeys(batches.texts))
    of = {text: row for row, text in enumerate(different)}
    vectors = embedded(different)[[of[text] for text in batches.texts]]
    model = tower(vectors.shape[1])
    scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def loss_of(pixels: Tensor, texts: Tensor) -> Tensor:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return contrast(model(pixels), vectors[texts], scale.exp().clamp(max=100))

    fit([*model.parameters(), scale], loss_of, batches, options)
    network = nn.Sequential(model, Normalized()).eval()
    names, axes = {"input_names": ["pixels"], "output_names": ["vectors"]}, {"pixels": {0: "n"}, "vectors": {0: "n"}}
    torch.onnx.export(network, torch.zeros(1, 3, SIZE, SIZE), TOWER, **names, dynamic_axes=axes, dynamo=False)
    network.eval()  # the exporter leaves it in training
    with torch.inference_mode():
        report(packages, known, network, embedded)


class Normalized(nn.Module):  # type: ignore[misc]
    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=1)


def report(
    packages: Path, known: list[Concept], images: Callable[[Tensor], Tensor], texts: Callable[..., Tensor]
) -> None:
    """What share of the unseen style's drawings is among the first ten for its name."""
    unseen = drawn(packages, HELD_OUT, known)
    pixels = torch.from_numpy(unseen.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = F.normalize(images(pixels), dim=1)
    for form in ("{}", "a picture of a {}"):
        asked = F.normalize(texts([form.format(known[row].name) for row in unseen.rows]), dim=1)
        alike = asked @ found.T
        ranks = (alike > alike.diagonal()[:, None]).sum(1)
        shares = ", ".join(f"recall@{k} {(ranks < k).float().mean():.3f}" for k in (1, 10))
        print(f"{form!r} among {len(ranks)} drawings of {HELD_OUT}: {shares} (chance {10 / len(ranks):.3f})")


def write_test(packages: Path, options: Any) -> None:  # noqa: ARG001 - one form for all commands
    known = concepts(packages)
    unseen = drawn(packages, HELD_OUT, known)
    with zipfile.ZipFile(TEST, "w") as archive:
        told = {f"{row:04}.png": {"name": known[row].name, "keywords": known[row].keywords} for row in unseen.rows}
        archive.writestr("captions.json", json.dumps(told, indent=0), zipfile.ZIP_DEFLATED)
        for name, pixels in zip(told, unseen.pixels, strict=True):
            png = io.BytesIO()
            Image.fromarray(pixels).quantize(64).save(png, "PNG", optimize=True)
            archive.writestr(name, png.getvalue())


def main() -> None:
    commands = {"clip": train_clip, "tower": train_tower, "test": write_test}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--seconds", type=float, default=400, help="of CPU")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    commands[options.command](options.packages, options)


if __name__ == "__main__":
    main()
