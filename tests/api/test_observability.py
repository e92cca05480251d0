"""What operators see: metrics with bounded labels, ids of requests everywhere, slow statements, health, traces."""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from psycopg import sql
from pydantic import SecretStr

from app import service
from app.domain.runtime import Runtime
from app.jobs.watching import metrics_served
from app.jobs.worker import drain
from app.settings import Settings
from tests.db.test_service import free_port, serving
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.state import blocked, until

DASHBOARD = Path(__file__).parents[2] / "docker" / "observability" / "dashboard.json"
TOKEN = "a token for prometheus"
VECTOR = [0.123456, 0.654321, 0.111213]
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def metrics(url: str, **headers: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = httpx.get(f"{url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    found = LINE.findall(answer.text)
    return {(name, frozenset(LABEL.findall(labels))): float(value) for name, labels, value in found}


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    """The sum of what has these labels, among others."""
    return sum(v for (n, has), v in found.items() if n == name and set(labels.items()) <= has)


def searched(api: Api) -> None:
    api.standalone(("v", 3))
    api.upsert([document("a", {"v": VECTOR})])
    api.retriever("near", feature_search(search("v", "{{INPUT.v}}")))
    assert api.ids("near", inputs={"v": VECTOR}) == ["a"]


def test_requests_searches_pool_and_queue_are_counted(api: Api, base_url: str) -> None:
    before = metrics(base_url)
    searched(api)
    api("POST", "/retrievers/none/execute", {}, status=404)
    after = metrics(base_url)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    execute = "/v1/retrievers/{retriever_id}/execute"
    assert grown("pgretrieve_http_requests_total", path=execute, status_code="200") == 1
    assert grown("pgretrieve_http_requests_total", path=execute, status_code="404") == 1
    assert grown("pgretrieve_http_request_duration_seconds_count", path=execute, method="POST") == 2
    assert grown("pgretrieve_searches_total", strategy="exact") == 1
    assert value(after, "pgretrieve_database_up") == 1
    assert value(after, "pgretrieve_pool_size") == 10
    assert ("pgretrieve_work_dead", frozenset()) in after
    assert ("pgretrieve_jobs_oldest_seconds", frozenset()) in after


# Routes that the document does not list.
UNLISTED = {
    "/openapi.json",
    "/docs",
    "/docs/openapi.json",
    "/docs/assets/{file_path}",
    "/uploads/{upload_id}/{signature}",
}


def test_no_label_holds_what_callers_send(api: Api, base_url: str) -> None:
    searched(api)
    api("GET", f"/namespaces/{api.namespace}")
    for method, path in (("GET", "/v1/nothing/here"), ("BREW", "/v1/namespaces"), ("POST", "/health/live")):
        httpx.request(method, f"{base_url}{path}", headers={"Authorization": f"Bearer {ROOT_KEY}"})
    text = httpx.get(f"{base_url}/metrics").text
    for sent in (api.namespace, "near", "nothing", "BREW"):
        assert sent not in text
    paths = set(httpx.get(f"{base_url}/openapi.json").json()["paths"])
    told = {re.sub(r":\w+}", "}", path) for path in re.findall(r' path="|path="([^"]+)"', text) if path}
    assert told <= paths | UNLISTED


def test_calls_of_services_are_counted(api: Api, base_url: str) -> None:
    def told(**labels: str) -> float:
        return value(metrics(base_url), "pgretrieve_service_calls_total", **labels)

    of = {"service": "openai_text_3_small"}
    before = told(**of, outcome="ok")
    api("POST", "/inference", {"inference_name": "openai_text_3_small", "inputs": {"text": "new to the metrics"}})
    assert told(**of, outcome="ok") == before + 1
    assert value(metrics(base_url), "pgretrieve_service_call_seconds_count", **of) >= 1


async def test_a_worker_on_its_own_answers_metrics(conninfo: str, api: Api, runtime: Runtime) -> None:
    api.standalone(("v", 3))
    api("POST", f"/namespaces/{api.namespace}/ensure-indexes", None, status=200)
    port = free_port()
    alone = Runtime(
        runtime.settings.model_copy(update={"worker_metrics_port": port}), runtime.engine, runtime.inference
    )
    with metrics_served(alone):
        before = value(metrics(f"http://127.0.0.1:{port}"), "pgretrieve_jobs_total", outcome="ok")
        await runtime_defer(runtime)
        await drain(conninfo, runtime)
        assert value(metrics(f"http://127.0.0.1:{port}"), "pgretrieve_jobs_total", outcome="ok") > before


async def runtime_defer(runtime: Runtime) -> None:
    from app.db.engine import transaction
    from app.jobs.queue import defer

    async with transaction(runtime.engine, runtime.settings) as conn:
        await defer(conn, "drop_loose_indexes", {"namespace_id": "there_is_none"})


@pytest.fixture
def watched(conninfo: str, settings: Settings) -> Iterator[str]:
    """A service whose metrics ask for a token, and to which 0.3 s are long."""
    update = {"metrics_token": SecretStr(TOKEN), "slow_statement_ms": 300, "access_log": True}
    with service.in_background(settings.model_copy(update=update), conninfo, ROOT_KEY) as url:
        yield url


def test_metrics_may_ask_for_a_token(watched: str, conninfo: str, settings: Settings) -> None:
    assert httpx.get(f"{watched}/metrics").status_code == 401
    assert httpx.get(f"{watched}/metrics", headers={"Authorization": "Bearer another"}).status_code == 401
    assert metrics(watched, Authorization=f"Bearer {TOKEN}")
    with service.in_background(settings.model_copy(update={"metrics": False}), conninfo, ROOT_KEY) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404


async def test_a_slow_statement_is_logged_with_its_plan_and_no_value(
    watched: str, conninfo: str, caplog: pytest.LogCaptureFixture
) -> None:
    with httpx.Client(base_url=f"{watched}/v1", timeout=30) as http:
        api = Api(http, "slow_statements")
        searched(api)
        secret = {"must": [{"key": "title", "match": {"value": "a title not to be seen"}}]}
        body = {"inputs": {"v": VECTOR}, "filters": secret}
        api("POST", "/retrievers/near/execute", body)  # from here on the estimate of the filter is known
        table = sql.Identifier("slow_statements", "documents")
        with psycopg.connect(conninfo) as holder, caplog.at_level(logging.INFO, "pgretrieve"):
            caplog.clear()
            holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
            headers = {"X-Request-Id": "the-slow-one"}
            asked = asyncio.create_task(
                asyncio.to_thread(api, "POST", "/retrievers/near/execute", body, headers=headers)
            )
            (waiting,) = await blocked(conninfo, holder.info.backend_pid)
            seen = "SELECT application_name, now() - query_start > '0.35 s' FROM pg_stat_activity WHERE pid = %s"
            with psycopg.connect(conninfo, autocommit=True) as other:
                slow = ("pgretrieve-api the-slow-one", True)
                await until(lambda: other.execute(seen, [waiting]).fetchone() == slow)
            holder.rollback()
            await asked
            await until(lambda: any(record.name == "pgretrieve.slow" for record in caplog.records))
    record: Any = next(record for record in caplog.records if record.name == "pgretrieve.slow")
    assert record.ms >= 300
    assert record.namespace == "slow_statements"
    assert "s1_feature_search" in record.statement
    assert record.plan["node"]
    assert "documents" in json.dumps(record.plan)
    told = record.getMessage()
    for value_ in ("not to be seen", "0.123", "0.654"):
        assert value_ not in told
    access: Any = next(r for r in caplog.records if r.name == "pgretrieve.access")
    assert (access.route, access.status) == ("/v1/retrievers/{retriever_id}/execute", 200)


def test_every_answer_has_an_id(api: Api, base_url: str) -> None:
    authorization = {"Authorization": f"Bearer {ROOT_KEY}"}

    def identifier(path: str, **headers: str) -> str:
        return httpx.get(f"{base_url}{path}", headers={**authorization, **headers}).headers["X-Request-Id"]

    assert identifier("/v1/namespaces", **{"X-Request-Id": "mine.1:2-3"}) == "mine.1:2-3"
    made = identifier("/v1/namespaces")
    assert re.fullmatch("[0-9a-f]{16}", made)
    assert identifier("/v1/namespaces") != made
    for bad in ("two words", "x" * 49, "'; --"):
        assert re.fullmatch("[0-9a-f]{16}", identifier("/v1/namespaces", **{"X-Request-Id": bad}))
    assert identifier("/nowhere")
    assert identifier("/v1/retrievers", Authorization="no")


def test_json_lines_have_the_id(conninfo: str) -> None:
    more = {"PGRETRIEVE_LOG_FORMAT": "json", "PGRETRIEVE_ACCESS_LOG": "true", "PGRETRIEVE_ROOT_KEY": ROOT_KEY}
    with serving("--no-worker", DATABASE_URL=conninfo, **more) as (process, url, lines):
        headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Request-Id": "find-me"}
        httpx.get(f"{url}/v1/namespaces", headers=headers)
        process.terminate()
        assert process.stdout is not None
        lines += process.stdout.readlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    (access,) = [line for line in found if line["logger"] == "pgretrieve.access"]
    assert (access["request_id"], access["level"], access["status"]) == ("find-me", "INFO", 200)
    assert access["route"] == "/v1/namespaces"
    assert {"time", "message"} <= access.keys()
    assert any("Uvicorn running" in line["message"] for line in found)


def ready(settings: Settings, url: str, **changes: Any) -> tuple[int, Any]:
    with service.in_background(settings.model_copy(update=changes), url, ROOT_KEY) as base:
        return ask(base)


def ask(base: str) -> tuple[int, Any]:
    answer = httpx.get(f"{base}/health/ready", timeout=30)
    body = answer.json()
    return answer.status_code, body["error"]["code"] if "error" in body else body["checks"]


def test_ready_says_what_is_missing(fresh_database: Callable[[], str], settings: Settings) -> None:
    url = fresh_database()
    with psycopg.connect(url, autocommit=True) as conn:
        newest = conn.execute("SELECT version_num FROM pgretrieve.alembic_version").fetchone()
        assert newest is not None
        assert ready(settings, url) == (200, {"database": "ok", "schema": newest[0]})
        assert ready(settings, url, health_worker=True) == (503, "no_worker")
        conn.execute("INSERT INTO pgretrieve_queue.procrastinate_workers DEFAULT VALUES")
        assert ready(settings, url, health_worker=True)[0] == 200
        conn.execute("UPDATE pgretrieve_queue.procrastinate_workers SET last_heartbeat = now() - interval '2 minutes'")
        assert ready(settings, url, health_worker=True) == (503, "no_worker")
        conn.execute("UPDATE pgretrieve.alembic_version SET version_num = '9999'")
        assert ready(settings, url)[0] == 200, "a schema of the next version, which this one works with"
        conn.execute("UPDATE pgretrieve.alembic_version SET version_num = '0001'")
        assert ready(settings, url) == (503, "schema_outdated")


def test_a_database_that_hangs_is_not_waited_for(fresh_database: Callable[[], str], settings: Settings) -> None:
    url = fresh_database()
    changed = settings.model_copy(update={"health_timeout_s": 0.3})
    with service.in_background(changed, url, ROOT_KEY) as base, psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE pgretrieve.alembic_version IN ACCESS EXCLUSIVE MODE")
        assert ask(base) == (503, "database_unavailable")
        assert httpx.get(f"{base}/health/live").json() == {"status": "ok"}
        assert value(metrics(base), "pgretrieve_database_up") == 1


class Collector(BaseHTTPRequestHandler):
    """Takes what is exported."""

    spans: list[Any] = []

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.spans += [s for r in sent.resource_spans for scope in r.scope_spans for s in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_request_is_a_trace_down_to_its_statement(conninfo: str, settings: Settings) -> None:
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        traced = settings.model_copy(update={"otlp_endpoint": f"http://127.0.0.1:{collector.server_port}"})
        with service.in_background(traced, conninfo, ROOT_KEY) as url, httpx.Client(base_url=f"{url}/v1") as http:
            searched(Api(http, "traced"))
        collector.shutdown()
    spans = {span.span_id: span for span in Collector.spans}
    (request,) = [s for s in spans.values() if s.name == "POST /v1/retrievers/{retriever_id}/execute"]
    within = [s for s in spans.values() if s.trace_id == request.trace_id]
    assert {"plan", "embed", "db", "encode"} <= {span.name for span in within}
    (db,) = [span for span in within if span.name == "db"]
    statements = [span for span in within if span.parent_span_id == db.span_id]
    texts = [
        a.value.string_value
        for span in statements
        for a in span.attributes
        if a.key in ("db.statement", "db.query.text")
    ]
    assert any("s1_feature_search" in text for text in texts)
    assert "0.123" not in str(within)


def test_the_dashboard_reads_metrics_that_are_there(api: Api, base_url: str) -> None:
    searched(api)
    told = re.findall(r"^# TYPE (\w+) (\w+)$", httpx.get(f"{base_url}/metrics").text, re.MULTILINE)
    samples = {name for name, _ in told} | {
        f"{name}_{suffix}" for name, kind in told if kind == "histogram" for suffix in ("bucket", "sum", "count")
    }
    read = set(re.findall(r"\bpgretrieve_\w+", DASHBOARD.read_text(encoding="utf-8")))
    assert len(read) > 15
    assert read - samples == set()
