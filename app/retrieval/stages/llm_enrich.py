"""Writes what a language model makes of each document into a field of it."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from app.errors import InvalidRequest, Problem
from app.retrieval.host import Host, Prompt, Row
from app.retrieval.stages.base import Check, StageType
from app.retrieval.stages.hosted import ModelStage, check_text, check_when, chosen, done

DEFAULT_PROMPT = "Summarize the following content in 2-3 sentences: {{DOC.content}}"
MAX_SCHEMA_BYTES = 20_000


class LlmEnrich(ModelStage, frozen=True, kw_only=True):
    """Ask a language model about each document, and keep the answer in `output_field`.

    `prompt` may read DOC, INPUT and CONTEXT. With `schema` (JSON Schema) the answer is JSON of that shape, else a text.
    `when` is a filter: documents that it does not keep pass unchanged, and cost nothing. One call a document;
    `batch_size` is accepted and has no effect. `multimodal_inputs` names inputs that are images (URLs or data URIs).
    A document whose call fails passes unchanged and is counted in `failed`; the stage fails where all do. What it
    cost stands in the metadata under `llm`.
    """

    stage_id: ClassVar[str] = "llm_enrich"
    stage_type: ClassVar[StageType] = "enrich"
    category: ClassVar[str] = "enrich"
    icon: ClassVar[str] = "sparkles"
    use_cases: ClassVar[tuple[str, ...]] = ("Summaries and translations of hits", "Entities and labels as JSON")
    example: ClassVar[dict[str, Any]] = {
        "prompt": "Translate to German: {{DOC.title}}",
        "output_field": "title_de",
        "when": {"field": "language", "operator": "eq", "value": "en"},
    }
    scopes: ClassVar[frozenset[str]] = frozenset({"doc", "context", "stage", "secret"})
    defaults: ClassVar[dict[str, Any]] = {"prompt": DEFAULT_PROMPT}
    not_offered: ClassVar[frozenset[str]] = frozenset({"feature_uri", "inference_name", "thinking_level"})
    aliases: ClassVar[dict[str, str]] = {"model": "model_name", "output_schema": "schema"}

    prompt: Any = None
    model_name: str | None = None
    output_field: str = "summary"
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=25)] = 5
    schema: dict[str, Any] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=100, le=16_000)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    multimodal_inputs: dict[str, Literal["image", "video"]] | None = None
    use_vcache: bool = False
    when: Any = None

    def check(self, check: Check) -> None:
        self.check_model(check)
        check_text(check, "prompt", self.prompt)
        check.output("output_field", self.output_field)
        check_when(check, self.when)
        check_schema(check, "schema", self.schema)
        if "video" in (self.multimodal_inputs or {}).values():
            check.add("not_offered", "Videos are not offered: images only.", "multimodal_inputs")
        if self.use_vcache:
            check.add("not_offered", "use_vcache is not offered: answers are not kept.", "use_vcache")

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        images = tuple(_image(host, name) for name in self.multimodal_inputs or {})

        async def asked(row: Row) -> Any:
            answer = await host.chat(self._prompt(host, row, images))
            return answer.text if self.schema is None else answer.value

        wanted = await chosen(self.when, rows, host)
        for row, answer in await done(asked, wanted, host, what="The language model"):
            row.put(self.output_field, answer)
        host.tell("enriched", len(wanted))
        return rows

    def _prompt(self, host: Host, row: Row, images: tuple[str, ...]) -> Prompt:
        return self.asking(
            host,
            host.fill(self.prompt, row),
            self.model_name,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            schema=self.schema,
            images=images,
        )


def check_schema(check: Check, name: str, schema: dict[str, Any] | None) -> None:
    if schema is not None and len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        check.add("out_of_range", f"{name} has at most {MAX_SCHEMA_BYTES:,} bytes.", name)


def _image(host: Host, name: str) -> str:
    value = host.inputs.get(name)
    if isinstance(value, str) and value.startswith(("https://", "http://", "data:image/")):
        return value
    message = f"The input {name!r} is an image: a URL, or a data URI that begins with data:image/."
    raise InvalidRequest([Problem(("body", "inputs", name), "bad_input", message)])
