"""What requests say of namespaces, and what answers show of them."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import msgspec

from app.api.paging import PageInput, Pagination
from app.api.wire import Input, NotOffered
from app.domain.catalog.described import Description
from app.domain.catalog.namespace_changes import UNSET, Changes, Unset
from app.domain.catalog.namespaces import Backfill, NewVector
from app.domain.indexing.payload_indexes import PayloadIndex

# Four ids would be paths of other operations.
NamespaceId = Annotated[
    str, msgspec.Meta(pattern=r"^(?!(?:adopt|list|standalone|stats)$)[A-Za-z0-9][A-Za-z0-9_-]{0,127}$(?!\n)")
]
NamespaceName = Annotated[str, msgspec.Meta(min_length=3, max_length=64)]


class VectorConfigInput(Input, frozen=True):
    """A vector column: its name, dimension and metric (`cosine`, `dot` or `euclidean`).

    Beyond the public API it has a kind: `dense`, `sparse` (its metric is `dot` by default) or `multi`, several vectors.
    """

    name: str
    dimension: int
    metric: str | None = None
    kind: str = "dense"

    def wanted(self) -> NewVector:
        metric = self.metric or ("dot" if self.kind == "sparse" else "cosine")
        return NewVector(self.name, self.dimension, metric, kind=self.kind)


class MappedVectorInput(VectorConfigInput, frozen=True):
    """A new vector index, perhaps with the service that embeds for it (and `source_field`, what it embeds)."""

    inference_service: str | None = None
    source_field: str | None = None

    def wanted(self) -> NewVector:
        vector = super().wanted()
        return replace(vector, inference_service=self.inference_service, source_field=self.source_field)


class BackfillInput(Input, frozen=True):
    """That a new index is filled from the documents that are there, from this field, at most `rate` a minute."""

    source_field: str
    rate: int | None = None

    def wanted(self) -> Backfill:
        return Backfill(self.source_field, self.rate)


class AddedVectorInput(MappedVectorInput, frozen=True):
    """A new vector index beside documents: with `backfill` its service embeds theirs, too, as a task."""

    backfill: BackfillInput | None = None

    def wanted(self) -> NewVector:
        vector = super().wanted()
        if self.backfill is None:
            return vector
        field = vector.source_field if vector.source_field is not None else self.backfill.source_field
        return replace(vector, source_field=field, backfill=self.backfill.wanted())


class PayloadIndexInput(Input, frozen=True):
    """A payload field that is filtered by: a dotted path, and the type of its values."""

    field_name: str
    type: str
    field_schema: dict[str, Any] | None = None
    is_protected: NotOffered = False

    def wanted(self) -> PayloadIndex:
        return PayloadIndex(self.field_name, self.type, self.field_schema)


class StandaloneInput(Input, frozen=True):
    """A standalone namespace. `namespace_name` is another name for it, its id by default."""

    namespace_id: NamespaceId
    namespace_name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    vector_configs: list[VectorConfigInput] | None = None
    description: str | None = None
    mode: str = "standalone"
    storage: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    auto_create_indexes: bool | None = None


class NamespaceInput(Input, frozen=True):
    """A namespace: `managed`, or `standalone`, which is meant where `vector_configs` without services is all there is.

    Beyond the public API a vector config of a managed namespace names its `inference_service`.
    """

    namespace_name: NamespaceName
    namespace_id: NamespaceId | None = None
    mode: str | None = None
    description: str | None = None
    vector_configs: list[MappedVectorInput] | None = None
    payload_indexes: list[PayloadIndexInput] | None = None
    auto_create_indexes: bool | None = None
    features: NotOffered = None
    feature_extractors: NotOffered = None
    adaptive_indexing: NotOffered = False
    namespace_type: NotOffered = None
    scope: NotOffered = None
    ttl_seconds: NotOffered = None
    infrastructure: NotOffered = None
    trusted_issuers: NotOffered = None
    tiering: NotOffered = None
    spend_budget: NotOffered = None
    cost_cap_override: NotOffered = None


class NamespacePatch(Input, frozen=True):
    """What of a namespace changes; `payload_indexes` are replaced as a whole."""

    namespace_name: NamespaceName | None = None
    description: str | Unset | None = UNSET
    payload_indexes: list[PayloadIndexInput] | None = None
    auto_create_indexes: bool | None = None
    feature_extractors: NotOffered = None
    adaptive_indexing: NotOffered = False
    repair_vectors: NotOffered = False
    infrastructure: NotOffered = None
    trusted_issuers: NotOffered = None
    spend_budget: NotOffered = None
    pinned: NotOffered = False
    tiering: NotOffered = None
    expires_at: NotOffered = None
    ttl_seconds: NotOffered = None
    cost_cap_override: NotOffered = None

    def wanted(self) -> Changes:
        indexes = None if self.payload_indexes is None else [index.wanted() for index in self.payload_indexes]
        return Changes(self.namespace_name, self.description, indexes, self.auto_create_indexes)


class ListInput(PageInput, frozen=True):
    """A page of namespaces: filters in either language, one `{field, direction}` to sort by, a text to search for."""

    filters: Any = None
    sort: dict[str, Any] | None = None
    sorts: list[dict[str, Any]] | None = None
    search: str | None = None
    case_sensitive: bool = False


class Namespace(msgspec.Struct, kw_only=True):
    """A namespace. Its documents are counted to 100,000; beyond, and in lists, the count is an estimate."""

    object: str = "namespace"
    namespace_id: str
    namespace_name: str
    mode: str
    description: str | None = None
    vector_configs: list[dict[str, Any]] | None = None
    vector_inference_map: dict[str, str] | None = None
    dynamic_vector_indexes: bool
    feature_extractors: list[dict[str, Any]] = []
    payload_indexes: list[dict[str, Any]] | None = None
    payload_index_count: int = 0
    document_count: int
    document_count_complete: bool
    bucket_count: int = 0
    collection_count: int = 0
    object_count: int = 0
    auto_create_indexes: bool = True
    adaptive_indexing: bool = False
    namespace_ready: bool = True
    status: str = "active"
    tiering: dict[str, Any] | None = None
    clone_status: str | None = None
    clone_error: str | None = None
    clone_phase: str | None = None
    clone_task_id: str | None = None
    clone_dispatched_at: datetime | None = None
    source_namespace_id: str | None = None
    adopted_from: str | None = None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None


class NamespaceList(msgspec.Struct, kw_only=True):
    """A page of namespaces."""

    results: list[Namespace]
    pagination: Pagination
    total_count: int


def shown(found: Description, *, whole: bool = True) -> Namespace:
    """The namespace; unless `whole` without what is long."""
    source = found.settings.get("source_namespace_id")
    namespace = Namespace(
        namespace_id=found.namespace_id,
        namespace_name=found.namespace_name,
        mode=found.mode,
        description=found.description,
        dynamic_vector_indexes=found.dynamic_vector_indexes,
        payload_index_count=found.payload_index_count,
        document_count=found.estimated_documents,
        adopted_from=found.adopted_from,
        bucket_count=found.bucket_count,
        collection_count=found.collection_count,
        object_count=found.object_count,
        document_count_complete=found.counted,
        auto_create_indexes=found.settings.get("auto_create_indexes") is not False,
        clone_status="ready" if source else None,
        source_namespace_id=source,
        created_at=found.created_at,
        updated_at=found.updated_at,
    )
    if whole:
        namespace.vector_configs = msgspec.json.decode(found.vector_configs)
        # jsonb orders keys by length; the map is shown in the order of the configs.
        mapped = msgspec.json.decode(found.inference_map)
        names = [config["name"] for config in namespace.vector_configs or ()]
        namespace.vector_inference_map = {name: mapped[name] for name in names if name in mapped}
        namespace.payload_indexes = msgspec.json.decode(found.payload_indexes)
    return namespace
