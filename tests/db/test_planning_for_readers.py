"""What a principal may read is planned as a filter is: by the index, with iteration that gives up, or exactly."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import sql

from app.domain.security import access
from app.domain.security.access import Principal
from app.retrieval import strategy
from tests.db.test_planning import COUNT, NAME, K, Place, first, place, vectors

__all__ = ["place", "vectors"]  # fixtures


async def as_anna(place: Place, which: str) -> tuple[list[str], Any]:
    """What a key of that principal finds, where these documents are hers."""
    url = place.runtime.engine.url.render_as_string(hide_password=False)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        table = sql.Identifier(NAME, "documents")
        change = "UPDATE {} SET readers = CASE WHEN {} THEN '{{anna}}'::text[] ELSE '{{ben}}' END"
        admin.execute(sql.SQL(change).format(table, sql.SQL(which)))
        admin.execute(sql.SQL("ANALYZE {}").format(table))

    async def execute() -> tuple[list[str], Any]:
        access.enter(Principal("k", frozenset({"read"}), principal_id="anna"))
        return await place.execute("all")

    return await asyncio.create_task(execute())


async def test_half_of_the_documents_are_found_by_the_index(place: Place) -> None:
    ids, told = await as_anna(place, "(payload->>'even')::boolean")
    assert ids == first(2 * K)[::2]
    assert (told["plan"], told.get("exhausted")) == ("hnsw_iterative", False)


async def test_where_iteration_gives_up_the_rest_is_searched_exactly(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategy, "LEAST_SCAN", 64)
    monkeypatch.setattr(strategy, "MOST_SCAN", 64)
    ids, told = await as_anna(place, "(payload->>'place')::int >= 1500")
    assert ids == first(K, 1500)
    assert (told["plan"], told.get("exhausted")) == ("hnsw_iterative", True)


async def test_few_are_searched_exactly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "CANDIDATE", 20)
    ids, told = await as_anna(place, "(payload->>'place')::int % 100 = 0")
    assert ids == [f"d{n:04}" for n in range(0, COUNT, 100)][:K]
    assert told["plan"] == "exact"
