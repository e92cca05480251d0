"""Wires the parts into one application: routes, the pool, the inference services, the worker; nothing else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide

from app import tracing
from app.api import (
    adopting,
    aggregation,
    backfills,
    batches,
    blobs,
    buckets,
    collections,
    dead_work,
    document_changes,
    document_exports,
    document_imports,
    document_lists,
    documents,
    execution,
    extractors,
    health,
    index_mappings,
    inference,
    lookups,
    metrics,
    model_migrations,
    namespace_lists,
    namespace_operations,
    namespaces,
    objects,
    openapi,
    promotion,
    query_batches,
    retriever_functions,
    retriever_sql,
    retriever_versions,
    retrievers,
    search,
    stages,
    tasks,
    uploads,
    vector_indexes,
)
from app.api import audit as api_audit
from app.api import keys as api_keys
from app.api.auth import Keyring, check_scopes, require_key
from app.api.problems import HANDLERS
from app.api.rate_limits import RateLimits
from app.api.replicas import Replicas
from app.api.request_log import RequestLog, answered
from app.api.traces import traced
from app.api.watch import Watch
from app.api.wire import AnyJson
from app.db.engine import create_engine, transaction
from app.db.replica import Replica
from app.domain.runtime import Runtime
from app.domain.security import keys
from app.inference.registry import Inference
from app.jobs import worker
from app.settings import Settings


def create_app(
    settings: Settings, url: str, root_key: str | None = None, inference_services: Inference | None = None
) -> Litestar:
    """The application on the database at `url`. The schema is checked before, by `app.service`."""
    services, replica = inference_services or Inference.from_settings(settings), None
    if settings.read_database_url is not None:
        replica = Replica(create_engine(settings.read_database_url.get_secret_value(), settings), settings)
    runtime = Runtime(settings, create_engine(url, settings), services, replica)
    keyring = Keyring(runtime)
    traces = tracing.provider(settings, "api")
    direct = settings.direct_database_url.get_secret_value() if settings.direct_database_url else url

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(tracing.stop, traces)
            stack.push_async_callback(runtime.close)
            await _prepare(runtime, root_key)
            if replica is not None:
                await stack.enter_async_context(replica.watched(runtime.engine))
            await stack.enter_async_context(keyring.noting_uses())
            if settings.worker:
                await stack.enter_async_context(worker.running(direct, runtime))
            yield

    async def provide_runtime() -> Runtime:
        return runtime

    v1 = Router(
        "/v1",
        route_handlers=[
            namespaces.router,
            namespace_lists.router,
            namespace_operations.router,
            adopting.router,
            promotion.router,
            vector_indexes.router,
            dead_work.router,
            tasks.router,
            index_mappings.router,
            model_migrations.router,
            backfills.router,
            documents.router,
            document_exports.router,
            document_imports.router,
            document_changes.router,
            document_lists.router,
            aggregation.router,
            retrievers.router,
            retriever_versions.router,
            retriever_sql.router,
            retriever_functions.router,
            execution.router,
            query_batches.router,
            search.router,
            stages.router,
            extractors.router,
            inference.router,
            lookups.router,
            api_keys.router,
            api_audit.router,
            buckets.router,
            objects.router,
            uploads.router,
            blobs.router,
            collections.router,
            batches.router,
            batches.every,
        ],
        guards=[require_key],
    )
    app = Litestar(
        route_handlers=[v1, uploads.receive, health.router, metrics.router, openapi.openapi_json, openapi.assets()],
        lifespan=[lifespan],
        middleware=[
            lambda app: RequestLog(app, access_log=settings.access_log),
            *traced(traces),
            *([metrics.REQUESTS.middleware] if settings.metrics else []),
            *([lambda app: Replicas(app, runtime)] if replica else []),
            lambda app: Watch(app, settings.request_timeout_s),
        ],
        before_send=[answered],
        dependencies={"runtime": Provide(provide_runtime)},
        exception_handlers=HANDLERS,
        logging_config=None,
        plugins=[AnyJson()],
        request_max_body_size=settings.max_body_bytes,
        state=State(
            {"keyring": keyring, "rate_limits": RateLimits(settings), "audit_addresses": settings.audit_addresses}
        ),
        openapi_config=openapi.config(),
    )
    return check_scopes(app)


async def _prepare(runtime: Runtime, root_key: str | None) -> None:
    async with transaction(runtime.engine, runtime.settings) as conn:
        if root_key is not None:
            await keys.set_root(conn, root_key)
