"""What tests of the API say again and again: a client with a namespace, documents, retrievers."""

from typing import Any

import httpx

from tests import contract

ROOT_KEY = "pgr_test_root_key_0123456789"


class Api:
    """HTTP with the root key and this test's namespace; answers are JSON, statuses are asserted.

    Each answer is held to the OpenAPI document.
    """

    def __init__(self, http: httpx.Client, namespace: str) -> None:
        self.http = http
        http.event_hooks = {"response": [contract.check]}
        self.namespace = namespace
        self.authorization = f"Bearer {ROOT_KEY}"

    def __call__(
        self, method: str, path: str, body: Any = None, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Any:
        sent = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": self.namespace, **(headers or {})}
        answer = self.http.request(method, path, json=body, headers=sent)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def refused(self, method: str, path: str, body: Any = None, *, status: int = 422) -> tuple[str, list[str]]:
        """The code of an error in the envelope, and its problems as `type@location`."""
        answer = self(method, path, body, status=status)
        assert answer["success"] is False
        assert answer["status"] == status
        error = answer["error"]
        assert error["message"]
        assert error["type"]
        problems = error["details"].get("validation_errors", [])
        assert all(problem["message"] for problem in problems)
        return error["code"], [f"{p['type']}@{'.'.join(map(str, p['location']))}" for p in problems]

    def standalone(self, *vectors: tuple[str, int] | tuple[str, int, str], **more: Any) -> Any:
        configs = [dict(zip(("name", "dimension", "metric"), vector, strict=False)) for vector in vectors]
        return self(
            "POST", "/namespaces/standalone", {"namespace_id": self.namespace, "vector_configs": configs, **more}
        )

    def upsert(self, documents: list[dict[str, Any]], **more: Any) -> Any:
        return self("POST", f"/namespaces/{self.namespace}/documents/upsert", {"documents": documents, **more})

    def promote(self, body: Any = None, **more: Any) -> Any:
        return self("POST", f"/namespaces/{self.namespace}/promote", body, **more)

    def retriever(self, name: str, *stages: dict[str, Any], **more: Any) -> Any:
        return self("POST", "/retrievers", {"retriever_name": name, "stages": list(stages), **more})

    def execute(self, name: str, **body: Any) -> Any:
        return self("POST", f"/retrievers/{name}/execute", body)

    def ids(self, name: str, **body: Any) -> list[str]:
        return [document["document_id"] for document in self.execute(name, **body)["documents"]]


def document(document_id: str, vectors: dict[str, Any] | None = None, **payload: Any) -> dict[str, Any]:
    return {"document_id": document_id, "vectors": vectors or {}, "payload": payload}


def stage(stage_id: str, **parameters: Any) -> dict[str, Any]:
    return {"stage_name": stage_id, "config": {"stage_id": stage_id, "parameters": parameters}}


def search(index: str, value: Any, *, mode: str = "vector", **more: Any) -> dict[str, Any]:
    return {"feature_uri": index, "query": {"input_mode": mode, "value": value}, **more}


def feature_search(*searches: dict[str, Any], **more: Any) -> dict[str, Any]:
    return stage("feature_search", searches=list(searches), **more)
