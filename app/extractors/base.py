"""What an extractor is: CPU work on the content of one object, without database, network or model.

The protocol
------------
A subclass of `Extractor` is a frozen struct of parameters; its docstring is the published documentation. `read` (in the
package) makes one from a collection's `feature_extractor`, and adds everything that is wrong with it to `Problems`.

`extract(source, limits)` is a generator. It is handed a `Source`: for each of the extractor's inputs the blobs that the
collection's `input_mappings` chose (`mapping.mapped_inputs`), loaded, and the object's fields. It yields

- `Extracted`: one document. `key` is stable and unique within the object ("0003"), so that extracting the same content
  again names the same documents. `payload` is JSON. `inputs` are what is to be embedded, by the name of the output of
  the extractor ("embedding"): a text or an image. `vectors` are ready-made ones, by the name of their index.
  `artifacts` are files that belong to the document ("thumbnail").
- `Rejected`: one row that is no document, with its key and the reason; the others go on.

and raises `ExtractionFailed` where the object as a whole cannot be read. Its documents are valid only once the
generator has ended without an error: what came before may be the beginning of a file that is broken further on.

Callers go through `running.run` (in a thread) or `isolated.Isolated` (in a process of its own, with limits of time and
memory, which no hostile file gets out of). Both hold every document to `Limits`: U+0000 and half surrogate pairs, which
PostgreSQL cannot hold, never leave them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import msgspec

from app.errors import ExtractionFailed, Problems
from app.settings import Settings

Modality = Literal["text", "image"]
Location = tuple[str | int, ...]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds the work on one object; from the settings of the same names."""

    bytes: int
    inflated_bytes: int
    chars: int
    pages: int
    documents: int
    document_bytes: int
    pixels: int
    image_px: int
    thumbnail_px: int
    thumbnail_format: Literal["webp", "jpeg"]

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            bytes=settings.extract_max_bytes,
            inflated_bytes=settings.extract_max_inflated_bytes,
            chars=settings.extract_max_chars,
            pages=settings.extract_max_pages,
            documents=settings.extract_max_documents,
            document_bytes=settings.max_document_bytes,
            pixels=settings.extract_max_pixels,
            image_px=settings.extract_image_px,
            thumbnail_px=settings.thumbnail_px,
            thumbnail_format=settings.thumbnail_format,
        )


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Content that was loaded; its type and the file's name are as declared. `is_text`: it was sent as a text, UTF-8
    here, and is never taken for a file."""

    content: bytes
    content_type: str | None = None
    name: str | None = None
    is_text: bool = False

    @classmethod
    def of(cls, text: str, content_type: str | None = None) -> "Blob":
        """A text that was sent. Raises `ExtractionFailed`."""
        try:
            return cls(content=text.encode(), content_type=content_type, is_text=True)
        except UnicodeEncodeError as error:
            raise ExtractionFailed("The text holds half a surrogate pair.", code="bad_unicode") from error


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One object: its blobs by the inputs that they are for, and its fields."""

    inputs: Mapping[str, tuple[Blob, ...]] = {}
    fields: Mapping[str, Any] = {}


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A text to embed."""

    text: str


class Image(msgspec.Struct, frozen=True, tag="image"):
    """An image to embed: PNG or JPEG, upright, RGB, without metadata."""

    content: bytes
    content_type: str


class Artifact(msgspec.Struct, frozen=True):
    """A file that belongs to a document."""

    content: bytes
    content_type: str


class Extracted(msgspec.Struct, frozen=True, kw_only=True, tag="extracted"):
    """One document of the object."""

    key: str
    payload: dict[str, Any]
    inputs: dict[str, Text | Image] = {}
    vectors: dict[str, list[float]] = {}
    artifacts: dict[str, Artifact] = {}


class Rejected(msgspec.Struct, frozen=True, kw_only=True, tag="rejected"):
    """One row that is no document, and why."""

    key: str
    code: str
    message: str


Item = Extracted | Rejected


class InputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An input: what it is, the types of bucket fields that may feed it, and how many of them."""

    description: str
    types: tuple[str, ...]
    required: bool = True
    most: int = 1


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What is embedded of each document: its modality, and the service that does it unless the collection names one."""

    description: str
    modality: Modality
    service: str


class Check(msgspec.Struct, frozen=True):
    """Where the problems of parameters go."""

    problems: Problems
    location: Location

    def add(self, code: str, message: str, *path: str | int) -> None:
        self.problems.add((*self.location, *path), code, message)


class Extractor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What extractors say of themselves. A module of the package defines one subclass."""

    extractor_name: ClassVar[str]
    version: ClassVar[str] = "v1"
    category: ClassVar[str]
    icon: ClassVar[str]  # of Lucide
    inputs: ClassVar[Mapping[str, InputSpec]]
    outputs: ClassVar[Mapping[str, Output]] = {}
    # JSON Schema of each field that it may set in a payload.
    produces: ClassVar[Mapping[str, dict[str, Any]]] = {}
    # Fields of the payload that tell the documents of one object apart; none where there is one.
    position_fields: ClassVar[tuple[str, ...]] = ()
    # Parameters of the public API that are not offered, each with the value that asks for nothing.
    not_offered: ClassVar[Mapping[str, Any]] = {}
    example: ClassVar[dict[str, Any]] = {}

    @classmethod
    def extractor_id(cls) -> str:
        return f"{cls.extractor_name}_{cls.version}"

    def check(self, check: Check) -> None:
        """Add every problem of these parameters that their types do not tell."""

    def extract(self, source: Source, limits: Limits) -> Iterator[Item]:
        """The documents of one object, one after the other. Raises `ExtractionFailed`."""
        raise NotImplementedError
