"""Pipelines that are executed without being stored. Those that differ only in their queries share what is compiled."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.inference import services
from app.domain.retrieving import retrievers
from app.domain.retrieving.execution import Execution, Outcome, attempt
from app.domain.runtime import Prepared, Runtime
from app.domain.security import access
from app.errors import InvalidRequest, Problem
from app.retrieval.catalog import Catalog
from app.retrieval.searches.query import text_refusal
from app.telemetry import Timings

# Inputs of this name hold the queries that stood in a definition. Where a caller uses it, nothing is lifted.
LITERAL = "literal_query_"
TYPES: dict[type, str] = {list: "array", dict: "object", str: "string"}
# The public API's default, which names an index of an extractor that we do not have: it stands for any.
ANY_INDEX = "mixpeek://text_extractor@v1/embedding"

Definition = dict[str, Any]
Complete = Callable[[Definition, Catalog], Definition]
"""Fills in what depends on the namespace, such as the index that a text is searched in."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """`stages`, `input_schema` and `collection_identifiers` as for a stored retriever; `complete` says which function
    the definition still goes through, `kind` stands for it in the cache."""

    definition: Definition
    kind: str = ""
    complete: Complete | None = None


async def run(runtime: Runtime, namespace: str, pipeline: Pipeline, wanted: Execution, timings: Timings) -> Outcome:
    """Execute a pipeline that is not stored."""
    definition, literals = lift_queries(pipeline.definition, wanted.inputs)
    encoded = msgspec.json.encode([pipeline.kind, definition], order="deterministic")
    shape = hashlib.blake2b(encoded, digest_size=18).hexdigest()
    lifted = replace(pipeline, definition=definition)
    prepare = partial(_prepare, runtime, namespace, lifted, shape)
    filled = replace(wanted, inputs={**wanted.inputs, **literals})
    try:
        return await attempt(runtime, runtime.adhoc, (*access.view(), namespace, shape), prepare, filled, timings)
    except InvalidRequest:
        if literals:
            await _prepare(runtime, namespace, pipeline, shape)  # names what is wrong with a query where it was sent
        raise


async def _prepare(runtime: Runtime, namespace: str, pipeline: Pipeline, shape: str) -> Prepared:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
    await services.refresh_for(runtime, catalog.inference_map.values())
    definition = pipeline.definition
    if pipeline.complete is not None:
        definition = pipeline.complete(definition, catalog)
    return retrievers.prepare_definition(definition, catalog, runtime.limits, shape=shape)


def lift_queries(definition: Definition, inputs: Mapping[str, Any]) -> tuple[Definition, dict[str, Any]]:
    """The definition with the query vectors, texts and contents that stand in it as inputs, and those inputs."""
    stages = definition.get("stages")
    schema = definition.get("input_schema")
    taken = {*inputs, *(schema if isinstance(schema, dict) else ())}
    if not isinstance(stages, list) or any(name.startswith(LITERAL) for name in taken):
        return definition, {}
    literals: dict[str, Any] = {}
    lifted = {**definition, "stages": [_lift_stage(stage, literals) for stage in stages]}
    if isinstance(schema, dict) and schema:
        types = {name: {"type": TYPES[type(value)]} for name, value in literals.items()}
        lifted["input_schema"] = {**schema, **types}
    return lifted, literals


def _lift_stage(stage: Any, literals: dict[str, Any]) -> Any:
    try:
        parameters = stage["config"]["parameters"]
        searches = [_lift_search(search, literals) for search in parameters["searches"]]
    except (TypeError, KeyError, IndexError):  # not what it should be: checking it says so
        return stage
    return {**stage, "config": {**stage["config"], "parameters": {**parameters, "searches": searches}}}


def _lift_search(search: Any, literals: dict[str, Any]) -> Any:
    query = search.get("query") if isinstance(search, dict) else None
    if _is_literal(query):
        mode = "text" if isinstance(query, str) else "vector"
        return {**search, "query": {"input_mode": mode, "value": _as_input(query, literals)}}
    if isinstance(query, dict):
        found = [name for name in ("value", "text", "vector", "values", "content") if query.get(name) is not None]
        if len(found) == 1 and _is_literal(query[found[0]]):
            return {**search, "query": {**query, found[0]: _as_input(query[found[0]], literals)}}
        reference = query.get("document_ref")
        if not found and isinstance(reference, dict) and _is_literal(reference.get("document_id")):
            lifted = {**reference, "document_id": _as_input(reference["document_id"], literals)}
            return {**search, "query": {**query, "document_ref": lifted}}
    return search


def _is_literal(value: Any) -> bool:
    """Whether this is a text, a vector, a sparse vector, or a list of several, with no template in it."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, dict):
        return value.keys() == {"indices", "values"} and all(map(_is_numbers, value.values()))
    return _is_numbers(value) or (
        isinstance(value, list) and all(isinstance(v, str | list) and _is_literal(v) for v in value)
    )


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) in (int, float) for item in value)


def _as_input(value: Any, literals: dict[str, Any]) -> str:
    name = f"{LITERAL}{len(literals) + 1}"
    literals[name] = value
    return f"{{{{INPUT.{name}}}}}"


def everything(collections: Sequence[str] = ()) -> Pipeline:
    """Every document, in the order of their ids."""
    config = {"stage_id": "attribute_filter", "parameters": {"conditions": {}}}
    stage = {"stage_name": "documents", "config": config}
    return Pipeline({"stages": [stage], "collection_identifiers": list(collections)})


def one_search(search: Mapping[str, Any], collections: Sequence[str], filters: Any = None) -> Pipeline:
    """One search, in the index that is named or in the one that `with_index` finds."""
    parameters = {"searches": [search], "final_top_k": search["top_k"]}
    config: dict[str, Any] = {"stage_id": "feature_search", "parameters": parameters}
    if filters:
        config["pre_filters"] = filters
    stage = {"stage_name": "feature_search", "config": config}
    definition = {"stages": [stage], "collection_identifiers": list(collections)}
    return Pipeline(definition, "one_search", with_index)


def with_index(definition: Definition, catalog: Catalog) -> Definition:
    """The definition of one search with its index, where it names none of this namespace but the default."""
    (stage,) = definition["stages"]
    parameters = stage["config"]["parameters"]
    (search,) = parameters["searches"]
    if search["feature_uri"] != ANY_INDEX or ANY_INDEX.rsplit("/", 1)[-1] in catalog.by_name:
        return definition
    find = _text_index if search["query"]["input_mode"] in ("text", "content") else _only_index
    parameters = {**parameters, "searches": [{**search, "feature_uri": find(catalog)}]}
    return {**definition, "stages": [{**stage, "config": {**stage["config"], "parameters": parameters}}]}


def _text_index(catalog: Catalog) -> str:
    """The first index that is mapped to a service."""
    mapped = [config.name for config in catalog.vector_configs if config.name in catalog.inference_map]
    if mapped:
        return mapped[0]
    for config in catalog.vector_configs:
        if problem := text_refusal(catalog, config):
            raise InvalidRequest([replace(problem, location=("body", "query"))])
    return _only_index(catalog)


def _only_index(catalog: Catalog) -> str:
    names = list(catalog.by_name)
    if len(names) == 1:
        return names[0]
    available = ", ".join(map(repr, names)) or "none"
    message = f"Say which index to search: `feature_uri` is one of {available}."
    raise InvalidRequest([Problem(("body", "feature_uri"), "unknown_index", message)])
