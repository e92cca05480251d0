"""Pictures that callers send: what is read of them, and what is refused before it costs anything."""

import io
import struct
import threading
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.errors import InvalidRequest
from app.inference.pictures import FORMATS, Pictures, Pixels, Unreadable, decoded

LIMIT = 1_000_000


def encoded(picture: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture, np.float32).transpose(2, 0, 1)


RED = Image.new("RGB", (40, 20), (200, 30, 40))


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_is_read(format_: str) -> None:
    picture = decoded(encoded(RED, format_), LIMIT)
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    assert np.abs(np.asarray(picture, int) - (200, 30, 40)).max() < 8


def test_a_photograph_is_turned_as_its_exif_data_say() -> None:
    sideways = RED.copy()
    sideways.paste((0, 0, 255), (0, 0, 20, 20))  # blue on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is left belongs to the top
    picture = decoded(encoded(sideways, exif=exif), LIMIT)
    assert picture.size == (20, 40)
    assert (picture.getpixel((10, 5)), picture.getpixel((10, 35))) == ((0, 0, 255), (200, 30, 40))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb_on_white(mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((20, 40), 65_535, np.uint16))
    elif mode in ("LA", "RGBA"):
        picture = Image.new(mode, (40, 20), 0)  # wholly transparent black
    else:
        picture = Image.new("RGB", (40, 20), "white").convert(mode)
    read = decoded(encoded(picture, "TIFF" if mode == "CMYK" else "PNG"), LIMIT)
    assert read.mode == "RGB"
    assert np.asarray(read).min() > 250


def test_of_an_animation_the_first_frame_is_read() -> None:
    moving = encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 20), "white")])
    assert np.abs(np.asarray(decoded(moving, LIMIT), int) - (200, 30, 40)).max() < 8


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large and holds little."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [1_001, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_head(side: int) -> None:
    with pytest.raises(Unreadable, match="pixels") as refused:
        decoded(bomb(side, side), LIMIT)
    assert refused.value.code == "image_too_large"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",  # a format that would run a program
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        encoded(RED)[:60],
        encoded(RED, "JPEG")[:300],
        bomb(100, 100),
    ],
)
def test_what_is_no_picture_or_only_a_part_of_one(content: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        decoded(content, LIMIT)
    assert refused.value.code == "bad_image"


@given(st.sampled_from(FORMATS), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_damage_is_read_or_refused_and_nothing_else(format_: str, at: int, noise: bytes) -> None:
    content = encoded(RED, format_)
    damaged = content[:at] + noise + content[at + len(noise) :]
    with suppress(Unreadable):
        assert decoded(damaged, LIMIT).mode == "RGB"


async def test_every_image_that_cannot_be_read_is_named_and_none_is_decoded_in_the_loop() -> None:
    pictures = Pictures("test", LIMIT)
    threads = set[str]()

    def prepare(picture: Image.Image) -> Pixels:
        threads.add(threading.current_thread().name)
        return pixels(picture)

    with pytest.raises(InvalidRequest) as refused:
        await pictures.prepared([b"x", encoded(RED), bomb(9_999, 9_999)], prepare)
    found = [(problem.location, problem.code) for problem in refused.value.problems]
    assert found == [(("images", 0), "bad_image"), (("images", 2), "image_too_large")]
    (ready,) = await pictures.prepared([encoded(RED)], prepare)
    assert ready.shape == (3, 20, 40)
    assert threads == {"test-pictures_0"}
    await pictures.close()
