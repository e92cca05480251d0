"""Wires the parts into one application: routes, the pool, the inference services, the worker; nothing else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from app import __version__
from app.api import documents, health, inference, namespaces, retrievers
from app.api.auth import Keyring, require_key
from app.api.problems import HANDLERS
from app.api.wire import AnyJson
from app.db.engine import create_engine, transaction
from app.domain import keys
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import worker
from app.settings import Settings


def create_app(
    settings: Settings, url: str, root_key: str | None = None, inference_services: Inference | None = None
) -> Litestar:
    """The application on the database at `url`. The schema is checked before, by `app.service`."""
    runtime = Runtime(settings, create_engine(url, settings), inference_services or Inference.from_settings(settings))
    direct = settings.direct_database_url.get_secret_value() if settings.direct_database_url else url

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runtime.engine.dispose)
            stack.push_async_callback(runtime.inference.close)
            await _prepare(runtime, root_key)
            if settings.worker:
                await stack.enter_async_context(worker.running(direct, settings))
            yield

    async def provide_runtime() -> Runtime:
        return runtime

    v1 = Router(
        "/v1",
        route_handlers=[namespaces.router, documents.router, retrievers.router, inference.router],
        guards=[require_key],
    )
    return Litestar(
        route_handlers=[v1, health.router],
        lifespan=[lifespan],
        dependencies={"runtime": Provide(provide_runtime)},
        exception_handlers=HANDLERS,
        logging_config=None,
        plugins=[AnyJson()],
        request_max_body_size=settings.max_body_bytes,
        state=State({"keyring": Keyring(runtime)}),
        openapi_config=OpenAPIConfig(title="pgretrieve", version=__version__, path="/docs"),
    )


async def _prepare(runtime: Runtime, root_key: str | None) -> None:
    async with transaction(runtime.engine, runtime.settings) as conn:
        if root_key is not None:
            await keys.set_root(conn, root_key)
