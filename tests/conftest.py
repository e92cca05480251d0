"""Fixtures that every test may use: first the databases; those of the API follow."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import httpx
import hypothesis
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.db.engine import create_engine
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.settings import Settings
from tests import servers
from tests.http import ROOT_KEY, Api
from tests.openai_server import OpenAIServer

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A running server, as the URL of its maintenance database."""
    with servers.test_server() as url:
        yield url


@pytest.fixture(scope="session")
def template_db(server_url: str) -> Iterator[str]:
    """The name of a migrated, empty database, from which the others are cloned."""
    from app.db.migrate import upgrade

    with database(server_url) as url:
        upgrade(url)
        yield servers.database_of(url)


@pytest.fixture(scope="session")
def conninfo(server_url: str, template_db: str) -> Iterator[str]:
    """The database that tests share: each makes its own namespaces in it."""
    with database(server_url, template_db) as url:
        yield url


@pytest.fixture
def fresh_database(server_url: str, template_db: str) -> Iterator[Callable[[], str]]:
    """A function that makes another migrated database and answers its URL; dropped after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(database(server_url, template_db))


@pytest.fixture
def empty_database(server_url: str) -> Iterator[Callable[[], str]]:
    """The same, not migrated."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(database(server_url))


@contextmanager
def database(server_url: str, template: str = "template1") -> Iterator[str]:
    name = f"pgretrieve_test_{uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield servers.with_database(server_url, name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


# Fixtures of the API


@pytest.fixture(scope="session")
def openai() -> Iterator[OpenAIServer]:
    """A local endpoint that speaks OpenAI's protocol."""
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="session")
def settings(openai: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The defaults, but for endpoints of this machine and a port of its own; the worker is run where it is needed."""
    return Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        port=0,
        worker=False,
        openai_api_key=SecretStr(openai.key),
        openai_base_url=openai.base_url,
        rerankers={
            "tei": {
                "kind": "tei",
                "base_url": openai.base_url.replace("/v1", "/tei"),
                "api_key_ref": "PGRETRIEVE_SECRET_RERANK",
            },
            "down": {"kind": "tei", "base_url": "http://127.0.0.1:1"},
        },
        fetch_networks="127.0.0.0/8",
        secret_hosts="127.0.0.1",
        proof_timeout_s=20,
        lock_timeout_ms=300,
        lock_attempts=3,
    )


@pytest.fixture(scope="session")
def base_url(conninfo: str, settings: Settings) -> Iterator[str]:
    """A service over real HTTP, on the shared database, with the real local model."""
    with service.in_background(settings, conninfo, ROOT_KEY) as url:
        yield url


@pytest.fixture
def api(base_url: str) -> Iterator[Api]:
    """A client of that service, with a namespace id that is this test's own."""
    with httpx.Client(base_url=f"{base_url}/v1", timeout=30) as http:
        yield Api(http, f"test_{uuid4().hex[:12]}")


@pytest.fixture
async def engine(conninfo: str, settings: Settings) -> AsyncIterator[AsyncEngine]:
    """A pool on the shared database, for tests below HTTP."""
    made = create_engine(conninfo, settings)
    yield made
    await made.dispose()


@pytest.fixture
async def runtime(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Runtime]:
    """What a worker has, with the services of the installation."""
    made = Runtime(settings, engine, Inference.from_settings(settings))
    yield made
    await made.inference.close()
