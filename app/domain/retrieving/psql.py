"""A retriever's statement as text that psql takes: with values as quoted literals, or with psql's own variables."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from app.db.engine import connection, raw
from app.db.statements import statement
from app.domain.inference.embedding import embed_one
from app.domain.retrieving import execution, planning
from app.domain.retrieving.execution import Execution
from app.domain.retrieving.formatting import PARAMETER, formatted, type_of
from app.domain.retrieving.planning import Request
from app.domain.runtime import Prepared, Runtime
from app.retrieval.executor import Page, fill_binds
from app.retrieval.pipeline import Pipeline
from app.retrieval.plan import Bind, Plan
from app.retrieval.templates import is_templated, unlift
from app.telemetry import Timings

TO_BE_SET = "set me"
PLACE = re.compile(r":([a-z]+)")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of psql: its name, its type, and what a request would put there."""

    name: str
    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    """The text; where it is not the whole pipeline, the first stage that it leaves out, and why."""

    sql: str | None
    complete: bool
    stops_before: str | None = None
    reason: str | None = None
    variables: list[Variable] = field(default_factory=list)


async def text_of(runtime: Runtime, namespace: str, retriever: str, wanted: Execution, *, variables: bool) -> Text:
    """The statement for this request; with `variables` for any, whose inputs are variables of psql.

    A pipeline with stages that run on the host has its statement up to the first of them.
    """
    prepared = await execution.fresh(runtime, namespace, retriever, wanted.version)
    request = _request(runtime, prepared, wanted, variables=variables)
    stops_before, reason = _rest(prepared.pipeline)
    if prepared.pipeline.segments[0].host is not None:
        return Text(None, False, stops_before, reason)
    if stops_before is not None:
        request = replace(request, page=Page(limit=runtime.limits.host_rows))
    if variables:
        plan = planning.compiled(runtime, prepared, request, 0)
        left = tuple(bind for bind in plan.binds if is_templated(bind.value))
        given = replace(plan, binds=tuple(bind for bind in plan.binds if bind not in left), embeds=())
        inputs: Mapping[str, Any] = {}
    else:
        planned = await planning.plan(runtime, prepared, request, 0, after_host=False, timings=Timings())
        plan, given, left, inputs = planned.plan, planned.plan, (), planned.inputs
    values = await fill_binds(given, inputs, partial(embed_one, runtime)) | request.page.binds()
    asked = [_variable(plan, bind) for bind in left]
    async with connection(runtime.engine) as conn:
        cursor = psycopg.AsyncClientCursor(await raw(conn))
        text = await asyncio.to_thread(_written, cursor, plan, values, asked, reason)
    return Text(text, stops_before is None, stops_before, reason, asked)


def _request(runtime: Runtime, prepared: Prepared, wanted: Execution, *, variables: bool) -> Request:
    of = execution.fingerprint_of(prepared, wanted)
    if not variables:
        return execution.requested(runtime, prepared, wanted, of)[0]
    request, _ = execution.requested(runtime, replace(prepared, input_schema={}), wanted, of)
    return replace(request, inputs=dict.fromkeys(prepared.pipeline.input_names))


def _rest(pipeline: Pipeline) -> tuple[str | None, str | None]:
    """The first stage that is not in the first statement, and why."""
    first, *rest = pipeline.segments
    if first.host is not None:
        name = first.steps[0].name
        return name, f"The stage {name!r} runs on the host, and no statement comes before it."
    if not rest:
        return None, None
    name = rest[0].steps[0].name
    if rest[0].host is not None:
        return name, f"The stage {name!r} runs on the host: this is the statement of the stages before it."
    before = first.steps[-1].name
    return name, f"The rows of {before!r} have an output_alias: what comes after it is a statement of its own."


def _variable(plan: Plan, bind: Bind) -> Variable:
    value = unlift(bind.value)
    embed = next((embed for embed in plan.embeds if embed.bind == bind.name), None)
    if embed is not None:
        value = f"what the service {embed.service!r} makes of {value}"
    return Variable(bind.name, type_of(plan.text, bind.name), value)


def _written(
    cursor: psycopg.AsyncClientCursor[Any],
    plan: Plan,
    values: Mapping[str, Any],
    variables: Sequence[Variable],
    note: str | None,
) -> str:
    """The whole text. Every value is quoted by the driver; what comments say is JSON, and so has no line's end."""
    names = {variable.name for variable in variables}
    text = formatted(_template("psql_rows", statement=plan.text))
    text = PARAMETER.sub(lambda found: f":'{found[1]}'" if found[1] in names else found[0], text)
    rows = cursor.mogrify(text, values)
    settings = [
        _template(
            "psql_setting",
            name=sql.Identifier(*name.split(".")).as_string(cursor),
            value=sql.Literal(value).as_string(cursor),
        )
        for name, value in plan.settings.items()
    ]
    lines = [f"-- {note}"] if note else []
    for variable in variables:
        told = msgspec.json.encode(variable.value).decode()
        lines += [f"-- {variable.name} ({variable.type}): {told}", f"\\set {variable.name} '{TO_BE_SET}'"]
    whole = _template("psql", settings="".join(f"{setting};\n" for setting in settings), rows=rows)
    return "\n".join([*lines, whole]) + ";\n"


def _template(named: str, **parts: str) -> str:
    """A statement of ours without its comment, with other texts in it."""
    text = statement(named).text.partition("\n")[2]
    return PLACE.sub(lambda found: parts[found[1]], text)
