"""A service with all that it needs around it: the database (started here when none is given), its schema, its key."""

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import uvicorn

from app.db import embedded, migrate, namespace_migrations
from app.db.embedded import EmbeddedServer
from app.db.requirements import check_server
from app.domain.security import root_key as root_keys
from app.errors import Unavailable
from app.main import create_app
from app.settings import Settings


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URL of a database that is new enough: the one that is set, else an embedded one of the data directory.

    An embedded one is ours to migrate; one that is set is migrated by `pgretrieve migrate`, when its owner says so.
    """
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        _check(url)
        yield url
        return
    # The worker, index builds and a psql or two beside the pool.
    connections = {"max_connections": str(settings.pool_size + 30)}
    with EmbeddedServer(settings.data_dir, settings=connections) as server:
        _check(server.url)
        migrate.upgrade(server.url)
        namespace_migrations.run(server.url)
        yield server.url


@contextmanager
def existing_database(settings: Settings) -> Iterator[str]:
    """The same for commands beside a service: the embedded server that runs is used, whoever started it.

    One that is stopped runs for the while; data that nobody has made yet are not made here.
    """
    if settings.database_url is None:
        url = embedded.running(settings.data_dir)
        if url is None and not embedded.exists(settings.data_dir):
            raise Unavailable(
                f"There is no database in {settings.data_dir}. Start `pgretrieve serve` once, or say where it is: "
                "--data-dir (PGRETRIEVE_DATA_DIR) or DATABASE_URL.",
                code="no_database",
            )
        if url is not None:
            migrate.check_current(url)
            yield url
            return
    with database(settings) as url:
        migrate.check_current(url)
        yield url


def _check(url: str) -> None:
    try:
        with psycopg.connect(url, connect_timeout=10, application_name="pgretrieve-cli") as conn:
            check_server(conn)
    except psycopg.OperationalError as error:
        raise Unavailable(f"The database cannot be reached: {error}", code="database_unavailable") from None


@dataclass(frozen=True, slots=True)
class RootKey:
    """The key with every right, and where it was told: a file, or None for the environment."""

    key: str
    file: str | None


def root_key(settings: Settings) -> RootKey:
    if settings.root_key is not None:
        return RootKey(settings.root_key.get_secret_value(), None)
    key, path = root_keys.kept_root_key(settings.data_dir)
    return RootKey(key, str(path))


def server(settings: Settings, url: str, key: str) -> uvicorn.Server:
    """The HTTP server, ready to run; it stops at SIGINT or SIGTERM after the requests that it has begun."""
    config = uvicorn.Config(
        create_app(settings, url, key),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        # Every request that has begun ends within its time.
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_s) + 5,
        lifespan="on",
    )
    return uvicorn.Server(config)


@contextmanager
def in_background(settings: Settings, url: str, key: str) -> Iterator[str]:
    """A server in a thread; yields its base URL, and stops it at the end."""
    listening = socket.create_server((settings.host, settings.port))
    host, port = listening.getsockname()[:2]
    started = threading.Event()

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    running = Announced(server(settings, url, key).config)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            running.run([listening])
        except BaseException as error:  # whatever ends the thread must reach the one who waits for it
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="http", daemon=True)
    thread.start()
    started.wait()
    try:
        if failed or not running.started:
            raise Unavailable("The service did not start; its log says why.") from (failed[0] if failed else None)
        yield f"http://{host}:{port}"
    finally:
        running.should_exit = True
        thread.join(timeout=settings.request_timeout_s + 10)
