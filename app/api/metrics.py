"""/metrics for Prometheus: what this process counts, its pool, and what lies in the queue."""

import hmac
from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.plugins.prometheus import PrometheusConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.wire import RuntimeDep
from app.domain.operation import vitals
from app.errors import NotFound, Unauthorized
from app.metrics import SECONDS

# Only requests that a route takes are counted, so that paths are templates of ours and methods those of routes.
REQUESTS = PrometheusConfig(
    app_name="pgretrieve",
    prefix="pgretrieve_http",
    group_path=True,
    buckets=list(SECONDS),
    exclude="^/(metrics|health)",
)


@get("/metrics", scope="open", operation_id="metrics", media_type=MediaType.TEXT)
async def metrics(request: Request[Any, Any, Any], runtime: RuntimeDep) -> Response[bytes]:
    """What Prometheus reads; with PGRETRIEVE_METRICS_TOKEN, as `Authorization: Bearer …`."""
    settings = runtime.settings
    if not settings.metrics:
        raise NotFound("resource", "/metrics", "PGRETRIEVE_METRICS turns it on.")
    token = settings.metrics_token
    if token is not None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, token.get_secret_value().encode()):
            raise Unauthorized("/metrics needs `Authorization: Bearer` with PGRETRIEVE_METRICS_TOKEN.")
    await vitals.refresh(runtime)
    return Response(generate_latest(vitals.Collected(runtime)), headers={"Content-Type": CONTENT_TYPE_LATEST})


router = Router("/", route_handlers=[metrics], tags=["Health"])
