"""Images: measured, upright, small, without what their files say of their makers."""

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageDraw

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Extracted
from app.extractors.base import Image as ToEmbed
from tests.extractors.extracting import documents, extractor, items


def corner(size: tuple[int, int] = (80, 40)) -> Image.Image:
    """White, with its upper left quarter red."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2 - 1, size[1] // 2 - 1), fill="red")
    return image


def saved(image: Image.Image, kind: str = "PNG", **more: Any) -> Blob:
    written = io.BytesIO()
    image.save(written, kind, **more)
    return Blob(content=written.getvalue())


def extracted(blob: Blob, parameters: dict[str, Any] | None = None, **settings: Any) -> Extracted:
    [document] = documents(extractor("image_extractor", **(parameters or {})), blob, **settings)
    assert document.key == "0000"
    return document


def embedded(document: Extracted) -> Image.Image:
    found = document.inputs["embedding"]
    assert isinstance(found, ToEmbed)
    image = Image.open(io.BytesIO(found.content))
    assert f"image/{(image.format or '').lower()}" == found.content_type
    assert image.mode == "RGB"
    assert not image.getexif()
    return image


def failure(blob: Blob, **settings: Any) -> str:
    with pytest.raises(ExtractionFailed) as failed:
        items(extractor("image_extractor"), blob, **settings)
    return failed.value.error_code


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF"])
def test_every_format(kind: str) -> None:
    document = extracted(saved(corner(), kind))
    assert document.payload == {"width": 80, "height": 40, "format": kind.lower()}
    assert embedded(document).size == (80, 40)
    assert embedded(document).format == ("JPEG" if kind == "JPEG" else "PNG")
    thumbnail = document.artifacts["thumbnail"]
    assert thumbnail.content_type == "image/webp"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (80, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_was_held(orientation: int) -> None:
    """The file is stored so that its orientation undoes it: what is seen is red in the upper left."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = corner().transpose(undo[orientation]) if orientation > 1 else corner()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    document = extracted(saved(stored, exif=exif))
    assert (document.payload["width"], document.payload["height"]) == (80, 40)
    seen = embedded(document)
    assert seen.size == (80, 40)
    assert [seen.getpixel(place) for place in ((5, 5), (75, 5), (5, 35))] == [(255, 0, 0), *[(255, 255, 255)] * 2]


def test_the_date_is_told_and_the_place_only_when_asked_for() -> None:
    exif = Image.Exif()
    details, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    details[ExifTags.Base.DateTimeOriginal] = "2024:05:17 08:30:00"
    details[ExifTags.Base.OffsetTimeOriginal] = "+02:00"
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "S", (33.0, 51.0, 24.0)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E", (151.0, 12.0, 36.0)
    blob = saved(corner(), "JPEG", exif=exif)
    assert "location" not in extracted(blob).payload
    told = extracted(blob, {"include_location": True}).payload
    assert told["taken_at"] == "2024-05-17T08:30:00+02:00"
    assert told["location"] == pytest.approx({"lat": -33.8566667, "lon": 151.21})


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "2024:13:01 00:00:00", "yesterday", "2024:01:01 00:00:00\0x"])
def test_dates_that_are_none(date: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = date
    assert extracted(saved(corner(), "JPEG", exif=exif)).payload.get("taken_at") in (None, "2024-01-01T00:00:00")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_data_say_nothing() -> None:
    document = extracted(saved(corner(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9))
    assert document.payload["width"] == 80


def test_large_images_are_made_small_for_services_and_thumbnails() -> None:
    blob = saved(corner((3_000, 1_500)), "JPEG")
    document = extracted(blob, extract_image_px=512, thumbnail_px=64, thumbnail_format="jpeg")
    assert (document.payload["width"], document.payload["height"]) == (3_000, 1_500)
    assert embedded(document).size == (512, 256)
    thumbnail = document.artifacts["thumbnail"]
    small = Image.open(io.BytesIO(thumbnail.content))
    assert (thumbnail.content_type, small.format, small.size) == ("image/jpeg", "JPEG", (64, 32))
    assert extracted(blob, {"enable_thumbnails": False}).artifacts == {}


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 255),
        (Image.new("LA", (4, 4), (0, 0)), 255),
        (Image.new("L", (4, 4), 128), 128),
        (Image.new("1", (4, 4), 1), 255),
        (Image.new("I;16", (4, 4), 32_896), 128),
    ],
)
def test_modes(image: Image.Image, pixel: int) -> None:
    assert embedded(extracted(saved(image))).getpixel((0, 0)) == (pixel,) * 3


def test_cmyk() -> None:
    seen = embedded(extracted(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")))
    red, green, blue = seen.getpixel((0, 0))  # type: ignore[misc]
    assert red > 240
    assert green < 20
    assert blue < 20


def test_an_animation_is_its_first_picture() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    blob = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert embedded(extracted(blob)).getpixel((0, 0)) == (255, 0, 0)


def png_that_says(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 100_000])
def test_bombs_are_refused_by_what_they_say_of_themselves(side: int) -> None:
    assert failure(Blob(content=png_that_says(side, side))) == "too_many_pixels"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "unsupported_content"),
        (b"no image", "unsupported_content"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_content"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_content"),
        (saved(corner(), "PPM").content, "unsupported_content"),
        (saved(corner((900, 900)), "JPEG").content[:-3_000], "unreadable_file"),
        (png_that_says(500, 500), "unreadable_file"),
    ],
)
def test_what_is_no_image(content: bytes, code: str) -> None:
    assert failure(Blob(content=content)) == code


def test_the_limit_of_pixels_is_the_settings() -> None:
    assert failure(saved(corner()), extract_max_pixels=3_199) == "too_many_pixels"
    assert extracted(saved(corner()), extract_max_pixels=3_200).payload["width"] == 80
