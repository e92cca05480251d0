"""/health: whether the process lives, and whether it can serve."""

from typing import Any

from litestar import Router, get

from app.api.wire import RuntimeDep
from app.domain.operation import vitals


@get("/live", scope="open", operation_id="live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/ready", scope="open", operation_id="ready")
async def ready(runtime: RuntimeDep) -> dict[str, Any]:
    """The database answers in time, with the schema that this version needs, and (with PGRETRIEVE_HEALTH_WORKER) some
    worker lives; 503 with what is wrong otherwise. Asked once a second, however often it is called."""
    return {"status": "ok", "checks": await vitals.ready(runtime)}


router = Router("/health", route_handlers=[live, ready], tags=["Health"])
