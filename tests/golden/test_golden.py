"""Example programs: each pipeline compiles to its .sql file, word for word, and that statement finds its documents.

`UPDATE_GOLDEN=1 make test ARGS=tests/golden` writes the .sql files anew; read the diff before you commit it.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import create_engine, transaction
from app.domain.catalog import lexical, namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.promoting import promotion
from app.domain.promoting.promotion import Mapped, Promotion
from app.domain.retrieving import retrievers
from app.domain.retrieving.execution import Execution, run
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.retrieval.stages import REGISTRY
from app.retrieval.stages.base import SqlStage
from app.settings import Settings
from app.telemetry import Timings
from tests.fakes import FakeService, fake_vector

FOLDER = Path(__file__).parent / "cases"
CASES = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*/*.json"))}
NAMESPACE = "golden"


def wide(n: int, dimension: int) -> list[float]:
    """The n-th of twelve directions that turn away from the first one step by step."""
    vector = np.zeros(dimension)
    vector[0], vector[1 + n] = 12 - n, n
    return [float(x) for x in vector]


def golden_documents() -> list[Document]:
    """d00 to d11: d00 lies nearest to the first axis everywhere; prices fall, colours alternate, tags overlap."""
    found = []
    for n in range(12):
        payload: dict[str, Any] = {"color": "red" if n % 2 == 0 else "blue", "price": 120 - 10 * n}
        payload |= {"tags": ["all", f"t{n % 3}"], "name": f"Thing {n}", "maker": {"city": "Rome" if n < 6 else "Oslo"}}
        if n == 11:
            payload["price"] = None
        vectors: dict[str, Any] = {"v": wide(n, 16), "far": wide(n, 16), "half": wide(n, 2100), "bits": wide(n, 4100)}
        vectors["tokens"] = [wide(n, 16), wide(11 - n, 16)[::-1]]
        vectors["sparse"] = {"indices": [n, 15], "values": [1.0, 0.1 * (12 - n)]}
        vectors["filling"] = [12 - n, n, 0]
        vectors["text"] = fake_vector(f"text {n}", 8).tolist()
        found.append(Document(f"d{n:02}", vectors, json.dumps(payload).encode()))
    return found


@pytest.fixture(scope="module")
async def runtime(conninfo: str, settings: Settings) -> AsyncIterator[Runtime]:
    """A managed namespace with every kind of index, and a fake service for its text."""
    fake = Inference({"fake": FakeService("fake", 8)}, settings)
    engine: AsyncEngine = create_engine(conninfo, settings)
    made = Runtime(settings, engine, fake)
    vectors = [NewVector("v", 16), NewVector("far", 16, "euclidean"), NewVector("half", 2100, "dot")]
    vectors += [NewVector("bits", 4100), NewVector("text", 8), NewVector("tokens", 16, kind="multi")]
    vectors += [NewVector("sparse", 16, "dot", kind="sparse"), NewVector("filling", 3)]
    async with transaction(engine, settings) as conn:
        catalog = await namespaces.create_standalone(conn, settings, namespace_id=NAMESPACE, vectors=vectors)
        await documents.upsert(conn, catalog, golden_documents(), settings)
        await lexical.declare(conn, NAMESPACE, lexical.fields_of({"name": None}))
        services = {info.name: info for info in fake.infos()}
        mapping = Promotion([Mapped("text", "fake")])
        await promotion.promote(conn, NAMESPACE, mapping, services, settings, "test")
        await being_filled(conn)
    yield made
    async with transaction(engine, settings) as conn:
        await namespaces.delete(conn, NAMESPACE)
    await engine.dispose()


async def being_filled(conn: AsyncConnection) -> None:
    """As if a back-fill of the index `filling` had done 12 of 40 documents."""
    await conn.execute(
        sa.text("""INSERT INTO pgretrieve.tasks (task_id, namespace_id, kind, status, total, done, failed)
            VALUES ('task_golden', :name, 'backfill', 'IN_PROGRESS', 40, 12, 1)"""),
        {"name": NAMESPACE},
    )
    await conn.execute(sa.text("UPDATE pgretrieve.vector_configs SET filled_by = 'task_golden' WHERE name = 'filling'"))


async def test_a_search_tells_how_many_documents_are_missing_in_an_index_that_is_being_filled(runtime: Runtime) -> None:
    definition = {"stages": CASES[FOLDER / "feature_search" / "being_filled.json"]["stages"]}
    async with transaction(runtime.engine, runtime.settings) as conn:
        await retrievers.put(conn, NAMESPACE, "gap", definition, runtime.limits)
    outcome = await run(runtime, NAMESPACE, "gap", Execution({}), Timings())
    (search,) = outcome.ran.stages[0].told["searches"]
    assert (search["index"], search["returned"], search["missing"]) == ("filling", 3, 28)
    (said,) = outcome.warnings
    assert said.endswith("the index 'filling' is still being filled; about 28 documents are not in it yet.")


def expected_text(file: Path, found: str) -> str:
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(f"{found}\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_the_statement_is_the_expected_one_and_finds_the_expected_documents(path: Path, runtime: Runtime) -> None:
    case = CASES[path]
    definition = {"stages": case["stages"]}
    async with transaction(runtime.engine, runtime.settings) as conn:
        await retrievers.put(conn, NAMESPACE, path.stem, definition, runtime.limits)
    wanted = Execution(case.get("inputs", {}), case.get("filters"))
    outcome = await run(runtime, NAMESPACE, path.stem, wanted, Timings())
    assert outcome.ran.plans[0].text == expected_text(path.with_suffix(".sql"), outcome.ran.plans[0].text)
    assert [document["document_id"] for document in outcome.documents] == case["documents"]


def test_every_stage_has_golden_cases_and_a_docstring() -> None:
    in_sql = {stage_id for stage_id, stage in REGISTRY.items() if issubclass(stage, SqlStage)}
    assert {path.parent.name for path in CASES} == in_sql
    for stage in REGISTRY.values():
        assert stage.__doc__
        assert len(stage.__doc__) > 80
    assert {path.with_suffix(".sql") for path in CASES} == set(FOLDER.glob("*/*.sql"))
