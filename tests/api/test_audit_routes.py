"""Every route that is no GET writes exactly one event, or stands in the list of those that write none, and why."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app import service
from app.api.audit import AUDITED_SCOPES
from app.api.auth import routes
from app.main import create_app
from app.settings import Settings
from tests.adopting import films
from tests.content.managed import extractor
from tests.db.test_requested_embeddings import role
from tests.http import ROOT_KEY, Api, feature_search, search

ROUTES = {
    f"{method} {path}": handler.opt["scope"]
    for path, method, handler in routes(create_app(Settings(), "postgresql://nowhere"))
    if method != "GET"
}
READS = """
    POST /v1/batches/list
    POST /v1/buckets/list
    POST /v1/buckets/{bucket_id:str}/batches/list
    POST /v1/buckets/{bucket_id:str}/objects/list
    POST /v1/buckets/{bucket_id:str}/uploads/list
    POST /v1/collections/list
    POST /v1/collections/{collection:str}/documents/aggregate
    POST /v1/collections/{collection:str}/documents/distinct
    POST /v1/collections/{collection:str}/documents/list
    POST /v1/documents/batch-get
    POST /v1/documents/list
    POST /v1/documents/list/batch
    POST /v1/namespaces/list
    POST /v1/namespaces/stats/batch
    POST /v1/namespaces/{namespace_id:str}/promote/validate
    POST /v1/retrievers/list
    POST /v1/retrievers/{retriever_id:str}/execute/explain
    POST /v1/retrievers/{retriever_id:str}/sql
    POST /v1/tasks/list
"""
EXECUTES = """
    POST /v1/documents/search
    POST /v1/features/search
    POST /v1/inference
    POST /v1/retrievers/execute
    POST /v1/retrievers/{retriever_id:str}/execute
    POST /v1/retrievers/{retriever_id:str}/execute/batch
"""
WRITES_CONTENT = """
    PUT /uploads/{upload_id:str}/{signature:str}
    POST /v1/buckets/{bucket_id:str}/objects
    POST /v1/buckets/{bucket_id:str}/objects/batch
    DELETE /v1/buckets/{bucket_id:str}/objects/{object_id:str}
    PATCH /v1/buckets/{bucket_id:str}/objects/{object_id:str}
    PUT /v1/buckets/{bucket_id:str}/objects/{object_id:str}
    POST /v1/buckets/{bucket_id:str}/uploads
    POST /v1/buckets/{bucket_id:str}/uploads/batch
    DELETE /v1/buckets/{bucket_id:str}/uploads/{upload_id:str}
    POST /v1/buckets/{bucket_id:str}/uploads/{upload_id:str}/confirm
    POST /v1/collections/{collection:str}/documents
    DELETE /v1/collections/{collection:str}/documents/batch
    POST /v1/collections/{collection:str}/documents/batch
    PATCH /v1/collections/{collection:str}/documents/bulk
    DELETE /v1/collections/{collection:str}/documents/{document_id:path}
    PATCH /v1/collections/{collection:str}/documents/{document_id:path}
    PATCH /v1/collections/{collection:str}/documents/{document_id:str}/acl
    PUT /v1/collections/{collection:str}/documents/{document_id:path}
    DELETE /v1/documents/{document_id:path}
    PATCH /v1/documents/{document_id:path}
    PUT /v1/documents/{document_id:path}
    POST /v1/namespaces/{namespace_id:str}/documents/import
    POST /v1/namespaces/{namespace_id:str}/documents/upsert
"""
PROCESSES_CONTENT = """
    POST /v1/batches/{batch_id:str}/cancel
    POST /v1/buckets/{bucket_id:str}/batches
    DELETE /v1/buckets/{bucket_id:str}/batches/{batch_id:str}
    PATCH /v1/buckets/{bucket_id:str}/batches/{batch_id:str}
    POST /v1/buckets/{bucket_id:str}/batches/{batch_id:str}/cancel
    POST /v1/buckets/{bucket_id:str}/batches/{batch_id:str}/objects
    POST /v1/buckets/{bucket_id:str}/batches/{batch_id:str}/retry
    POST /v1/buckets/{bucket_id:str}/batches/{batch_id:str}/submit
    POST /v1/collections/{collection_id:str}/trigger
"""
NOT_AUDITED = {
    line.strip(): reason
    for reason, lines in (
        ("reads, by POST for its body", READS),
        ("executes and changes nothing", EXECUTES),
        ("writes documents, objects or bytes, which are no configuration", WRITES_CONTENT),
        ("has content processed by what is configured", PROCESSES_CONTENT),
    )
    for line in lines.split("\n")
    if line.strip()
}
TEXT = {"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
MOVE = {"index": "text", "to_service": "openai_text_3_small", "source_field": "title"}
BUCKET = {"bucket_name": "b", "bucket_schema": {"properties": {"content": {"type": "text"}}}}
COLLECTION = {
    "collection_name": "col",
    "source": {"type": "bucket", "bucket_ids": ["b"]},
    "feature_extractor": extractor(input_mappings={"text": "content"}),
}


class Walk:
    """Requests, each under an id of its own, by which its events are found."""

    def __init__(self, api: Api, conninfo: str) -> None:
        self.api, self.conninfo = api, conninfo
        self.walked: set[str] = set()

    def __call__(self, route: str, action: str, /, *ids: str, body: Any = None, query: str = "") -> Any:
        """Take a route; its event, of which there is one, has this action."""
        method, path = route.split(" ")
        given = iter(ids)
        filled = "/".join(next(given) if part.startswith("{") else part for part in path.split("/"))
        request_id = uuid4().hex
        answer = self.api(method, f"{filled}{query}", body, headers={"X-Request-Id": request_id})
        with psycopg.connect(self.conninfo) as conn:
            text = "SELECT action, actor_id, operation_id FROM pgretrieve.audit_events WHERE request_id = %s"
            events = conn.execute(text, [request_id]).fetchall()
        assert [event[:2] for event in events] == [(action, "root")], route
        assert events[0][2], route
        self.walked.add(f"{method} /v1{path}")
        return answer

    def set_state(self, migration_id: str) -> None:
        """As a worker does in the end."""
        text = "UPDATE pgretrieve.model_migrations SET state = 'ready' WHERE migration_id = %s"
        with psycopg.connect(self.conninfo) as conn:
            assert conn.execute(text, [migration_id]).rowcount == 1


@pytest.fixture(scope="module")
def walk(settings: Settings, server_url: str, template_db: str) -> Iterator[Walk]:
    from tests.conftest import database

    with ExitStack() as stack:
        url = stack.enter_context(database(server_url, template_db))
        analyst = stack.enter_context(role(url))
        chosen = settings.model_copy(update={"analyst_database_url": SecretStr(analyst)})
        base_url = stack.enter_context(service.in_background(chosen, url, ROOT_KEY))
        http = stack.enter_context(httpx.Client(base_url=f"{base_url}/v1", timeout=30))
        yield Walk(Api(http, "n"), url)


def test_each_route_is_audited_or_says_why_not(walk: Walk) -> None:
    for part in (namespaces, indexes, migrations, retrievers, content, whole_server, ends):
        part(walk)
    assert walk.walked.isdisjoint(NOT_AUDITED)
    assert walk.walked | set(NOT_AUDITED) == set(ROUTES)


def test_what_is_audited_needs_the_scopes_that_are_noted() -> None:
    audited = set(ROUTES) - set(NOT_AUDITED)
    assert {ROUTES[route] for route in audited} == set(AUDITED_SCOPES)


def namespaces(walk: Walk) -> None:
    standalone = {"namespace_id": "n", "vector_configs": [{"name": "v", "dimension": 3}]}
    walk("POST /namespaces/standalone", "namespace_created", body=standalone)
    walk("POST /namespaces", "namespace_created", body={"namespace_id": "other", "namespace_name": "other"})
    with films(walk.conninfo) as table:
        adopted = {"table": table, "namespace_id": "films"}
        walk("POST /namespaces/adopt", "namespace_adopted", body=adopted)
        at = "/namespaces/{namespace_id:str}"
        walk(f"POST {at}/ensure-indexes", "namespace_indexes_ensured", "films")
        walk(f"DELETE {at}", "namespace_deleted", "films")
    for method in ("PATCH", "PUT"):
        body = {"description": method}
        walk(f"{method} /namespaces/{{namespace_id:str}}", "namespace_updated", "other", body=body)
    copy = {"namespace_name": "copy of n"}
    walk("POST /namespaces/{namespace_id:str}/clone", "namespace_cloned", "n", body=copy)
    rehearsed = uuid4().hex
    promotion = {"add_vectors": [TEXT]}
    rehearsal = {**promotion, "dry_run": "rehearse"}
    walk.api("POST", "/namespaces/n/promote", rehearsal, headers={"X-Request-Id": rehearsed})
    with psycopg.connect(walk.conninfo) as conn:
        text = "SELECT FROM pgretrieve.audit_events WHERE request_id = %s"
        assert conn.execute(text, [rehearsed]).fetchall() == []  # it was rolled back, and its event with it
    walk("POST /namespaces/{namespace_id:str}/promote", "namespace_promoted", "n", body=promotion)


def indexes(walk: Walk) -> None:
    at = "/namespaces/{namespace_id:str}"
    walk(f"POST {at}/vector-indexes", "vector_index_created", "n", body={"name": "w", "dimension": 384})
    mapping = {"inference_service": "minilm_l6_v2"}
    walk(f"PUT {at}/vector-mappings/{{name:path}}", "vector_mapping_updated", "n", "w", body=mapping)
    walk(f"DELETE {at}/vector-mappings/{{name:path}}", "vector_mapping_deleted", "n", "w")
    walk(f"DELETE {at}/vector-indexes/{{name:path}}", "vector_index_deleted", "n", "w")
    body = {"m": 8}
    changed = walk(f"PATCH {at}/vector-indexes/{{name:path}}", "vector_index_updated", "n", "v", body=body)
    walk("DELETE /tasks/{task_id:str}", "task_canceled", changed["task_id"])
    walk(f"POST {at}/ensure-indexes", "namespace_indexes_ensured", "n")
    filled = walk(f"POST {at}/backfills", "backfill_started", "n", body={"index": "text"})
    walk("DELETE /tasks/{task_id:str}", "task_canceled", filled["task_id"])
    walk(f"POST {at}/work/redrive", "dead_work_redriven", "n", body={})


def migrations(walk: Walk) -> None:
    at = "/namespaces/{namespace_id:str}/migrations"
    first = walk(f"POST {at}", "model_migration_started", "n", body=MOVE)["migration_id"]
    walk(f"POST {at}/{{migration_id:str}}/cancel", "model_migration_canceled", "n", first)
    second = walk(f"POST {at}", "model_migration_started", "n", body=MOVE)["migration_id"]
    walk.set_state(second)
    for step, done in (("cut-over", "cut_over"), ("roll-back", "rolled_back"), ("cut-over", "cut_over")):
        walk(f"POST {at}/{{migration_id:str}}/{step}", f"model_migration_{done}", "n", second)
    walk(f"POST {at}/{{migration_id:str}}/finish", "model_migration_finished", "n", second)


def retrievers(walk: Walk) -> None:
    near = {"retriever_name": "near", "stages": [feature_search(search("v", [1, 0, 0]))]}
    walk("POST /retrievers", "retriever_created", body=near)
    walk("POST /retrievers", "retriever_updated", body=near)
    walk("PATCH /retrievers/{retriever_id:str}", "retriever_updated", "near", body={"description": "changed"})
    walk("POST /retrievers/{retriever_id:str}/clone", "retriever_created", "near", body={"retriever_name": "copy"})
    walk("PUT /retrievers/{retriever_id:str}/function", "sql_function_published", "near")
    walk("DELETE /retrievers/{retriever_id:str}/function", "sql_function_dropped", "near")
    walk("PUT /retrievers/{retriever_id:str}/function", "sql_function_published", "near")
    walk("DELETE /retrievers/{retriever_id:str}", "retriever_deleted", "near")  # with its function, and still one event


def content(walk: Walk) -> None:
    walk("POST /buckets", "bucket_created", body=BUCKET)
    for method in ("PATCH", "PUT"):
        walk(f"{method} /buckets/{{bucket_id:str}}", "bucket_updated", "b", body={"description": method})
    walk("POST /collections", "collection_created", body=COLLECTION)
    walk("PATCH /collections/{collection_id:str}", "collection_updated", "col", body={"enabled": False})
    copy = {"collection_name": "copy"}
    walk("POST /collections/{collection_id:str}/clone", "collection_created", "col", body=copy)
    walk("DELETE /collections/{collection_id:str}", "collection_deleted", "copy")
    walk("DELETE /collections/{collection_id:str}", "collection_deleted", "col", query="?force=true")
    walk("DELETE /buckets/{bucket_id:str}", "bucket_deleted", "b")


def whole_server(walk: Walk) -> None:
    made = walk("POST /keys", "api_key_created", body={"name": "k", "scopes": ["read"]})["key_id"]
    walk("PATCH /keys/{key_id:str}", "api_key_updated", made, body={"name": "another"})
    walk("POST /keys/{key_id:str}/rotate", "api_key_rotated", made, body={})
    walk("DELETE /keys/{key_id:str}", "api_key_revoked", made)
    model = {"name": "mine", "provider": "openai", "model": "m", "dimension": 8, "settings": {}}
    walk("POST /inference/services", "inference_service_created", body=model)
    walk("DELETE /inference/services/{name:str}", "inference_service_deleted", "mine")
    probe = "POST /inference/services/{name:str}/probe"
    walk(probe, "inference_service_accepted", "openai_text_3_small", body={"accept": True})
    lookup = {"query": "SELECT given.x AS x", "parameters": {"x": "text"}}
    walk("PUT /lookups/{name:str}", "lookup_stored", "l", body=lookup)
    walk("DELETE /lookups/{name:str}", "lookup_deleted", "l")


def ends(walk: Walk) -> None:
    walk("DELETE /namespaces/{namespace_id:str}", "namespace_deleted", "other")
