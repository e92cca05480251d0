"""Images: measured, turned upright, made small."""

import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, Literal, cast

from PIL import ExifTags, Image

from app.errors import ExtractionFailed
from app.extractors.base import Artifact, Blob, Extracted, Extractor, InputSpec, Item, Limits, Output, Source
from app.extractors.base import Image as ToEmbed

# What Pillow decodes by itself. Left out: vectors (EPS runs Ghostscript), and what nobody puts on the web.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d:\d\d:\d\d)")
OFFSET = re.compile(r"[+-]\d\d:\d\d")
QUALITY = 85
# EXIF's orientations, and what undoes each.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


class ImageExtractor(Extractor, frozen=True):
    """Make one document of an image: JPEG, PNG, WebP, GIF and TIFF (their first picture), AVIF or BMP.

    Its payload has `width` and `height`, as it is seen (turned as its EXIF data say), `format`, and `taken_at`, the
    EXIF date, where there is one. Where the picture was taken, `location` (`lat`, `lon`), is told only if
    `include_location` is set. With `enable_thumbnails`, the document has a `thumbnail`, made by the settings
    `PGRETRIEVE_THUMBNAIL_*`.

    What is handed to the service is a PNG or JPEG without metadata, of `PGRETRIEVE_EXTRACT_IMAGE_PX` on its longest
    side at most, transparent parts white.

    `embedding_model` is the inference service that embeds the image; `vector_index` the index of the namespace that
    takes the vector, such as a promoted one, whose service then embeds it. Both are names of this server.
    """

    extractor_name: ClassVar[str] = "image_extractor"
    category: ClassVar[str] = "image"
    icon: ClassVar[str] = "image"
    inputs: ClassVar[dict[str, InputSpec]] = {"image": InputSpec(description="An image file.", types=("image",))}
    outputs: ClassVar[dict[str, Output]] = {
        "embedding": Output(description="What the image shows.", modality="image", service="clip_vit_b32")
    }
    produces: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"type": "integer"},
        "height": {"type": "integer"},
        "format": {"type": "string", "enum": [name.lower() for name in FORMATS]},
        "taken_at": {"type": "string"},
        "location": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}},
    }
    not_offered: ClassVar[dict[str, Any]] = {"use_cdn": False}
    example: ClassVar[dict[str, Any]] = {"enable_thumbnails": True}

    extractor_type: Literal["image_extractor"] = "image_extractor"
    enable_thumbnails: bool = True
    include_location: bool = False
    embedding_model: str | None = None
    vector_index: str | None = None

    def extract(self, source: Source, limits: Limits) -> Iterator[Item]:
        with opened(source.inputs["image"][0], limits) as image:
            width, height = image.size[::-1] if _orientation(image) in SIDEWAYS else image.size
            payload = {"width": width, "height": height, "format": (image.format or "").lower(), **self._told(image)}
            kept = "JPEG" if image.format == "JPEG" else "PNG"
            seen = upright(image, limits)
        artifacts = {}
        if self.enable_thumbnails:
            small = seen.copy()
            small.thumbnail((limits.thumbnail_px, limits.thumbnail_px))
            kind = limits.thumbnail_format
            artifacts["thumbnail"] = Artifact(encoded(small, kind.upper()), f"image/{kind}")
        yield Extracted(
            key="0000",
            payload=payload,
            inputs={"embedding": ToEmbed(encoded(seen, kept), f"image/{kept.lower()}")},
            artifacts=artifacts,
        )

    def _told(self, image: Image.Image) -> dict[str, Any]:
        """What its EXIF data say; broken ones say nothing."""
        try:
            exif = image.getexif()
            details, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
        except Exception:  # whatever broken data lead Pillow to
            return {}
        taken = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        told = {
            "taken_at": _date(taken, details.get(ExifTags.Base.OffsetTimeOriginal)),
            "location": _place(gps) if self.include_location else None,
        }
        return {name: value for name, value in told.items() if value}


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever broken data lead Pillow to
        return 1
    return found if isinstance(found, int) else 1


def _date(taken: Any, zone: Any) -> str | None:
    """In the form of ISO 8601; None for dates that are none, such as the zeros of cameras without a clock."""
    found = DATE.match(taken) if isinstance(taken, str) else None
    if found is None:
        return None
    text = (
        f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone if isinstance(zone, str) and OFFSET.fullmatch(zone) else ''}"
    )
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text


def opened(blob: Blob, limits: Limits) -> Image.Image:
    """The image, of which the header was read. Raises `ExtractionFailed`."""
    try:
        image = Image.open(io.BytesIO(blob.content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # above our own limit in any case
        raise _too_large(limits) from error
    except Exception as error:  # whatever the headers lead the decoders to
        message = f"This is no image of the formats {', '.join(FORMATS)}, or it is broken."
        raise ExtractionFailed(message, code="unsupported_content") from error
    if image.width * image.height > limits.pixels:
        raise _too_large(limits)
    return image


def _too_large(limits: Limits) -> ExtractionFailed:
    message = f"The image has more than {limits.pixels:,} pixels (PGRETRIEVE_EXTRACT_MAX_PIXELS)."
    return ExtractionFailed(message, code="too_many_pixels")


def upright(image: Image.Image, limits: Limits) -> Image.Image:
    """Decoded, turned, RGB, and no larger than services want it. Raises `ExtractionFailed`."""
    try:
        turn = TURNS.get(_orientation(image))
        image.draft("RGB", (limits.image_px, limits.image_px))  # JPEG decodes to a half, quarter or eighth at once
        image.load()
        small = _small(image, limits.image_px)
        return small.transpose(turn) if turn is not None else small
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # whatever the pixels lead the decoders to
        message = f"The image cannot be decoded: {type(error).__name__}: {error}"[:500]
        raise ExtractionFailed(message, code="unreadable_file") from error


def _small(image: Image.Image, most: int) -> Image.Image:
    """Made small as soon as its mode allows, for each copy of 64 million pixels takes 256 MB."""
    if image.mode.startswith("I"):  # 16 or 32 bits of grey: `convert` would cut them off at 255
        grey = image.convert("F")
        _, highest = grey.getextrema()
        scale = 255 / max(cast(float, highest), 65_535.0)
        image = grey.point(lambda value: value * scale).convert("L")
    wanted = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != wanted:
        image = image.convert(wanted)
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    if wanted == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def encoded(image: Image.Image, kind: str) -> bytes:
    """The file, without any metadata."""
    written = io.BytesIO()
    plain = Image.new("RGB", image.size)
    plain.paste(image)
    plain.save(written, kind, **({} if kind == "PNG" else {"quality": QUALITY}))
    return written.getvalue()


def _place(gps: dict[int, Any]) -> dict[str, float] | None:
    tags = ExifTags.GPS
    try:
        lat = _degrees(gps[tags.GPSLatitude], gps.get(tags.GPSLatitudeRef) == "S")
        lon = _degrees(gps[tags.GPSLongitude], gps.get(tags.GPSLongitudeRef) == "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return {"lat": lat, "lon": lon} if abs(lat) <= 90 and abs(lon) <= 180 else None  # NaN is neither


def _degrees(parts: Any, negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    found = round(degrees + minutes / 60 + seconds / 3600, 7)
    return -found if negative else found
