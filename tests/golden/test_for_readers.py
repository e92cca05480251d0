"""Every golden case as a principal runs it who may read half of the documents: nothing of the others is answered."""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from app.db.engine import transaction
from app.domain.retrieving import planning, retrievers
from app.domain.retrieving.execution import Execution, Outcome, run
from app.domain.runtime import Runtime
from app.domain.security import access
from app.domain.security.access import Principal
from app.errors import InvalidRequest
from app.retrieval.strategy import Choice, Way
from app.telemetry import Timings
from tests.golden.test_golden import CASES, NAMESPACE, runtime

__all__ = ["runtime"]  # a fixture

# Of d00 to d11 the odd ones, which are the blue ones.
HIDDEN = re.compile(r"\bd(01|03|05|07|09|11)\b|\bThing (1|3|5|7|9|11)\b|\bblue\b")
WAYS = [None, Way("exact"), Way("hnsw_iterative", 2, 256), Way("hnsw")]


@pytest.fixture(scope="module")
async def halved(runtime: Runtime) -> Runtime:
    """Half of the documents are anna's, the others are somebody else's."""
    odd = "payload ->> 'color' = 'blue'"
    async with transaction(runtime.engine, runtime.settings) as conn:
        change = (
            f"UPDATE {NAMESPACE}.documents SET readers = CASE WHEN {odd} THEN '{{ben}}'::text[] ELSE '{{anna}}' END"
        )
        await conn.execute(sa.text(change))
    return runtime


async def as_anna(runtime: Runtime, name: str, wanted: Execution) -> Outcome:
    access.enter(Principal("k", frozenset({"read"}), principal_id="anna"))
    return await run(runtime, NAMESPACE, name, wanted, Timings())


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_nothing_hidden_is_in_the_answer(
    path: Path, way: Way | None, halved: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Any = CASES[path]
    if way is not None:
        monkeypatch.setattr(planning, "choose", lambda *_, **__: Choice(way))
    async with transaction(halved.engine, halved.settings) as conn:
        await retrievers.put(conn, NAMESPACE, path.stem, {"stages": case["stages"]}, halved.limits)
    wanted = Execution(case.get("inputs", {}), case.get("filters"))
    try:
        outcome = await asyncio.create_task(as_anna(halved, path.stem, wanted))
    except InvalidRequest as error:
        assert [problem.code for problem in error.problems] == ["no_query_document"]
        return
    told = [stage.told for stage in outcome.ran.stages]
    assert HIDDEN.search(msgspec.json.encode([outcome.documents, told]).decode()) is None
