"""A rehearsal of a promotion: the verdict of the real one, what it would do, and nothing that stays."""

import asyncio
import random
import time
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import raw, transaction
from app.settings import Settings
from tests.dump_schema import dump
from tests.http import ROOT_KEY, Api, document
from tests.state import blocked, everything, rows, state

LOCAL = ("summary", 384)
PROMOTION: dict[str, Any] = {
    "vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}],
    "add_vectors": [{"name": "image", "dimension": 3}, {"name": "tokens", "dimension": 4, "kind": "multi"}],
}


def rehearsed(api: Api, body: dict[str, Any] | None = None, **more: Any) -> Any:
    return api.promote({"dry_run": "rehearse", **(body or {})}, **more)


def some_documents(count: int) -> list[dict[str, Any]]:
    return [document(f"d{n}", {"summary": [1.0, n / 7] + [0.0] * 382}, n=n) for n in range(count)]


def test_it_tells_what_was_done_and_nothing_stays(api: Api, conninfo: str) -> None:
    api.standalone(LOCAL)
    api.upsert(some_documents(5))
    before, schema = everything(conninfo, api.namespace), dump(conninfo)
    seen = rehearsed(api, PROMOTION)
    assert everything(conninfo, api.namespace) == before
    assert dump(conninfo) == schema

    assert (seen["verdict"], seen["error"]) == ("promoted", None)
    assert seen["answer"]["mode"] == "managed"
    ddl = [ran["statement"] for ran in seen["ddl"]]
    assert ddl[0] == f"ALTER TABLE {api.namespace}.documents ADD COLUMN image VECTOR(3)"
    assert any(text.startswith(f"CREATE TABLE {api.namespace}.documents_tokens") for text in ddl)
    locks = {lock["target"]: lock for lock in seen["locks"]}
    documents = locks[f"{api.namespace}.documents"]
    assert documents == seen["locks"][0] | {"mode": "AccessExclusiveLock", "stops_reads": True, "stops_writes": True}
    assert 0 < documents["held_ms"] < seen["took_ms"]
    turn = locks["the namespace"]
    assert (turn["mode"], turn["stops_reads"], turn["stops_writes"]) == ("ExclusiveLock", False, True)
    assert [lock["target"] for lock in seen["locks"] if lock["stops_reads"]] == [f"{api.namespace}.documents"]

    touched = {row.pop("table"): row for row in seen["rows"]}
    none = {"inserted": 0, "updated": 0, "deleted": 0, "read": 0, "rewritten": False}
    assert touched[f"{api.namespace}.documents"] == none
    assert touched[f"{api.namespace}.documents_tokens"] == none | {"rewritten": None}
    assert touched["pgretrieve.promotions"] == none | {"inserted": 1}
    assert touched["pgretrieve.vector_configs"]["inserted"] == 2
    assert touched["pgretrieve.vector_inference_map"]["inserted"] == 1
    assert touched["pgretrieve.namespaces"]["updated"] == 1
    assert touched["pgretrieve_queue.procrastinate_jobs"]["inserted"] == 2

    # The real one does what was rehearsed.
    assert api.promote(PROMOTION) == seen["answer"]
    assert state(conninfo, api.namespace)[4:6] == (1, 2)


def test_triggers_that_a_source_field_needs_are_told(api: Api, conninfo: str) -> None:
    api.standalone(LOCAL)
    before = dump(conninfo)
    mapping = {**PROMOTION["vector_mappings"][0], "source_field": "title"}
    seen = rehearsed(api, {"vector_mappings": [mapping]})
    assert dump(conninfo) == before
    assert [ran["statement"].split("(")[0] for ran in seen["ddl"]] == ["SELECT pgretrieve.watch_sources"]
    (lock,) = [lock for lock in seen["locks"] if lock["target"] == f"{api.namespace}.documents"]
    assert (lock["mode"], lock["stops_reads"], lock["stops_writes"]) == ("ShareRowExclusiveLock", False, True)


def test_the_number_of_documents_changes_nothing_that_is_done(api: Api, conninfo: str) -> None:
    done = []
    for count in (1, 1_000):
        one = Api(api.http, f"test_{uuid4().hex[:12]}")
        one.standalone(LOCAL)
        one.upsert(some_documents(count))
        seen = rehearsed(one, PROMOTION)
        texts = [ran["statement"] for ran in seen["ddl"]]
        kept = {"target", "mode", "stops_reads", "stops_writes"}
        locks = [{key: lock[key] for key in kept} for lock in seen["locks"]]
        done.append(str([texts, locks, seen["rows"]]).replace(one.namespace, "ns"))
    assert done[0] == done[1]


def test_indexes_to_come_are_estimated(api: Api, conninfo: str) -> None:
    """The size is held to that of a real index on as many vectors."""
    api.standalone(("v", 64))
    draw = random.Random(1)
    api.upsert([document(f"d{n}", {"v": [draw.gauss() for _ in range(64)]}) for n in range(1_000)])
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(f"ANALYZE {api.namespace}.documents")
        (real,) = conn.execute(f"SELECT pg_relation_size('{api.namespace}.documents_v_hnsw')").fetchone() or (0,)
    added = [{"name": "w", "dimension": 64}, {"name": "bits", "dimension": 5_000, "metric": "dot"}]
    seen = rehearsed(api, {"add_vectors": added})
    assert seen["documents_estimated"] == 1_000
    (index,) = seen["indexes"]  # the other one is searched exactly
    assert (index["name"], index["index_method"], index["fits_in_memory"]) == ("w", "hnsw_vector", True)
    assert 0.8 < index["filled_bytes"] / real < 1.25
    assert index["bytes"] < index["filled_bytes"]
    assert 0 < index["build_seconds"] < index["filled_build_seconds"]


def test_only_the_promotion_itself_is_rehearsed_and_only_by_name(api: Api, conninfo: str) -> None:
    api.standalone(LOCAL)
    before = state(conninfo, api.namespace)
    path = f"/namespaces/{api.namespace}/promote"
    assert api.refused("POST", path, {"dry_run": True}) == ("bad_type", ["bad_type@body.dry_run"])
    assert api.refused("POST", f"{path}/validate", {"dry_run": "rehearse"})[0] == "extra_forbidden"
    assert api.refused("POST", "/namespaces/nowhere/promote", {"dry_run": "rehearse"}, status=404)[0] == "not_found"
    assert state(conninfo, api.namespace) == before
    assert api.promote({"dry_run": None})["mode"] == "managed"


async def test_it_waits_as_the_promotion_does_and_tells_how_long(
    api: Api, base_url: str, conninfo: str, engine: AsyncEngine, settings: Settings
) -> None:
    api.standalone(LOCAL)
    before = everything(conninfo, api.namespace)
    path, body = f"/v1/namespaces/{api.namespace}/promote", {"dry_run": "rehearse", **PROMOTION}
    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30) as http:
        async with transaction(engine, settings) as conn:
            await conn.exec_driver_sql(f"LOCK TABLE {api.namespace}.documents IN ACCESS SHARE MODE")
            holder = (await raw(conn)).info.backend_pid
            refused = (await http.post(path, json=body)).json()
            waiting = asyncio.create_task(http.post(path, json=body))
            await blocked(conninfo, holder)
            seen_waiting = time.perf_counter()
        let_go = time.perf_counter()
        seen = (await waiting).json()
    assert (refused["verdict"], refused["answer"]) == ("refused", None)
    error = refused["error"]
    assert (error["status"], error["code"], error["details"]["retryable"]) == (409, "locked", True)
    assert [one["pid"] for one in error["details"]["blocked_by"]] == [holder]
    assert seen["verdict"] == "promoted"
    assert seen["locks"][0]["target"] == f"{api.namespace}.documents"
    assert seen["locks"][0]["waited_ms_at_most"] >= (let_go - seen_waiting) * 1000
    assert everything(conninfo, api.namespace) == before


# The verdict is that of the real promotion

NAMES = st.sampled_from(["a", "b", "c", "Ünïcode name", "payload", "x" * 128, "", "{{x}}", "a\0b"])
DIMENSIONS = st.sampled_from([1, 3, 384, 512, 1_536, 2_001, 4_001, 0, 16_001])
KINDS = st.sampled_from(["dense", "dense", "sparse", "multi", "round"])
METRICS = st.sampled_from(["cosine", "dot", "euclidean", "manhattan"])
SERVICES = st.sampled_from(["minilm_l6_v2", "openai_text_3_small", "clip_vit_b32", "nobody"])
PRESENT = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b", "c"]),
            "dimension": st.sampled_from([3, 384, 512, 1_536]),
            "kind": st.sampled_from(["dense", "dense", "sparse", "multi"]),
        }
    ),
    unique_by=lambda config: config["name"],
    max_size=3,
)
SOURCES = st.sampled_from([None, "title", "a\0b"])
MAPPINGS = st.lists(
    st.fixed_dictionaries({"existing_index": NAMES, "inference_service": SERVICES, "source_field": SOURCES}), max_size=2
)
ADDED = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "dimension": DIMENSIONS, "kind": KINDS, "metric": METRICS},
        optional={"inference_service": SERVICES, "source_field": SOURCES},
    ),
    max_size=3,
)


@example(present=[{"name": "a", "dimension": 384, "kind": "dense"}], mappings=[], added=[], twice=True)
@example(
    present=[{"name": "a", "dimension": 384, "kind": "dense"}],
    mappings=[{"existing_index": "a", "inference_service": "minilm_l6_v2", "source_field": "title"}],
    added=[
        {"name": name, "dimension": 3, "kind": name, "metric": "cosine", "source_field": None}
        for name in ("dense", "sparse", "multi")
    ],
    twice=True,
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(present=PRESENT, mappings=MAPPINGS, added=ADDED, twice=st.booleans())
def test_its_verdict_is_that_of_the_real_promotion(
    api: Api,
    conninfo: str,
    present: list[dict[str, Any]],
    mappings: list[dict[str, Any]],
    added: list[dict[str, Any]],
    twice: bool,
) -> None:
    one = Api(api.http, f"test_{uuid4().hex[:12]}")
    one("POST", "/namespaces/standalone", {"namespace_id": one.namespace, "vector_configs": present})
    one.upsert([document(f"d{n}", n=n) for n in range(3)])
    body = {"vector_mappings": mappings, "add_vectors": added}
    for _ in range(1 + twice):
        before = everything(conninfo, one.namespace)
        seen = rehearsed(one, body)
        assert everything(conninfo, one.namespace) == before
        answer = promoted(one, body)
        assert seen["verdict"] == ("promoted" if answer.is_success else "refused"), answer.text
        if answer.is_success:
            assert seen["answer"] == answer.json()
        else:
            assert seen["error"] == {"status": answer.status_code, **answer.json()["error"]}
            assert everything(conninfo, one.namespace) == before
    assert len(rows(conninfo, one.namespace)) == 3


def promoted(api: Api, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": api.authorization}
    return api.http.post(f"/namespaces/{api.namespace}/promote", json=body, headers=headers)
