"""Cut-overs that are forced while the index of the new model is being built."""

from typing import Any

import pytest

from app.db.ddl import create_index_concurrently
from app.domain.indexing import index_builds, index_repair
from app.domain.models import migrating
from app.jobs.tasks import connecting
from tests.migrating import Place


@pytest.mark.parametrize("begun", [False, True])
async def test_an_index_whose_build_a_forced_cut_over_meets_is_built_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    migration_id = await place.start()
    await migrating.advance(place.runtime, migration_id)
    found = await place.find(migration_id)
    assert found.state == "comparing"
    async with place.transaction() as conn:
        task_id = (await index_repair.open_builds(conn, place.name))[found.shadow]

    async def build(name: str, task_id: str) -> None:
        async with connecting(place.url, place.runtime.settings) as conn:
            await index_builds.run(place.runtime, conn, place.name, name, task_id, last=True)

    async def cut_over_within_the_build(*arguments: Any) -> None:
        await create_index_concurrently(*arguments)
        await place.cut_over(migration_id, force=True)

    if begun:
        with monkeypatch.context() as patch:
            patch.setattr(index_builds, "create_index_concurrently", cut_over_within_the_build)
            await build(found.shadow, task_id)
    else:
        await place.cut_over(migration_id, force=True)
        await build(found.shadow, task_id)
    async with place.transaction() as conn:
        (anew,) = (await index_repair.open_builds(conn, place.name)).values()
    await build("text", anew)
    catalog = await place.catalog()
    assert [config.index_state for config in catalog.every_config] == ["ready", "ready"]
    indexed = """SELECT pg_get_indexdef(c.oid), i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s"""
    ((definition, valid),) = place.query(indexed, catalog.vector_configs[0].index_name)
    assert valid
    assert f"({catalog.vector_configs[0].column} " in definition
