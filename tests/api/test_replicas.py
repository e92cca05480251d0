"""Executions on a real streaming replica: fresh enough, one's own writes seen, the primary where it is not there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app import service
from app.db.embedded import EmbeddedServer
from app.db.embedded.account import account_for
from app.db.embedded.programs import Programs, wheel_binaries
from app.db.migrate import upgrade
from app.settings import Settings
from tests import servers
from tests.api.test_observability import metrics, value
from tests.http import ROOT_KEY, Api, document, feature_search, search

LAG_S = 4.0
VECTOR = [1.0, 2.0, 3.0]


@dataclass
class Cluster:
    """A primary, its replica, and a service on both."""

    primary: str
    replica: EmbeddedServer
    base: str = ""

    def on_replica(self, query: str) -> Any:
        with psycopg.connect(self.replica.url, autocommit=True) as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The replica takes in, and shows nothing new."""
        self.on_replica("SELECT pg_wal_replay_pause()")
        try:
            while self.on_replica("SELECT pg_get_wal_replay_pause_state()") != "paused":
                time.sleep(0.005)
            yield
        finally:
            self.on_replica("SELECT pg_wal_replay_resume()")

    def reads(self, outcome: str) -> float:
        return value(metrics(self.base), "pgretrieve_replica_reads_total", outcome=outcome)

    def settle(self) -> None:
        """Until the replica is fresh, and read from."""
        deadline = time.monotonic() + 20
        while value(metrics(self.base), "pgretrieve_replica_lag_seconds") > LAG_S / 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(settings: Settings) -> Iterator[Cluster]:
    with (
        servers.temporary_directory() as first,
        servers.temporary_directory() as second,
        EmbeddedServer(first, settings=servers.HASTY) as server,
    ):
        account = account_for(first / "postgres")
        account.give(second)
        programs = Programs(wheel_binaries(), second, account)
        host = str(server.postmaster.socket_dir)
        copy = ("-D", "postgres", "-R", "-X", "stream", "-c", "fast", "-h", host, "-U", "postgres")
        code, said = programs.run("pg_basebackup", *copy)
        assert code == 0, said
        for lock in second.glob("postgres/.s.PGSQL*"):  # the primary's socket lies in its data
            lock.unlink()
        upgrade(server.url)
        with EmbeddedServer(second, settings=servers.HASTY) as replica:
            changes = {"read_database_url": SecretStr(replica.url), "replica_lag_s": LAG_S, "replica_wait_s": 2.0}
            with service.in_background(settings.model_copy(update=changes), server.url, ROOT_KEY) as base:
                yield Cluster(server.url, replica, base)


@pytest.fixture
def api(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Api]:
    with httpx.Client(base_url=f"{cluster.base}/v1", timeout=30) as http:
        made = Api(http, request.node.name)
        made.standalone(("v", 3))
        made.upsert([document("first", {"v": VECTOR})])
        made.retriever("near", feature_search(search("v", "{{INPUT.v}}")))
        yield made


def written(api: Api, document_id: str) -> str:
    """Write, and answer its token."""
    headers = {"Authorization": api.authorization}
    path = f"/namespaces/{api.namespace}/documents/upsert"
    answer = api.http.post(path, json={"documents": [document(document_id, {"v": VECTOR})]}, headers=headers)
    assert answer.status_code == 200
    return answer.headers["X-Write-Token"]


def found(api: Api, token: str | None = None, **body: Any) -> tuple[set[str], str]:
    """What is found, and how consistent the answer says it is."""
    headers = {"X-Write-Token": token} if token else None
    answer = api("POST", "/retrievers/near/execute", {"inputs": {"v": VECTOR}, **body}, headers=headers)
    return {hit["document_id"] for hit in answer["documents"]}, answer["consistency_mode"]


def test_a_write_is_seen_by_its_token_on_the_replica(cluster: Cluster, api: Api) -> None:
    cluster.settle()
    before = cluster.reads("replica")
    for n in range(5):
        assert f"d{n}" in found(api, written(api, f"d{n}"))[0]
    assert cluster.reads("replica") == before + 5
    assert found(api)[1] == "eventual"


def test_what_the_replica_has_not_is_read_from_the_primary_by_those_who_must_see_it(cluster: Cluster, api: Api) -> None:
    found(api, written(api, "second"))
    cluster.settle()
    with cluster.paused():
        token = written(api, "third")
        assert found(api) == ({"first", "second"}, "eventual"), "within its time, the replica's answer is old"
        assert found(api, consistency={"mode": "strong"}) == ({"first", "second", "third"}, "strong")
        assert found(api, write_token="wt_0") == ({"first", "second", "third"}, "strong")
        assert found(api, token) == ({"first", "second", "third"}, "strong")


def test_staleness_is_bounded(cluster: Cluster, api: Api) -> None:
    found(api, written(api, "second"))
    cluster.settle()
    with cluster.paused():
        written(api, "third")
        began, before = time.monotonic(), cluster.reads("too_old")
        while "third" not in found(api)[0]:
            assert time.monotonic() < began + 5 * LAG_S
            time.sleep(0.02)
        assert cluster.reads("too_old") == before + 1
        assert value(metrics(cluster.base), "pgretrieve_replica_lag_seconds") > LAG_S
    cluster.settle()
    assert found(api) == ({"first", "second", "third"}, "eventual")


def test_no_answer_mixes_two_states_of_the_catalog(cluster: Cluster, api: Api) -> None:
    """What is compiled from the primary's catalog runs on the replica only where that has the same."""
    found(api, written(api, "second"))
    cluster.settle()
    with cluster.paused():
        before = cluster.reads("behind")
        api.retriever("new", feature_search(search("v", "{{INPUT.v}}")))
        assert len(api.ids("new", inputs={"v": VECTOR})) == 2
        assert cluster.reads("behind") == before + 1
        api.promote({"vector_mappings": []})
        api.retriever("near", feature_search(search("v", "{{INPUT.v}}"), final_top_k=1))
        names, consistency = found(api, written(api, "third"))
        assert (len(names), consistency) == (1, "strong")
        names, consistency = found(api)
        assert (len(names), consistency) == (1, "strong"), "who has seen the new state is not shown the old one"


def test_without_its_replica_the_service_goes_on(cluster: Cluster, api: Api) -> None:
    found(api, written(api, "second"))
    cluster.settle()
    cluster.replica.stop()
    try:
        for _ in range(3):
            assert found(api) == ({"first", "second"}, "strong")
        written(api, "third")
        assert "third" in found(api)[0]
    finally:
        cluster.replica.start()
    cluster.settle()
    assert found(api)[1] == "eventual"


def test_tokens_are_checked(cluster: Cluster, api: Api) -> None:
    headers = {"X-Write-Token": "yesterday"}
    refused = api("POST", "/retrievers/near/execute", {"inputs": {"v": VECTOR}}, headers=headers, status=422)
    assert refused["error"]["code"] == "bad_write_token"
    reads = api.http.get(f"/namespaces/{api.namespace}", headers={"Authorization": api.authorization})
    assert "X-Write-Token" not in reads.headers
