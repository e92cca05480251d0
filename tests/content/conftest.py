"""A service with its worker, on a database of its own: the worker would do other tests' jobs, too."""

from collections.abc import Iterator

import pytest

from app import service
from app.settings import Settings
from tests.conftest import database
from tests.http import ROOT_KEY


@pytest.fixture(scope="session")
def content_database(server_url: str, template_db: str) -> Iterator[str]:
    with database(server_url, template_db) as url:
        yield url


@pytest.fixture(scope="session")
def base_url(content_database: str, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("content")
    chosen = settings.model_copy(update={"worker": True, "data_dir": folder, "worker_stop_s": 1.0})
    with service.in_background(chosen, content_database, ROOT_KEY) as url:
        yield url
