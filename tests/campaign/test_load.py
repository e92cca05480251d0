"""The long run at full load: sixteen clients for a minute see no error, and the service's memory stays flat."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from app.settings import Settings
from bench.servers import running
from tests.http import ROOT_KEY, Api, document, feature_search, search

CLIENTS = 16
SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
# What caches and the allocator may still take once the load has settled.
GROWTH = 1.10


@pytest.mark.campaign
def test_sixteen_clients_see_no_error_and_memory_stays_flat(
    settings: Settings, fresh_database: Callable[[], str], tmp_path: Path
) -> None:
    """A third of the requests write, two thirds search, each client with its own connection."""
    vectors = np.random.default_rng(3).standard_normal((5_000, 64)).tolist()
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": "load"}
    with running(settings, fresh_database(), ROOT_KEY) as url:
        with httpx.Client(base_url=f"{url}/v1", timeout=30) as http:
            api = Api(http, "load")
            api.standalone(("v", 64))
            for at in range(0, len(vectors), 1_000):
                api.upsert([document(f"d{n}", {"v": vectors[n]}, n=n) for n in range(at, at + 1_000)])
            api.retriever("r", feature_search(search("v", "{{INPUT.v}}", filters={"n": "{{INPUT.n}}"})))
        server = max(psutil.Process().children(), key=lambda child: child.memory_info().rss)
        sizes: list[int] = []
        stop = threading.Event()

        def client(number: int) -> dict[int, int]:
            seen: dict[int, int] = {}
            with httpx.Client(base_url=f"{url}/v1", timeout=30, headers=headers) as http:
                for n in itertools.count(number * 101):
                    if stop.is_set():
                        return seen
                    vector = vectors[n % len(vectors)]
                    if n % 3 == 0:
                        new = document(f"c{number}-{n % 200}", {"v": vector}, n=n)
                        answer = http.post("/namespaces/load/documents/upsert", json={"documents": [new]})
                    else:
                        answer = http.post("/retrievers/r/execute", json={"inputs": {"v": vector}, "limit": 5})
                    seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            raise AssertionError("the count never ends")

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            started = time.monotonic()
            while time.monotonic() - started < SECONDS and not any(each.done() for each in clients):
                stop.wait(SECONDS / 20)
                sizes.append(server.memory_info().rss)
            stop.set()
            seen = [each.result() for each in clients]
    assert {status for each in seen for status in each} == {200}
    settled = sizes[len(sizes) // 4]
    assert max(sizes[-3:]) < settled * GROWTH, [size // 2**20 for size in sizes]
