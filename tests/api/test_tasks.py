"""Tasks over HTTP: seen while they run, listed, cancelled; dead letters shown and tried again."""

from typing import Any

import psycopg
import pytest

from app.domain.runtime import Runtime
from app.jobs import worker
from tests.http import ROOT_KEY, Api, document

ROW = (
    "INSERT INTO pgretrieve.tasks (task_id, namespace_id, kind, subject, status, created_at) VALUES (%s,%s,%s,%s,%s,%s)"
)


def rebuilt(api: Api, **changes: Any) -> str:
    answer = api("PATCH", f"/namespaces/{api.namespace}/vector-indexes/v", changes)
    return str(answer["task_id"])


@pytest.fixture
def filled(api: Api) -> Api:
    api.standalone(("v", 3))
    api.upsert([document(f"d{n}", {"v": [1, n, 0]}) for n in range(20)])
    return api


async def test_a_task_is_seen_from_its_beginning_to_its_end(filled: Api, conninfo: str, runtime: Runtime) -> None:
    task_id = rebuilt(filled, m=8)
    before = filled("GET", f"/tasks/{task_id}")
    assert (before["task_type"], before["status"], before["error"]) == ("materialize", "PENDING", None)
    assert before["inputs"] == [filled.namespace, "v"]
    told = before["additional_data"]
    assert (told["kind"], told["subject"], told["percentage"]) == ("rebuild_index", "v", 0.0)
    assert told["about"] == {"index_method": "hnsw_vector", "m": 8, "ef_construction": None}
    assert (told["created_by"], told["started_at"]) == ("root", None)
    await worker.drain(conninfo, runtime)
    after = filled("GET", f"/tasks/{task_id}")
    assert (after["status"], after["additional_data"]["percentage"]) == ("COMPLETED", 100.0)
    assert after["additional_data"]["finished_at"] >= after["additional_data"]["started_at"]


async def test_a_cancelled_task_stays_so_and_one_that_ended_is_409(
    filled: Api, conninfo: str, runtime: Runtime
) -> None:
    task_id = rebuilt(filled, m=8)
    for _ in range(2):
        assert filled("DELETE", f"/tasks/{task_id}")["success"] is True
    assert filled("GET", f"/tasks/{task_id}")["status"] == "CANCELED"
    other = rebuilt(filled, m=9)
    await worker.drain(conninfo, runtime)
    assert filled.refused("DELETE", f"/tasks/{other}", status=409)[0] == "task_ended"
    assert filled("GET", f"/tasks/{task_id}")["status"] == "CANCELED"
    filled("GET", "/tasks/task_none", status=404)
    filled("DELETE", "/tasks/task_none", status=404)


@pytest.fixture
def several(filled: Api, conninfo: str) -> Api:
    """Five tasks, from the oldest to the newest."""
    kinds = ["build_index", "backfill", "api_collections_trigger", "of_another_kind", "rebuild_index"]
    ends = ["COMPLETED", "FAILED", "IN_PROGRESS", "COMPLETED", "PENDING"]
    with psycopg.connect(conninfo) as conn:
        for n, (kind, status) in enumerate(zip(kinds, ends, strict=True)):
            at = f"2030-01-0{n + 1} 00:00:00+00"
            conn.execute(ROW, (f"{filled.namespace}_{n}", filled.namespace, kind, f"subject {n}", status, at))
        error = '{"code": "no_luck", "message": "It was Not to be."}'
        query = "UPDATE pgretrieve.tasks SET error = %s WHERE task_id = %s"
        conn.execute(query, (error, f"{filled.namespace}_1"))
    return filled


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, [4, 3, 2, 1, 0]),
        ({}, [4, 3, 2, 1, 0]),
        ({"status": "COMPLETED"}, [3, 0]),
        ({"status": "SUSPENDED"}, []),
        ({"task_type": "materialize"}, [4, 0]),
        ({"task_type": "build_index"}, [0]),
        ({"task_type": "api_collections_trigger"}, [2]),
        ({"task_type": "engine_object_processing"}, [3]),
        ({"search": "SUBJECT 2"}, [2]),
        ({"search": "not to be"}, [1]),
        ({"search": "%"}, []),
        ({"sort": {"field": "created_at"}}, [0, 1, 2, 3, 4]),
        ({"sort": {"field": "created_at", "direction": "desc"}}, [4, 3, 2, 1, 0]),
        ({"sort": {"field": "status", "direction": "asc"}}, [0, 3, 1, 2, 4]),
        ({"sort": {"field": "task_type", "direction": "desc"}}, [4, 3, 0, 1, 2]),
    ],
)
def test_lists_are_filtered_searched_sorted_and_paged(several: Api, asked: Any, found: list[int]) -> None:
    ids = [f"{several.namespace}_{n}" for n in found]
    page = several("POST", "/tasks/list", asked)
    assert [task["task_id"] for task in page["results"]] == ids
    walked, cursor = [], None
    while True:
        body = {**(asked or {}), "limit": 2, "cursor": cursor, "include_total": True}
        page = several("POST", "/tasks/list", body)
        walked += [task["task_id"] for task in page["results"]]
        assert page["pagination"]["total"] == len(ids)
        if (cursor := page["pagination"]["next_cursor"]) is None:
            break
    assert walked == ids


def test_a_failed_task_says_why_and_types_are_public(several: Api) -> None:
    tasks = several("POST", "/tasks/list")["results"]
    types = [
        "materialize",
        "engine_object_processing",
        "api_collections_trigger",
        "api_collections_reembed",
        "materialize",
    ]
    assert [task["task_type"] for task in tasks] == types
    failed = tasks[3]
    assert (failed["error"], failed["additional_data"]["error"]) == ("It was Not to be.", "It was Not to be.")
    assert failed["additional_data"]["error_code"] == "no_luck"


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"status": "done"}, "bad_type@body.status"),
        ({"task_type": "things"}, "unknown_type@body.task_type"),
        ({"sort": {"field": "about"}}, "bad_sort@body.sort.field"),
        ({"search": "\0"}, "nul_character@body.search"),
        ({"cursor": "WyJhIl0"}, "bad_cursor@body.cursor"),
        ({"filters": {"a": 1}}, "not_offered@body.filters"),
        ({"limit": 0}, "out_of_range@body.limit"),
    ],
)
def test_bad_lists_are_refused(several: Api, asked: Any, problem: str) -> None:
    assert several.refused("POST", "/tasks/list", asked)[1] == [problem]


def test_only_what_the_key_sees_is_there(several: Api) -> None:
    other = Api(several.http, f"{several.namespace}_other")
    other.standalone(("v", 2))
    key = other("POST", "/keys", {"name": "k", "scopes": ["read", "manage"], "namespaces": [other.namespace]})["key"]
    sent = {"Authorization": f"Bearer {key}"}
    hidden = f"/tasks/{several.namespace}_0"
    assert several.http.get(hidden, headers=sent).status_code == 404
    assert several.http.delete(hidden, headers=sent).status_code == 404
    listed = several.http.post("/tasks/list", headers=sent)
    assert (listed.status_code, listed.json()["results"]) == (200, [])
    assert other("POST", "/tasks/list")["results"] == []
    every = several.http.post(
        "/tasks/list", headers={"Authorization": f"Bearer {ROOT_KEY}"}, json={"search": several.namespace}
    )
    assert len(every.json()["results"]) == 5
    other("POST", "/tasks/list", headers={"X-Namespace": "no_such"}, status=404)


# Dead letters

DEAD = """
    INSERT INTO pgretrieve.work (namespace_id, kind, target, subject, task_id, attempts, failed_at, error)
    VALUES (%s, %s, %s, %s, %s, 20, now(), '{"code": "bad_text", "message": "No."}')
"""


@pytest.fixture
def dead(several: Api, conninfo: str) -> Api:
    rows = [("embed", "v", "d1", 1), ("embed", "v", "d2", None), ("extract", "col_1", "obj_1", 1)]
    with psycopg.connect(conninfo) as conn:
        for kind, target, subject, n in rows:
            task_id = None if n is None else f"{several.namespace}_{n}"
            conn.execute(DEAD, (several.namespace, kind, target, subject, task_id))
    return several


def letters(api: Api) -> list[str]:
    page = api("GET", f"/namespaces/{api.namespace}/work/dead?include_total=true")
    assert page["pagination"]["total"] == len(page["results"])
    return [letter["subject"] for letter in page["results"]]


def test_dead_letters_are_shown_page_by_page(dead: Api) -> None:
    path = f"/namespaces/{dead.namespace}/work/dead"
    first = dead("GET", f"{path}?limit=2")
    assert [(one["kind"], one["target"], one["subject"]) for one in first["results"]] == [
        ("embed", "v", "d1"),
        ("embed", "v", "d2"),
    ]
    assert (first["results"][0]["error"], first["results"][0]["error_code"]) == ("No.", "bad_text")
    assert (first["results"][0]["attempts"], first["results"][0]["task_id"]) == (20, f"{dead.namespace}_1")
    rest = dead("GET", f"{path}?limit=2&cursor={first['pagination']['next_cursor']}")
    assert ([one["subject"] for one in rest["results"]], rest["pagination"]["next_cursor"]) == (["obj_1"], None)
    assert dead.refused("GET", f"{path}?cursor=YQ")[1] == ["bad_cursor@query.cursor"]


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (None, []),
        ({}, []),
        ({"targets": ["v"]}, ["obj_1"]),
        ({"targets": ["col_1"]}, ["d1", "d2"]),
        ({"targets": ["v"], "task_id": "{}_1"}, ["d2", "obj_1"]),
        ({"targets": ["none"]}, ["d1", "d2", "obj_1"]),
    ],
)
def test_dead_letters_are_tried_again(dead: Api, asked: Any, left: list[str]) -> None:
    if asked and "task_id" in asked:
        asked = {**asked, "task_id": asked["task_id"].format(dead.namespace)}
    answer = dead("POST", f"/namespaces/{dead.namespace}/work/redrive", asked)
    assert answer == {"namespace_id": dead.namespace, "redriven": 3 - len(left)}
    assert letters(dead) == left


def test_bad_redrives_are_refused(dead: Api) -> None:
    path = f"/namespaces/{dead.namespace}/work/redrive"
    assert dead.refused("POST", path, {"targets": []})[1] == ["bad_type@body.targets"]
    assert dead.refused("POST", path, {"task_id": "\0"})[1] == ["nul_character@body"]
    dead("POST", "/namespaces/no_such/work/redrive", status=404)
    dead("GET", "/namespaces/no_such/work/dead", status=404)
