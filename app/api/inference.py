"""/v1/inference: the services that can embed."""

import msgspec
from litestar import Router, get

from app.api.wire import RuntimeDep


class ServiceShown(msgspec.Struct, kw_only=True):
    """An inference service; when it is not `available` on this server, `reason` says what to do."""

    name: str
    provider: str
    model: str
    dimension: int
    modalities: tuple[str, ...]
    normalized: bool
    description: str
    licence: str
    available: bool
    reason: str | None


class ServiceList(msgspec.Struct, kw_only=True):
    """Every registered service."""

    results: list[ServiceShown]
    total: int


@get("/services", operation_id="list_inference_services")
async def list_services(runtime: RuntimeDep) -> ServiceList:
    """The inference services that vector indexes can be mapped to."""
    shown = []
    for info in runtime.inference.infos():
        service = runtime.inference.get(info.name)
        reason = service.unavailable() if service else None
        shown.append(
            ServiceShown(
                name=info.name,
                provider=info.provider,
                model=info.model,
                dimension=info.dimension,
                modalities=info.modalities,
                normalized=info.normalized,
                description=info.description,
                licence=info.licence,
                available=reason is None,
                reason=reason,
            )
        )
    return ServiceList(results=shown, total=len(shown))


router = Router("/inference", route_handlers=[list_services], tags=["Inference"])
