"""What the service costs beside a hand-written handler with the same statement and pool, in the same run.

Both serve real HTTP, each in a process of its own. One client sends to both in turn, the order changing with each
pair, so that neither always finds the caches warm; then several clients at once, in short blocks that alternate.
"""

import itertools
import json
import statistics
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from app import service
from app.settings import Settings
from bench.baseline import Statement
from bench.client import Connection, Target
from bench.servers import running
from tests.data import glove

NAMESPACE = "words"
RETRIEVER = "nearest"
WARM_UP = 500
BLOCK = 250
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    documents: int = 20_000
    requests: int = 3_000
    clients: int = 16
    top_k: int = 100
    final_top_k: int = 25
    upserts: int = 5_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of all requests to one server."""

    p50: float
    p95: float
    p99: float
    mean: float
    requests: int

    @classmethod
    def of(cls, times: list[float]) -> "Latency":
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        return cls(cuts[49], cuts[94], cuts[98], statistics.fmean(times), len(times))


@dataclass(frozen=True, slots=True)
class Measured:
    """One comparison: so many clients at once, the service and the baseline."""

    clients: int
    service: Latency
    baseline: Latency

    @property
    def ratio(self) -> float:
        return self.service.p50 / self.baseline.p50


def measure(directory: Path, sizes: Sizes) -> list[Measured]:
    """Everything, on a server of its own in `directory`."""
    with _targets(directory, sizes) as targets:
        _assert_same(targets)
        return [_in_turn(targets, sizes.requests), _at_once(targets, sizes)]


@contextmanager
def _targets(directory: Path, sizes: Sizes) -> Iterator[tuple[Target, Target]]:
    """The service with its namespace of real vectors, and the baseline on the same database."""
    settings = Settings(data_dir=directory, database_url=None)
    key = service.root_key(settings).key
    words = glove.load()
    with ExitStack() as stack:
        url = stack.enter_context(service.database(settings))
        base = stack.enter_context(running(settings, url, key))
        _load(base, key, words, sizes)
        _vacuum(url)
        vectors = [[float(x) for x in vector] for vector in words.queries]
        headers = {"Authorization": f"Bearer {key}", "X-Namespace": NAMESPACE}
        path = f"/v1/retrievers/{RETRIEVER}/execute"
        ours = Target("service", base, path, headers, [_json({"inputs": {"vector": v}}) for v in vectors])
        statement = _statement(base, key, vectors[0])
        other = stack.enter_context(running(settings, url, key, statement))
        yield ours, Target("baseline", other, "/search", {}, [_json({"vector": v}) for v in vectors])


def _load(base: str, key: str, words: glove.Glove, sizes: Sizes) -> None:
    config = {"name": "glove", "dimension": words.stored.shape[1]}
    _call(base, key, "/v1/namespaces/standalone", {"namespace_id": NAMESPACE, "vector_configs": [config]})
    documents = [
        {"document_id": f"w{n:05}", "vectors": {"glove": vector.tolist()}, "payload": {"word": word, "rank": n}}
        for n, (word, vector) in enumerate(zip(words.words, words.stored, strict=True))
    ][: sizes.documents]
    for at in range(0, len(documents), BATCH):
        body = {"documents": documents[at : at + BATCH]}
        _call(base, key, f"/v1/namespaces/{NAMESPACE}/documents/upsert", body)
    query = {"input_mode": "vector", "value": "{{INPUT.vector}}"}
    parameters = {
        "searches": [{"feature_uri": "glove", "query": query, "top_k": sizes.top_k}],
        "final_top_k": sizes.final_top_k,
    }
    stage = {"stage_name": "search", "config": {"stage_id": "feature_search", "parameters": parameters}}
    schema = {"vector": {"type": "array", "required": True}}
    _call(base, key, "/v1/retrievers", {"retriever_name": RETRIEVER, "stages": [stage], "input_schema": schema})


def _vacuum(url: str) -> None:
    """What autovacuum does sooner or later; in the midst of a run it would disturb."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")


def _statement(base: str, key: str, vector: list[float]) -> Statement:
    """The service's own statement for this retriever, with the values that it runs with."""
    path = f"/v1/retrievers/{RETRIEVER}/execute?explain=true"
    answer = _call(base, key, path, {"inputs": {"vector": vector}})
    plan = answer["explain_plan"]
    values = {
        "namespace_id": NAMESPACE,
        "retriever_id": answer["retriever_id"],
        "page_limit": None,
        "page_offset": 0,
    }
    return Statement(plan["statement"], plan["settings"], values, "s1_query_1")


def _assert_same(targets: tuple[Target, Target]) -> None:
    """Both answer the same documents, or nothing is worth comparing."""
    with Connection(targets[0]) as ours, Connection(targets[1]) as baseline:
        for n in range(20):
            assert ours.answer(n)["documents"] == baseline.answer(n)["documents"]


def _in_turn(targets: tuple[Target, Target], requests: int) -> Measured:
    with Connection(targets[0]) as ours, Connection(targets[1]) as baseline:
        times = _alternate((ours, baseline), WARM_UP)
        times = _alternate((ours, baseline), requests)
    return Measured(1, Latency.of(times[0]), Latency.of(times[1]))


def _alternate(pair: tuple[Connection, Connection], requests: int) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for n in range(requests):
        for which in (0, 1) if n % 2 else (1, 0):
            times[which].append(pair[which].timed(n))
    return times


def _at_once(targets: tuple[Target, Target], sizes: Sizes) -> Measured:
    with ExitStack() as stack:
        connections = [[stack.enter_context(Connection(target)) for _ in range(sizes.clients)] for target in targets]
        pool = stack.enter_context(ThreadPoolExecutor(sizes.clients))
        for which in (0, 1):
            _block(pool, connections[which], WARM_UP)
        times: tuple[list[float], list[float]] = ([], [])
        for which in itertools.islice(itertools.cycle((0, 1, 1, 0)), 2 * -(-sizes.requests // BLOCK)):
            times[which].extend(_block(pool, connections[which], BLOCK))
    return Measured(sizes.clients, Latency.of(times[0]), Latency.of(times[1]))


def _block(pool: ThreadPoolExecutor, connections: list[Connection], requests: int) -> list[float]:
    """So many requests, shared out among the connections, all of them at once."""
    numbers = itertools.count()

    def work(connection: Connection) -> list[float]:
        mine = itertools.takewhile(lambda n: n < requests, numbers)
        return [connection.timed(n) for n in mine]

    return list(itertools.chain.from_iterable(pool.map(work, connections)))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _call(base: str, key: str, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}", "X-Namespace": NAMESPACE, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}{path}", data=_json(body), headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
