"""/v1/namespaces/…/promote: a standalone namespace made managed, or told what that would do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from litestar import Request, Response, Router, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.backfills import BackfillShown, backfills_of, forecasts_of
from app.api.locks import giving_way
from app.api.namespace_models import AddedVectorInput
from app.api.rehearsal import Rehearsed, rehearse
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog import namespaces
from app.domain.inference.services import refresh, refresh_for
from app.domain.models import drift
from app.domain.promoting import promotion, proofs
from app.domain.promoting.promotion import Mapped, Promotion
from app.domain.promoting.proof import Proof, ends
from app.domain.promoting.proofs import Verify
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog

AnyRequest = Request[Any, Any, Any]


class MappingInput(Input, frozen=True):
    """An existing vector index and the inference service that embeds its queries (and `source_field`, its content)."""

    existing_index: str
    inference_service: str
    source_field: str | None = None


class PromoteInput(Input, frozen=True):
    """What a promotion maps and adds; both are optional.

    `verify`: whether stored rows are embedded anew and compared, to prove that the services made them: `off`, `sample`
    (the default), or `require`, which refuses a mapping that is not proven to be usable.
    """

    vector_mappings: list[MappingInput] | None = None
    add_vectors: list[AddedVectorInput] | None = None
    verify: Verify | None = None

    def wanted(self) -> Promotion:
        mappings = [Mapped(m.existing_index, m.inference_service, m.source_field) for m in self.vector_mappings or ()]
        return Promotion(mappings, [vector.wanted() for vector in self.add_vectors or ()])


class PromoteOrRehearseInput(PromoteInput, frozen=True):
    """The same; with `dry_run: "rehearse"` it is done with its locks, told in detail, and rolled back."""

    dry_run: Literal["rehearse"] | None = None


class Promoted(msgspec.Struct, kw_only=True):
    """The namespace after its promotion: the documented keys and no other, since callers compare it whole.

    `proofs` are there only where the request says `verify`, `backfills` where it asks for some.
    """

    namespace_id: str
    previous_mode: str
    mode: str
    status: str = "active"
    vector_configs: list[dict[str, Any]]
    vector_inference_map: dict[str, str]
    proofs: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    backfills: list[BackfillShown] | msgspec.UnsetType = msgspec.UNSET


class Validation(msgspec.Struct, kw_only=True):
    """What promoting would do. `suggestions` that match by dimension alone are a weak sign, and marked so.

    `proofs` say for each mapping whether the service made the stored vectors: `match`, `variant`, `mismatch` or
    `unknown`, with the source that was embedded, the numbers, and reasons.
    """

    namespace_id: str
    current_mode: str
    valid: bool
    required_user_action: str
    vector_configs: list[dict[str, Any]]
    vector_inference_map: dict[str, str]
    proofs: list[dict[str, Any]]
    suggestions: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    warnings: list[str]
    backfills: list[BackfillShown] | msgspec.UnsetType = msgspec.UNSET


@post(
    "/{namespace_id:str}/promote",
    dto=Json[PromoteOrRehearseInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="promote_namespace",
)
async def promote(
    namespace_id: FromPath[str],
    runtime: RuntimeDep,
    request: AnyRequest,
    data: JSONBody[PromoteOrRehearseInput | None] = None,
) -> Response[Promoted | Rehearsed]:
    """Make a standalone namespace managed, in one transaction: map its indexes to services, add new indexes.

    409 when it is not standalone or a lock cannot be had; 422 with every problem otherwise; then nothing changed.
    The header `X-Promotion-Warnings` names mapped services that cannot be used on this server yet, or whose provider
    has changed their model, `X-Promotion-Proof` each mapped index with what was proven of it before.
    `dry_run: "rehearse"` answers 200 with the verdict and what was seen, and changes nothing.
    """
    data = data or PromoteOrRehearseInput()
    wanted = data.wanted()
    services = await services_of(runtime, wanted.services())
    proven = await _prove(runtime, namespace_id, wanted, services, data.verify)
    forecasts = await forecasts_of(runtime, namespace_id, wanted, services)
    promoted_by = request.state.principal.key_id

    drifted: list[str] = []

    async def work(conn: AsyncConnection) -> Catalog:
        # Within the transaction: once it is committed nothing that may fail is between it and its answer.
        drifted[:] = await drift.warnings(conn, wanted.services())
        if data.verify == "require":
            Problems(proofs.unproven(wanted, proven)).refuse()
        return await promotion.promote(conn, namespace_id, wanted, services, runtime.settings, promoted_by, forecasts)

    def answer(catalog: Catalog) -> Promoted:
        started = None if data.dry_run else catalog
        return _promoted(catalog, proven if data.verify else None, backfills_of(started, wanted, forecasts))

    if data.dry_run:
        return Response(await rehearse(runtime, namespace_id, work, answer), status_code=200)
    catalog = await giving_way(runtime, namespace_id, work)
    told = {
        "X-Promotion-Warnings": " ".join([*_unavailable(runtime, catalog.inference_map), *drifted]),
        "X-Promotion-Proof": proofs.in_short(proven),
    }
    headers = {name: text.encode("ascii", "backslashreplace").decode() for name, text in told.items() if text}
    return Response(answer(catalog), headers=headers, status_code=200)


def _promoted(catalog: Catalog, proven: Sequence[Proof] | None, backfills: list[BackfillShown]) -> Promoted:
    return Promoted(
        namespace_id=catalog.namespace_id,
        previous_mode="standalone",
        mode=catalog.mode,
        vector_configs=promotion.shown(catalog.vector_configs),
        vector_inference_map=dict(catalog.inference_map),
        proofs=msgspec.UNSET if proven is None else [proofs.shown(proof) for proof in proven],
        backfills=backfills or msgspec.UNSET,
    )


async def _prove(
    runtime: Runtime,
    namespace_id: str,
    wanted: Promotion,
    services: Mapping[str, ServiceInfo],
    verify: Verify | None,
) -> list[Proof]:
    """Before the promotion, with no transaction open while a service is called; what it refuses is left to it."""
    if verify == "off" or not wanted.vector_mappings:
        return []
    ends_at = ends(runtime)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await namespaces.load_catalog(conn, namespace_id)
    decision = promotion.decide_promotion(catalog, wanted, services, runtime.settings)
    if decision.problems or catalog.mode != "standalone":
        return []
    return await proofs.prove_mappings(runtime, catalog, wanted, verify, ends_at)


@post(
    "/{namespace_id:str}/promote/validate",
    dto=Json[PromoteInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="validate_promotion",
)
async def validate(
    namespace_id: FromPath[str], runtime: RuntimeDep, data: JSONBody[PromoteInput | None] = None
) -> Validation:
    """Tell what promoting would do, without doing it and without a lock; 422 for mappings that are invalid."""
    data = data or PromoteInput()
    wanted, ends_at = data.wanted(), ends(runtime)
    services = await services_of(runtime)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await namespaces.load_catalog(conn, namespace_id)
        drifted = await drift.warnings(conn, wanted.services())
    decision = promotion.decide_promotion(catalog, wanted, services, runtime.settings)
    if any(problem.location[1] == "vector_mappings" for problem in decision.problems):
        raise InvalidRequest(await proofs.explained(runtime, catalog, wanted, decision.problems, data.verify, ends_at))
    proven = await proofs.prove_mappings(runtime, catalog, wanted, data.verify, ends_at)
    problems = list(decision.problems)
    if data.verify == "require":
        problems += proofs.unproven(wanted, proven)
    errors = [{"code": p.code, "location": list(p.location), "message": p.message} for p in problems]
    if catalog.mode != "standalone":
        message = f"The namespace is {catalog.mode} already; only standalone ones can be promoted."
        errors.append({"code": "not_standalone", "location": [], "message": message})
    forecasts = await forecasts_of(runtime, namespace_id, wanted, services)
    return Validation(
        namespace_id=catalog.namespace_id,
        current_mode=catalog.mode,
        valid=not errors,
        required_user_action="Correct the errors." if errors else "None: promote when you are ready.",
        vector_configs=promotion.shown(decision.configs(catalog)),
        vector_inference_map={**catalog.inference_map, **decision.inference_map()},
        proofs=[proofs.shown(proof) for proof in proven],
        suggestions=await proofs.suggestions(runtime, catalog, services, proven, data.verify, ends_at),
        errors=errors,
        warnings=[*_unavailable(runtime, decision.inference_map()), *drifted],
        backfills=backfills_of(None, wanted, forecasts) or msgspec.UNSET,
    )


async def services_of(runtime: Runtime, names: Iterable[str] | None = None) -> Mapping[str, ServiceInfo]:
    """Every service by its name; among these names (or all) those too that another process has made."""
    await (refresh(runtime) if names is None else refresh_for(runtime, names))
    return {info.name: info for info in runtime.inference.infos()}


def _unavailable(runtime: Runtime, mapped: Mapping[str, str]) -> list[str]:
    found = []
    for name in dict.fromkeys(mapped.values()):
        service = runtime.inference.get(name)
        if service is not None and (reason := service.unavailable()):
            found.append(f"The service {name!r} cannot be used on this server yet: {reason}")
    return found


router = Router("/namespaces", route_handlers=[promote, validate], tags=["Namespaces"])
