"""Collections, batches and tasks through both official clients."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek.exceptions import ConflictException

from app import service
from app.settings import Settings
from tests.conftest import database
from tests.http import ROOT_KEY

SCHEMA: dict[str, Any] = {"properties": {"title": {"type": "string"}, "content": {"type": "text"}}}
EXTRACTOR: dict[str, Any] = {
    "feature_extractor_name": "text_extractor",
    "version": "v1",
    "input_mappings": {"text": "content"},
    "field_passthrough": [{"source_path": "title"}],
    "parameters": {"extractor_type": "text_extractor", "split_by": "sentences", "chunk_size": 1},
}
ENDED = {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"}
Connect = Callable[..., mixpeek.ApiClient]


@pytest.fixture(scope="module")
def base_url(
    server_url: str, template_db: str, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A service with its worker, on a database of its own."""
    chosen = settings.model_copy(update={"worker": True, "data_dir": tmp_path_factory.mktemp("clients")})
    with database(server_url, template_db) as url, service.in_background(chosen, url, ROOT_KEY) as found:
        yield found


@pytest.fixture(autouse=True)
def made(client: Mixpeek, namespace: str) -> None:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "text", "dimension": 384}])
    client.namespaces.promote(
        namespace_id=namespace, vector_mappings=[{"existing_index": "text", "inference_service": "minilm_l6_v2"}]
    )
    client.buckets.create(name="pages", bucket_schema=SCHEMA)


def wait(client: Mixpeek, task_id: str) -> Any:
    deadline = time.monotonic() + 30
    while (task := client.tasks.get(task_id)).status not in ENDED:
        assert time.monotonic() < deadline, task
        time.sleep(0.05)
    return task


def test_the_high_level_client_makes_and_fills_a_collection(client: Mixpeek, namespace: str) -> None:
    source = {"type": "bucket", "bucket_ids": ["pages"]}
    created = client.collections.create(name="chunks", source=source, feature_extractor=EXTRACTOR)
    assert client.collections.get("chunks").collection_id == created.collection_id
    assert [each["collection_name"] for each in client.collections.list()["results"]] == ["chunks"]
    client.buckets.upload("pages", data="The cat sat. Stocks fell.", title="Monday", blob_property="content")
    asked = client.collections.trigger("chunks")
    assert (asked.object_count, asked.total_tiers) == (1, 1)
    task = wait(client, asked.task_id)
    assert (task.status, task.additional_data.percentage) == ("COMPLETED", 100.0)
    assert task.task_id in {each["task_id"] for each in client.tasks.list(status="COMPLETED")["results"]}
    batch = client.batches.get("pages", asked.batch_id)
    assert (batch.status, batch.lifecycle) == ("COMPLETED", "indexed")
    audit = client.batches.audit("pages", asked.batch_id)
    assert (audit.all_balanced, audit.has_lost_objects) == (True, False)
    assert client.batches.failed_documents("pages", asked.batch_id, limit=5)["total_count"] == 0
    uri = created.vector_indexes[0]["feature_uri"]
    stage = {
        "stage_name": "s",
        "config": {
            "stage_id": "feature_search",
            "parameters": {"searches": [{"feature_uri": uri, "query": {"input_mode": "text", "value": "{{INPUT.q}}"}}]},
        },
    }
    client.retrievers.create(
        retriever_name="r",
        stages=[stage],
        input_schema={"q": {"type": "string"}},
        collection_identifiers=["chunks"],
    )
    found = client.retrievers.execute("r", inputs={"q": "a kitten"})
    assert next((hit["text"], hit["title"]) for hit in found["documents"]) == ("The cat sat.", "Monday")
    assert len(client.documents.list("chunks")["results"]) == 2
    assert client.collections.update("chunks", description="Pieces").description == "Pieces"
    copy = client.collections.clone("chunks", collection_name="copy")
    assert copy.collection.collection_name == "copy"
    assert client.collections.delete("copy").success
    assert client.collections.delete("chunks").document_count == 2
    assert client.documents.list("chunks")["results"] == []


def test_index_uploads_and_triggers(client: Mixpeek) -> None:
    source = {"type": "bucket", "bucket_ids": ["pages"]}
    client.collections.create(name="chunks", source=source, feature_extractor=EXTRACTOR)
    stored = client.index("One sentence.", collection="chunks", metadata={"title": "a"}, blob_property="content")
    deadline = time.monotonic() + 30
    while client.collections.get("chunks").indexing_status != "quiesced":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (found,) = client.documents.list("chunks")["results"]
    assert found["source_object_id"] == stored.object_id


def test_the_generated_client_reads_collections_batches_and_tasks(
    generated: Connect, client: Mixpeek, namespace: str
) -> None:
    api = mixpeek.CollectionsApi(generated())
    request = mixpeek.CreateCollectionRequest.from_dict(
        {
            "collection_name": "chunks",
            "source": {"type": "bucket", "bucket_ids": ["pages"]},
            "feature_extractor": EXTRACTOR,
        }
    )
    assert request is not None
    created = api.create_collection(request)
    assert created.feature_extractor.feature_extractor_id == "text_extractor_v1"
    assert created.output_schema.properties["text"].type == "string"
    assert api.get_collection("chunks").collection_id == created.collection_id
    assert api.list_collections_get().total_count == 1
    listed = api.list_collections(list_collections_request=mixpeek.ListCollectionsRequest(search="chunk"))
    assert [each.collection_name for each in listed.results] == ["chunks"]
    features = api.describe_collection_features("chunks").features
    assert features[0].vector_index.dimensions == 384
    assert api.update_collection("chunks", {"enabled": True}).enabled is True
    stored = [client.buckets.upload("pages", data=text, blob_property="content") for text in ("One.", "Two. Three.")]
    batches = mixpeek.BucketBatchesApi(generated())
    wanted = mixpeek.CreateBatchRequest(object_ids=[stored[0].object_id], dedup_strategy="force")
    batch = batches.create_batch_buckets_batches("pages", wanted)
    assert (batch.status, batch.lifecycle) == ("DRAFT", "accepted")
    more = mixpeek.AddObjectsToBatchRequest(object_ids=[stored[1].object_id])
    assert len(batches.add_objects_to_batch_buckets_batches("pages", batch.batch_id, more).object_ids) == 2
    task = batches.submit_batch_buckets_batches(
        "pages", batch.batch_id, submit_batch_request=mixpeek.SubmitBatchRequest()
    )
    assert wait(client, task.task_id)["status"] == "COMPLETED"
    assert mixpeek.TasksApi(generated()).get_task(task.task_id).status == "COMPLETED"
    audit = batches.get_batch_audit_buckets_batches("pages", batch.batch_id)
    assert (audit["all_balanced"], audit["has_lost_objects"]) == (True, False)
    found = batches.get_batch_buckets_batches("pages", batch.batch_id)
    assert (found.progress.percent, found.tier_tasks[0].status, found.total_tiers) == (100.0, "COMPLETED", 1)
    assert batches.list_batches_buckets("pages", mixpeek.ListBatchesRequest()).total_count == 1
    assert batches.get_failed_documents_buckets_batches_batch("pages", batch.batch_id)["total_count"] == 0
    retry = mixpeek.RetryBatchRequest(retry_mode="transient_only")
    assert batches.retry_batch_buckets_batches("pages", batch.batch_id, retry)["retried_count"] == 0
    metadata = mixpeek.PatchBatchRequest.from_dict({"metadata": {"source": "test"}})
    patched = batches.patch_batch_buckets_batches("pages", batch.batch_id, metadata)
    assert patched.metadata.to_dict()["source"] == "test"
    by_id = mixpeek.BatchesApi(generated())
    assert by_id.get_batch_by_id_batches(batch.batch_id).batch_id == batch.batch_id
    mine = by_id.list_all_batches(mixpeek.ListBatchesRequest(namespace_id=namespace))
    assert [each.batch_id for each in mine.results] == [batch.batch_id]
    trigger = mixpeek.TriggerCollectionRequest(dedup_strategy="skip")
    asked = api.trigger_collection("chunks", trigger_collection_request=trigger)
    assert asked.object_count == 2
    clone = api.clone_collection("chunks", mixpeek.CloneCollectionRequest(collection_name="copy"))
    assert clone.source_collection_id == created.collection_id
    batches.delete_batch_buckets_batches("pages", batch.batch_id)
    api.delete_collection("copy")
    api.delete_collection("chunks")
    assert api.list_collections_get().total_count == 0


def test_the_generated_client_cancels_batches(generated: Connect, client: Mixpeek) -> None:
    source = {"type": "bucket", "bucket_ids": ["pages"]}
    client.collections.create(name="chunks", source=source, feature_extractor=EXTRACTOR, auto=False)
    gone = "http://127.0.0.1:1/never.txt"  # tried again and again: so the batch is open until it is cancelled
    stored = client.buckets.upload("pages", url=gone, blob_property="content")
    batches, by_id = mixpeek.BucketBatchesApi(generated()), mixpeek.BatchesApi(generated())
    wanted = mixpeek.CreateBatchRequest(object_ids=[stored.object_id], auto_submit=True)
    first, second = (batches.create_batch_buckets_batches("pages", wanted).batch_id for _ in range(2))
    assert batches.cancel_batch_buckets_batches("pages", first).status == "CANCELED"
    assert by_id.get_batch_by_id_batches(second).status in ("PENDING", "IN_PROGRESS")
    assert by_id.cancel_batch_by_id_batches(second).status == "CANCELED"
    with pytest.raises(ConflictException):
        by_id.cancel_batch_by_id_batches(second)
