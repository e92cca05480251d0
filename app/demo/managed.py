"""The managed part of the demonstration: files are dropped in, and found by words and by pictures beside the rest."""

import base64
import mimetypes
import time
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from app.demo.telling import Api, console, show, step

PICTURES = "emoji_minilm"
QUESTIONS = ("see the planets tonight", "water my plants", "my songs show up under the wrong album")
SIGHTS = ("a boat on the sea", "a wild cat", "fruit", "musical instrument")
LIKE = "tiger-face.png"
ENDED = ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")


def run(api: Api, index: str) -> None:
    """A bucket and a collection into the promoted index, files, and a search over all; then pictures."""
    step(8, f"A bucket, and a collection that fills the promoted index “{index}” with chunks of its files")
    schema = {"properties": {"name": {"type": "string"}, "file": {"type": "text", "required": True}}}
    api("POST", "/buckets", {"bucket_name": "guides", "bucket_schema": schema})
    parameters = {"split_by": "markdown", "chunk_size": 80, "vector_index": index}
    _collection(api, "guide_chunks", "guides", "text_extractor", parameters)

    step(9, "New files: they are read, cut, embedded in the background; the task tells how far it is")
    for file in _files(".md", ".html", ".txt"):
        _put(api, "guides", "text", file)
    _wait(api, "guide_chunks", "guides")

    step(10, "One search finds what was upserted as vectors, and what came as files")
    table = Table("query", "score", "found in", "text")
    for question in QUESTIONS:
        for n, hit in enumerate(_search(api, index, {"input_mode": "text", "value": question})["documents"][:3]):
            is_file = "source_object_id" in hit
            text = _short(hit["text"]) if is_file else f"{hit['name']}: {hit['summary']}"
            found_in = f"the file {hit['name']}" if is_file else "the applications"
            table.add_row(question if n == 0 else "", f"{hit['score']:.2f}", found_in, text, end_section=n == 2)
    console.print(table)

    step(11, f"Pictures: the same with the service {PICTURES}, which comes with the package")
    console.print("   [dim]A small model, to try things out: it knows drawings of emoji, and no photographs.[/]")
    schema = {"properties": {"name": {"type": "string"}, "picture": {"type": "image", "required": True}}}
    api("POST", "/buckets", {"bucket_name": "pictures", "bucket_schema": schema})
    _collection(api, "seen", "pictures", "image_extractor", {"embedding_model": PICTURES})
    for file in _files(".png"):
        _put(api, "pictures", "image", file)
    _wait(api, "seen", "pictures")
    uri = f"mixpeek://image_extractor@v1/{PICTURES}"
    picture = base64.b64encode(files("app.demo").joinpath("files", LIKE).read_bytes()).decode()
    found = Table("query", "best", "second", "third")
    for question in SIGHTS:
        found.add_row(f"“{question}”", *_names(api, uri, {"input_mode": "text", "value": question}))
    like = {"input_mode": "content", "value": f"data:image/png;base64,{picture}"}
    found.add_row(f"the picture {LIKE}", *_names(api, uri, like))
    console.print(found)


def _collection(api: Api, name: str, bucket: str, extractor: str, parameters: dict[str, Any]) -> None:
    mapped = {"image": "picture"} if extractor == "image_extractor" else {"text": "file"}
    feature = {
        "feature_extractor_name": extractor,
        "version": "v1",
        "parameters": parameters,
        "input_mappings": mapped,
        "field_passthrough": [{"source_path": "name"}],
    }
    source = {"type": "bucket", "bucket_ids": [bucket]}
    made = api("POST", "/collections", {"collection_name": name, "source": source, "feature_extractor": feature})
    index = made["vector_indexes"][0]["index"]
    fills = f"{index['name']} ({index['dimensions']} dimensions), by {index['inference_name']}"
    show({"bucket": bucket, "collection": name, "made by": extractor, "fills": fills})


def _files(*endings: str) -> list[Traversable]:
    folder = files("app.demo").joinpath("files")
    return sorted((file for file in folder.iterdir() if file.name.endswith(endings)), key=lambda file: file.name)


def _put(api: Api, bucket: str, kind: str, file: Traversable) -> None:
    mime = mimetypes.guess_type(file.name)[0] or "text/markdown"
    data = {"base64": base64.b64encode(file.read_bytes()).decode(), "mime_type": mime, "filename": file.name}
    blob = {"property": "file" if kind == "text" else "picture", "type": kind, "data": data}
    name = file.name.rpartition(".")[0].replace("-", " ")
    api("POST", f"/buckets/{bucket}/objects", {"name": name, "blobs": [blob]})


def _wait(api: Api, collection: str, bucket: str) -> None:
    """They are on their way already; a trigger gives a task that waits for them, and whose percentage can be shown."""
    asked = api("POST", f"/collections/{collection}/trigger")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console) as shown:
        bar = shown.add_task(f"   {asked['object_count']} objects of {bucket}", total=100)
        while True:
            task = api("GET", f"/tasks/{asked['task_id']}")
            shown.update(bar, completed=task["additional_data"]["percentage"] or 0)
            if task["status"] in ENDED:
                break
            time.sleep(0.05)
    count = api("GET", f"/collections/{collection}")["document_count"]
    console.print(f"   {task['status']}: {count} documents can be searched.")


def _search(api: Api, index: str, query: dict[str, Any]) -> dict[str, Any]:
    search = {"feature_uri": index, "query": query, "top_k": 10}
    stage = {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 3}}
    return api("POST", "/retrievers/execute", {"stages": [{"stage_name": "search", "config": stage}]})


def _names(api: Api, uri: str, query: dict[str, Any]) -> list[str]:
    return [f"{hit['name']} ({hit['score']:.2f})" for hit in _search(api, uri, query)["documents"]]


def _short(text: str, most: int = 90) -> str:
    words = " ".join(text.replace("#", "").split())
    return words if len(words) <= most else f"{words[:most].rsplit(' ', 1)[0]} …"
