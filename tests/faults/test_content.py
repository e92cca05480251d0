"""Content among faults: workers killed while objects come, change and go, beside a provider that fails in every way.

At the end there are the documents of what the objects are now, each once, each with one right vector of its own text;
and what is the same is asked for no second time.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from psycopg import sql

from app import service
from app.db.engine import create_engine, transaction
from app.domain import work
from app.settings import Settings
from tests.conftest import database
from tests.fakes import settings_of
from tests.faults.test_workers import BATCH, SECRET, Workers, environment
from tests.http import ROOT_KEY
from tests.openai_server import OpenAIServer, embedded

SEED = 20_261_128
NAMESPACE = "content"
AT_ONCE = 100  # objects in one request


@dataclass
class Objects:
    """The objects as they should be, and the ways to change them."""

    http: httpx.Client
    random: random.Random
    titles: dict[str, str] = field(default_factory=dict)  # texts by titles
    ids: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def put(self, titles: list[str], version: int) -> None:
        """New objects, or new content for those that there are."""
        for first in range(0, len(titles), AT_ONCE):
            sent = []
            for title in titles[first : first + AT_ONCE]:
                self.titles[title] = f"{title} begins {version}.\n\n{title} ends {version}."
                blob = {"property": "content", "type": "text", "data": self.titles[title]}
                sent.append({"title": title, "blobs": [blob]})
            answer = self("POST", "/buckets/pages/objects/batch", {"objects": sent})
            assert answer["failed"] == []
            self.ids |= {each["title"]: each["object_id"] for each in answer["succeeded"]}

    def delete(self, titles: list[str]) -> None:
        for title in titles:
            self("DELETE", f"/buckets/pages/objects/{self.ids.pop(title)}")
            del self.titles[title]

    def some(self, count: int) -> list[str]:
        return self.random.sample(sorted(self.titles), count)

    def expected(self) -> list[tuple[str, str]]:
        """Each paragraph, and the object that it is of."""
        pairs = [(text, self.ids[title]) for title, whole in self.titles.items() for text in whole.split("\n\n")]
        return sorted(pairs)


@pytest.fixture
def url(server_url: str, template_db: str) -> Iterator[str]:
    with database(server_url, template_db) as found:
        yield found


@pytest.mark.parametrize(
    ("count", "kills"),
    [(300, 2), pytest.param(3_000, 25, marks=pytest.mark.campaign)],
    ids=["few", "many"],
)
async def test_killed_workers_lose_and_double_nothing(
    url: str, settings: Settings, openai: OpenAIServer, tmp_path: Path, count: int, kills: int
) -> None:
    chosen = settings.model_copy(update={"data_dir": tmp_path})
    env = environment(url, openai) | {"PGRETRIEVE_BLOB_STORE": f"file://{tmp_path}/blobs"}
    workers = Workers(env)
    os.environ[SECRET] = openai.key
    with service.in_background(chosen, url, ROOT_KEY) as base:
        headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=f"{base}/v1", headers=headers, timeout=30) as http:
            objects = Objects(http, random.Random(SEED))
            _prepare(objects, openai)
            openai.requests.clear()
            openai.statuses = [200, 429, 500, 200, 503]  # and 503 until it is well again
            try:
                workers.start()
                await _faults(url, objects, workers, openai, count, kills)
                await _until_done(url, 200)
            finally:
                openai.statuses = []
                codes = workers.stop()
            assert 0 in codes
            _check(url, objects)
            asked = [text for request in openai.requests for text in request["input"]]
            failed = 5 * BATCH * (1 + settings.inference_retries)
            assert len(asked) <= len(set(asked)) + kills * 4 * BATCH + failed
            before = len(openai.requests)
            _again(objects)
            _drain(url, env)
            _check(url, objects)
            assert len(openai.requests) == before  # what is the same is not embedded again
    del os.environ[SECRET]


def _prepare(objects: Objects, openai: OpenAIServer) -> None:
    options = {"base_url": openai.base_url, "api_key_ref": SECRET, "send_dimensions": True}
    small = {"name": "small", "provider": "openai", "model": "text-embedding-3-small", "dimension": 64}
    objects("POST", "/inference/services", {**small, "settings": options})
    objects("POST", "/namespaces/standalone", {"namespace_id": NAMESPACE})
    objects("POST", f"/namespaces/{NAMESPACE}/promote", {})
    properties = {"title": {"type": "string"}, "content": {"type": "text"}}
    unique = {"fields": ["title"], "default_policy": "upsert"}
    objects(
        "POST",
        "/buckets",
        {"bucket_name": "pages", "bucket_schema": {"properties": properties}, "unique_key": unique},
    )
    parameters = {"split_by": "paragraphs", "chunk_size": 1, "embedding_model": "small", "vector_index": "text"}
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "parameters": parameters}
    body = {
        "collection_name": "chunks",
        "source": {"type": "bucket", "bucket_ids": ["pages"]},
        "feature_extractor": {**extractor, "input_mappings": {"text": "content"}},
    }
    objects("POST", "/collections", body)


async def _faults(url: str, objects: Objects, workers: Workers, openai: OpenAIServer, count: int, kills: int) -> None:
    """Objects come, change and go; workers are killed in between, and the provider is down for a while."""
    step = count // (kills + 1)
    for killed in range(kills + 1):
        await asyncio.to_thread(objects.put, [f"object {killed * step + n}" for n in range(step)], 0)
        if killed:
            await asyncio.to_thread(objects.put, objects.some(step // 5), killed)
            await asyncio.to_thread(objects.delete, objects.some(step // 10))
        await asyncio.sleep(objects.random.uniform(0.3, 1.5))
        if killed < kills:
            workers.kill()
            workers.start()
        if killed == 1:
            openai.statuses = []
        await _sweep(url)


async def _sweep(url: str) -> None:
    """What the periodic job does every minute."""
    settings = settings_of()
    engine = create_engine(url, settings)
    async with transaction(engine, settings) as conn:
        await work.sweep(conn, settings)
    await engine.dispose()


async def _until_done(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _query(url, "SELECT count(*) FROM pgretrieve.work WHERE failed_at IS NULL") != [(0,)]:
        assert time.monotonic() < deadline, _query(url, "SELECT kind, count(*) FROM pgretrieve.work GROUP BY kind")
        await asyncio.sleep(0.5)
        await _sweep(url)


def _again(objects: Objects) -> None:
    """Everything is to be extracted again, though nothing has changed."""
    objects("POST", "/collections/chunks/trigger", {"dedup_strategy": "force"})


def _drain(url: str, env: dict[str, str]) -> None:
    workers = Workers(env)
    workers.start()
    try:
        deadline = time.monotonic() + 120
        while _query(url, "SELECT count(*) FROM pgretrieve.work") != [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        workers.stop()


def _check(url: str, objects: Objects) -> None:
    """The documents are those of the objects, each once; each vector is of its document's text."""
    assert _query(url, "SELECT count(*) FROM pgretrieve.work WHERE failed_at IS NOT NULL") == [(0,)]
    place = sql.Identifier(NAMESPACE, "documents")
    with psycopg.connect(url) as conn:
        found = conn.execute(
            sql.SQL(
                """SELECT payload->>'text', metadata->>'root_object_id', text::real[],
                    provenance->'text'->>'input' = pgretrieve.source_hash(payload->>'text') FROM {}"""
            ).format(place)
        ).fetchall()
    assert sorted((text, object_id) for text, object_id, _, _ in found) == objects.expected()
    for text, _, vector, is_of_it in found:
        assert is_of_it
        assert np.allclose(vector, embedded(text, 1536, 64), atol=1e-6), text
    statuses = _query(url, "SELECT status, count(*) FROM pgretrieve.objects GROUP BY status")
    assert statuses == [("COMPLETED", len(objects.titles))]
    kept = _query(url, "SELECT sum(cardinality(document_ids)), count(*) FROM pgretrieve.extractions")
    assert kept == [(2 * len(objects.titles), len(objects.titles))]


def _query(url: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(text.encode()).fetchall()
