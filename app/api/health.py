"""/health: whether the process lives, and whether it can serve."""

from litestar import Router, get

from app.api.wire import RuntimeDep
from app.db.engine import connection
from app.db.statements import statement


@get("/live", scope="open", operation_id="live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/ready", scope="open", operation_id="ready")
async def ready(runtime: RuntimeDep) -> dict[str, str]:
    """The database answers too; 503 when it does not."""
    async with connection(runtime.engine) as conn:
        await conn.execute(statement("ping"))
    return {"status": "ok"}


router = Router("/health", route_handlers=[live, ready], tags=["Health"])
