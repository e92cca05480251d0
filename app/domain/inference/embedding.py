"""Embedding with memory: a text or image that a service has embedded before is not embedded again.

Every service's vectors are kept in the process; those of remote services, which take long and cost money, also in the
database, for other processes and after a restart. No transaction is open while a provider is called.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem, Problems, Unavailable
from app.inference.base import Answer, ServiceInfo, Task, Vectors
from app.inference.cache import Key, key_of
from app.inference.contents import Unread, read
from app.inference.fetching import IMAGES, NotFetched
from app.retrieval.catalog import Catalog
from app.retrieval.searches.query import Content
from app.retrieval.vectors import Vector

log = logging.getLogger(__name__)


T = TypeVar("T", str, bytes)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector for each input; `cached` when no service was called; the tokens that its provider counted now."""

    vectors: Vectors
    cached: bool
    tokens: int | None


async def embed(runtime: Runtime, service: str, texts: Sequence[str], task: Task) -> Embedded:
    """Raises what `Inference.answer` does; places of problems are `("texts", n)`."""
    info = runtime.inference.info(service)
    runtime.inference.sizes(texts)  # refuses here what has no hash, and while positions are the caller's
    keys = [key_of(info, task, text) for text in texts]
    return await _remembered(runtime, info, texts, keys, lambda some: runtime.inference.answer(service, some, task))


async def embed_images(runtime: Runtime, service: str, images: Sequence[bytes]) -> Embedded:
    """The same for images, each the content of a file. Raises what `Inference.answer_images` does; places of problems
    are `("images", n)`."""
    info = runtime.inference.info(service)
    runtime.inference.check_images(service, images)
    # 50 ms for a hundred megabytes: not in the event loop.
    keys = await asyncio.to_thread(lambda: [key_of(info, "query", image) for image in images])

    async def answer(some: Sequence[bytes]) -> Answer:
        try:
            return await runtime.inference.answer_images(service, some)
        except InvalidRequest as error:
            raise InvalidRequest([_placed(problem, images, some) for problem in error.problems]) from None

    return await _remembered(runtime, info, images, keys, answer)


async def embed_contents(runtime: Runtime, service: str, contents: Sequence[str]) -> Embedded:
    """The same for images by URLs, data URIs and base64; places of problems are `("images", n)`."""
    runtime.inference.check_images(service, [])  # before anything is fetched
    settings, problems, images = runtime.settings, Problems(), list[bytes]()
    for n, given in enumerate(contents):
        try:
            images.append(
                await read(given, runtime.inference.fetcher, kinds=IMAGES, max_bytes=settings.max_image_bytes)
            )
        except Unread as error:
            problems.add(("images", n), error.code, str(error))
        except NotFetched as error:  # what the caller named, so theirs to mend: not a 503, which clients repeat
            problems.add(("images", n), error.error_code, error.message)
    problems.refuse()
    return await embed_images(runtime, service, images)


async def embed_one(runtime: Runtime, service: str, given: str | Content, task: Task) -> Vector:
    """The vector of one text or content, shape (dimension,)."""
    if isinstance(given, Content):
        embedded = await embed_contents(runtime, service, [given.given])
    else:
        embedded = await embed(runtime, service, [given], task)
    vector: Vector = embedded.vectors[0]
    return vector


def _placed(problem: Problem, images: Sequence[bytes], some: Sequence[bytes]) -> Problem:
    """The problem at the image's place among all of the caller's."""
    match problem.location:
        case ("images", int(n)):
            return replace(problem, location=("images", images.index(some[n])))
    return problem


async def _remembered(
    runtime: Runtime,
    info: ServiceInfo,
    inputs: Sequence[T],
    keys: Sequence[Key],
    answer: Callable[[Sequence[T]], Awaitable[Answer]],
) -> Embedded:
    """The vectors of these inputs, by their keys: of those that are not known each one once from the service."""
    cache = runtime.inference.cache
    found = {key: kept for key in keys if (kept := cache.get(key)) is not None}
    missing = {key: given for key, given in zip(keys, inputs, strict=True) if key not in found}
    tokens = None
    shared = info.remote and runtime.settings.inference_cache_rows > 0
    if missing and shared:
        async with transaction(runtime.engine, runtime.settings) as conn:
            found |= await _look_up(conn, list(missing))
        missing = {key: given for key, given in missing.items() if key not in found}
    if missing:
        answered = await answer(list(missing.values()))
        tokens = answered.tokens
        new = dict(zip(missing, answered.vectors, strict=True))
        found |= new
        if shared:
            await _keep(runtime, new)
    for key, vector in found.items():
        cache.put(key, vector)
    vectors = np.stack([found[key] for key in keys]) if keys else np.empty((0, info.dimension), np.float32)
    return Embedded(vectors, bool(keys) and not missing, tokens)


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
