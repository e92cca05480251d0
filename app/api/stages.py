"""The stages that retrievers are made of: what each does, and the JSON Schema of its parameters."""

import inspect
from functools import cache
from typing import Any

import msgspec
from litestar import Router, get

from app.retrieval.stages import REGISTRY
from app.retrieval.stages.base import Stage

# Searching costs more than what works on rows that are there already.
COST_TIERS = {"feature_search": "moderate"}


@cache
def described() -> list[dict[str, Any]]:
    return [_described(stage) for stage in REGISTRY.values()]


def _described(stage: type[Stage]) -> dict[str, Any]:
    return {
        "stage_id": stage.stage_id,
        "description": inspect.getdoc(stage),
        "category": stage.category,
        "icon": stage.icon,
        "parameter_schema": schema_of(stage),
    }


def schema_of(stage: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema, with its definitions beside it rather than behind a reference. Templates may stand for any value."""
    schema = msgspec.json.schema(stage)
    definitions = schema.pop("$defs", {})
    found: dict[str, Any] = definitions.pop(stage.__name__, schema)
    return {**found, "$defs": definitions} if definitions else found


@get("/retrievers/stages", scope="read", operation_id="list_retriever_stages")
async def list_stages() -> list[dict[str, Any]]:
    """The stages that a retriever may have."""
    return described()


@get("/discovery/stages", scope="read", operation_id="discover_stages")
async def discover_stages() -> list[dict[str, Any]]:
    """The same with examples and what each is good for."""
    return [
        {
            **told,
            "example_config": {
                "stage_name": told["stage_id"],
                "stage_type": REGISTRY[told["stage_id"]].stage_type,
                "config": {"stage_id": told["stage_id"], "parameters": REGISTRY[told["stage_id"]].example},
            },
            "common_use_cases": list(REGISTRY[told["stage_id"]].use_cases),
            "cost_tier": COST_TIERS.get(told["stage_id"], "cheap"),
            "requires_collections": False,
        }
        for told in described()
    ]


router = Router("/", route_handlers=[list_stages, discover_stages], tags=["Retrievers"])
