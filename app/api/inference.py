"""/v1/inference: texts made into vectors; the services that do it, listed, made and deleted without a restart."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from app.api.wire import Input, Json, NotOffered, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.inference import embedding, services
from app.domain.inference.services import Stored
from app.domain.models import drift
from app.domain.models.drift import Probe
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, NotFound, Problem
from app.inference.base import Service
from app.inference.definition import Definition

AnyRequest = Request[Any, Any, Any]


class ServiceInput(Input, frozen=True):
    """A service: the provider that makes it (`openai`, `onnx`, `open_clip`), its model, the dimension of its vectors.

    `settings` are the provider's own. Secrets are names of environment variables of the server, never values.
    """

    name: str
    provider: str
    model: str
    dimension: int
    settings: dict[str, Any] = {}
    description: str = ""


class ProbeInput(Input, frozen=True):
    """With `accept` what the service makes now is what it is compared with from now on."""

    accept: bool = False


class DriftShown(msgspec.Struct, kw_only=True):
    """A comparison of a service with itself: `first` (nothing to compare with yet), `same`, `changed` with a `warning`,
    or `failed` with the reason. `min_cosine` is that of the text that differs most."""

    verdict: str
    min_cosine: float | None
    probed_at: datetime
    warning: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, probe: Probe) -> Self:
        return cls(
            verdict=probe.verdict,
            min_cosine=probe.min_cosine,
            probed_at=probe.probed_at,
            warning=probe.warning,
            reason=probe.error,
        )


class ServiceShown(msgspec.Struct, kw_only=True):
    """An inference service; when it is not `available` on this server, `reason` says what to do.

    `settings`, `created_by` and `created_at` are those of services that were made over the API. `drift` says whether it
    made of fixed texts, the last time that it was asked, what it made of them when it was first mapped.
    """

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
    built_in: bool
    settings: dict[str, Any] | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    drift: DriftShown | None = None


class ServiceList(msgspec.Struct, kw_only=True):
    """Every registered service."""

    results: list[ServiceShown]
    total: int


class Deleted(msgspec.Struct, kw_only=True):
    """What was deleted."""

    success: bool
    message: str


class Given(Input, frozen=True):
    """What to embed, one of these: a `text`, several `texts`; an image by its URL (`image_url`) or as base64 or a data
    URI (`image_base64`), or several `images` in any of these forms."""

    text: str | None = None
    texts: list[str] | None = None
    image_url: str | None = None
    image_base64: str | None = None
    images: list[str] | None = None
    prompts: NotOffered = None
    video_url: NotOffered = None
    audio_url: NotOffered = None

    @property
    def name(self) -> str | None:
        """Of the one that is given."""
        names = [name for name in KINDS if getattr(self, name) is not None]
        return names[0] if len(names) == 1 else None


KINDS = ("text", "texts", "image_url", "image_base64", "images")


class InferenceParameters(Input, frozen=True):
    """`task`: what the texts are for; models that embed questions and answers differently need to know."""

    task: Literal["query", "document"] = "query"


class InferenceInput(Input, frozen=True):
    """Texts or images, and who embeds them: `inference_name`, an index (`feature_uri`), or `provider` with `model`."""

    inputs: Given
    inference_name: str | None = None
    feature_uri: str | None = None
    provider: str | None = None
    model: str | None = None
    parameters: InferenceParameters | None = None
    enable_semantic_cache: NotOffered = False
    cache_delta: NotOffered = None


class Inferred(msgspec.Struct, kw_only=True):
    """`data` is `{"embeddings": [[…], …]}`; `cached` when no service was called; tokens are its provider's count."""

    data: dict[str, list[list[float]]]
    provider: str
    model: str
    latency_ms: float
    cached: bool
    tokens_used: int | None = None


def _shown(service: Service, stored: Stored | None, probe: Probe | None = None) -> ServiceShown:
    info, reason = service.info, service.unavailable()
    names = set(ServiceShown.__struct_fields__) & set(info.__slots__)
    shown = ServiceShown(
        **{name: getattr(info, name) for name in names},
        available=reason is None,
        reason=reason,
        built_in=not info.stored,
    )
    if stored:
        shown.settings = dict(stored.definition.settings)
        shown.created_by, shown.created_at = stored.created_by, stored.created_at
    shown.drift = DriftShown.of(probe) if probe else None
    return shown


async def _probes(runtime: Runtime, names: list[str] | None = None) -> Mapping[str, Probe]:
    async with transaction(runtime.engine, runtime.settings) as conn:
        return await drift.last(conn, names)


@get("/services", scope="read", operation_id="list_inference_services")
async def list_services(runtime: RuntimeDep) -> ServiceList:
    """The inference services that vector indexes can be mapped to."""
    stored = await services.refresh(runtime)
    found = {name: runtime.inference.get(name) for name in runtime.inference.names()}
    probes = await _probes(runtime)
    shown = [_shown(service, stored.get(name), probes.get(name)) for name, service in found.items() if service]
    return ServiceList(results=shown, total=len(shown))


@get("/services/{name:str}", scope="read", operation_id="get_inference_service")
async def get_service(name: FromPath[str], runtime: RuntimeDep) -> ServiceShown:
    """A service by its name."""
    stored = await services.refresh(runtime)
    return _shown(_found(runtime, name), stored.get(name), (await _probes(runtime, [name])).get(name))


@post(
    "/services/{name:str}/probe",
    scope="admin",
    dto=Json[ProbeInput],
    return_dto=None,
    status_code=200,
    operation_id="probe_inference_service",
)
async def probe_service(
    name: FromPath[str], runtime: RuntimeDep, data: JSONBody[ProbeInput | None] = None
) -> DriftShown:
    """Embed the fixed texts with the service now, and compare them with what it made of them at first."""
    return DriftShown.of(await drift.probe(runtime, name, anew=data is not None and data.accept))


@post(
    "/services",
    scope="admin",
    dto=Json[ServiceInput],
    return_dto=None,
    status_code=200,
    operation_id="create_inference_service",
)
async def create_service(data: JSONBody[ServiceInput], request: AnyRequest, runtime: RuntimeDep) -> ServiceShown:
    """Make a service, which every process knows at once. What it lacks on this server is told by `reason`.

    Needs an administrator's key: the server will call the address of an `openai` service, and send it texts.
    """
    definition = Definition(**{name: getattr(data, name) for name in ServiceInput.__struct_fields__})
    maker = request.state.principal.key_id
    async with transaction(runtime.engine, runtime.settings) as conn:
        await services.create(conn, runtime.inference, definition, runtime.settings, maker)
    stored = await services.refresh(runtime)
    return _shown(_found(runtime, data.name), stored.get(data.name))


@delete("/services/{name:str}", scope="admin", status_code=200, operation_id="delete_inference_service")
async def delete_service(name: FromPath[str], runtime: RuntimeDep) -> Deleted:
    """Delete a service that was made over the API; 409 while a namespace maps an index to it."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        await services.delete(conn, runtime.inference, name)
    await services.refresh(runtime)
    return Deleted(success=True, message=f"The inference service {name!r} is deleted.")


@post(
    "/",
    scope="read",
    dto=Json[InferenceInput],
    return_dto=None,
    status_code=200,
    operation_id="run_inference",
)
async def run_inference(data: JSONBody[InferenceInput], request: AnyRequest, runtime: RuntimeDep) -> Inferred:
    """Embed texts or images with a service, named directly or by an index that is mapped to it."""
    name, given = _given(data.inputs, runtime.settings.max_inference_texts)
    service = await _service(data, request, runtime)
    task = data.parameters.task if data.parameters else "query"
    began = time.perf_counter()
    try:
        if name in ("text", "texts"):
            embedded = await embedding.embed(runtime, service.info.name, given, task)
        else:
            embedded = await embedding.embed_contents(runtime, service.info.name, given)
    except InvalidRequest as error:
        raise InvalidRequest([_placed(problem, name) for problem in error.problems], **error.details) from None
    return Inferred(
        data={"embeddings": embedded.vectors.tolist()},
        provider=service.info.provider,
        model=service.info.model,
        latency_ms=round((time.perf_counter() - began) * 1000, 3),
        cached=embedded.cached,
        tokens_used=embedded.tokens,
    )


def _given(inputs: Given, most: int) -> tuple[str, list[str]]:
    """The name of what is to be embedded, and the list of it."""
    here, name = ("body", "inputs"), inputs.name
    if name is None:
        message = f"Give exactly one of {', '.join(f'`{name}`' for name in KINDS)}."
        raise InvalidRequest([Problem(here, "missing_input", message)])
    value = getattr(inputs, name)
    given = value if isinstance(value, list) else [value]
    if not 1 <= len(given) <= most:
        message = f"Give 1 to {most} {name} (PGRETRIEVE_MAX_INFERENCE_TEXTS); these are {len(given)}."
        raise InvalidRequest([Problem((*here, name), "out_of_range", message)])
    return name, given


def _placed(problem: Problem, name: str) -> Problem:
    """The problem at its place in the body: the domain knows lists of texts and images."""
    place = problem.location if name in ("texts", "images") else (name,)
    return Problem(("body", "inputs", *place), problem.code, problem.message)


async def _service(data: InferenceInput, request: AnyRequest, runtime: Runtime) -> Service:
    ways = [data.inference_name is not None, data.feature_uri is not None, bool(data.provider or data.model)]
    if sum(ways) != 1 or bool(data.provider) != bool(data.model):
        message = "Say who embeds by one of `inference_name`, `feature_uri`, or `provider` with `model`."
        raise InvalidRequest([Problem(("body",), "one_service", message)])
    if data.feature_uri is not None:
        async with transaction(runtime.engine, runtime.settings) as conn:
            catalog = await load_catalog(conn, namespace_of(request))
        name = embedding.service_of(catalog, data.feature_uri)
        await services.refresh_for(runtime, [name])
        return _found(runtime, name)
    if data.inference_name is not None:
        await services.refresh_for(runtime, [data.inference_name])
        return _found(runtime, data.inference_name)
    await services.refresh(runtime)
    for info in runtime.inference.infos():
        if (info.provider, info.model) == (data.provider, data.model):
            return _found(runtime, info.name)
    message = "No service has this provider and model; GET /v1/inference/services lists those that there are."
    raise InvalidRequest([Problem(("body", "model"), "unknown_service", message)])


def _found(runtime: Runtime, name: str) -> Service:
    service = runtime.inference.get(name)
    if service is None:
        known = ", ".join(runtime.inference.names())
        raise NotFound("inference service", name, f"The services are {known}.")
    return service


router = Router(
    "/inference",
    route_handlers=[list_services, get_service, probe_service, create_service, delete_service, run_inference],
    tags=["Inference"],
)
