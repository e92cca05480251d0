"""The demonstration: standalone → upsert → vector query → promote → text query, over HTTP, on Debian's applications;
then files that are dropped in."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from rich.syntax import Syntax
from rich.table import Table

from app.demo import managed
from app.demo.data import App, load_apps, load_queries
from app.demo.telling import NAMESPACE, Api, console, progress, show, step
from app.inference.registry import Inference
from app.settings import Settings

INDEX = "summary"
SERVICE = "minilm_l6_v2"
BATCH = 250
QUESTION = "edit the tags of my music files"

Embedder = Callable[[Sequence[str]], list[list[float]]]


def run(base_url: str, key: str, settings: Settings) -> None:
    """Run the whole walk and print what it did."""
    started = time.perf_counter()
    with closing(Api(base_url, key)) as api:
        _walk(api, settings)
        managed.run(api, INDEX)
    console.print(f"\nDone in {time.perf_counter() - started:.1f} s.")


def _walk(api: Api, settings: Settings) -> None:
    apps, embed = load_apps(), embedder(settings)
    api("DELETE", f"/namespaces/{NAMESPACE}", may_miss=True)

    step(1, "A standalone namespace: a Postgres schema with one vector column")
    configs = [{"name": INDEX, "dimension": 384, "metric": "cosine"}]
    show(api("POST", "/namespaces/standalone", {"namespace_id": NAMESPACE, "vector_configs": configs}))

    step(
        2,
        f"{len(apps):,} documents with vectors that we compute ourselves (all-MiniLM-L6-v2, on this machine)",
    )
    vectors = _embed_all(apps, embed)
    _upsert(api, apps, vectors)

    step(3, "A retriever whose query is a vector, with the filter category = Audio")
    api(
        "POST",
        "/retrievers",
        _retriever({"input_mode": "vector", "value": "{{INPUT.query_vector}}"}, "array"),
    )
    query_vector = embed([QUESTION])[0]
    console.print(f"   [dim]the vector of[/] “{QUESTION}”")
    before = api("POST", "/retrievers/app_search/execute", {"inputs": {"query_vector": query_vector}})
    _hits(before)

    step(
        4,
        f"Promotion: map the index to {SERVICE}, add an index for images; one transaction, no vector touched",
    )
    promotion = {
        "vector_mappings": [{"existing_index": INDEX, "inference_service": SERVICE}],
        "add_vectors": [{"name": "icon", "dimension": 512, "metric": "cosine", "inference_service": "clip_vit_b32"}],
    }
    show(api("POST", f"/namespaces/{NAMESPACE}/promote", promotion))
    console.print(
        "   [dim]“icon” stays empty here, for clip_vit_b32 needs a checkpoint; step 11 has pictures without one.[/]"
    )

    step(5, "The same retriever, flipped to text: the service embeds the words")
    api("POST", "/retrievers", _retriever({"input_mode": "text", "value": "{{INPUT.q}}"}, "string"))
    after = api("POST", "/retrievers/app_search/execute", {"inputs": {"q": QUESTION}, "explain": True})
    _hits(after)
    same = [(d["document_id"], d["score"]) for d in before["documents"]] == [
        (d["document_id"], d["score"]) for d in after["documents"]
    ]
    console.print(f"   Same documents and scores as with the vector: [bold]{'yes' if same else 'no'}[/]")

    step(6, "Known-item search: queries with one right answer each")
    _measure(api)

    step(7, "The SQL that ran for step 5")
    console.print(Syntax(after["explain_plan"]["statement"], "sql", word_wrap=True, background_color="default"))


def serve_on(base_url: str, key_file: str | None, url: str) -> None:
    """Tell how to go on, and wait until a signal ends it."""
    where = f"$(cat {key_file})" if key_file else "$PGRETRIEVE_ROOT_KEY"
    console.print(f"\nServing on {base_url} until Ctrl-C. API docs: {base_url}/docs")
    console.print("Ask something yourself:", style="bold")
    command = (
        f"curl -s {base_url}/v1/retrievers/app_search/execute -H 'X-Namespace: {NAMESPACE}' \\\n"
        f'  -H "Authorization: Bearer {where}" -d \'{{"inputs": {{"q": "record my voice"}}, "limit": 3}}\''
    )
    console.print(command, soft_wrap=True, markup=False)
    console.print(f"psql '{url}' -c 'TABLE {NAMESPACE}.documents LIMIT 3'", soft_wrap=True)
    threading.Event().wait()


def _retriever(query: dict[str, Any], input_type: str) -> dict[str, Any]:
    """The mission's own shape: one search with a filter."""
    name = query["value"].strip("{}").removeprefix("INPUT.")
    search = {
        "feature_uri": INDEX,
        "query": query,
        "top_k": 50,
        "filters": {"must": [{"key": "category", "match": {"value": "Audio"}}]},
    }
    stage = {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 5}}
    return {
        "retriever_name": "app_search",
        "stages": [{"stage_name": "search", "stage_type": "filter", "config": stage}],
        "input_schema": {name: {"type": input_type, "required": True}},
    }


def _embed_all(apps: Sequence[App], embed: Embedder) -> list[list[float]]:
    vectors: list[list[float]] = []
    with progress() as shown:
        task = shown.add_task("   embedding", total=len(apps))
        for start in range(0, len(apps), BATCH):
            vectors += embed([app.text for app in apps[start : start + BATCH]])
            shown.update(task, completed=len(vectors))
    return vectors


def embedder(settings: Settings) -> Embedder:
    """What a caller of a standalone namespace does for itself: here with the model that the service has too."""
    inference = Inference.from_settings(settings)

    def embed(texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = asyncio.run(inference.embed(SERVICE, texts, "document")).tolist()
        return found

    return embed


def _upsert(api: Api, apps: Sequence[App], vectors: Sequence[list[float]]) -> None:
    with progress() as shown:
        task = shown.add_task("   upserting", total=len(apps))
        for start in range(0, len(apps), BATCH):
            pairs = list(zip(apps, vectors, strict=True))[start : start + BATCH]
            documents = [
                {"document_id": app.id, "vectors": {INDEX: vector}, "payload": _payload(app)} for app, vector in pairs
            ]
            api("POST", f"/namespaces/{NAMESPACE}/documents/upsert", {"documents": documents})
            shown.advance(task, len(documents))


def _payload(app: App) -> dict[str, Any]:
    return {
        "name": app.name,
        "summary": app.summary,
        "description": app.description,
        "category": app.category,
        "categories": list(app.categories),
        "keywords": list(app.keywords),
        "package": app.package,
        "installed_size_kb": app.installed_size_kb,
    }


def _measure(api: Api) -> None:
    """recall@10 and MRR over the whole catalogue: no filter, the ten best."""
    search = {"feature_uri": INDEX, "query": {"input_mode": "text", "value": "{{INPUT.q}}"}, "top_k": 10}
    stage = {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 10}}
    body = {"retriever_name": "known_item", "stages": [{"stage_name": "search", "config": stage}]}
    api("POST", "/retrievers", body)
    ranks: dict[str, list[int | None]] = {"hand": [], "derived": []}
    for query in load_queries():
        answer = api("POST", "/retrievers/known_item/execute", {"inputs": {"q": query.query}})
        ids = [document["document_id"] for document in answer["documents"]]
        ranks[query.kind].append(ids.index(query.document_id) + 1 if query.document_id in ids else None)
    table = Table("queries", "n", "recall@10", "MRR@10")
    for kind, found in (*ranks.items(), ("all", [rank for some in ranks.values() for rank in some])):
        recall = sum(rank is not None for rank in found) / len(found)
        mrr = sum(1 / rank for rank in found if rank) / len(found)
        table.add_row(kind, str(len(found)), f"{recall:.3f}", f"{mrr:.3f}")
    console.print(table)


def _hits(answer: dict[str, Any]) -> None:
    table = Table("score", "name", "summary", "category")
    for document in answer["documents"]:
        table.add_row(f"{document['score']:.4f}", document["name"], document["summary"], document["category"])
    console.print(table)
