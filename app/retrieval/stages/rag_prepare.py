"""Makes of the rows what a language model is given to read: formatted, numbered, within a budget of tokens."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from app.errors import InvalidRequest
from app.retrieval.host import Host, Row
from app.retrieval.stages.base import Check, HostStage, StageType
from app.retrieval.stages.hosted import OF_THE_REQUEST, check_text, check_tokenizer, check_written

Strategy = Literal["priority_truncate", "proportional", "drop_last"]
DEFAULT_TEMPLATE = "[{{CONTEXT.INDEX}}] {{DOC.content}}\n\n"
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Citation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How documents are cited: `[1]`, `[document_id]`, `¹`, or not at all; and what is told of each."""

    style: Literal["numbered", "bracketed", "footnote", "none"] = "numbered"
    include_title: bool = True
    include_url: bool = False

    def marker(self, index: int, row: Row) -> str:
        numbered = {"numbered": f"[{index}]", "footnote": str(index).translate(SUPERSCRIPTS), "none": ""}
        return numbered.get(self.style, f"[{row.document_id}]")

    def of(self, index: int, row: Row) -> dict[str, Any]:
        told: dict[str, Any] = {"index": index, "marker": self.marker(index, row), "document_id": row.document_id}
        for wanted, name in ((self.include_title, "title"), (self.include_url, "url")):
            value = row.get(name) or row.get(f"metadata.{name}") if wanted else None
            if isinstance(value, str):
                told[name] = value
        return told


class Part(msgspec.Struct, kw_only=True):
    """A document's text in the context."""

    index: int
    row: Row
    text: str
    tokens: int
    truncated: bool = False


class RagPrepare(HostStage, frozen=True, kw_only=True):
    """Format the documents for a language model, within `max_tokens`; no model is asked.

    Each document is written by `document_template`, which may read DOC, CONTEXT.INDEX (from 1), CONTEXT.CITATION and
    INPUT; `DOC.content` is the field that `content_field` names. `single_context` answers one document with the whole
    in `context_field` (joined by `separator`) and `citations_field`; `formatted_list` keeps the documents and writes
    `formatted_content_field` and `citations_field` into each. Past the budget, `priority_truncate` cuts the last
    document that fits in part, `proportional` gives each the same share, `drop_last` takes whole documents while they
    fit. `tokenizer` counts: `cl100k_base`, `o200k_base` or `minilm_l6_v2`. A document that lacks a field which the
    template reads is left out, with a warning; write `{{ DOC.x|default('') }}` where it may be missing.
    """

    stage_id: ClassVar[str] = "rag_prepare"
    stage_type: ClassVar[StageType] = "apply"
    category: ClassVar[str] = "apply"
    icon: ClassVar[str] = "notebook-text"
    use_cases: ClassVar[tuple[str, ...]] = ("The context of a question that a model answers", "Sources to cite")
    example: ClassVar[dict[str, Any]] = {"max_tokens": 4000, "content_field": "description"}
    scopes: ClassVar[frozenset[str]] = frozenset({"doc", "context", "stage"})
    defaults: ClassVar[dict[str, Any]] = {"document_template": DEFAULT_TEMPLATE}

    max_tokens: Annotated[int, msgspec.Meta(ge=100, le=128_000)] = 8_000
    tokenizer: str = "cl100k_base"
    truncation_strategy: Strategy = "priority_truncate"
    output_mode: Literal["single_context", "formatted_list"] = "single_context"
    document_template: Any = None
    content_field: str = "content"
    separator: str = "\n"
    citation: Citation | None = None
    context_field: str = "rag_context"
    citations_field: str = "citations"
    formatted_content_field: str = "formatted_content"

    def check(self, check: Check) -> None:
        check_tokenizer(check, "tokenizer", self.tokenizer)
        check_text(check, "document_template", self.document_template)
        check.field("content_field", self.content_field)
        for name in ("context_field", "citations_field", "formatted_content_field"):
            check.output(name, getattr(self, name))
        if len(self.separator) > 1_000:
            check.add("out_of_range", "separator has at most 1,000 characters.", "separator")

    def most_rows(self) -> int | None:
        return 1 if self.output_mode == "single_context" else None

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        citation = self.citation or Citation()
        parts = await formatted(
            host, rows, self.document_template, self.content_field, self.tokenizer, cite=citation.marker
        )
        separator = (await host.cut(self.tokenizer, self.separator))[1] if self.output_mode == "single_context" else 0
        kept = await fitted(host, parts, self.tokenizer, self.max_tokens, separator, self.truncation_strategy)
        host.tell("documents", {"included": len(kept), "truncated": sum(part.truncated for part in kept)})
        cited = [citation.of(part.index, part.row) | {"truncated": part.truncated} for part in kept]
        if self.output_mode == "formatted_list":
            for part, told in zip(kept, cited, strict=True):
                part.row.put(self.formatted_content_field, part.text)
                part.row.put(self.citations_field, [told])
            host.tell("tokens", sum(part.tokens for part in kept))
            return [part.row for part in kept]
        whole = self.separator.join(part.text for part in kept)
        # Once more, for a text may have more tokens than its parts.
        text, tokens = await host.cut(self.tokenizer, whole, self.max_tokens)
        host.tell("tokens", tokens)
        made = Row(self.context_field, None)
        made.put(self.context_field, text)
        made.put(self.citations_field, cited)
        made.put("token_count", tokens)
        made.put("document_count", len(kept))
        return [made]


async def formatted(
    host: Host,
    rows: list[Row],
    template: Any,
    content_field: str,
    tokenizer: str,
    *,
    cite: Any = None,
) -> list[Part]:
    """Each row by the template, with its tokens. Rows without what it reads are left out, and told."""
    parts, missing, written = [], 0, 0
    for index, row in enumerate(rows, start=1):
        read = row
        if content_field != "content" and row.get(content_field) is not None:
            read = Row(row.document_id, row.score, {**row.fields, "content": row.get(content_field)}, row.stored)
        context = {"INDEX": index, "index": index, "CITATION": cite(index, row) if cite else f"[{index}]"}
        try:
            text = str(host.fill(template, read, context=context, index=index))
        except InvalidRequest as error:
            if error.error_code in OF_THE_REQUEST:
                raise
            missing += 1
            host.warn(error.message)
            continue
        written += len(text)
        check_written(written)
        parts.append(Part(index=index, row=row, text=text, tokens=(await host.cut(tokenizer, text))[1]))
    if missing:
        host.tell("left_out", missing)
    return parts


async def fitted(
    host: Host, parts: list[Part], tokenizer: str, budget: int, separator: int, strategy: Strategy
) -> list[Part]:
    """The parts that fit into so many tokens, with `separator` tokens between two."""
    if strategy == "proportional":
        share = (budget - separator * (len(parts) - 1)) // max(len(parts), 1)
        cut = [await _cut(host, part, tokenizer, share) for part in parts]
        return [part for part in cut if part.text]
    kept: list[Part] = []
    left = budget
    for part in parts:
        left -= separator if kept else 0
        if part.tokens > left:
            if strategy == "priority_truncate" and (cut_part := await _cut(host, part, tokenizer, left)).text:
                kept.append(cut_part)
            break
        kept.append(part)
        left -= part.tokens
    return kept


async def _cut(host: Host, part: Part, tokenizer: str, most: int) -> Part:
    if part.tokens <= most:
        return part
    text, tokens = await host.cut(tokenizer, part.text, max(most, 0))
    return Part(index=part.index, row=part.row, text=text.rstrip(), tokens=tokens, truncated=True)
