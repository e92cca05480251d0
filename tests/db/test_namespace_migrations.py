"""Changes of every namespace's schema: in batches, killed and gone on with, by several at once, beside a service."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from app import service
from app.db import namespace_migrations
from app.db.engine import create_engine, transaction
from app.db.namespace_migrations import Step, run, steps_in
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.errors import Unavailable
from app.settings import Settings
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.state import blocked, kill

# Neither can be done twice, so that whatever is, fails.
STEPS = {
    "0101_note.sql": "ALTER TABLE documents ADD COLUMN note text; -- 100 %",
    "0102_comment.sql": "ALTER TABLE documents ADD CONSTRAINT short CHECK (length(note) < 10);",
    "README": "not a step",
}
CHILD = """
import sys; from pathlib import Path
from app.db.namespace_migrations import run, steps_in
run(sys.argv[1], steps_in(Path(sys.argv[2])), batch=5)
"""
BATCH = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in STEPS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


async def many(url: str, settings: Settings, count: int) -> None:
    engine = create_engine(url, settings)
    for first in range(0, count, 100):
        async with transaction(engine, settings) as conn:
            for n in range(first, min(first + 100, count)):
                vector = NewVector("v", 3)
                await namespaces.create(conn, settings, mode="standalone", namespace_id=f"n{n:05}", vectors=[vector])
    await engine.dispose()


@pytest.fixture
async def fifty(fresh_database: Callable[[], str], settings: Settings) -> AsyncIterator[str]:
    url = fresh_database()
    await many(url, settings, 50)
    yield url


def changed(url: str) -> list[str]:
    """The namespaces that say they are changed, which are those that are."""
    with psycopg.connect(url) as conn:
        said = conn.execute("SELECT schema_name FROM pgretrieve.namespaces WHERE schema_revision = 102 ORDER BY 1")
        found = conn.execute(
            "SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_constraint ON conrelid = attrelid"
            " WHERE attname = 'note' AND conname = 'short' ORDER BY 1"
        )
        names = [str(name) for (name,) in said]
        assert [str(table).removesuffix(".documents") for (table,) in found] == names
        return names


async def killed_at(url: str, folder: Path, namespace: str) -> None:
    """Kill a migrator as it waits for a namespace."""
    with psycopg.connect(url) as holder:
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(namespace, "documents")))
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, url, str(folder))
        pids = await blocked(url, holder.info.backend_pid)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        kill(url, *pids)  # PostgreSQL would see it as soon as the lock is given, or refused


async def test_a_killed_migration_goes_on_where_it_was(fifty: str, folder: Path, settings: Settings) -> None:
    await killed_at(fifty, folder, "n00022")
    assert changed(fifty) == [f"n{n:05}" for n in range(20)], "whole batches, and nothing of the one that was killed"
    told: list[tuple[int, int]] = []
    assert run(fifty, steps_in(folder), batch=BATCH, progress=lambda *now: told.append(now)) == 30
    assert told == [(done, 30) for done in range(5, 31, 5)]
    assert changed(fifty) == [f"n{n:05}" for n in range(50)]
    assert run(fifty, steps_in(folder)) == 0


async def test_both_forms_are_served_meanwhile(fifty: str, folder: Path, settings: Settings) -> None:
    await killed_at(fifty, folder, "n00022")
    with (
        service.in_background(settings, fifty, ROOT_KEY) as base,
        httpx.Client(base_url=f"{base}/v1", timeout=30) as http,
    ):
        old, new = Api(http, "n00049"), Api(http, "n00000")
        for api in (old, new):
            api.upsert([document("a", {"v": [1, 2, 3]})])
            api.retriever("near", feature_search(search("v", "{{INPUT.v}}")))
            assert api.ids("near", inputs={"v": [1, 2, 3]}) == ["a"]
        assert run(fifty, steps_in(folder)) == 30
        for api in (old, new):
            api.upsert([document("b", {"v": [3, 2, 1]})])
            assert api.ids("near", inputs={"v": [1, 2, 3]}) == ["a", "b"]


async def test_several_migrators_share_the_work(fifty: str, folder: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        steps = steps_in(folder)
        counts = list(pool.map(lambda _: run(fifty, steps, batch=BATCH), range(3)))
    assert sum(counts) == 50
    assert len(changed(fifty)) == 50


async def test_a_namespace_that_is_held_is_passed_over_and_told(
    fifty: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace_migrations, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(namespace_migrations, "ROUNDS", 2)
    with psycopg.connect(fifty) as holder:
        holder.execute("SELECT count(*) FROM n00007.documents")
        with pytest.raises(Unavailable, match="1 namespaces are held"):
            run(fifty, steps_in(folder))
    assert len(changed(fifty)) == 49
    assert run(fifty, steps_in(folder)) == 1


async def test_a_step_that_fails_leaves_the_batches_before_it(fifty: str, folder: Path) -> None:
    with psycopg.connect(fifty) as conn:
        conn.execute("ALTER TABLE n00013.documents ADD COLUMN note text")
    with pytest.raises(psycopg.errors.DuplicateColumn):
        run(fifty, steps_in(folder), batch=BATCH)
    with psycopg.connect(fifty) as conn:
        conn.execute("ALTER TABLE n00013.documents DROP COLUMN note")
    assert len(changed(fifty)) == 10
    assert run(fifty, steps_in(folder)) == 40


async def test_a_new_namespace_has_the_newest_form(
    fresh_database: Callable[[], str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_database()
    monkeypatch.setattr(namespace_migrations, "shipped", lambda: (Step(101, ""), Step(102, "")))
    await many(url, settings, 1)
    assert run(url) == 0


@pytest.mark.campaign
async def test_thousands(fresh_database: Callable[[], str], settings: Settings, folder: Path) -> None:
    url = fresh_database()
    await many(url, settings, 2_000)
    for place in ("n00333", "n01001", "n01777"):
        await killed_at(url, folder, place)
    before = len(changed(url))
    assert before == 1_775
    assert run(url, steps_in(folder)) == 2_000 - before
    assert len(changed(url)) == 2_000
