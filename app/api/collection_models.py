"""What requests say of collections, and what answers show of them."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from app.api.bucket_models import ListInput
from app.api.paging import Pagination
from app.api.wire import Input, NotOffered
from app.domain.content.collection_changes import Wanted, WantedSource
from app.domain.content.collection_configs import FeatureExtractor
from app.domain.content.collections import Collection
from app.errors import InvalidRequest, Problem, Problems
from app.extractors import REGISTRY
from app.retrieval.catalog import Catalog

SOURCE = ("body", "source")
UNSET = msgspec.UNSET


class SourceInput(Input, frozen=True):
    """What a collection is made from: `bucket_ids`, or `collection_id`(s); ids or names."""

    type: str
    bucket_ids: list[str] | None = None
    collection_id: str | None = None
    collection_ids: list[str] | None = None
    inherited_bucket_ids: Any = None  # the public API's client sends it back; it follows from the rest
    source_namespace_id: NotOffered = None
    source_filters: NotOffered = None
    field_map: NotOffered = None

    def wanted(self, problems: Problems) -> WantedSource:
        parents = [*(self.collection_ids or ()), *([self.collection_id] if self.collection_id else ())]
        buckets = list(self.bucket_ids or ())
        if self.type not in ("bucket", "collection"):
            message = f"A collection is made from `bucket` or `collection`; {self.type[:60]!r} is not offered here."
            problems.add((*SOURCE, "type"), "not_offered", message)
        elif self.type == "bucket" and (parents or not buckets):
            problems.add((*SOURCE, "bucket_ids"), "one_of", "A source of type `bucket` has `bucket_ids` alone.")
        elif self.type == "collection" and (buckets or not parents):
            message = "A source of type `collection` has `collection_id` or `collection_ids` alone."
            problems.add((*SOURCE, "collection_ids"), "one_of", message)
        return WantedSource(self.type, buckets, parents)


class FeatureExtractorInput(Input, frozen=True):
    """The extractor with its parameters, what of the source goes into it, and what past it."""

    feature_extractor_name: str
    version: str = "v1"
    parameters: dict[str, Any] | None = None
    params: NotOffered = None
    input_mappings: Any = None
    field_passthrough: list[Any] | None = None
    include_all_source_fields: bool | None = False
    feature_extractor_id: str | None = None  # the public API's client sends it back; it follows from the rest

    def wanted(self) -> FeatureExtractor:
        return FeatureExtractor(
            self.feature_extractor_name,
            self.version,
            self.parameters,
            self.input_mappings,
            self.field_passthrough,
            bool(self.include_all_source_fields),
        )


class CollectionInput(Input, frozen=True):
    """A collection. With `auto` (the default, beyond the public API) what comes or changes is processed by itself;
    without it only what batches and triggers ask for is."""

    collection_name: str
    source: SourceInput
    feature_extractor: FeatureExtractorInput | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    enabled: bool | None = True
    auto: bool | None = True
    input_schema: NotOffered = None
    features: NotOffered = None
    schedule: NotOffered = None
    taxonomy_applications: NotOffered = None
    cluster_applications: NotOffered = None
    alert_applications: NotOffered = None
    retriever_enrichments: NotOffered = None
    retriever_transform: NotOffered = None
    embedding_task: NotOffered = None

    def wanted(self) -> Wanted:
        """Raises `InvalidRequest`."""
        problems = Problems()
        source = self.source.wanted(problems)
        if self.feature_extractor is None:
            known = ", ".join(f"{kind.extractor_name} {kind.version}" for kind in REGISTRY.values())
            at = ("body", "feature_extractor")
            problems.add(at, "missing_parameter", f"A collection has a feature_extractor: {known}.")
        problems.refuse()
        assert self.feature_extractor is not None
        return Wanted(
            self.collection_name,
            source,
            self.feature_extractor.wanted(),
            self.description,
            self.metadata,
            self.enabled is not False,
            self.auto is not False,
        )


class CollectionPatch(Input, frozen=True):
    """What of a collection changes; its source and extractor do not: clone it instead."""

    collection_name: str | None = None
    description: str | msgspec.UnsetType | None = UNSET
    metadata: dict[str, Any] | None = None
    enabled: bool | None = None
    auto: bool | None = None
    taxonomy_applications: NotOffered = None
    source: NotOffered = None
    feature_extractor: NotOffered = None

    def changes(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("collection_name", "metadata", "enabled", "auto")}
        changes = {name: value for name, value in given.items() if value is not None}
        if self.description is not UNSET:
            changes["description"] = self.description
        if not changes:
            message = "Give at least one of collection_name, description, metadata, enabled and auto."
            raise InvalidRequest([Problem(("body",), "nothing_to_change", message)])
        return changes


class CloneInput(Input, frozen=True):
    """The name of the copy, and what of it is to be otherwise."""

    collection_name: str
    description: str | None = None
    source: SourceInput | None = None
    feature_extractor: FeatureExtractorInput | None = None
    enabled: bool | None = None
    auto: bool | None = None
    metadata: dict[str, Any] | None = None
    taxonomy_applications: NotOffered = None

    def wanted(self, copied: Collection) -> Wanted:
        problems = Problems()
        declared = msgspec.json.decode(copied.source)
        buckets, parents = declared.get("bucket_ids", ()), declared.get("collection_ids", ())
        source = self.source.wanted(problems) if self.source else WantedSource(declared["type"], buckets, parents)
        problems.refuse()
        stored = msgspec.json.decode(copied.feature_extractor)
        extractor = FeatureExtractor(
            stored["feature_extractor_name"],
            stored["version"],
            stored["parameters"],
            stored["input_mappings"],
            stored["field_passthrough"],
            stored["include_all_source_fields"],
        )
        return Wanted(
            self.collection_name,
            source,
            self.feature_extractor.wanted() if self.feature_extractor else extractor,
            copied.description if self.description is None else self.description,
            msgspec.json.decode(copied.metadata) if self.metadata is None else self.metadata,
            copied.enabled if self.enabled is None else self.enabled,
            copied.auto if self.auto is None else self.auto,
        )


class CollectionsInput(ListInput, frozen=True):
    """A page of collections."""

    include_system: NotOffered = False


class TriggerInput(Input, frozen=True):
    """What of a collection's sources is processed: all, unless it is narrowed. `skip` leaves out what is made."""

    include_buckets: list[str] | None = None
    include_collections: list[str] | None = None
    object_ids: Annotated[list[str], msgspec.Meta(max_length=50_000)] | None = None
    dedup_strategy: Literal["skip", "replace", "force"] | None = "skip"
    source_filters: NotOffered = None
    reembed: NotOffered = None


class VectorIndexModel(msgspec.Struct, kw_only=True):
    """An index that the collection fills, and the URI by which searches name it."""

    name: str
    feature_uri: str
    type: str = "single"
    index: dict[str, Any]
    source: str | None = None


class CollectionModel(msgspec.Struct, kw_only=True):
    """A collection with its counts. `indexing_status` is `quiesced` once all that has come can be searched."""

    collection_id: str
    collection_name: str
    description: str | None = None
    source: dict[str, Any]
    feature_extractor: dict[str, Any]
    output_schema: dict[str, Any]
    vector_indexes: list[VectorIndexModel]
    enabled: bool
    auto: bool
    metadata: dict[str, Any]
    document_count: int
    open_extractions: int
    failed_extractions: int
    indexing_status: str
    lifecycle_state: str = "active"
    created_at: datetime
    updated_at: datetime
    warnings: list[str] = []


class CollectionStats(msgspec.Struct, kw_only=True):
    """Sums over the collections of a page."""

    total_documents: int
    avg_documents_per_collection: float
    total_feature_extractors: int


class CollectionList(msgspec.Struct, kw_only=True):
    """A page of collections."""

    results: list[CollectionModel]
    pagination: Pagination
    total_count: int
    stats: CollectionStats
    warnings: list[dict[str, Any]] = []


class Cloned(msgspec.Struct, kw_only=True):
    """The copy, and what it was copied from."""

    collection: CollectionModel
    source_collection_id: str


class CollectionDeleted(msgspec.Struct, kw_only=True):
    """What is gone: the collection, its documents, with `force` the indexes that it alone filled."""

    collection_id: str
    collection_name: str
    document_count: int
    dropped_indexes: list[str]
    message: str
    success: bool = True


class TriggeredModel(msgspec.Struct, kw_only=True):
    """The task to wait for; COMPLETED means that all of it can be searched."""

    task_id: str
    collection_id: str
    batch_id: str | None = None
    batch_ids: list[str] | None = None
    task_ids: list[str] | None = None
    source_bucket_ids: list[str] | None = None
    source_collection_ids: list[str] | None = None
    object_count: int | None = None
    document_count: int | None = None
    total_tiers: int
    message: str


class FeatureModel(msgspec.Struct, kw_only=True):
    """A feature of the collection: what `feature_uri` of a search may be."""

    feature_address: str
    feature_uri: str
    feature_extractor_name: str
    version: str
    primary: bool
    vector_index: dict[str, Any]


class Features(msgspec.Struct, kw_only=True):
    """The features of a collection."""

    features: list[FeatureModel]


def indexes_of(found: Collection, catalog: Catalog) -> list[VectorIndexModel]:
    extractor = msgspec.json.decode(found.feature_extractor)
    address = f"mixpeek://{extractor['feature_extractor_name']}@{extractor['version']}"
    listed = []
    for each in msgspec.json.decode(found.indexes):
        config = catalog.by_name.get(each["index_name"])
        if config is None:
            continue
        index = {
            "name": config.name,
            "dimensions": config.dimension,
            "distance": config.metric,
            "inference_name": catalog.inference_map.get(config.name),
        }
        uri = f"{address}/{config.name}" if each["own"] else config.name
        source = None if each["own"] else "namespace_vector_config"
        listed.append(VectorIndexModel(name=config.name, feature_uri=uri, index=index, source=source))
    return listed


def shown(
    found: Collection, catalog: Catalog, documents: int, *, embedding: bool, warnings: list[str] | None = None
) -> CollectionModel:
    """`embedding` says whether documents of its indexes wait for their vectors."""
    extractor = msgspec.json.decode(found.feature_extractor)
    name = f"{extractor['feature_extractor_name']}_{extractor['version']}"
    busy = embedding or found.open_extractions > 0
    return CollectionModel(
        collection_id=found.collection_id,
        collection_name=found.collection_name,
        description=found.description,
        source=msgspec.json.decode(found.source),
        feature_extractor={
            **extractor,
            "parameters": extractor["parameters"] or None,
            "feature_extractor_id": name,
        },
        output_schema={"properties": msgspec.json.decode(found.fields)["properties"]},
        vector_indexes=indexes_of(found, catalog),
        enabled=found.enabled,
        auto=found.auto,
        metadata=msgspec.json.decode(found.metadata),
        document_count=documents,
        open_extractions=found.open_extractions,
        failed_extractions=found.failed_extractions,
        indexing_status="indexing" if busy else "quiesced",
        created_at=found.created_at,
        updated_at=found.updated_at,
        warnings=warnings or [],
    )


def features_of(found: Collection, catalog: Catalog) -> Features:
    extractor = msgspec.json.decode(found.feature_extractor)
    listed = []
    for n, each in enumerate(indexes_of(found, catalog)):
        vector_index = {
            "name": each.name,
            "description": f"Filled by {found.collection_name}.",
            "dimensions": each.index["dimensions"],
            "type": "dense",
            "distance": each.index["distance"],
            "inference_name": each.index["inference_name"],
        }
        listed.append(
            FeatureModel(
                feature_address=each.feature_uri,
                feature_uri=each.feature_uri,
                feature_extractor_name=extractor["feature_extractor_name"],
                version=extractor["version"],
                primary=n == 0,
                vector_index=vector_index,
            )
        )
    return Features(features=listed)


def statistics(results: list[CollectionModel]) -> CollectionStats:
    total = sum(each.document_count for each in results)
    return CollectionStats(
        total_documents=total,
        avg_documents_per_collection=total / (len(results) or 1),
        total_feature_extractors=len(results),
    )
