"""The planner of filtered search at work: answers are complete, what is told is true, what is warm is not asked."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql

from app.db.engine import connection, create_engine, raw, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.indexing.payload_indexes import PayloadIndex
from app.domain.retrieving import execution, planning, retrievers
from app.domain.retrieving.execution import Execution
from app.domain.retrieving.planning import Wishes
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.retrieval import strategy
from app.settings import Settings
from app.telemetry import Timings
from tests import servers
from tests.http import feature_search, search, stage

NAME, COUNT, K = "planned", 2_000, 10
Vectors = NDArray[np.float64]


@dataclass
class Place:
    """A namespace of 2,000 vectors around a circle; `near` says how far along it a document is."""

    runtime: Runtime
    vectors: Vectors
    statements: list[str] = field(default_factory=list)

    async def retriever(self, name: str, *stages: dict[str, Any]) -> None:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            await retrievers.put(conn, NAME, name, {"stages": list(stages)}, self.runtime.limits)

    async def execute(self, name: str = "r", **wanted: Any) -> tuple[list[str], dict[str, Any]]:
        """The documents' ids, and what is told of the one search."""
        inputs = {"v": self.vectors[0].tolist(), **wanted.pop("inputs", {})}
        outcome = await execution.run(self.runtime, NAME, name, Execution(inputs, **wanted), Timings())
        (told,) = outcome.ran.stages[0].told["searches"]
        return [hit["document_id"] for hit in outcome.documents], told


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    turn = np.linspace(0, np.pi, COUNT)
    return np.stack([np.cos(turn), np.sin(turn), np.zeros(COUNT)], axis=1)


@pytest.fixture
async def place(
    fresh_database: Callable[[], str], settings: Settings, vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setattr(strategy, "CANDIDATE", 0.1)  # so that few documents are many
    url = fresh_database()
    with psycopg.connect(url, autocommit=True) as admin:
        database = sql.Identifier(servers.database_of(url))
        admin.execute(sql.SQL("ALTER DATABASE {} SET enable_seqscan = off").format(database))
    engine = create_engine(url, settings)
    made = Place(Runtime(settings, engine, Inference({}, settings)), vectors)
    far = [PayloadIndex("far", "integer")]
    async with transaction(engine, settings) as conn:
        catalog = await namespaces.create_standalone(
            conn, settings, namespace_id=NAME, vectors=[NewVector("v", 3)], payload_indexes=far
        )
    for first in range(0, COUNT, 1_000):
        new = [
            Document(
                f"d{n:04}", {"v": vectors[n].tolist()}, b'{"place": %d, "far": %d, "even": %d}' % (n, n, n % 2 == 0)
            )
            for n in range(first, first + 1_000)
        ]
        async with transaction(engine, settings) as conn:
            await documents.upsert(conn, catalog, new, settings)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("ANALYZE {}.documents").format(sql.Identifier(catalog.schema)))
    execute = psycopg.AsyncConnection.execute

    async def noted(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        made.statements.append(query.decode() if isinstance(query, bytes) else str(query))
        return await execute(self, query, *args, **more)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", noted)
    near = {"field": "place", "operator": "gte", "value": "{{INPUT.from}}"}
    await made.retriever("r", feature_search(search("v", "{{INPUT.v}}", top_k=K, filters=near), final_top_k=K))
    served = near | {"field": "far"}
    await made.retriever("served", feature_search(search("v", "{{INPUT.v}}", top_k=K, filters=served), final_top_k=K))
    await made.retriever("all", feature_search(search("v", "{{INPUT.v}}", top_k=K), final_top_k=K))
    yield made
    await engine.dispose()


def first(count: int, start: int = 0) -> list[str]:
    return [f"d{n:04}" for n in range(start, start + count)]


async def test_without_a_filter_the_index_answers(place: Place) -> None:
    ids, told = await place.execute("all")
    assert ids == first(K)
    assert told == {"search": 1, "index": "v", "asked": K, "returned": K, "plan": "hnsw"}


async def test_where_iteration_gives_up_the_same_statement_searches_exactly(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter keeps what lies farthest from the query: the index would have to be read to its end."""
    monkeypatch.setattr(strategy, "LEAST_SCAN", 64)
    monkeypatch.setattr(strategy, "MOST_SCAN", 64)
    for _ in range(3):
        ids, told = await place.execute(inputs={"from": 1_500})
        assert ids == first(K, 1_500)
        assert (told["plan"], told["returned"], told["exhausted"]) == ("hnsw_iterative", K, True)


async def test_a_filter_with_which_most_iterations_give_up_is_searched_exactly_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategy, "LEAST_SCAN", 64)
    monkeypatch.setattr(strategy, "MOST_SCAN", 64)
    near, far = place.vectors[1_600].tolist(), place.vectors[0].tolist()

    async def plan_of(vector: list[float]) -> str:
        ids, told = await place.execute(inputs={"from": 1_500, "v": vector})
        assert len(ids) == K
        return str(told["plan"])

    for _ in range(20):  # every second one gives up: not more than half
        assert [await plan_of(near), await plan_of(far)] == ["hnsw_iterative"] * 2
    plans = [await plan_of(far) for _ in range(10)]
    assert plans == sorted(plans, reverse=True)
    assert (plans[0], plans[-1]) == ("hnsw_iterative", "exact")
    assert await plan_of(near) == "exact"


async def test_iteration_that_finds_enough_is_all_that_runs(place: Place) -> None:
    ids, told = await place.execute(inputs={"from": 20})
    assert ids == first(K, 20)
    assert (told["plan"], told["exhausted"]) == ("hnsw_iterative", False)


async def test_fewer_documents_than_asked_for_are_all_answered(place: Place) -> None:
    ids, told = await place.execute(inputs={"from": COUNT - 3})
    assert ids == first(3, COUNT - 3)
    assert (told["asked"], told["returned"]) == (K, 3)


async def test_wishes_of_a_request(place: Place) -> None:
    for wishes in (Wishes(exact=True), Wishes(recall_target=1.0)):
        ids, told = await place.execute(inputs={"from": 20}, wishes=wishes)
        assert (ids, told["plan"]) == (first(K, 20), "exact")
    _, told = await place.execute("all", wishes=Wishes(recall_target=0.5))
    assert told["plan"] == "hnsw"


@pytest.mark.parametrize("filters", [None, {"field": "even", "operator": "eq", "value": 1}])
async def test_a_warm_execution_is_one_statement_and_compiles_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, filters: Any
) -> None:
    for _ in range(2):
        await place.execute(inputs={"from": 100}, filters=filters)
    compiled: list[Any] = []
    monkeypatch.setattr(planning, "compile_plan", lambda *args, **more: compiled.append(args))
    place.statements.clear()
    ids, _ = await place.execute(inputs={"from": 100}, filters=filters)
    assert ids == [name for name in first(2 * K, 100) if filters is None or int(name[1:]) % 2 == 0][:K]
    assert compiled == []
    kinds = [text.split()[0] for text in place.statements]
    assert kinds == ["SELECT", "WITH", "COMMIT"]  # the settings, the search, the end: one round trip
    assert place.statements[0].startswith("SELECT set_config")


async def test_another_value_is_estimated_and_compiles_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (1, 2):
        await place.execute(inputs={"from": 100}, filters={"even": value % 2})
    monkeypatch.setattr(planning, "compile_plan", None)
    place.statements.clear()
    await place.execute(inputs={"from": 101}, filters={"even": 1})
    assert [text.split()[0] for text in place.statements if text != "COMMIT"] == ["SELECT", "EXPLAIN", "SELECT", "WITH"]


async def test_each_search_of_a_statement_has_its_own_plan(place: Place) -> None:
    rare = {"field": "place", "operator": "lt", "value": 4}
    both = (search("v", "{{INPUT.v}}", top_k=K), search("v", "{{INPUT.v}}", top_k=K, filters=rare))
    await place.retriever("both", feature_search(*both, final_top_k=K), stage("limit", limit=5))
    outcome = await execution.run(place.runtime, NAME, "both", Execution({"v": place.vectors[0].tolist()}), Timings())
    assert [told["returned"] for told in outcome.ran.stages[0].told["searches"]] == [K, 4]
    assert [hit["document_id"] for hit in outcome.documents] == first(5)


async def test_where_the_index_answers_postgresql_plans_once(place: Place) -> None:
    """What has another good plan for other values is planned for each: exact searches, and filters without an index."""
    for _ in range(8):
        await place.execute("all")
        await place.execute("all", wishes=Wishes(exact=True))
        await place.execute(inputs={"from": 20})
        assert (await place.execute("served", inputs={"from": 1_500}))[0] == first(K, 1_500)
    query = (
        "SELECT statement, generic_plans > 0, custom_plans > 0 FROM pg_prepared_statements WHERE statement ~ '^WITH'"
    )
    async with connection(place.runtime.engine) as conn:
        kept = await (await (await raw(conn)).execute(query)).fetchall()
    plans = {_kind(text): planned for text, *planned in kept}
    assert plans == {"hnsw": [True, False], "exact": [False, True], "place": [False, True], "far": [True, False]}


def _kind(statement: str) -> str:
    if "s1_near_1" not in statement:
        return "exact"
    return "hnsw" if "s1_rest_1" not in statement else "far" if '$."far"' in statement else "place"
