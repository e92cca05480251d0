"""The feature extractors that collections may have: what goes in, what comes out, and their parameters."""

import inspect
from functools import cache
from typing import Any, Literal

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery

from app.api.stages import schema_of
from app.api.wire import RuntimeDep
from app.db.engine import transaction
from app.domain.catalog import namespaces
from app.domain.runtime import Runtime
from app.errors import NotFound
from app.extractors import REGISTRY
from app.extractors.base import Extractor


class VectorIndex(msgspec.Struct, kw_only=True):
    """The index that an output goes to unless a collection names another: its service makes the vectors."""

    name: str
    description: str
    dimensions: int | None
    type: str = "dense"
    distance: str = "cosine"
    supported_inputs: list[str]
    inference_name: str


class OutputIndex(msgspec.Struct, kw_only=True):
    """What an extractor has embedded."""

    feature_uri: str
    name: str
    description: str
    type: str = "single"
    index: VectorIndex


class FeatureExtractor(msgspec.Struct, kw_only=True):
    """An extractor. `realtime_available`: whether the services of its outputs can be used on this server now."""

    feature_extractor_name: str
    version: str
    feature_extractor_id: str
    description: str
    icon: str
    category: str
    source: str = "builtin"
    type_mode: str
    expected_input_types: dict[str, str] | None
    inference_type: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    parameter_schema: dict[str, Any]
    supported_input_types: list[str]
    max_inputs: dict[str, int]
    default_parameters: dict[str, Any]
    required_vector_indexes: list[OutputIndex]
    required_payload_indexes: list[dict[str, Any]] = []
    position_fields: list[str]
    feature_uri: str | None
    capabilities: list[str]
    example_usage: dict[str, Any]
    realtime_available: bool | None


class FeatureExtractorList(msgspec.Struct, kw_only=True):
    """The extractors of a namespace: those of this server, for there are no others."""

    success: bool = True
    extractors: list[FeatureExtractor]
    total: int
    namespace_id: str
    builtin_count: int
    custom_count: int = 0


class DiscoveredExtractor(msgspec.Struct, kw_only=True):
    """The same, in the words of the discovery."""

    name: str
    version: str
    description: str
    supported_modalities: list[str]
    output_features: list[dict[str, Any]]
    input_schema: dict[str, Any]
    parameter_schema: dict[str, Any]
    output_schema: dict[str, Any]
    type_mode: str
    expected_input_types: dict[str, str] | None
    inference_type: str | None
    supported_input_types: list[str]
    max_inputs: dict[str, int]
    default_parameters: dict[str, Any]
    required_vector_indexes: list[OutputIndex]
    position_fields: list[str]
    capabilities: list[str]
    example_usage: dict[str, Any]
    realtime_available: bool | None


@get("/collections/features/extractors", scope="read", operation_id="list_feature_extractors")
async def list_all(runtime: RuntimeDep) -> list[FeatureExtractor]:
    """The extractors that a collection may have."""
    return [_shown(kind, runtime) for kind in REGISTRY.values()]


@get(
    "/collections/features/extractors/{feature_extractor_id:str}",
    scope="read",
    operation_id="get_feature_extractor",
)
async def get_one(feature_extractor_id: FromPath[str], runtime: RuntimeDep) -> FeatureExtractor:
    """One extractor, by its name and version: `text_extractor_v1`."""
    return _shown(_found(feature_extractor_id), runtime)


@get("/namespaces/{namespace_id:str}/extractors", scope="read", operation_id="list_namespace_extractors")
async def list_of_namespace(
    namespace_id: FromPath[str],
    runtime: RuntimeDep,
    source: FromQuery[Literal["builtin", "custom", "all"]] = "all",
) -> FeatureExtractorList:
    """The extractors that collections of a namespace may have."""
    namespace_id = await _namespace(runtime, namespace_id)
    shown = [_shown(kind, runtime) for kind in REGISTRY.values()] if source != "custom" else []
    return FeatureExtractorList(extractors=shown, total=len(shown), namespace_id=namespace_id, builtin_count=len(shown))


@get(
    "/namespaces/{namespace_id:str}/extractors/{extractor_id:str}",
    scope="read",
    operation_id="get_namespace_extractor",
)
async def get_of_namespace(
    namespace_id: FromPath[str], extractor_id: FromPath[str], runtime: RuntimeDep
) -> FeatureExtractor:
    """One of them, by its name and version."""
    await _namespace(runtime, namespace_id)
    return _shown(_found(extractor_id), runtime)


@get("/discovery/extractors", scope="read", operation_id="discover_extractors")
async def discover(runtime: RuntimeDep) -> list[DiscoveredExtractor]:
    """The same with the outputs' modalities."""
    return [_discovered(kind, runtime) for kind in REGISTRY.values()]


async def _namespace(runtime: Runtime, identifier: str) -> str:
    async with transaction(runtime.engine, runtime.settings) as conn:
        return (await namespaces.load_catalog(conn, identifier)).namespace_id


def _found(extractor_id: str) -> type[Extractor]:
    kind = REGISTRY.get(extractor_id)
    if kind is None:
        raise NotFound("feature extractor", extractor_id, f"There are {', '.join(REGISTRY)}.")
    return kind


def _shown(kind: type[Extractor], runtime: Runtime) -> FeatureExtractor:
    indexes = [_index(kind, name, runtime) for name in kind.outputs]
    return FeatureExtractor(
        feature_extractor_name=kind.extractor_name,
        version=kind.version,
        feature_extractor_id=kind.extractor_id(),
        icon=kind.icon,
        category=kind.category,
        required_vector_indexes=indexes,
        feature_uri=indexes[0].feature_uri if indexes else None,
        realtime_available=_available(kind, runtime),
        **_told(kind),
    )


def _discovered(kind: type[Extractor], runtime: Runtime) -> DiscoveredExtractor:
    return DiscoveredExtractor(
        name=kind.extractor_name,
        version=kind.version,
        supported_modalities=sorted({output.modality for output in kind.outputs.values()}),
        output_features=[
            {"name": name, "modality": output.modality, "feature_uri": _uri(kind, name)}
            for name, output in kind.outputs.items()
        ],
        required_vector_indexes=[_index(kind, name, runtime) for name in kind.outputs],
        realtime_available=_available(kind, runtime),
        **_told(kind),
    )


@cache
def _told(kind: type[Extractor]) -> dict[str, Any]:
    """What both answers have, and no server changes."""
    types = sorted({kind_of_field for spec in kind.inputs.values() for kind_of_field in spec.types})
    mapping = {name: name for name, spec in kind.inputs.items() if spec.required}
    usage = {"feature_extractor_name": kind.extractor_name, "version": kind.version, "parameters": kind.example}
    return {
        "description": inspect.getdoc(kind),
        "type_mode": "type_specific" if len(types) == 1 else "multimodal",
        "expected_input_types": dict.fromkeys(kind.inputs, types[0]) if len(types) == 1 else None,
        "inference_type": "embedding" if kind.outputs else None,
        "input_schema": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": spec.description} for name, spec in kind.inputs.items()
            },
            "required": list(mapping),
        },
        "output_schema": {"type": "object", "properties": {**kind.produces, **dict.fromkeys(kind.outputs, VECTOR)}},
        "parameter_schema": schema_of(kind),
        "supported_input_types": types,
        "max_inputs": {name: spec.most for name, spec in kind.inputs.items()},
        "default_parameters": msgspec.to_builtins(kind()),
        "position_fields": list(kind.position_fields),
        "capabilities": ["batch", "realtime"] if kind.outputs else ["batch"],
        "example_usage": {"feature_extractor": {**usage, "input_mappings": mapping}},
    }


VECTOR = {"type": "array", "items": {"type": "number"}}


def _index(kind: type[Extractor], name: str, runtime: Runtime) -> OutputIndex:
    output = kind.outputs[name]
    service = runtime.inference.get(output.service)
    return OutputIndex(
        feature_uri=_uri(kind, name),
        name=name,
        description=output.description,
        index=VectorIndex(
            name=name,
            description=output.description,
            dimensions=service.info.dimension if service else None,
            supported_inputs=[output.modality],
            inference_name=output.service,
        ),
    )


def _uri(kind: type[Extractor], output: str) -> str:
    return f"mixpeek://{kind.extractor_name}@{kind.version}/{output}"


def _available(kind: type[Extractor], runtime: Runtime) -> bool | None:
    """None where nothing is embedded."""
    services = [runtime.inference.get(output.service) for output in kind.outputs.values()]
    return all(service is not None and service.unavailable() is None for service in services) if services else None


router = Router(
    "/",
    route_handlers=[list_all, get_one, list_of_namespace, get_of_namespace, discover],
    tags=["Feature extractors"],
)
