"""Pictures that callers send: decoded within limits, upright, in RGB. Nothing of a file is trusted."""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from app.errors import Problems
from app.inference.thread import ModelThread

Pixels = NDArray[np.float32]
"""Shape (3, height, width), as a model takes it."""

# What Pillow decodes by libraries that are kept well; others (EPS runs a program) are not opened at all.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
UNKNOWN = f"is no picture that can be read; the formats are {', '.join(FORMATS)}"


class Unreadable(ValueError):
    """Why a picture cannot be used, to follow the words "The image"."""

    def __init__(self, message: str, code: str = "bad_image") -> None:
        super().__init__(message)
        self.code = code


def decoded(content: bytes, max_pixels: int) -> Image.Image:
    """The picture as it is meant to be seen: turned as its EXIF data say, on white where it is transparent.

    Of an animation the first frame. Its size is read from its head and checked before a pixel is decoded.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                message = f"has {width} × {height} pixels; the limit is {max_pixels:,} (PGRETRIEVE_MAX_IMAGE_PIXELS)"
                raise Unreadable(message, "image_too_large")
            with suppress(Exception):  # a damaged EXIF block turns nothing
                ImageOps.exif_transpose(picture, in_place=True)
            picture.load()
            return _on_white(picture)
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit, in heads of frames
        raise Unreadable("has too many pixels", "image_too_large") from None
    except UnidentifiedImageError:
        raise Unreadable(UNKNOWN) from None
    except Exception as error:  # decoders raise whatever breaks in them: OSError, SyntaxError, struct.error, …
        raise Unreadable(f"is damaged or cut off ({type(error).__name__})") from None


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # 16 bits of grey, which `convert` would cut at 255
        return picture.point(lambda value: value * (1 / 256)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    white = Image.new("RGB", seen.size, "white")
    white.paste(seen, mask=seen.getchannel("A"))
    return white


class Pictures:
    """The pictures of one local service, made into what its model takes.

    One at a time, in a thread of their own: neither the event loop nor the model waits for a decoder, and memory
    holds one whole picture at most.
    """

    def __init__(self, name: str, max_pixels: int) -> None:
        self._thread = ModelThread(f"{name}-pictures")
        self._max_pixels = max_pixels

    async def prepared(self, images: Sequence[bytes], prepare: Callable[[Image.Image], Pixels]) -> list[Pixels]:
        """Raises `InvalidRequest` with every image that cannot be read."""
        found, problems = list[Pixels](), Problems()
        for n, content in enumerate(images):
            try:
                found.append(await self._thread.run(self._one, content, prepare))
            except Unreadable as error:
                problems.add(("images", n), error.code, f"Image {n} {error}.")
        problems.refuse()
        return found

    async def close(self) -> None:
        await self._thread.close()

    def _one(self, content: bytes, prepare: Callable[[Image.Image], Pixels]) -> Pixels:
        return prepare(decoded(content, self._max_pixels))
