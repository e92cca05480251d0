"""Requests made up from the OpenAPI document, as it says and against it: none may find a fault or an unsaid answer."""

import string
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http import ROOT_KEY, document, feature_search, search

Operation = APIOperation[Any, Any, Any, Any]
NAMESPACE = "fuzzed"
# What path parameters may name, so that not every request ends in a 404.
THERE = {
    "namespace_id": NAMESPACE,
    "retriever_id": "near",
    "document_id": "d1",
    "collection": "_direct_upsert",
    "name": "minilm_l6_v2",
    "bucket_id": "things",
}
HEADERS = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": NAMESPACE}
# These end what the others need.
ENDING = {
    "delete_namespace",
    "delete_retriever",
    "update_namespace",
    "replace_namespace",
    "revoke_key",
    "promote_namespace",
    "delete_bucket",
    "update_bucket",
    "replace_bucket",
    "drop_vector_index",
}
SEGMENT = st.text(string.ascii_letters + string.digits + "-_ .~é'\"", min_size=1, max_size=40)


def prepare(url: str) -> None:
    """A namespace with documents and a retriever."""
    with requests.Session() as session:
        session.headers.update(HEADERS)
        body: dict[str, Any] = {"namespace_id": NAMESPACE}
        session.post(f"{url}/v1/namespaces/standalone", json=body).raise_for_status()
        body = {"documents": [document(f"d{n}", {"v": [1, n]}, n=n, text=f"text {n}") for n in range(5)]}
        session.post(f"{url}/v1/namespaces/{NAMESPACE}/documents/upsert", json=body).raise_for_status()
        body = {"retriever_name": "near", "stages": [feature_search(search("v", [1, 1]))]}
        session.post(f"{url}/v1/retrievers", json=body).raise_for_status()
        schema = {"properties": {"title": {"type": "string"}, "content": {"type": "text"}}}
        body = {"bucket_name": "things", "bucket_schema": schema}
        session.post(f"{url}/v1/buckets", json=body).raise_for_status()


def operations(url: str) -> Iterator[Operation]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        yield found.ok()


def fuzz(url: str, operation: Operation, examples: int, mode: GenerationMode) -> None:
    """Send `examples` made-up requests; raise with the first whose answer is not as declared, or a fault."""
    label = operation.definition.raw.get("operationId", "")
    with requests.Session() as session:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=examples < 100,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode), there=st.booleans(), segment=SEGMENT)
        def send(case: Case[Operation], there: bool, segment: str) -> None:
            for name in case.path_parameters or {}:
                chosen = THERE.get(name, segment) if there and label not in ENDING else segment
                case.path_parameters[name] = chosen.strip(". ") or "x"
            (case.query or {}).pop("namespace", None)
            answer = case.call(base_url=url, session=session, headers=HEADERS)
            assert answer.status_code < 500 or answer.json()["error"]["code"] == "inference_unavailable", answer.text
            case.validate_response(
                answer, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
            )

        with suppress(Unsatisfiable):  # of some operations nothing can be said that they do not allow
            send()
