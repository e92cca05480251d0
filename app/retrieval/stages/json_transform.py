"""Makes each document anew by a template that renders to JSON."""

from typing import Any, ClassVar

import msgspec

from app.errors import InvalidRequest, Problem
from app.retrieval.host import Host, Row
from app.retrieval.stages.base import Check, HostStage, StageType
from app.retrieval.stages.hosted import OF_THE_REQUEST, check_text, check_written

DEFAULT = '{"id": "{{ DOC.document_id }}", "content": {{ DOC.content | tojson }}, "score": {{ DOC.score }}}'
MAX_TOLD = 20


class JsonTransform(HostStage, frozen=True, kw_only=True):
    """Replace each document's fields by the JSON object that `template` renders to.

    The template may read DOC (the fields, `document_id`, `score`, `collection_id`, `metadata`), INPUT, CONTEXT and
    STAGE; write texts as `{{ DOC.title | tojson }}`, which brings its own quotes. A document whose template fails or
    renders to no JSON object is left out, with a warning and its reason in the metadata; `fail_on_error` refuses
    instead. The document keeps its id, its score and its stored payload.
    """

    stage_id: ClassVar[str] = "json_transform"
    stage_type: ClassVar[StageType] = "apply"
    category: ClassVar[str] = "apply"
    icon: ClassVar[str] = "braces"
    use_cases: ClassVar[tuple[str, ...]] = ("The shape that a client wants", "Rename, nest or drop fields")
    example: ClassVar[dict[str, Any]] = {
        "template": '{"id": {{ DOC.document_id|tojson }}, "t": {{ DOC.title|tojson }}}'
    }
    scopes: ClassVar[frozenset[str]] = frozenset({"doc", "context", "stage"})
    defaults: ClassVar[dict[str, Any]] = {"template": DEFAULT}

    template: Any = None
    fail_on_error: bool = False

    def check(self, check: Check) -> None:
        check_text(check, "template", self.template)

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        made, failed, written = [], dict[str, str](), 0
        for row in rows:
            try:
                rendered = host.fill(self.template, row)
                written += len(rendered) if isinstance(rendered, str) else 0
                check_written(written)
                row.fields = _object(rendered)
            except InvalidRequest as error:
                if self.fail_on_error or error.error_code in OF_THE_REQUEST:
                    raise
                failed[row.document_id] = error.message
            else:
                made.append(row)
        if failed:
            host.tell("failed", dict(list(failed.items())[:MAX_TOLD]))
            why = next(iter(failed.values()))
            host.warn(f"json_transform left out {len(failed)} of {len(rows)} documents, the first because: {why}")
        return made


def _object(rendered: Any) -> dict[str, Any]:
    """The JSON object of a template's text; a template that is one expression may give it as it is."""
    try:
        value = msgspec.json.decode(rendered) if isinstance(rendered, str) else rendered
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refused(f"it renders to no JSON ({error})") from None
    if not isinstance(value, dict):
        raise _refused("it does not render to a JSON object")
    return value


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest([Problem(("body", "stages"), "bad_json", f"The template of json_transform: {why}.")])
