"""What the public API has and this server has not: it is answered 501 by name rather than as an unknown path.

The table is read only where no route or no resource was found, so a route that is added wins over its line.
"""

import re
from dataclasses import dataclass
from functools import cache

UPSERT = "Upsert documents by POST /v1/namespaces/{namespace_id}/documents/upsert."
VERSIONS = "GET /v1/retrievers/{retriever_id}/versions has what is kept."
EXTRACTORS = "GET /v1/collections/features/extractors lists those that come with this server."
SERVICES = "Inference services make vectors: see GET /v1/inference/services."

# What it is, what to do instead, and its paths below /v1: `*` is one part of a path, `**` any number of them.
TABLE: tuple[tuple[str, str, str], ...] = (
    ("aggregations of objects", "", "buckets/*/objects/aggregate"),
    (
        "soft deletion",
        "DELETE /v1/buckets/{bucket_id}/objects/{object_id} deletes one.",
        "buckets/*/objects/bulk-soft-delete",
    ),
    ("confirming uploads in batches", "Confirm each by itself.", "buckets/*/uploads/confirm/batch"),
    (
        "syncs of buckets",
        "Send the objects.",
        "buckets/*/syncs/** buckets/*/source-adapter/**",
    ),
    (
        "further operations on batches",
        "POST /v1/buckets/{bucket_id}/batches makes one, /v1/collections/{collection_id}/trigger one of whole buckets.",
        "buckets/*/batches/bulk-submit buckets/*/batches/submit-all buckets/*/batches/*/resubmit batches/queue "
        "buckets/*/batches/*/documents",
    ),
    (
        "costs, logs and diagnoses of batches",
        "Nothing costs anything; /audit and /failed-documents tell what became of it.",
        "buckets/*/batches/*/estimate-cost buckets/*/batches/*/logs buckets/*/batches/*/diagnose",
    ),
    ("tiers of batches by themselves", "/retry and /cancel are for the whole batch.", "buckets/*/batches/*/tiers/**"),
    ("objects beside their buckets", "See /v1/buckets/{bucket_id}/objects.", "objects/**"),
    ("imports into collections", UPSERT, "collections/import/* collections/*/import"),
    ("the menu of features", EXTRACTORS, "collections/features"),
    ("feature extractors of one's own", EXTRACTORS, "extractors/**"),
    ("lineage of documents", "", "collections/*/documents/**/ancestors collections/*/documents/**/descendants"),
    ("lineage of documents", "", "collections/*/documents/**/lineage"),
    ("diagnostics of documents", "", "collections/*/documents/**/diagnostics"),
    ("downloads of documents", "", "collections/*/documents/**/download"),
    ("schemas of collections", "", "collections/*/documents/schema/validate collections/*/sync-schema"),
    ("storage tiers of collections", "All documents are searchable.", "collections/*/lifecycle"),
    (
        "reconciling collections",
        "GET /v1/buckets/{bucket_id}/batches/{batch_id}/audit accounts for each object.",
        "collections/*/reconciliation",
    ),
    ("exports of collections", "pg_dump and COPY read what is stored.", "collections/*/export"),
    ("taxonomies", "", "taxonomies/** collections/*/apply-taxonomy"),
    ("migrations of namespaces", "POST /v1/namespaces/{namespace_id}/clone copies one.", "namespaces/migrations/**"),
    ("snapshots", "POST /v1/namespaces/{namespace_id}/clone copies a namespace.", "namespaces/*/snapshots/**"),
    ("custom models", SERVICES, "namespaces/*/models/** models/**"),
    ("kept executions", VERSIONS, "retrievers/executions/** retrievers/*/executions/**"),
    ("typeahead", "Search by a retriever.", "retrievers/typeahead"),
    ("evaluations", "", "evaluations/** retrievers/evaluations/** retrievers/*/evaluations/**"),
    ("benchmarks of retrievers", "", "retrievers/benchmarks/**"),
    ("interactions", "", "retrievers/interactions/**"),
    ("publishing retrievers", "", "retrievers/publish/** retrievers/published retrievers/*/publish/** public/**"),
    ("keys of retrievers", "POST /v1/keys makes keys.", "retrievers/*/api-keys/**"),
    ("searching resources", "POST /v1/retrievers/list and /v1/namespaces/list search.", "resources/**"),
    (
        "discovery of anything but stages and extractors",
        "GET /openapi.json tells the rest.",
        "discovery discovery/schema",
    ),
    ("health below /v1", "GET /health/live and /health/ready tell it, without a key.", "health/**"),
    ("organizations and accounts", "POST /v1/keys makes keys.", "organizations/** me signup/** onboarding/**"),
    ("billing, support and the marketplace", "Nothing costs anything here.", "billing/** support/** marketplace/**"),
    ("analytics and events", "", "analytics/** events/** notifications/** alerts/** triggers/**"),
    ("clusters", "", "clusters/**"),
    ("apps, agents and templates", "", "apps/** agents/** templates/** manifest/** quickstart/** annotations/**"),
    ("direct search", "POST /v1/features/search takes a query.", "search"),
)


@dataclass(frozen=True, slots=True)
class Feature:
    """Something of the public API, and what there is instead."""

    name: str
    instead: str

    @property
    def message(self) -> str:
        return f"{self.name[0].upper()}{self.name[1:]}: not offered by this server. {self.instead}".rstrip()


def feature_of(path: str) -> Feature | None:
    """What a path of the public API is about, where this server may lack it."""
    return next((feature for pattern, feature in _patterns() if pattern.fullmatch(path)), None)


@cache
def _patterns() -> list[tuple[re.Pattern[str], Feature]]:
    return [(_pattern(path), Feature(name, instead)) for name, instead, paths in TABLE for path in paths.split()]


def _pattern(path: str) -> re.Pattern[str]:
    text = re.escape(path).replace(r"/\*\*", "(?:/.*)?").replace(r"\*", "[^/]+")
    return re.compile(f"/v1/{text}/?", re.DOTALL)
