"""What tests of managed content say again and again: a namespace, buckets, collections, what is waited for."""

import time
from typing import Any

from tests.http import Api, feature_search, search

# A server, and the answers that it gives by path.
Website = tuple[str, dict[str, tuple[int, bytes]]]
SERVICE = "minilm_l6_v2"
TEXTS: dict[str, Any] = {"properties": {"title": {"type": "string"}, "content": {"type": "text"}}}


def promoted(api: Api, *documents: dict[str, Any], **more: Any) -> None:
    """A namespace with a promoted index `text`."""
    api.standalone(("text", 384))
    if documents:
        api.upsert(list(documents))
    api.promote({"vector_mappings": [{"existing_index": "text", "inference_service": SERVICE, **more}]})


def bucket(api: Api, name: str = "pages", schema: dict[str, Any] = TEXTS, **more: Any) -> str:
    made: str = api("POST", "/buckets", {"bucket_name": name, "bucket_schema": schema, **more})["bucket_id"]
    return made


def extractor(name: str = "text_extractor", **more: Any) -> dict[str, Any]:
    return {"feature_extractor_name": name, "version": "v1", **more}


def collection(api: Api, name: str = "chunks", buckets: tuple[str, ...] = ("pages",), **more: Any) -> Any:
    body = {
        "collection_name": name,
        "source": {"type": "bucket", "bucket_ids": list(buckets)},
        "feature_extractor": extractor(
            input_mappings={"text": "content"}, parameters={"split_by": "paragraphs", "chunk_size": 1}
        ),
    }
    return api("POST", "/collections", body | more)


def put(api: Api, content: str, title: str = "a", bucket_id: str = "pages", **more: Any) -> Any:
    blob = {"property": "content", "type": "text", "data": content}
    return api("POST", f"/buckets/{bucket_id}/objects", {"title": title, "blobs": [blob], **more})


def ended(api: Api, task_id: str, seconds: float = 30) -> Any:
    """The task, once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        task = api("GET", f"/tasks/{task_id}")
        if task["status"] not in ("PENDING", "IN_PROGRESS"):
            return task
        assert time.monotonic() < deadline, task
        time.sleep(0.05)


def quiet(api: Api, name: str = "chunks", seconds: float = 30) -> Any:
    """The collection, once all that has come to it can be searched."""
    deadline = time.monotonic() + seconds
    while True:
        found = api("GET", f"/collections/{name}")
        if found["indexing_status"] == "quiesced":
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def documents(api: Api, name: str = "chunks") -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = api("POST", f"/collections/{name}/documents/list", {"limit": 1000})["results"]
    return listed


def searched(api: Api, query: str, index: str = "text") -> list[dict[str, Any]]:
    body = {"stages": [feature_search(search(index, query, mode="text"))]}
    found: list[dict[str, Any]] = api("POST", "/retrievers/execute", body)["documents"]
    return found
