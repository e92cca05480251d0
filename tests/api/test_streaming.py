"""Executions as events: each stage as it begins and ends, then the answer; errors; readers that go away."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.http import ROOT_KEY, Api, document, feature_search, search, stage

NEAR = feature_search(search("v", "{{INPUT.v}}"), final_top_k=3)
FIRST = stage("limit", limit=2)
V = {"inputs": {"v": [1, 0]}, "stream": True}


@pytest.fixture
def plane(api: Api) -> Api:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", {"v": [1, n]}, n=n) for n in range(5)])
    api.retriever("near", NEAR, FIRST)
    return api


def streamed(api: Api, path: str, body: Any) -> tuple[httpx.Response, list[dict[str, Any]]]:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace}
    answer = api.http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return answer, [json.loads(block.removeprefix("data: ")) for block in blocks]


@pytest.mark.parametrize("path", ["/retrievers/near/execute", "/retrievers/near/execute?stream=true"])
def test_stages_are_told_as_they_go_and_the_answer_at_the_end(plane: Api, path: str) -> None:
    body = {**V, "stream": not path.endswith("true")}
    _, events = streamed(plane, path, body)
    assert len({event["execution_id"] for event in events}) == 1
    told = [(e["event_type"], e.get("stage_name"), e.get("stage_index"), e.get("total_stages")) for e in events]
    assert told == [
        ("stage_start", "feature_search", 0, 2),
        ("stage_start", "limit", 1, 2),
        ("stage_complete", "feature_search", 0, 2),
        ("stage_complete", "limit", 1, 2),
        ("execution_complete", None, None, None),
    ]
    counts = [(e["statistics"]["input_count"], e["statistics"]["output_count"]) for e in events[2:4]]
    assert counts == [(0, 3), (3, 2)]
    assert [found["document_id"] for found in events[3]["documents"]] == ["d0", "d1"]
    assert events[3]["budget_used"]["time_used_ms"] > 0
    plain = plane.execute("near", inputs=V["inputs"])
    last = events[-1]
    assert [d["document_id"] for d in last["documents"]] == [d["document_id"] for d in plain["documents"]]
    same = set(plain) - {"execution_id", "stage_statistics", "budget", "results"}
    assert {name: last[name] for name in same} == {name: plain[name] for name in same}


def test_pipelines_that_are_not_stored_stream_too(plane: Api) -> None:
    answer, events = streamed(plane, "/retrievers/execute", {"stages": [NEAR, FIRST], **V})
    assert answer.headers["x-execution-mode"] == "adhoc"
    assert answer.headers["cache-control"] == "no-store"
    assert [event["event_type"] for event in events][-1] == "execution_complete"


def test_what_is_wrong_before_a_stage_begins_has_its_status(plane: Api) -> None:
    plane("POST", "/retrievers/none/execute", V, status=404)
    assert plane.refused("POST", "/retrievers/near/execute", {"stream": True})[0] == "missing_input"
    assert plane.refused("POST", "/retrievers/near/execute", {**V, "inputs": {"v": [1]}})[0] == "bad_input"
    assert plane.refused("POST", "/retrievers/near/execute", {**V, "limit": 0})[0] == "out_of_range"
    assert plane.refused("POST", "/retrievers/near/execute", {**V, "stream": "yes"})[1] == ["bad_type@body.stream"]


@pytest.fixture
def locked(plane: Api, conninfo: str) -> Iterator[Any]:
    """The plane's documents are locked, once retrievers have run; a function tells how many wait for them."""
    plane.retriever("hasty", NEAR, budget_limits={"max_time_ms": 50})
    for name in ("near", "hasty"):
        plane.execute(name, inputs=V["inputs"])
    with psycopg.connect(conninfo) as holder, psycopg.connect(conninfo, autocommit=True) as looking:
        query = "SELECT schema_name FROM pgretrieve.namespaces WHERE namespace_id = %s"
        (schema,) = holder.execute(query, [plane.namespace]).fetchone() or ("",)
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(schema, "documents")))

        def waiting() -> int:
            query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            (found,) = looking.execute(query, [holder.info.backend_pid]).fetchone() or (0,)
            return int(found)

        yield waiting
        holder.rollback()


def test_what_fails_after_a_stage_has_begun_is_an_event(plane: Api, locked: Any) -> None:
    """The statement's own time limit, as the retriever's budget has it."""
    _, events = streamed(plane, "/retrievers/hasty/execute", V)
    assert [event["event_type"] for event in events] == ["stage_start", "execution_error"]
    assert (events[-1]["status"], events[-1]["error"]["code"]) == ("failed", "statement_timeout")
    assert events[-1]["error"]["details"]["retryable"] is False


def test_a_reader_that_goes_away_cancels_the_statement(plane: Api, locked: Any, base_url: str) -> None:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": plane.namespace}
    with httpx.Client(base_url=f"{base_url}/v1", headers=headers, timeout=10) as http:
        with http.stream("POST", "/retrievers/near/execute", json=V) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["event_type"] == "stage_start"
            while locked() == 0:
                time.sleep(0.005)
        began = time.perf_counter()
        while locked() > 0:
            assert time.perf_counter() - began < 2, "the statement goes on"
            time.sleep(0.005)


HOST = stage("json_transform", template='{"n": {{ DOC.n }}, "twice": {{ DOC.n * 2 }}}')


def test_stages_of_the_host_are_told_between_statements(plane: Api) -> None:
    plane.retriever("hosted", NEAR, HOST, stage("sort_attribute", field="twice", direction="desc"))
    _, events = streamed(plane, "/retrievers/hosted/execute", V)
    told = [(event["event_type"], event.get("stage_index"), event.get("runs_on")) for event in events]
    assert told == [
        ("stage_start", 0, "database"),
        ("stage_complete", 0, "database"),
        ("stage_start", 1, "host"),
        ("stage_complete", 1, "host"),
        ("stage_start", 2, "database"),
        ("stage_complete", 2, "database"),
        ("execution_complete", None, None),
    ]
    shown = [[found["document_id"] for found in event["documents"]] for event in events if "documents" in event]
    assert shown == [["d0", "d1", "d2"], ["d0", "d1", "d2"], ["d2", "d1", "d0"], ["d2", "d1", "d0"]]
