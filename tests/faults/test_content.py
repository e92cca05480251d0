"""Content among faults: workers and the database killed while objects come, change and go, beside a provider that fails
in every way.

At the end there are the documents of what the objects are now, each once, each with one right vector of its own text;
and what is the same is asked for no second time.
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from psycopg import sql

from app import service
from app.db.embedded import EmbeddedServer
from app.db.engine import create_engine, transaction
from app.domain.background import work
from app.settings import Settings
from tests.fakes import settings_of
from tests.faults.sabotage import shut_down
from tests.faults.test_workers import BATCH, SECRET, Workers, environment
from tests.http import ROOT_KEY
from tests.openai_server import Answer, OpenAIServer, embedded

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


class Troubles:
    """What goes wrong, one thing after the other, each for the time of a block."""

    def __init__(self, openai: OpenAIServer, server: EmbeddedServer) -> None:
        self.openai, self.server = openai, server
        lies: list[Answer] = ["nan", "wrong_length", "too_few", "not_json"]
        self._next = itertools.cycle([self.refusing, self.restarting, self.silent, *(self.lying(lie) for lie in lies)])

    def next(self) -> AbstractContextManager[None]:
        return next(self._next)()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Too much, broken, away: the last of them until the end of the block."""
        self.openai.statuses = [429, 500, 503]
        yield
        self.openai.statuses = []

    def lying(self, answer: Answer) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def lie() -> Iterator[None]:
            self.openai.answer = answer
            yield
            self.openai.answer = "right"

        return lie

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answers come too late."""
        self.openai.hold = hold = threading.Event()
        yield
        self.openai.hold = None
        hold.set()

    @contextmanager
    def restarting(self) -> Iterator[None]:
        """The database is shut down without a word, and started again."""
        yield
        url = self.server.url
        shut_down(self.server)
        self.server.stop()
        assert self.server.start() == url


@pytest.mark.parametrize(
    ("count", "rounds"),
    [(350, 7), pytest.param(4_200, 42, marks=pytest.mark.campaign)],
    ids=["few", "many"],
)
async def test_faults_lose_and_double_nothing(
    own_server: EmbeddedServer, settings: Settings, openai: OpenAIServer, tmp_path: Path, count: int, rounds: int
) -> None:
    url = own_server.url
    chosen = settings.model_copy(update={"data_dir": tmp_path})
    limits = {"PGRETRIEVE_BLOB_STORE": f"file://{tmp_path}/blobs", "PGRETRIEVE_INFERENCE_TIMEOUT_S": "2"}
    env = environment(url, openai) | limits
    workers, troubles = Workers(env), Troubles(openai, own_server)
    with pytest.MonkeyPatch.context() as patch, service.in_background(chosen, url, ROOT_KEY) as base:
        patch.setenv(SECRET, openai.key)
        headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=f"{base}/v1", headers=headers, timeout=30) as http:
            objects = Objects(http, random.Random(SEED))
            _prepare(objects, openai)
            openai.answered.clear()
            workers.start()
            try:
                for n in range(rounds):
                    with troubles.next():
                        await _round(objects, n, count // rounds)
                    if n % 2:
                        workers.kill()
                        workers.start()
                    await _sweep(url)
                await _until_done(url, 300)
            finally:
                codes = workers.stop()
            assert codes == [0, 0]
            _check(url, objects)
            # Asked for twice is only what was in hand when a worker, or the database, was killed.
            in_hand = 2 * chosen.worker_concurrency * BATCH
            interruptions = rounds // 2 + rounds // 7 + 1
            assert len(openai.answered) <= len(set(openai.answered)) + interruptions * in_hand
            before = len(openai.requests)
            _again(objects)
            _drain(url, env)
            _check(url, objects)
            assert len(openai.requests) == before  # what is the same is not embedded again


async def test_workers_go_on_after_a_restart_of_the_database(
    own_server: EmbeddedServer, settings: Settings, openai: OpenAIServer, tmp_path: Path
) -> None:
    url = own_server.url
    env = environment(url, openai) | {"PGRETRIEVE_BLOB_STORE": f"file://{tmp_path}/blobs"}
    workers, chosen = Workers(env), settings.model_copy(update={"data_dir": tmp_path})
    with pytest.MonkeyPatch.context() as patch, service.in_background(chosen, url, ROOT_KEY) as base:
        patch.setenv(SECRET, openai.key)
        headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=f"{base}/v1", headers=headers, timeout=30) as http:
            objects = Objects(http, random.Random(SEED))
            _prepare(objects, openai)
            workers.start()
            try:
                await asyncio.to_thread(objects.put, ["before"], 0)
                await _until_done(url, 60)
                shut_down(own_server)
                await asyncio.sleep(2)  # they notice within milliseconds, try again, and give up
                own_server.stop()
                own_server.start()
                await asyncio.to_thread(objects.put, ["after"], 0)
                await _until_done(url, 60)
            finally:
                codes = workers.stop()
            assert codes == [0, 0]
            _check(url, objects)


async def _round(objects: Objects, n: int, count: int) -> None:
    """New objects, changed ones, and deleted ones; then a while for the workers."""
    await asyncio.to_thread(objects.put, [f"object {n * count + each}" for each in range(count)], 0)
    if n:
        await asyncio.to_thread(objects.put, objects.some(count // 5), n)
        await asyncio.to_thread(objects.delete, objects.some(count // 10))
    await asyncio.sleep(objects.random.uniform(0.3, 1.5))


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
