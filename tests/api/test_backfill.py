"""Filling an index over HTTP: forecast, started with a promotion or by itself, told by searches meanwhile."""

import pytest

from app.domain.models import filling_up
from app.domain.runtime import Runtime
from tests.http import Api, document, feature_search, search

NEW = {"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2"}


@pytest.fixture
def titles(api: Api) -> Api:
    api.standalone(("v", 3))
    api.upsert([document(f"d{n}", {"v": [1, 0, n]}, title=f"The title {n}") for n in range(5)])
    api.upsert([document("bare", {"v": [1, 0, 0]})])
    return api


def test_validating_forecasts_and_promoting_starts(titles: Api) -> None:
    asked = {"add_vectors": [{**NEW, "backfill": {"source_field": "title", "rate": 60}}]}
    told = titles("POST", f"/namespaces/{titles.namespace}/promote/validate", asked)
    (expected,) = told["backfills"]
    assert expected == {
        "index": "text",
        "source_field": "title",
        "task_id": None,
        "forecast": {
            "items": 5,
            "without_source": 1,
            "characters": 55,
            "tokens": 25,  # three words, and what stands at both ends
            "tokens_by": "tokenizer",
            "seconds": 5.0,
        },
    }
    (started,) = titles.promote(asked)["backfills"]
    assert started["task_id"].startswith("task_")
    assert started["forecast"] == expected["forecast"]


def test_a_promotion_without_one_answers_the_documented_keys(titles: Api) -> None:
    assert "backfills" not in titles("POST", f"/namespaces/{titles.namespace}/promote/validate", {"add_vectors": [NEW]})
    assert "backfills" not in titles.promote({"add_vectors": [NEW]})


async def test_searches_tell_what_is_missing_until_it_is_there(titles: Api, runtime: Runtime) -> None:
    (started,) = titles.promote({"add_vectors": [{**NEW, "backfill": {"source_field": "title"}}]})["backfills"]
    titles.retriever("near", feature_search(search("text", "the title", mode="text")))

    def told() -> tuple[int, int | None, list[str]]:
        answer = titles.execute("near")
        (found,) = answer["stage_statistics"]["stages"]["feature_search"]["metadata"]["searches"]
        return found["returned"], found.get("missing"), [line for line in answer["warnings"] if "filled" in line]

    returned, missing, warnings = told()
    assert (returned, missing) == (0, 5)
    assert any("'text' is still being filled; about 5 documents are not in it yet" in line for line in warnings)
    await filling_up.run_slice(runtime, started["task_id"], 0)
    returned, missing, warnings = told()
    assert (returned, missing) == (5, None)
    assert not any("filled" in line for line in warnings)


def test_a_request_of_its_own_maps_the_field_and_forecasts(titles: Api) -> None:
    titles.promote({"add_vectors": [NEW]})
    path, text = f"/namespaces/{titles.namespace}/backfills", {"index": "text"}
    assert titles.refused("POST", path, text) == ("missing_source_field", ["missing_source_field@body.source_field"])
    told = titles("POST", path, {**text, "source_field": "title", "dry_run": "forecast"})
    assert (told["task_id"], told["forecast"]["items"]) == (None, 5)
    started = titles("POST", path, {**text, "source_field": "title", "rate_per_minute": 600})
    assert (started["forecast"]["items"], started["forecast"]["seconds"]) == (5, 0.5)
    assert titles.refused("POST", path, text, status=409)[0] == "backfill_running"
    assert titles.refused("POST", path, {**text, "source_field": "other"}, status=409)[0] == "other_source_field"


def test_what_cannot_be_filled_is_refused_by_name(titles: Api) -> None:
    add = {"name": "text", "dimension": 384, "backfill": {"source_field": "a..b", "rate": 0}}
    code, problems = titles.refused("POST", f"/namespaces/{titles.namespace}/promote", {"add_vectors": [add]})
    assert set(problems) == {
        "backfill_needs_service@body.add_vectors.0.backfill",
        "bad_field@body.add_vectors.0.backfill.source_field",
        "out_of_range@body.add_vectors.0.backfill.rate",
    }
    both = {**NEW, "source_field": "other", "backfill": {"source_field": "title"}}
    code, _ = titles.refused("POST", f"/namespaces/{titles.namespace}/promote", {"add_vectors": [both]})
    assert code == "conflicting_fields"
    titles.promote({})
    path, field = f"/namespaces/{titles.namespace}/backfills", {"source_field": "title"}
    assert titles.refused("POST", path, {**field, "index": "v"}, status=409)[0] == "not_mapped"
    assert titles.refused("POST", path, {**field, "index": "none"}, status=404)[0] == "not_found"
