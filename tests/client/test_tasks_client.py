"""Tasks through both official clients."""

from collections.abc import Callable

import mixpeek
import pytest
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from mixpeek.exceptions import NotFoundException

from tests.http import Api


@pytest.fixture
def rebuilding(api: Api, namespace: str) -> str:
    """A task of the client's namespace."""
    mine = Api(api.http, namespace)
    mine.standalone(("v", 3))
    return str(mine("PATCH", f"/namespaces/{namespace}/vector-indexes/v", {"m": 8})["task_id"])


def test_the_hand_written_client_polls_lists_and_cancels(client: Mixpeek, rebuilding: str) -> None:
    assert client.tasks.get(rebuilding)["additional_data"]["percentage"] == 0.0
    assert [task["task_id"] for task in client.tasks.list()["results"]] == [rebuilding]
    assert client.tasks.list(status="FAILED")["results"] == []
    assert client.tasks.delete(rebuilding)["success"] is True
    assert client.tasks.get(rebuilding)["status"] == "CANCELED"
    with pytest.raises(MixpeekAPIError) as refused:
        client.tasks.get("task_none")
    assert (refused.value.status, refused.value.retryable) == (404, False)


def test_the_generated_client_reads_tasks(generated: Callable[..., mixpeek.ApiClient], rebuilding: str) -> None:
    tasks = mixpeek.TasksApi(generated())
    task = tasks.get_task(rebuilding)
    assert (task.status, task.task_type) == (mixpeek.TaskStatusEnum.PENDING, mixpeek.TaskType.MATERIALIZE)
    assert task.additional_data["kind"] == "rebuild_index"
    wanted = mixpeek.ListTasksRequest(
        status=mixpeek.TaskStatusEnum.PENDING,
        task_type=mixpeek.TaskType.MATERIALIZE,
        sort=mixpeek.SortOption(field="created_at", direction=mixpeek.SortDirection.DESC),
        search=rebuilding,
    )
    found = tasks.list_tasks(list_tasks_request=wanted, include_total=True)
    assert ([one.task_id for one in found.results], found.pagination.total) == ([rebuilding], 1)
    assert tasks.kill_task(rebuilding).success is True
    with pytest.raises(NotFoundException):
        tasks.get_task("task_none")
