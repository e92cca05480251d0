"""Every operation of the official client is there, or is refused by name."""

import re
from collections.abc import Callable
from pathlib import Path

import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from mixpeek.exceptions import ServiceException

from app.api.auth import routes
from app.api.not_offered import TABLE, feature_of
from app.main import create_app
from app.settings import Settings
from tests.http import Api, document, stage

OPERATION = re.compile(r"method='(\w+)',\s*resource_path='([^']+)'")
PARAMETER = re.compile(r"{[^}]*}")


def official() -> set[tuple[str, str]]:
    """Every operation that the generated client knows, as method and path."""
    package = Path(mixpeek.__file__).parent / "api"
    return {found for path in package.glob("*.py") for found in OPERATION.findall(path.read_text(encoding="utf-8"))}


def test_every_operation_of_the_client_is_there_or_named() -> None:
    app = create_app(Settings(), "postgresql://nowhere")
    ours = {(method, PARAMETER.sub("{}", path)) for path, method, _ in routes(app)}
    there = {(method, path) for method, path in official() if (method, PARAMETER.sub("{}", path)) in ours}
    assert len(there) >= 70
    assert {
        (method, path) for method, path in official() - there if feature_of(PARAMETER.sub("x", path)) is None
    } == set()
    named = {feature_of(PARAMETER.sub("x", path)) for _, path in official() - there} - {None}
    assert {name for name, _, _ in TABLE} - {"direct search"} == {feature.name for feature in named if feature}


CONTENT = ("buckets", "bucket_objects", "bucket_uploads", "bucket_batches", "collections", "batches", "tasks")


@pytest.mark.parametrize("resource", CONTENT)
def test_every_method_for_content_that_is_offered_is_called_by_a_test(resource: str) -> None:
    app = create_app(Settings(), "postgresql://nowhere")
    ours = {(method, PARAMETER.sub("{}", path)) for path, method, _ in routes(app)}
    source = (Path(mixpeek.__file__).parent / "api" / f"{resource}_api.py").read_text(encoding="utf-8")
    serialized = re.split(r"    def _(\w+)_serialize\(", source)
    operations = {name: OPERATION.search(body) for name, body in zip(serialized[1::2], serialized[2::2], strict=True)}
    offered = {
        name
        for name, found in operations.items()
        if found and (found.group(1), PARAMETER.sub("{}", found.group(2))) in ours
    }
    assert offered
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    assert {name for name in offered if f".{name}(" not in tests} == set()


@pytest.mark.parametrize(
    ("method", "path", "feature"),
    [
        ("POST", "/buckets/b/objects/aggregate", "aggregations of objects"),
        ("GET", "/buckets/b/syncs/s", "syncs of buckets"),
        ("POST", "/buckets/b/uploads/confirm/batch", "confirming uploads in batches"),
        ("GET", "/collections/c/lifecycle", "storage tiers of collections"),
        ("GET", "/retrievers/typeahead?q=a", "typeahead"),
        ("POST", "/retrievers/benchmarks", "benchmarks of retrievers"),
        ("GET", "/retrievers/r/executions/exec_1/status", "kept executions"),
        ("GET", "/collections/_direct_upsert/documents/a/b/lineage", "lineage of documents"),
        ("POST", "/namespaces/migrations/", "migrations of namespaces"),
        ("POST", "/search", "direct search"),
    ],
)
def test_what_is_not_offered_is_501_by_name(api: Api, method: str, path: str, feature: str) -> None:
    api.standalone()
    error = api(method, path, {} if method in ("POST", "PATCH") else None, status=501)["error"]
    assert (error["code"], error["type"], error["details"]["feature"]) == (
        "not_offered",
        "NotImplementedError",
        feature,
    )
    assert "not offered" in error["message"]


def test_what_is_neither_here_nor_there_stays_404_and_what_is_here_wins(api: Api) -> None:
    api.standalone(("v", 2))
    for path in ("/nothing", "/retrievers/none", "/retrievers/r/nothing", "/documents/none", "/bucketsful"):
        api("GET", path, status=404)
    api("PUT", "/retrievers/list", {}, status=405)
    api.retriever("typeahead", stage("limit", limit=1))
    api.upsert([document("a/lineage", {"v": [1, 0]})])
    assert api("GET", "/retrievers/typeahead")["retriever_name"] == "typeahead"
    assert api("GET", "/collections/_direct_upsert/documents/a/lineage")["document_id"] == "a/lineage"


def test_clients_are_told_and_do_not_try_again(client: Mixpeek, generated: Callable[..., mixpeek.ApiClient]) -> None:
    with pytest.raises(MixpeekAPIError) as refused:
        client.evaluations.list("r")
    assert (refused.value.status, refused.value.retryable) == (501, False)
    with pytest.raises(ServiceException) as answered:
        mixpeek.CollectionLifecycleApi(generated()).get_lifecycle("c")
    assert answered.value.status == 501
