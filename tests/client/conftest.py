"""The official client, pointed at our server, with a namespace of this test's own."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import mixpeek
import pytest
import urllib3
from mixpeek import Mixpeek

from tests import contract
from tests.http import ROOT_KEY


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer that the clients get is held to the OpenAPI document too."""
    ask = urllib3.HTTPConnectionPool.urlopen

    def asking(pool: urllib3.HTTPConnectionPool, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        answer = ask(pool, method, url, *args, **kwargs)
        root, path = f"http://{pool.host}:{pool.port}", unquote(urlsplit(url).path)
        contract.held(root, method, path, answer.status, answer.headers, answer.data)
        return answer

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", asking)


@pytest.fixture
def namespace() -> str:
    """Its name is first in the alphabet: so it is on the first page of a list that other tests' namespaces are in."""
    return f"a_product_{uuid4().hex[:12]}"


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
