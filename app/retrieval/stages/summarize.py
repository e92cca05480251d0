"""Makes one text of all rows, or of each group of them, by a language model."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from app.retrieval.host import Completion, Host, Row
from app.retrieval.stages.base import Check, StageType
from app.retrieval.stages.hosted import CONCURRENCY, ModelStage, check_text, given
from app.retrieval.stages.llm_enrich import check_schema
from app.retrieval.stages.rag_prepare import Strategy, fitted, formatted
from app.retrieval.templates import scope_names

TOKENIZER = "cl100k_base"
MAX_GROUPS = 50
STRATEGIES: dict[str, Strategy] = {
    "drop_last": "drop_last",
    "truncate_each": "proportional",
    "smart": "priority_truncate",
}


class Summarize(ModelStage, frozen=True, kw_only=True):
    """Replace the documents by a language model's answer about them: one, or one for each value of `group_by`.

    `prompt` must read DOCUMENTS, and may read DOC_COUNT, GROUP_VALUE, INPUT and CONTEXT. Each document is written by
    `document_template`, which may read INDEX and DOC; `DOC.content` is the field that `content_field` names. With
    `max_input_tokens` (of cl100k_base) the documents are cut: `drop_last` takes whole ones while they fit,
    `truncate_each` gives each the same share, `smart` cuts the last that fits in part. With `output_schema` the answer
    is JSON of that shape. The answer's fields are `output_field`, `source_document_ids` (`include_sources`), and
    `document_count` and `tokens_used` (`include_metadata`). At most 50 groups, in the order of their first document.
    """

    stage_id: ClassVar[str] = "summarize"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "text-quote"
    use_cases: ClassVar[tuple[str, ...]] = ("An answer from the hits", "A summary of each category")
    example: ClassVar[dict[str, Any]] = {
        "prompt": "Answer {{INPUT.query}} from these:\n\n{{DOCUMENTS}}",
        "content_field": "description",
    }
    scopes: ClassVar[frozenset[str]] = frozenset(
        {"doc", "context", "stage", "documents", "doc_count", "group_value", "index", "secret"}
    )
    aliases: ClassVar[dict[str, str]] = {"model": "model_name"}
    defaults: ClassVar[dict[str, Any]] = {
        "prompt": "Summarize the following {{DOC_COUNT}} documents concisely:\n\n{{DOCUMENTS}}",
        "document_template": "[{{INDEX}}] {{DOC.content}}\n",
    }

    prompt: Any = None
    model_name: str | None = None
    document_template: Any = None
    content_field: str = "content"
    group_by: str | None = None
    output_field: str = "summary"
    include_sources: bool = True
    include_metadata: bool = True
    max_input_tokens: Annotated[int, msgspec.Meta(ge=100, le=128_000)] | None = None
    truncation_strategy: Literal["drop_last", "truncate_each", "smart"] = "drop_last"
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.3
    max_output_tokens: Annotated[int, msgspec.Meta(ge=10, le=16_000)] = 1_024
    output_schema: dict[str, Any] | None = None

    def check(self, check: Check) -> None:
        self.check_model(check)
        check_text(check, "prompt", self.prompt)
        check_text(check, "document_template", self.document_template)
        if "documents" not in scope_names(self.prompt):
            check.add("bad_parameter", "prompt must read {{DOCUMENTS}}.", "prompt")
        if "doc" in scope_names(self.prompt):
            check.add("bad_parameter", "prompt reads DOCUMENTS; DOC is for document_template.", "prompt")
        check.field("content_field", self.content_field)
        check.output("output_field", self.output_field)
        if given(self.group_by):
            check.output("group_by", self.group_by)
        check_schema(check, "output_schema", self.output_schema)

    def most_rows(self) -> int | None:
        return MAX_GROUPS if given(self.group_by) else 1

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        if not rows:
            return []
        groups = list(self._groups(rows, host).values())

        async def summarized(group: tuple[Any, list[Row]]) -> Row:
            return await self._summary(*group, host)

        made = await host.each(summarized, groups, concurrency=CONCURRENCY)
        for each in made:
            if isinstance(each, Exception):
                raise each
        return [row for row in made if isinstance(row, Row)]

    def _groups(self, rows: list[Row], host: Host) -> dict[str, tuple[Any, list[Row]]]:
        """The rows by the group's value, as text; those past the last group that is allowed are told."""
        path = given(self.group_by)
        if path is None:
            return {"": (None, rows)}
        groups: dict[str, tuple[Any, list[Row]]] = {}
        for row in rows:
            groups.setdefault(row.text(path), (row.get(path), []))[1].append(row)
        if len(groups) > MAX_GROUPS:
            host.warn(f"summarize made {MAX_GROUPS} of {len(groups)} groups: those whose documents came first.")
        return dict(list(groups.items())[:MAX_GROUPS])

    async def _summary(self, value: Any, rows: list[Row], host: Host) -> Row:
        parts = await formatted(host, rows, self.document_template, self.content_field, TOKENIZER)
        if self.max_input_tokens is not None:
            kept = await fitted(host, parts, TOKENIZER, self.max_input_tokens, 0, STRATEGIES[self.truncation_strategy])
            if len(kept) < len(parts) or any(part.truncated for part in kept):
                host.warn(f"summarize cut {len(parts)} documents to {self.max_input_tokens:,} tokens.")
                host.tell("input_truncation", {"documents": len(parts), "included": len(kept)})
            parts = kept
        documents = "".join(part.text for part in parts)
        text = host.fill(self.prompt, documents=documents, doc_count=len(parts), group_value=value)
        answer = await host.chat(
            self.asking(
                host,
                text,
                self.model_name,
                temperature=self.temperature,
                max_tokens=self.max_output_tokens,
                schema=self.output_schema,
            )
        )
        return self._row(value, [part.row for part in parts], answer)

    def _row(self, value: Any, rows: list[Row], answer: Completion) -> Row:
        path = given(self.group_by)
        made = Row("summary" if path is None else f"summary:{value}", None)
        if path is not None:
            made.put(path, value)
        made.put(self.output_field, answer.text if self.output_schema is None else answer.value)
        if self.include_sources:
            made.put("source_document_ids", [row.document_id for row in rows])
        if self.include_metadata:
            made.put("document_count", len(rows))
            made.put("tokens_used", answer.input_tokens + answer.output_tokens)
        if answer.cut:
            made.put("truncated", True)
        return made
