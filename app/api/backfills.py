"""/v1/namespaces/…/backfills: an index filled from the documents that are there; or only forecast."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, Self

import msgspec
from litestar import Request, Router, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.locks import giving_way
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog.namespaces import Backfill, load_catalog
from app.domain.models import backfill
from app.domain.models.forecasting import Forecast, forecast
from app.domain.promoting.promotion import Promotion, decide_promotion
from app.domain.runtime import Runtime
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog

AnyRequest = Request[Any, Any, Any]


class FillInput(Input, frozen=True):
    """The `index`, and what fills it: the payload field that is mapped already, or that is from now on. With `dry_run:
    "forecast"` nothing is started. A rate is in documents; without one the service sets the pace."""

    index: str
    source_field: str | None = None
    rate_per_minute: int | None = None
    dry_run: Literal["forecast"] | None = None


class ForecastShown(msgspec.Struct, kw_only=True):
    """What a back-fill will cost: documents to embed, and their text. `tokens` are counted as `tokens_by` says, by the
    service's tokenizer, by it on a sample of the documents, or estimated at four characters each. `seconds` is the
    least that the rate takes."""

    items: int
    without_source: int
    characters: int
    tokens: int
    tokens_by: str
    seconds: float | None

    @classmethod
    def of(cls, found: Forecast) -> Self:
        return cls(**asdict(found))


class BackfillShown(msgspec.Struct, kw_only=True):
    """A back-fill; without a `task_id` it was only forecast."""

    index: str
    source_field: str
    task_id: str | None
    forecast: ForecastShown


@post(
    "/{namespace_id:str}/backfills",
    dto=Json[FillInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="backfill_vector_index",
)
async def fill(
    namespace_id: FromPath[str],
    runtime: RuntimeDep,
    request: AnyRequest,
    data: JSONBody[FillInput],
) -> BackfillShown:
    """Have a task embed the documents that have no vector in a mapped index, from their source field.

    The field becomes that of the mapping, so that later content embeds itself. 409 where the index is mapped to no
    service, to another field, or is being filled already.
    """
    wanted = Backfill(data.source_field, data.rate_per_minute)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
    place = backfill.place_of(catalog, data.index, wanted)
    found = await forecast(runtime, catalog, place.config.column, place.field, place.service, data.rate_per_minute)
    task_id = None
    if data.dry_run is None:
        maker = request.state.principal.key_id

        async def work(conn: AsyncConnection) -> str:
            return await backfill.request(conn, namespace_id, data.index, wanted, found, maker)

        task_id = await giving_way(runtime, namespace_id, work)
    shown = ForecastShown.of(found)
    return BackfillShown(index=place.config.name, source_field=place.field, task_id=task_id, forecast=shown)


async def forecasts_of(
    runtime: Runtime, namespace_id: str, wanted: Promotion, services: Mapping[str, ServiceInfo]
) -> dict[str, Forecast]:
    """Of a promotion's new indexes that are to be filled, before any lock is taken; none where it is refused anyway."""
    if not any(vector.backfill for vector in wanted.add_vectors):
        return {}
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
    if catalog.mode != "standalone" or decide_promotion(catalog, wanted, services, runtime.settings).problems:
        return {}
    return {
        vector.name: await forecast(
            runtime, catalog, None, vector.source_field, vector.inference_service, vector.backfill.rate_per_minute
        )
        for vector in wanted.add_vectors
        if vector.backfill and vector.source_field and vector.inference_service
    }


def backfills_of(catalog: Catalog | None, wanted: Promotion, forecasts: Mapping[str, Forecast]) -> list[BackfillShown]:
    """The forecasts, and the tasks that were started; without a catalog, none was."""
    return [
        BackfillShown(
            index=vector.name,
            source_field=str(vector.source_field),
            task_id=catalog.by_name[vector.name].filled_by if catalog else None,
            forecast=ForecastShown.of(forecasts[vector.name]),
        )
        for vector in wanted.add_vectors
        if vector.name in forecasts
    ]


router = Router("/namespaces", route_handlers=[fill], tags=["Namespaces"])
