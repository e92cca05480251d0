"""Embedding with memory: a text that a service has embedded before is not embedded again.

Every service's vectors are kept in the process; those of remote services, which take long and cost money, also in the
database, for other processes and after a restart. No transaction is open while a provider is called.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, NotFound, Problem, Unavailable
from app.inference.base import Task, Vectors
from app.inference.cache import Key, key_of
from app.retrieval.catalog import Catalog
from app.retrieval.vectors import Vector

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector for each text; `cached` when no service was called; the tokens that its provider counted now."""

    vectors: Vectors
    cached: bool
    tokens: int | None


async def embed(runtime: Runtime, service: str, texts: Sequence[str], task: Task) -> Embedded:
    """Raises what `Inference.answer` does; places of problems are `("texts", n)`."""
    inference = runtime.inference
    found_service = inference.get(service)
    if found_service is None:
        raise NotFound("inference service", service, f"This server has: {', '.join(inference.names())}.")
    inference.sizes(texts)  # refuses here what has no hash, and while positions are the caller's
    info = found_service.info
    keys = [key_of(info, task, text) for text in texts]
    found = {key: kept for key in keys if (kept := inference.cache.get(key)) is not None}
    missing = dict(zip(keys, texts, strict=True))
    missing = {key: text for key, text in missing.items() if key not in found}
    tokens = None
    shared = info.remote and runtime.settings.inference_cache_rows > 0
    if missing and shared:
        async with transaction(runtime.engine, runtime.settings) as conn:
            found |= await _look_up(conn, list(missing))
        missing = {key: text for key, text in missing.items() if key not in found}
    if missing:
        answer = await inference.answer(service, list(missing.values()), task)
        tokens = answer.tokens
        new = dict(zip(missing, answer.vectors, strict=True))
        found |= new
        if shared:
            await _keep(runtime, new)
    for key, vector in found.items():
        inference.cache.put(key, vector)
    vectors = np.stack([found[key] for key in keys]) if keys else np.empty((0, info.dimension), np.float32)
    return Embedded(vectors, bool(texts) and not missing, tokens)


async def embed_one(runtime: Runtime, service: str, text: str, task: Task) -> Vector:
    """One text's vector, shape (dimension,)."""
    vector: Vector = (await embed(runtime, service, [text], task)).vectors[0]
    return vector


async def _look_up(conn: AsyncConnection, keys: list[Key]) -> dict[Key, Vector]:
    """What the database has of these keys, which differ in their hashes alone."""
    binds = {**keys[0]._asdict(), "hashes": [key.input_hash for key in keys]}
    del binds["input_hash"]
    rows = await conn.execute(statement("find_embeddings"), binds)
    return {keys[0]._replace(input_hash=bytes(row.input_hash)): row.vector.to_numpy() for row in rows}


async def _keep(runtime: Runtime, new: dict[Key, Vector]) -> None:
    """Keep them in the database. Where that fails the answer is given all the same: it has been paid for."""
    first, rows = next(iter(new)), runtime.settings.inference_cache_rows
    binds = {**first._asdict(), "hashes": [key.input_hash for key in new], "vectors": list(new.values())}
    del binds["input_hash"]
    try:
        async with transaction(runtime.engine, runtime.settings) as conn:
            await conn.execute(statement("keep_embeddings"), binds)
            if runtime.inference.cache.trim_is_due(len(new), rows):
                await conn.execute(statement("trim_embeddings"), {"rows": rows})
    except (SQLAlchemyError, Unavailable) as error:
        log.warning("%d embeddings of %s are not kept: %s", len(new), first.service, type(error).__name__)


def service_of(catalog: Catalog, feature_uri: str) -> str:
    """The service that embeds for the index of that name or URI; `InvalidRequest` when there is none."""
    config = catalog.by_name.get(feature_uri) or catalog.by_name.get(feature_uri.rsplit("/", 1)[-1])
    if config is None:
        available = ", ".join(map(repr, catalog.by_name)) or "none"
        code, message = "unknown_index", f"No vector index {feature_uri!r} exists; available indexes: {available}."
    elif config.name not in catalog.inference_map:
        code, message = "text_needs_service", f"The index {config.name!r} is mapped to no inference service."
    else:
        return catalog.inference_map[config.name]
    raise InvalidRequest([Problem(("body", "feature_uri"), code, message)])
