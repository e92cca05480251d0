"""What a collection is asked to be, checked against its source, extractor, services and indexes: every problem at once.

Pure: the same inputs, the same decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.content.bucket_schemas import digest
from app.errors import Problems
from app.extractors import read
from app.extractors.base import Extractor, Output
from app.extractors.mapping import FieldPassthrough, Paths, read_mappings, read_passthrough
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog, VectorConfig

Location = tuple[str | int, ...]
AT: Location = ("body", "feature_extractor")
# Where what is embedded stands in the payload, unless the index's mapping names another field.
SOURCE_FIELDS = {"text": "text", "image": "image"}
# The field of each document that says what it was made of; the stages group_by and document_enrich look for it.
SOURCE_ID = "source_object_id"


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of what a collection reads or makes, with their types; `open` where there may be others."""

    properties: Mapping[str, Mapping[str, Any]]
    open: bool = False

    @property
    def types(self) -> dict[str, str] | None:
        """As the extractors' checks take them: None where not all are known."""
        return None if self.open else {name: str(each["type"]) for name, each in self.properties.items()}


@dataclass(frozen=True, slots=True)
class Filled:
    """An index that a collection fills: by the service that is mapped to it, from a field of the payload; or, without
    one, with vectors that rows bring. Where it is `new`, the collection makes it."""

    output: str
    index: str
    dimension: int
    metric: str = "cosine"
    service: str | None = None
    source_field: str | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is made of each source: all that a worker needs, and what decides whether something is made again."""

    extractor: Extractor
    paths: Paths
    passthrough: tuple[FieldPassthrough, ...] = ()
    include_all: bool = False

    def fingerprint(self, indexes: Mapping[str, str]) -> str:
        return digest(
            {
                "extractor": self.extractor.extractor_id(),
                "parameters": msgspec.to_builtins(self.extractor),
                "paths": {name: list(paths) for name, paths in self.paths.items()},
                "passthrough": msgspec.to_builtins(self.passthrough),
                "include_all": self.include_all,
                "indexes": dict(indexes),
            }
        )

    def fields(self, source: Fields) -> Fields:
        """Those of the documents."""
        passed = {SOURCE_ID: {"type": "string"}}
        if self.include_all:
            passed |= {name: _plain(each) for name, each in source.properties.items()}
        for each in self.passthrough:
            known = source.properties.get(each.source_path)
            passed[each.target] = _plain(known) if known else {"type": "object"}
        by_rows = bool(getattr(self.extractor, "row_format", None) or getattr(self.extractor, "vector_fields", None))
        everything = type(self.extractor).extractor_name == "passthrough_extractor"
        if everything and getattr(self.extractor, "preserve_metadata", False):
            passed |= {name: _plain(each) for name, each in source.properties.items()}
        made = {name: {"type": each["type"]} for name, each in type(self.extractor).produces.items()}
        return Fields({**passed, **made}, open=by_rows or (source.open and (self.include_all or everything)))


def _plain(declared: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": declared["type"]} | {k: declared[k] for k in ("description",) if declared.get(k)}


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """The part of a request that chooses an extractor, as it was sent."""

    name: str
    version: str
    parameters: Any = None
    input_mappings: Any = None
    field_passthrough: Any = None
    include_all: bool = False

    def stored(self) -> dict[str, Any]:
        return {
            "feature_extractor_name": self.name,
            "version": self.version,
            "parameters": self.parameters or {},
            "input_mappings": self.input_mappings,
            "field_passthrough": self.field_passthrough or [],
            "include_all_source_fields": self.include_all,
        }


def read_recipe(wanted: FeatureExtractor, source: Fields, problems: Problems) -> Recipe | None:
    """The recipe; None, and problems, where there is none."""
    before = len(problems.found)
    extractor = read(wanted.name, wanted.version, wanted.parameters, problems, AT)
    if extractor is None:
        return None
    kind = type(extractor)
    types = source.types
    paths = read_mappings(wanted.input_mappings, kind, types, problems, (*AT, "input_mappings"))
    passed = read_passthrough(wanted.field_passthrough, kind, types, problems, (*AT, "field_passthrough"))
    if len(problems.found) > before:
        return None
    return Recipe(extractor, paths, passed, wanted.include_all)


def stored_recipe(feature_extractor: Mapping[str, Any], paths: Mapping[str, Sequence[str]]) -> Recipe:
    """The same from what was stored; `paths` are those that were found when it was made."""
    problems = Problems()
    stored = feature_extractor
    extractor = read(stored["feature_extractor_name"], stored["version"], stored["parameters"], problems, AT)
    problems.refuse()
    assert extractor is not None
    passed = read_passthrough(stored["field_passthrough"], type(extractor), None, problems)
    problems.refuse()
    found = {name: tuple(each) for name, each in paths.items()}
    return Recipe(extractor, found, passed, bool(stored["include_all_source_fields"]))


@dataclass(frozen=True, slots=True)
class Use:
    """An index that was made for collections of an extractor, and whether one fills it still."""

    made_for: str
    filled: bool


def choose_indexes(
    extractor: Extractor,
    catalog: Catalog,
    services: Mapping[str, ServiceInfo],
    uses: Mapping[str, Use],
    problems: Problems,
) -> list[Filled]:
    """For each output the index that takes it: the one that is named, else one of its own."""
    at = (*AT, "parameters")
    found = []
    for output, spec in type(extractor).outputs.items():
        filled = _embedded(extractor, output, spec, catalog, services, uses, problems, at)
        found += [filled] if filled else []
    for n, vector in enumerate(getattr(extractor, "vector_fields", None) or ()):
        config = catalog.by_name.get(vector.name)
        place = (*at, "vector_fields", n)
        if config is None:
            new = Filled(vector.field, vector.name, vector.dimensions, vector.distance, new=True)
            found.append(new)
            continue
        if config.kind != "dense" or config.dimension != vector.dimensions or config.metric != vector.distance:
            message = (
                f"The index {vector.name!r} is {config.kind}, has {config.dimension} dimensions and the metric "
                f"{config.metric}; the vectors have {vector.dimensions} and {vector.distance}."
            )
            problems.add((*place, "dimensions"), "dimension_mismatch", message)
        found.append(Filled(vector.field, vector.name, vector.dimensions))
    return found


def _embedded(
    extractor: Extractor,
    output: str,
    spec: Output,
    catalog: Catalog,
    services: Mapping[str, ServiceInfo],
    uses: Mapping[str, Use],
    problems: Problems,
    at: Location,
) -> Filled | None:
    model: str | None = getattr(extractor, "embedding_model", None)
    index: str | None = getattr(extractor, "vector_index", None)
    if index is not None and (config := catalog.by_name.get(index)) is not None:
        return _existing(config, output, spec, model, catalog, services, problems, at)
    name = model or spec.service
    info = services.get(name)
    if info is None:
        message = f"No inference service {name!r}; the services are {', '.join(sorted(services))}."
        problems.add((*at, "embedding_model"), "unknown_service", message)
        return None
    _check_modality(info, spec, services, problems, (*at, "embedding_model"))
    field_ = SOURCE_FIELDS[spec.modality]
    if index is not None:
        return Filled(output, index, info.dimension, service=name, source_field=field_, new=True)
    kind = type(extractor).extractor_name
    for candidate in (name, f"{kind}_{name}"):
        config = catalog.by_name.get(candidate)
        if config is None:
            return Filled(output, candidate, info.dimension, service=name, source_field=field_, new=True)
        use = uses.get(candidate)
        if use is not None and use.made_for == kind and catalog.inference_map.get(candidate) == name:
            return Filled(output, candidate, info.dimension, config.metric, name, field_)
    message = f"The names {name!r} and '{kind}_{name}' are those of other indexes: name a vector_index."
    problems.add((*at, "vector_index"), "name_conflict", message)
    return None


def _existing(
    config: VectorConfig,
    output: str,
    spec: Output,
    model: str | None,
    catalog: Catalog,
    services: Mapping[str, ServiceInfo],
    problems: Problems,
    at: Location,
) -> Filled | None:
    """An index that is there, such as a promoted one: its service embeds, and no other."""
    name = config.name
    mapped = catalog.inference_map.get(name)
    if mapped is None:
        message = f"The index {name!r} is mapped to no inference service, so nothing can be embedded into it."
        problems.add((*at, "vector_index"), "text_needs_service", message)
        return None
    if model is not None and model != mapped:
        message = (
            f"The index {name!r} is mapped to {mapped!r}, the collection asks for {model!r}: queries by the one would "
            "not find vectors of the other. Leave embedding_model out, or choose another index."
        )
        problems.add((*at, "embedding_model"), "other_service", message)
        return None
    if (info := services.get(mapped)) is not None:
        _check_modality(info, spec, services, problems, (*at, "vector_index"))
    sources = {source.name: source.field for source in catalog.sources if source.column == config.column}
    field_ = sources.get(name, SOURCE_FIELDS[spec.modality])
    return Filled(output, name, config.dimension, config.metric, mapped, field_)


def _check_modality(
    info: ServiceInfo, spec: Output, services: Mapping[str, ServiceInfo], problems: Problems, at: Location
) -> None:
    if spec.modality not in info.modalities:
        able = ", ".join(sorted(name for name, each in services.items() if spec.modality in each.modalities)) or "none"
        message = f"The service {info.name!r} embeds no {spec.modality}s; those that do: {able}."
        problems.add(at, "unsuitable_service", message)
