"""The official client, pointed at our server, with a namespace of this test's own."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import mixpeek
import pytest
from mixpeek import Mixpeek

from tests.http import ROOT_KEY


@pytest.fixture
def namespace() -> str:
    return f"my_products_{uuid4().hex[:12]}"


@pytest.fixture
def client(base_url: str, namespace: str) -> Iterator[Mixpeek]:
    """The hand-written client."""
    made = Mixpeek(ROOT_KEY, namespace=namespace, base_url=f"{base_url}/v1")
    yield made
    made._http.clear()


@pytest.fixture
def generated(base_url: str, namespace: str) -> Iterator[Callable[..., mixpeek.ApiClient]]:
    """A function that makes the generated client, whose answers are strict pydantic models."""
    made: list[mixpeek.ApiClient] = []

    def connect(key: str = ROOT_KEY, namespace: str = namespace) -> mixpeek.ApiClient:
        configuration = mixpeek.Configuration(host=base_url, access_token=key, api_key={"NamespaceHeader": namespace})
        made.append(mixpeek.ApiClient(configuration))
        return made[-1]

    yield connect
    for client in made:
        client.rest_client.pool_manager.clear()
