"""Texts and text files as chunks."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from app.errors import ExtractionFailed
from app.extractors.base import Check, Extracted, Extractor, InputSpec, Item, Limits, Output, Source, Text
from app.extractors.parsing import parse
from app.extractors.parsing.parsed import Parsed
from app.extractors.splitting import Span, SplitBy, split


class TextExtractor(Extractor, frozen=True):
    """Cut a text, or the text of a PDF, HTML, DOCX, Markdown or plain-text file, into chunks: a document each.

    `split_by` says where: `characters`, `words`, `sentences`, `paragraphs` and `pages` make chunks of `chunk_size`
    of these, of which the first `chunk_overlap` are the last ones of the chunk before. `markdown` makes one chunk
    of each section under a heading and one of each code block, also of HTML and DOCX files, which have headings,
    too; one of more than `chunk_size` words ends between paragraphs or list items; `chunk_overlap` does not count.
    `none`, the default, makes one document of the whole. Chinese and Japanese characters count as words; a word has
    at most 100 characters. Pages are those of a PDF, of a DOCX as Word last laid it out, or of a text with form
    feeds; anything else is one page. `language` tells which abbreviations end no sentence.

    What a file is follows from its content, then from its content type or name. Of a page of HTML, what is in
    `<main>` is read, else all but navigation, asides and footers. Texts in images are not read: a scanned PDF is
    refused (`no_text`).

    Each document's payload has `text`; its place in the whole text, `start` and `end`, in characters; `chunk_index`
    and `chunk_total`; `page_number` and `heading_path` where the file has such. By `markdown`, it has `chunk_kind`
    (`section` or `code`) and `code_language`, and the text that is embedded begins with the headings above it.

    `embedding_model` is the inference service that embeds the chunks; `vector_index` the index of the namespace
    that takes the vectors, such as a promoted one, whose service then embeds them. Both are names of this server.
    """

    extractor_name: ClassVar[str] = "text_extractor"
    category: ClassVar[str] = "text"
    icon: ClassVar[str] = "file-text"
    inputs: ClassVar[dict[str, InputSpec]] = {
        "text": InputSpec(description="A text, or a file with text.", types=("text", "string", "pdf"))
    }
    outputs: ClassVar[dict[str, Output]] = {
        "embedding": Output(description="The meaning of a chunk of text.", modality="text", service="minilm_l6_v2")
    }
    produces: ClassVar[dict[str, dict[str, Any]]] = {
        "text": {"type": "string"},
        "start": {"type": "integer"},
        "end": {"type": "integer"},
        "chunk_index": {"type": "integer"},
        "chunk_total": {"type": "integer"},
        "page_number": {"type": "integer"},
        "heading_path": {"type": "array", "items": {"type": "string"}},
        "chunk_kind": {"type": "string", "enum": ["section", "code"]},
        "code_language": {"type": "string"},
    }
    position_fields: ClassVar[tuple[str, ...]] = ("chunk_index",)
    not_offered: ClassVar[dict[str, Any]] = {
        "source_type": "text",
        "segment_length_seconds": 120,
        "extract_captions": True,
        "response_shape": None,
        "llm_provider": None,
        "llm_model": None,
        "llm_api_key": None,
        "embedding_task": "retrieval_document",
    }
    example: ClassVar[dict[str, Any]] = {"split_by": "sentences", "chunk_size": 5, "chunk_overlap": 1}

    extractor_type: Literal["text_extractor"] = "text_extractor"
    split_by: SplitBy | None = None
    chunk_size: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    chunk_overlap: Annotated[int, Meta(ge=0, le=5_000)] = 0
    language: Annotated[str, Meta(pattern="^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")] = "en"
    embedding_model: str | None = None
    vector_index: str | None = None

    def check(self, check: Check) -> None:
        if self.split_by not in (None, "none", "markdown") and self.chunk_overlap >= self.chunk_size:
            check.add("out_of_range", "chunk_overlap is less than chunk_size.", "chunk_overlap")

    def extract(self, source: Source, limits: Limits) -> Iterator[Item]:
        parsed = parse(source.inputs["text"][0], limits)
        spans = self._spans(parsed, limits)
        if not spans:
            raise ExtractionFailed("The text is empty, or blank.", code="no_text")
        for index, span in enumerate(spans):
            yield self._document(parsed, span, index, len(spans))

    def _spans(self, parsed: Parsed, limits: Limits) -> list[Span]:
        """All of them at once, since each chunk tells how many there are: three numbers each."""
        spans: list[Span] = []
        for span in split(parsed, self.split_by or "none", self.chunk_size, self.chunk_overlap, self.language):
            spans.append(span)
            if len(spans) > limits.documents:
                raise ExtractionFailed(
                    f"The text makes more than {limits.documents:,} chunks: choose a larger chunk_size.",
                    code="too_many_extracted",
                )
        return spans

    def _document(self, parsed: Parsed, span: Span, index: int, total: int) -> Extracted:
        text = parsed.text[span.start : span.end]
        payload: dict[str, Any] = {
            "text": text,
            "start": span.start,
            "end": span.end,
            "chunk_index": index,
            "chunk_total": total,
        }
        path = parsed.path(span.start)
        told = {
            "page_number": parsed.page(span.start),
            "heading_path": list(path),
            "chunk_kind": span.kind,
            "code_language": span.language,
        }
        payload |= {name: value for name, value in told.items() if value}
        above = path[:-1] if parsed.begins_section(span.start) else path
        embedded = " > ".join(above) + "\n\n" + text if above and span.kind else text
        return Extracted(key=f"{index:04d}", payload=payload, inputs={"embedding": Text(embedded)})
