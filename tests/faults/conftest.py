"""Fixtures of the tests of faults."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.faults.clients import Http
from tests.http import Api


@pytest.fixture
async def http(base_url: str, api: Api) -> AsyncIterator[Http]:
    async with httpx.AsyncClient(base_url=f"{base_url}/v1", timeout=30) as client:
        yield Http(client, api)
