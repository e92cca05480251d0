"""Fixtures of the tests of faults."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app.db.embedded import EmbeddedServer
from app.db.migrate import upgrade
from tests import servers
from tests.faults.clients import Http
from tests.http import Api


@pytest.fixture
async def http(base_url: str, api: Api) -> AsyncIterator[Http]:
    async with httpx.AsyncClient(base_url=f"{base_url}/v1", timeout=30) as client:
        yield Http(client, api)


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server that may be killed, and that keeps what it has committed."""
    keeping = {**servers.HASTY, "synchronous_commit": "on"}
    with servers.temporary_directory() as path, EmbeddedServer(path, settings=keeping) as server:
        upgrade(server.url)
        yield server
