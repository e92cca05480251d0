"""Migrations of models over HTTP: started, shown, cut over, rolled back, finished, canceled; and every refusal."""

from typing import Any

import pytest

from app.domain.background import working
from app.domain.models import migrating
from app.domain.runtime import Runtime
from tests.http import Api, document, feature_search, search
from tests.state import state

SMALL, LARGE = "openai_text_3_small", "openai_text_3_large"
TITLES = ["red apples", "green apples", "blue whales", "grey whales", "old books"]


async def prepared(api: Api, runtime: Runtime) -> None:
    api.standalone(("text", 1536))
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": SMALL, "source_field": "title"}]})
    api.upsert([document(f"d{n}", title=title) for n, title in enumerate(TITLES)])
    await working.do_all(runtime, api.namespace)
    api.retriever("r", feature_search(search("text", "{{INPUT.q}}", mode="text")))


def start(api: Api, **more: Any) -> Any:
    return api("POST", f"/namespaces/{api.namespace}/migrations", {"index": "text", "to_service": LARGE, **more})


def at(api: Api, migration: Any, action: str = "") -> str:
    return f"/namespaces/{api.namespace}/migrations/{migration['migration_id']}{action}"


async def test_a_migration_from_its_start_to_its_end(api: Api, runtime: Runtime, conninfo: str) -> None:
    await prepared(api, runtime)
    judged = [{"query": "whales", "relevant_ids": ["d2", "d3"]}]
    gate = {"min_overlap": 0.5, "min_ndcg": 0.9, "min_queries": 1}
    started = start(api, judgements=judged, gate=gate)
    assert (started["state"], started["from_service"], started["to_service"]) == ("backfilling", SMALL, LARGE)
    assert (started["source_field"], started["dimension"], started["gate_met"]) == ("title", 3072, False)
    assert "1536 dimensions) before the cut-over" in started["warnings"][0]
    shown = api("GET", f"/namespaces/{api.namespace}")
    assert [config["name"] for config in shown["vector_configs"]] == ["text"]
    assert shown["vector_inference_map"] == {"text": SMALL}

    await migrating.advance(runtime, started["migration_id"])
    found = api("GET", at(api, started))
    assert (found["state"], found["progress"]["done"], found["progress"]["failed"]) == ("comparing", 5, 0)
    assert (found["gate_met"], found["index_state"]) == (True, "building")
    refused = api("POST", at(api, started, "/cut-over"), status=409)["error"]
    assert refused["code"] == "gate_not_met"
    over = api("POST", at(api, started, "/cut-over"), {"force": True})
    assert (over["state"], over["dimension"]) == ("cut_over", 3072)
    assert api("GET", f"/namespaces/{api.namespace}")["vector_configs"][0]["dimension"] == 3072
    assert set(api.ids("r", inputs={"q": "whales"})[:2]) == {"d2", "d3"}
    mine = document("e", {"text": [1.0] + [0.0] * 1535}, title="mine")
    assert (
        api.refused("POST", f"/namespaces/{api.namespace}/documents/upsert", {"documents": [mine]})[0] == "bad_vector"
    )

    assert api("POST", at(api, started, "/roll-back"))["state"] == "rolled_back"
    assert api("GET", f"/namespaces/{api.namespace}")["vector_inference_map"] == {"text": SMALL}
    assert set(api.ids("r", inputs={"q": "whales"})[:2]) == {"d2", "d3"}
    api("POST", at(api, started, "/cut-over"))
    assert api("POST", at(api, started, "/finish"))["state"] == "finished"
    assert set(api.ids("r", inputs={"q": "whales"})[:2]) == {"d2", "d3"}
    listed = api("GET", f"/namespaces/{api.namespace}/migrations")
    assert [(one["migration_id"], one["state"]) for one in listed["results"]] == [(started["migration_id"], "finished")]
    for action in ("cut-over", "roll-back", "finish", "cancel"):
        assert api.refused("POST", at(api, started, f"/{action}"), status=409)[0] == "migration_state"
    assert len(state(conninfo, api.namespace)[2]) == 1


async def test_canceling_leaves_everything_as_it_was(api: Api, runtime: Runtime, conninfo: str) -> None:
    await prepared(api, runtime)
    before = state(conninfo, api.namespace)
    started = start(api)
    for kind in ("indexes", "mappings"):
        path = f"/namespaces/{api.namespace}/vector-{kind}/text?force=true"
        assert api.refused("DELETE", path, status=409)[0] == "migration_open"
    again = {"index": "text", "to_service": LARGE}
    assert api.refused("POST", f"/namespaces/{api.namespace}/migrations", again, status=409)[0] == "migration_open"
    assert api("POST", at(api, started, "/cancel"))["state"] == "canceled"
    after = state(conninfo, api.namespace)
    assert after[1] > before[1]
    assert (after[2:5], after[6]) == (before[2:5], before[6])  # all but the version and the jobs that were asked for
    await migrating.advance(runtime, started["migration_id"])  # the job that is still there finds nothing to do
    assert api("GET", at(api, started))["state"] == "canceled"
    assert start(api)["state"] == "backfilling"


async def test_lists_come_in_pages(api: Api, runtime: Runtime) -> None:
    await prepared(api, runtime)
    ids = set()
    for _ in range(3):
        started = start(api)
        ids.add(started["migration_id"])
        api("POST", at(api, started, "/cancel"))
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api("GET", f"/namespaces/{api.namespace}/migrations?page_size=2{cursor and f'&cursor={cursor}'}")
        found += [one["migration_id"] for one in page["results"]]
        cursor = page["pagination"]["next_cursor"]
    assert (found, page["total_count"]) == (sorted(ids), 3)


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"index": "none"}, ["unknown_index@body.index"]),
        ({"to_service": "gone"}, ["unknown_service@body.to_service"]),
        ({"to_service": SMALL}, ["same_service@body.to_service"]),
        ({"source_field": ""}, ["bad_field@body.source_field"]),
        ({"gate": {"min_overlap": 2}}, ["bad_type@body.gate.min_overlap"]),
        ({"rate_per_minute": 0}, ["bad_type@body.rate_per_minute"]),
        ({"index": "plain"}, ["no_source_field@body.source_field"]),
        ({"index": "bits"}, ["not_dense@body.index", "no_source_field@body.source_field"]),
        ({"index": "none", "to_service": "gone"}, ["unknown_index@body.index", "unknown_service@body.to_service"]),
    ],
)
async def test_what_cannot_be_migrated_is_refused(api: Api, runtime: Runtime, body: Any, problems: list[str]) -> None:
    await prepared(api, runtime)
    for more in ({"name": "plain", "dimension": 3}, {"name": "bits", "dimension": 3, "kind": "sparse"}):
        api("POST", f"/namespaces/{api.namespace}/vector-indexes", more)
    wanted = {"index": "text", "to_service": LARGE, **body}
    found = api.refused("POST", f"/namespaces/{api.namespace}/migrations", wanted)[1]
    if "no_source_field@body.source_field" in found and "no_source_field@body.source_field" not in problems:
        found.remove("no_source_field@body.source_field")
    assert found == problems


def test_standalone_namespaces_are_told_to_promote(api: Api) -> None:
    api.standalone(("text", 3))
    body = {"index": "text", "to_service": LARGE, "source_field": "title"}
    assert api.refused("POST", f"/namespaces/{api.namespace}/migrations", body, status=409)[0] == "not_managed"
    for method, path in (("GET", ""), ("POST", "/cut-over"), ("POST", "/cancel")):
        api(method, at(api, {"migration_id": "mig_none"}, path), status=404)
