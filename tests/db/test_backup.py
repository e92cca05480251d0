"""One namespace in a file and back: the same bits, the same answers, promoted as before, beside it or elsewhere."""

import asyncio
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import Result
from psycopg import sql

from app import service
from app.db.engine import create_engine
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs.worker import drain
from app.settings import Settings
from tests.db.test_commands import keep_logging, run
from tests.http import ROOT_KEY, Api, document, feature_search, search, stage

LOGS = "/organizations/audit/logs"

__all__ = ["keep_logging"]  # a fixture

MULTI = {"name": "m", "dimension": 2, "metric": "cosine", "kind": "multi"}
SPARSE = {"name": "s", "dimension": 50, "metric": "dot", "kind": "sparse"}
DENSE = {"name": "v", "dimension": 3, "metric": "cosine"}
TITLES = ["wireless headphones", "oak table", "quiet keyboard", "loud speaker", "a lamp"]
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("near", {"v": [0.1, 0.7, 1e-7]}),
    ("many", {"m": [[1, 0], [0.3, 0.2]]}),
    ("words", {"q": "headphones"}),
    ("text", {"q": "something to listen to music with"}),
]


def make(api: Api) -> None:
    """A promoted namespace with everything that one can have."""
    body = {"namespace_id": api.namespace, "vector_configs": [DENSE, MULTI, SPARSE]}
    api("POST", "/namespaces/standalone", body)
    vectors = [
        {"v": [0.1 * n, 1 / 3, 1e-7], "m": [[1, n], [n, 1 / 7]], "s": {"indices": [n], "values": [1 / 9]}}
        for n in range(5)
    ]
    documents = [document(f"d{n}", vectors[n], title=TITLES[n], price=0.1 + n, n=n) for n in range(5)]
    api.upsert(documents)
    index = {"name": "t", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
    api.promote({"add_vectors": [index]})
    api.upsert(documents)  # which now embed themselves
    fields = [{"field_name": "n", "type": "integer"}, {"field_name": "title", "type": "text"}]
    api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": fields})
    limited = {"must": [{"key": "n", "range": {"gte": 1}}]}
    api.retriever("near", feature_search(search("v", "{{INPUT.v}}")))
    api.retriever("near", feature_search(search("v", "{{INPUT.v}}", filters=limited)))
    api.retriever("many", feature_search(search("m", "{{INPUT.m}}")))
    api.retriever("words", feature_search(search("lexical", "{{INPUT.q}}", mode="text", lexical=True)))
    api.retriever(
        "text", feature_search(search("t", "{{INPUT.q}}", mode="text")), stage("sort_attribute", sort_field="n")
    )


async def work(url: str, settings: Settings) -> None:
    runtime = Runtime(settings, create_engine(url, settings), Inference.from_settings(settings))
    await drain(url, runtime)
    await runtime.close()


def answers(api: Api) -> list[Any]:
    found = []
    for name, inputs in ASKED:
        found.append(api.execute(name, inputs=inputs)["documents"])
    return found


def stored(url: str, namespace: str) -> tuple[Any, ...]:
    """Every byte of its documents and multi-vectors, and what the catalog says of it but for ids and building."""
    copied = []
    with psycopg.connect(url) as conn:
        for table in ("documents", "documents_m"):
            query = sql.SQL("SELECT t.*::text FROM {} t ORDER BY 1").format(sql.Identifier(namespace, table))
            copied.append(conn.execute(query).fetchall())
        catalog = conn.execute(
            """SELECT n.mode, n.description, n.created_at,
                (SELECT array_agg(ROW(c.name, c.position, c.column_name, c.kind, c.dimension, c.metric,
                    c.created_at)::text ORDER BY position)
                    FROM pgretrieve.vector_configs c WHERE c.namespace_id = n.namespace_id),
                (SELECT array_agg(ROW(m.name, m.inference_service, m.source_field)::text)
                    FROM pgretrieve.vector_inference_map m WHERE m.namespace_id = n.namespace_id),
                (SELECT array_agg(ROW(r.retriever_name, v.version, v.definition, v.created_at)::text
                    ORDER BY r.retriever_name, v.version) FROM pgretrieve.retrievers r
                    JOIN pgretrieve.retriever_versions v USING (retriever_id) WHERE r.namespace_id = n.namespace_id),
                (SELECT array_agg(ROW(p.promoted_by, p.request, p.before, p.after, p.promoted_at)::text)
                    FROM pgretrieve.promotions p WHERE p.namespace_id = n.namespace_id)
            FROM pgretrieve.namespaces n WHERE n.namespace_id = %s""",
            [namespace],
        ).fetchone()
    assert catalog is not None
    return (*copied, catalog)


def command(*arguments: str, url: str) -> Result:
    found = run(*arguments, DATABASE_URL=url)
    assert isinstance(found.exception, SystemExit | None), found.exception
    return found


def test_a_namespace_comes_back_beside_itself_and_elsewhere(
    fresh_database: Callable[[], str], settings: Settings, tmp_path: Path
) -> None:
    url, elsewhere, file = fresh_database(), fresh_database(), tmp_path / "shop.pgr"
    with (
        service.in_background(settings, url, ROOT_KEY) as base,
        httpx.Client(base_url=f"{base}/v1", timeout=60) as http,
    ):
        api = Api(http, "shop")
        make(api)
        asyncio.run(work(url, settings))
        before, bits = answers(api), stored(url, "shop")
        assert all(before)

        saved = command("backup", "shop", str(file), url=url)
        assert saved.exit_code == 0, saved.output
        assert file.stat().st_mode & 0o777 == 0o600
        beside = command("restore", str(file), "--as", "shop2", url=url)
        assert beside.exit_code == 0, beside.output
        assert "shop2 (managed) is back, with 5 documents" in beside.stdout
        (event,) = api("GET", f"{LOGS}?namespace_id=shop2")["results"]
        assert (event["action"], event["operation_id"]) == ("namespace_restored", "pgretrieve restore")
        assert event["changes"] == {"saved_as": "shop", "mode": "managed", "documents": 5}
        assert stored(url, "shop2") == bits
        copy = Api(http, "shop2")
        assert answers(copy) == before, "while its indexes are being built"
        asyncio.run(work(url, settings))
        assert answers(copy) == before
        assert stored(url, "shop2") == bits, "nothing was made again"
        copy.upsert([document("new", {"v": [1, 2, 3]}, title="music player")])
        asyncio.run(work(url, settings))
        assert "new" in copy.ids("text", inputs={"q": "music player"})
        assert answers(api) == before
    assert command("restore", str(file), url=elsewhere).exit_code == 0
    assert stored(elsewhere, "shop") == bits
    with service.in_background(settings, elsewhere, ROOT_KEY) as base, httpx.Client(base_url=f"{base}/v1") as http:
        assert answers(Api(http, "shop")) == before
        ids = [r["retriever_id"] for r in Api(http, "shop")("POST", "/retrievers/list", {})["results"]]
    with psycopg.connect(url) as conn:
        mine = conn.execute("SELECT retriever_id FROM pgretrieve.retrievers WHERE namespace_id = 'shop'").fetchall()
    assert sorted(ids) == sorted(str(found) for (found,) in mine), "elsewhere, retrievers keep their ids"


@pytest.fixture
def saved(fresh_database: Callable[[], str], settings: Settings, tmp_path: Path) -> tuple[str, Path]:
    """A small namespace's backup, and its database."""
    url, file = fresh_database(), tmp_path / "small"
    with service.in_background(settings, url, ROOT_KEY) as base, httpx.Client(base_url=f"{base}/v1") as http:
        api = Api(http, "small")
        api.standalone(("v", 3))
        api.upsert([document("a", {"v": [1, 2, 3]})])
        api("POST", "/buckets", {"bucket_name": "b", "bucket_schema": {"properties": {"t": {"type": "text"}}}})
    said = command("backup", "small", str(file), url=url)
    assert "Not in it: 1 buckets" in said.stderr
    return url, file


def test_what_is_wrong_is_said_and_nothing_is_left(saved: tuple[str, Path], tmp_path: Path) -> None:
    url, file = saved
    assert "exists already" in command("backup", "small", str(file), url=url).stderr
    assert "No namespace 'none'" in command("backup", "none", str(tmp_path / "none"), url=url).stderr
    assert sorted(found.name for found in tmp_path.iterdir()) == ["small"]
    assert "A namespace 'small' exists already" in command("restore", str(file), url=url).stderr
    assert "is no backup" in command("restore", str(tmp_path / "absent"), url=url).stderr

    whole = file.read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[: len(whole) // 2])
    assert "is no backup" in command("restore", str(damaged), "--as", "x", url=url).stderr
    place = whole.index(b"tables/documents.copy") + 60
    damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    assert "is damaged" in command("restore", str(damaged), "--as", "x", url=url).stderr
    newer = tmp_path / "newer"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(newer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"format":1', b'"format":2'))
    assert "has format 2" in command("restore", str(newer), "--as", "x", url=url).stderr
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT namespace_id FROM pgretrieve.namespaces").fetchall() == [("small",)]
        assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'x'").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pgretrieve.audit_events WHERE resource_id = 'x'").fetchone() == (0,)
