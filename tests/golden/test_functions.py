"""Each golden pipeline as a SQL function answers the rows, scores and order of the API, under each strategy."""

import copy
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from app.db.engine import transaction
from app.domain.background import requested
from app.domain.catalog.namespaces import load_catalog
from app.domain.retrieving import functions, retrievers
from app.domain.retrieving.execution import Execution, run
from app.domain.retrieving.functions import Deployed, Function
from app.domain.runtime import Runtime
from app.retrieval.function_plan import STRATEGIES
from app.telemetry import Timings
from tests.functions import call_of
from tests.golden.test_golden import CASES, NAMESPACE, runtime

__all__ = ["runtime"]


async def published(runtime: Runtime, name: str, definition: dict[str, Any]) -> Function:
    async with transaction(runtime.engine, runtime.settings) as conn:
        stored = await retrievers.put(conn, NAMESPACE, name, definition, runtime.limits)
        catalog = await load_catalog(conn, NAMESPACE)
        deployed = Deployed(runtime.limits, runtime.settings.hnsw_ef_search)
        return await functions.publish(conn, catalog, stored.retriever_id, None, deployed)


def as_json(fields: Any) -> Any:
    return json.loads(fields) if isinstance(fields, str) else fields


async def called(runtime: Runtime, url: str, call: sql.Composed) -> list[tuple[Any, ...]]:
    """The rows; where a text is not embedded yet, what the error's hint says is done."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        try:
            return await (await conn.execute(call)).fetchall()
        except psycopg.Error as error:
            if error.sqlstate != "PR001":
                raise
            hint = str(error.diag.message_hint).replace(", wait => '30 s'", "")
        await conn.execute(hint.encode())
        await answer_all(runtime)
        return await (await conn.execute(call)).fetchall()


async def answer_all(runtime: Runtime) -> None:
    """What a worker would do."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        rows = await conn.execute(sa.text("SELECT service, task, input_hash FROM pgretrieve.embedding_requests"))
        asked = [tuple(row) for row in rows]
    for service, task, input_hash in asked:
        await requested.answer(runtime, service, task, bytes(input_hash), last=True)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_the_function_answers_as_the_api_does(path: Path, runtime: Runtime, conninfo: str) -> None:
    case = copy.deepcopy(CASES[path])
    definition, inputs = {"stages": case["stages"]}, case.get("inputs", {})
    if case.get("filters"):  # what a request brings has its place in the stage
        definition["stages"][0]["config"]["pre_filters"] = case["filters"]
    function = await published(runtime, f"{path.parent.name} {path.stem}", definition)
    outcome = await run(runtime, NAMESPACE, function.retriever_id, Execution(inputs), Timings())
    fields = [
        as_json(row[4] if changed is None else changed)
        for row, changed in zip(outcome.ran.hits, outcome.ran.fields, strict=True)
    ]
    expected = [(hit[0], hit[1], hit[2], each) for hit, each in zip(outcome.ran.hits, fields, strict=True)]
    for strategy in STRATEGIES:
        call = call_of(NAMESPACE, function.function_name, function.parameters, inputs, strategy=strategy)
        rows = await called(runtime, conninfo, call)
        assert [(row[0], row[1], row[2], row[4]) for row in rows] == expected, strategy
    assert [row[1] for row in expected] == case["documents"]
