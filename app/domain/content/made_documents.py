"""The documents of one source: extracted in a process of its own, named, and kept on disk until they are stored."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from app.domain.background.work import Claimed
from app.domain.content import loading
from app.domain.content.collection_configs import SOURCE_FIELDS, SOURCE_ID, Recipe
from app.domain.content.loading import Source
from app.domain.documents.documents import Document
from app.domain.runtime import Runtime
from app.extractors import base
from app.extractors.base import Extracted, Image, Rejected, Text
from app.extractors.mapping import mapped_inputs, passed_fields
from app.storage import Written

# What of a file of rows is kept in memory; more goes to the disk.
IN_MEMORY = 8 * 2**20
# Rows that gave no document are counted; of so many the reasons are kept.
KEPT_REASONS = 100
BLOB = "blob:sha256:"
LENGTH = 4


@dataclass(frozen=True, slots=True)
class Place:
    """A collection as a worker fills it: `indexes` by the outputs of its extractor, `source_fields` by index."""

    namespace_id: str
    collection_id: str
    source_type: str
    recipe: Recipe
    fingerprint: str
    indexes: Mapping[str, str]
    source_fields: Mapping[str, str]


@dataclass(slots=True)
class Made:
    """What a source gave: `ids` of its documents, which `documents` reads, and the files that they name."""

    row: Claimed
    source: Source
    input_hash: str
    spool: IO[bytes]
    ids: list[str] = field(default_factory=list)
    size: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    rejected_count: int = 0
    written: dict[str, Written] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        parts = [document.document_id, document.payload.decode(), document.metadata.decode(), dict(document.vectors)]
        frame = msgspec.json.encode(parts)
        self.spool.write(len(frame).to_bytes(LENGTH) + frame)
        self.ids.append(document.document_id)
        self.size += len(frame)

    def documents(self) -> Iterator[Document]:
        self.spool.seek(0)
        while length := self.spool.read(LENGTH):
            document_id, payload, metadata, vectors = msgspec.json.decode(self.spool.read(int.from_bytes(length)))
            yield Document(document_id, vectors, payload.encode(), metadata.encode())

    def close(self) -> None:
        self.spool.close()


async def make(runtime: Runtime, place: Place, row: Claimed, source: Source, input_hash: str) -> Made:
    """Raises `ExtractionFailed`, or `Unavailable` where content cannot be read now."""
    recipe = place.recipe
    wanted = frozenset(path for paths in recipe.paths.values() for path in paths)
    loaded = await loading.load(runtime, source, wanted)
    passed = passed_fields(source.fields, recipe.passthrough, include_all=recipe.include_all)
    inputs = mapped_inputs(recipe.paths, source.fields, loaded)
    asked = base.Source(inputs=inputs, fields=source.fields)
    made = Made(row, source, input_hash, tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115 - closed by who stores it
    try:
        async with aclosing(runtime.extraction.extract(recipe.extractor, asked)) as items:
            async for item in items:
                if isinstance(item, Extracted):
                    await _add(runtime, place, made, item, passed)
                else:
                    _reject(made, item)
    except BaseException:
        made.close()
        raise
    return made


def _reject(made: Made, item: Rejected) -> None:
    made.rejected_count += 1
    if len(made.rejected) < KEPT_REASONS:
        made.rejected.append(item)


async def _add(runtime: Runtime, place: Place, made: Made, item: Extracted, passed: Mapping[str, Any]) -> None:
    payload: dict[str, Any] = {**passed, **item.payload}
    payload.setdefault(SOURCE_ID, made.source.lineage.get(SOURCE_ID, made.source.source_id))
    for name, artifact in item.artifacts.items():
        payload[name] = await _reference(runtime, made, artifact.content)
    for output, given in item.inputs.items():
        content = given.text if isinstance(given, Text) else await _reference(runtime, made, given.content)
        _set(payload, _field(place, output, given), content)
    metadata = {**made.source.lineage, "collection_id": place.collection_id, "key": item.key}
    document = Document(
        document_id_of(place.collection_id, made.source.source_id, item.key),
        item.vectors,
        msgspec.json.encode(payload),
        msgspec.json.encode(metadata),
    )
    if len(document.payload) + len(document.metadata) > runtime.settings.max_document_bytes:
        message = f"The document is larger than {runtime.settings.max_document_bytes:,} bytes."
        _reject(made, Rejected(key=item.key, code="document_too_large", message=message))
    else:
        made.add(document)


def _field(place: Place, output: str, given: Text | Image) -> str:
    """Where in the payload stands what the output's index embeds."""
    modality = "text" if isinstance(given, Text) else "image"
    return place.source_fields.get(place.indexes.get(output, ""), SOURCE_FIELDS[modality])


def _set(payload: dict[str, Any], path: str, value: Any) -> None:
    *inner, last = path.split(".")
    for name in inner:
        step = payload.get(name)
        payload[name] = step = dict(step) if isinstance(step, dict) else {}
        payload = step
    payload[last] = value


async def _reference(runtime: Runtime, made: Made, content: bytes) -> str:
    """What a payload says of a file: `blob:sha256:…`. It is written to the store, and named when its document is."""
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in made.written:
        made.written[sha256] = await runtime.blobs.write_bytes(content)
    return BLOB + sha256


def document_id_of(collection_id: str, source_id: str, key: str) -> str:
    """The same for the same part of the same source, whoever extracts it and how often."""
    return "doc_" + hashlib.sha256("\0".join((collection_id, source_id, key)).encode()).hexdigest()[:32]
