"""What becomes of objects: made again when they change, gone with them, failed with a reason, made further."""

import base64
import time
from typing import Any

import pytest

from app.domain.content import gathering
from tests.content.managed import (
    Website,
    bucket,
    collection,
    documents,
    ended,
    extractor,
    promoted,
    put,
    quiet,
    searched,
)
from tests.http import Api, feature_search, search

FILES: dict[str, Any] = {
    "properties": {"title": {"type": "string"}, "file": {"type": "pdf"}, "content": {"type": "text"}}
}


def texts(api: Api, name: str = "chunks") -> list[str]:
    return sorted(each["text"] for each in documents(api, name))


def test_a_changed_object_gives_other_documents_in_place_of_its_old_ones(api: Api) -> None:
    promoted(api)
    bucket(api, unique_key={"fields": ["title"], "default_policy": "upsert"})
    collection(api)
    put(api, "one\n\ntwo\n\nthree")
    quiet(api)
    before = {each["text"]: each for each in documents(api)}
    assert set(before) == {"one", "two", "three"}
    put(api, "one\n\ntwo changed")
    quiet(api)
    after = {each["text"]: each for each in documents(api)}
    assert set(after) == {"one", "two changed"}
    assert after["one"]["document_id"] == before["one"]["document_id"]
    assert after["two changed"]["document_id"] == before["two"]["document_id"]
    assert searched(api, "two changed", "minilm_l6_v2")[0]["text"] == "two changed"


def test_a_deleted_object_takes_its_documents_along(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    kept, gone = put(api, "stays", title="a"), put(api, "goes", title="b")
    quiet(api)
    api("DELETE", f"/buckets/pages/objects/{gone['object_id']}")
    assert texts(api) == ["stays"]
    assert api("GET", f"/buckets/pages/objects/{kept['object_id']}")["document_count"] == 1


def test_several_buckets_and_several_collections(api: Api) -> None:
    promoted(api)
    bucket(api)
    bucket(api, "others")
    collection(api, buckets=("pages", "others"))
    collection(api, "whole", buckets=("others",), feature_extractor=extractor(input_mappings={"text": "content"}))
    put(api, "one\n\ntwo")
    stored = put(api, "three\n\nfour", bucket_id="others")
    quiet(api)
    quiet(api, "whole")
    assert texts(api) == ["four", "one", "three", "two"]
    assert texts(api, "whole") == ["three\n\nfour"]
    assert api("GET", f"/buckets/others/objects/{stored['object_id']}")["document_count"] == 3


def test_a_collection_over_a_collection_follows_it(api: Api) -> None:
    promoted(api)
    bucket(api)
    over = {
        "source": {"type": "collection", "collection_id": "chunks"},
        "feature_extractor": extractor(parameters={"split_by": "words", "chunk_size": 2}),
    }
    parent = collection(api)
    child = api("POST", "/collections", {"collection_name": "words", **over})
    assert child["source"] == {"type": "collection", "collection_ids": [parent["collection_id"]]}
    api(
        "POST",
        "/collections",
        {"collection_name": "again", **over, "source": {"type": "collection", "collection_ids": ["words"]}},
    )
    stored = put(api, "one two three\n\nfour five")
    for name in ("chunks", "words", "again"):
        quiet(api, name)
    assert texts(api, "words") == ["four five", "one two", "three"]
    assert texts(api, "again") == ["four five", "one two", "three"]
    lineage = documents(api, "again")[0]["_internal"]["metadata"]
    assert (lineage["root_object_id"], lineage["source_type"]) == (stored["object_id"], "collection")
    assert lineage["source_collection_id"] == child["collection_id"]
    asked = api("POST", "/collections/chunks/trigger", {"dedup_strategy": "force"}, status=202)
    assert asked["total_tiers"] == 3
    assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    error = api("DELETE", "/collections/chunks", status=409)["error"]
    assert (error["code"], error["details"]["collections"]) == ("in_use", ["words"])
    api("DELETE", f"/buckets/pages/objects/{stored['object_id']}")
    assert [texts(api, name) for name in ("chunks", "words", "again")] == [[], [], []]


@pytest.mark.parametrize("dedup", ["skip", "force"])
def test_a_child_that_is_not_automatic_is_made_by_batches_alone(api: Api, dedup: str) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    over = {"feature_extractor": extractor(), "auto": False}
    for name, parent in (("words", "chunks"), ("again", "words")):
        source = {"type": "collection", "collection_id": parent}
        api("POST", "/collections", {"collection_name": name, "source": source, **over})
    stored, other = put(api, "one\n\ntwo"), put(api, "three", title="b")
    quiet(api)
    assert texts(api, "words") == []
    batch = {"object_ids": [stored["object_id"]], "dedup_strategy": dedup, "auto_submit": True}
    made = api("POST", "/buckets/pages/batches", batch)
    assert made["total_tiers"] == 3
    task = ended(api, made["task_id"])
    assert task["status"] == "COMPLETED", task
    assert texts(api, "words") == texts(api, "again") == ["one", "two"]
    audit = api("GET", f"/buckets/pages/batches/{made['batch_id']}/audit")
    counts = [(tier["submitted_count"], tier["succeeded_count"]) for tier in audit["tiers"]]
    assert (counts, audit["all_balanced"]) == ([(1, 1), (2, 2), (2, 2)], True)
    api("DELETE", f"/buckets/pages/objects/{stored['object_id']}")
    audit = api("GET", f"/buckets/pages/batches/{made['batch_id']}/audit")
    assert (audit["all_balanced"], audit["has_lost_objects"]) == (True, False)
    # A trigger reaches the collections over its own, too.
    asked = api("POST", "/collections/chunks/trigger", {"object_ids": [other["object_id"]]}, status=202)
    assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    assert texts(api, "again") == ["three"]


def test_a_batch_made_anew_reaches_automatic_collections_over_collections(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    body = {"source": {"type": "collection", "collection_id": "chunks"}, "feature_extractor": extractor()}
    api("POST", "/collections", {"collection_name": "words", **body})
    put(api, "one\n\ntwo")
    quiet(api)
    quiet(api, "words")
    before = {each["document_id"]: each["_internal"]["updated_at"] for each in documents(api, "words")}
    ended(api, api("POST", "/collections/chunks/trigger", status=202)["task_id"])
    same = {each["document_id"]: each["_internal"]["updated_at"] for each in documents(api, "words")}
    asked = api("POST", "/collections/chunks/trigger", {"dedup_strategy": "force"}, status=202)
    assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    after = {each["document_id"]: each["_internal"]["updated_at"] for each in documents(api, "words")}
    assert same == before
    assert after.keys() == before.keys()
    assert all(after[each] > before[each] for each in before)


def test_sources_are_gathered_page_by_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PAGE", 2)
    promoted(api)
    bucket(api)
    for n in range(5):
        put(api, f"text {n}", title=str(n))
    collection(api)
    over = {"source": {"type": "collection", "collection_id": "chunks"}, "feature_extractor": extractor()}
    quiet(api)
    api("POST", "/collections", {"collection_name": "words", **over})
    quiet(api, "words")
    assert texts(api) == texts(api, "words") == [f"text {n}" for n in range(5)]
    for name in ("chunks", "words"):
        asked = api("POST", f"/collections/{name}/trigger", {"dedup_strategy": "force"}, status=202)
        task = ended(api, asked["task_id"])
        assert task["status"] == "COMPLETED"
        assert task["additional_data"]["percentage"] == 100.0


def test_a_trigger_names_sources_that_the_collection_has(api: Api) -> None:
    promoted(api)
    for name in ("pages", "others"):
        bucket(api, name)
    collection(api, auto=False)
    stored = put(api, "one", bucket_id="others")
    wanted = {"object_ids": [stored["object_id"]], "include_buckets": ["others"]}
    code, problems = api.refused("POST", "/collections/chunks/trigger", wanted)
    assert code == "not_a_source"
    assert problems == ["not_a_source@body.include_buckets", "unknown_object@body.object_ids.0"]


def test_a_document_deleted_by_hand_takes_along_what_was_made_of_it(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    body = {"source": {"type": "collection", "collection_id": "chunks"}, "feature_extractor": extractor()}
    api("POST", "/collections", {"collection_name": "words", **body})
    put(api, "one\n\ntwo")
    quiet(api)
    quiet(api, "words")
    chosen = next(each for each in documents(api) if each["text"] == "one")
    api("PATCH", f"/collections/chunks/documents/{chosen['document_id']}", {"text": "uno"})
    quiet(api, "words")
    assert texts(api, "words") == ["two", "uno"]
    api("DELETE", f"/collections/chunks/documents/{chosen['document_id']}")
    assert texts(api, "words") == ["two"]


def test_what_cannot_be_read_fails_at_once_with_its_reason(api: Api) -> None:
    promoted(api)
    bucket(api, schema=FILES)
    collection(api, feature_extractor=extractor(input_mappings={"text": "file"}))
    broken = base64.b64encode(b"%PDF-1.7 and nothing more").decode()
    sent = {"title": "a", "blobs": [{"property": "file", "type": "pdf", "data": broken}]}
    stored = api("POST", "/buckets/pages/objects", sent)
    found = quiet(api)
    assert found["failed_extractions"] == 1
    after = api("GET", f"/buckets/pages/objects/{stored['object_id']}")
    assert after["status"] == "FAILED"
    assert after["error"]
    assert api("GET", "/buckets/pages")["failed_object_count"] == 1
    dead = api("GET", f"/namespaces/{api.namespace}/work/dead")["results"]
    assert [(each["kind"], each["subject"], each["attempts"]) for each in dead] == [("extract", stored["object_id"], 1)]


def test_a_batch_tells_what_failed_and_tries_it_again(api: Api) -> None:
    promoted(api)
    bucket(api, schema=FILES)
    collection(api, auto=False, feature_extractor=extractor(input_mappings={"text": "content"}))
    good = put(api, "Something to read")
    empty = put(api, " ", title="b")
    made = api("POST", "/buckets/pages/batches", {"object_ids": [good["object_id"]], "batch_name": "first"})
    assert (made["status"], made["lifecycle"], made["object_count"]) == ("DRAFT", "accepted", 1)
    path = f"/buckets/pages/batches/{made['batch_id']}"
    api("GET", f"{path}/audit", status=409)
    assert api("POST", f"{path}/objects", {"object_ids": [empty["object_id"]]})["object_count"] == 2
    assert api.refused("POST", f"{path}/objects", {"object_ids": ["obj_none"]})[0] == "unknown_object"
    task = ended(api, api("POST", f"{path}/submit", {})["task_id"])
    assert task["status"] == "COMPLETED_WITH_ERRORS"
    assert task["additional_data"]["percentage"] == 100.0
    api("POST", f"{path}/submit", status=409)
    batch = api("GET", path)
    assert (batch["lifecycle"], batch["failed_object_count"]) == ("indexed", 1)
    failed = api("GET", f"{path}/failed-documents")
    assert failed["total_count"] == 1
    assert [(each["object_id"], each["error_code"], each["error_type"]) for each in failed["results"]] == [
        (empty["object_id"], "no_text", "permanent")
    ]
    assert api("GET", f"{path}/failed-documents?tier_num=1")["results"] == []
    audit = api("GET", f"{path}/audit")
    (tier,) = audit["tiers"]
    assert (tier["succeeded_count"], tier["failed_count"], audit["has_lost_objects"]) == (1, 1, False)
    assert api("POST", f"{path}/retry")["retried_count"] == 0
    assert api("POST", f"{path}/retry", {"retry_mode": "all"})["retried_count"] == 1
    assert ended(api, task["task_id"])["status"] == "COMPLETED_WITH_ERRORS"
    api("PATCH", f"/buckets/pages/objects/{empty['object_id']}", {"title": "better"})
    listed = api("POST", "/buckets/pages/batches/list")
    assert [each["batch_name"] for each in listed["results"]] == ["first"]
    assert api("POST", "/batches/list", {"status": "DRAFT"})["results"] == []
    assert api("GET", f"/batches/{made['batch_id']}")["batch_id"] == made["batch_id"]
    api("DELETE", path)
    api("GET", path, status=404)


def test_rows_that_give_no_document_are_told_and_the_others_stored(api: Api) -> None:
    promoted(api)
    bucket(api)
    rows = '{"sku": "a", "v": [1, 0]}\n{"sku": "b", "v": [1]}\n{"sku": "c", "v": [0, 1]}\nno json\n'
    parameters = {"vector_fields": [{"field": "v", "name": "rows", "dimensions": 2}], "id_field": "sku"}
    feature = extractor("passthrough_extractor", input_mappings={"rows": "content"}, parameters=parameters)
    collection(api, feature_extractor=feature, auto=False)
    put(api, rows)
    asked = api("POST", "/collections/chunks/trigger", status=202)
    assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    assert sorted(each["sku"] for each in documents(api)) == ["a", "c"]
    failed = api("GET", f"/buckets/pages/batches/{asked['batch_id']}/failed-documents")
    assert [(each["key"], each["error_code"]) for each in failed["results"]] == [
        ("0003", "bad_row"),
        ("b", "bad_vector"),
    ]
    assert failed["total_count"] == 2
    nearest = feature_search(search("rows", [1, 0]))
    found = api("POST", "/retrievers/execute", {"stages": [nearest]})["documents"]
    assert [hit["sku"] for hit in found] == ["a", "c"]


def test_a_url_is_fetched_when_it_is_processed_and_not_again(api: Api, website: Website) -> None:
    root, pages = website
    promoted(api)
    bucket(api)
    collection(api)
    pages["/a.txt"] = (200, b"From another server")
    put(api, f"{root}/a.txt")
    quiet(api)
    assert texts(api) == ["From another server"]
    pages["/a.txt"] = (200, b"Changed there")
    ended(api, api("POST", "/collections/chunks/trigger", status=202)["task_id"])
    assert texts(api) == ["From another server"]
    asked = api("POST", "/collections/chunks/trigger", {"dedup_strategy": "replace"}, status=202)
    assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    assert texts(api) == ["Changed there"]


def test_a_url_that_is_not_there_fails_and_one_that_may_come_is_tried_again(api: Api, website: Website) -> None:
    root, pages = website
    promoted(api)
    bucket(api)
    collection(api)
    gone = put(api, f"{root}/gone.txt", title="gone")
    private = put(api, "http://10.0.0.1/private.txt", title="private")
    pages["/busy.txt"] = (503, b"")
    busy = put(api, f"{root}/busy.txt", title="busy")
    deadline = time.monotonic() + 20
    while [api("GET", f"/buckets/pages/objects/{o['object_id']}")["status"] for o in (gone, private)] != ["FAILED"] * 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert api("GET", f"/buckets/pages/objects/{busy['object_id']}")["status"] == "PENDING"
    pages["/busy.txt"] = (200, b"Here at last")
    quiet(api)
    assert texts(api) == ["Here at last"]


def test_a_cancelled_batch_leaves_what_nobody_has_begun(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api, auto=False)
    for n in range(300):
        put(api, f"text {n}", title=str(n))
    asked = api("POST", "/collections/chunks/trigger", status=202)
    cancelled = api("POST", f"/batches/{asked['batch_id']}/cancel")
    assert cancelled["status"] == "CANCELED"
    audit = api("GET", f"/buckets/pages/batches/{asked['batch_id']}/audit")
    assert (audit["all_balanced"], audit["has_lost_objects"]) == (True, False)
    found = quiet(api)
    assert found["open_extractions"] == 0
    assert found["document_count"] < 300
    again = api("POST", "/collections/chunks/trigger", status=202)
    assert ended(api, again["task_id"])["status"] == "COMPLETED"
    assert api("GET", "/collections/chunks")["document_count"] == 300
    api("POST", f"/batches/{asked['batch_id']}/cancel", status=409)


def test_two_tasks_may_wait_for_the_same_objects(api: Api) -> None:
    promoted(api)
    bucket(api)
    collection(api)
    for n in range(40):
        put(api, f"text {n}", title=str(n))
    first = api("POST", "/collections/chunks/trigger", status=202)
    second = api("POST", "/collections/chunks/trigger", status=202)
    for asked in (first, second):
        assert ended(api, asked["task_id"])["status"] == "COMPLETED"
    assert api("GET", "/collections/chunks")["indexing_status"] == "quiesced"
    assert api("GET", "/collections/chunks")["document_count"] == 40
