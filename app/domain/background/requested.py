"""Embeddings that were asked for in SQL (`pgretrieve.request_embedding`): made by workers, kept in the cache."""

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.inference import services
from app.domain.inference.embedding import embed
from app.domain.runtime import Runtime
from app.errors import PgretrieveError, Unavailable
from app.inference.base import Task
from app.inference.cache import key_of, model_of

# So many rows the table keeps for those who ask in SQL, though the setting for remote services says fewer.
LEAST_ROWS = 10_000


async def answer(runtime: Runtime, service: str, task: Task, input_hash: bytes, *, last: bool) -> None:
    """Embed a text that was asked for, or say why not. What may pass is raised, to be tried again unless it is the
    `last` try."""
    place = {"service": service, "task": task, "input_hash": input_hash}
    async with transaction(runtime.engine, runtime.settings) as conn:
        text = (await conn.execute(statement("requested_embedding"), place)).scalar_one_or_none()
    if text is None:
        return
    try:
        await services.refresh_for(runtime, [service])
        made = await embed(runtime, service, [text], task)
    except PgretrieveError as error:
        if isinstance(error, Unavailable) and not last:
            raise
        async with transaction(runtime.engine, runtime.settings) as conn:
            await conn.execute(statement("fail_requested_embedding"), {**place, "error": error.message})
        return
    key = key_of(runtime.inference.info(service), task, text)
    kept = {"service": key.service, "model": key.model, "task": key.task, "hashes": [key.input_hash]}
    async with transaction(runtime.engine, runtime.settings) as conn:
        await note_services(conn, runtime)
        await conn.execute(statement("keep_embeddings"), {**kept, "vectors": list(made.vectors)})
        await conn.execute(statement("answer_requested_embedding"), place)


async def note_services(conn: AsyncConnection, runtime: Runtime) -> None:
    """Keep what each service's vectors are kept under, for those who look for them in SQL."""
    infos = runtime.inference.infos()
    named = {"services": [info.name for info in infos], "models": [model_of(info) for info in infos]}
    await conn.execute(statement("note_service_models"), named)


async def sweep(runtime: Runtime) -> None:
    """What is due every minute."""
    await services.refresh(runtime)
    async with transaction(runtime.engine, runtime.settings) as conn:
        await note_services(conn, runtime)
        await conn.execute(statement("forget_failed_requests"))
        rows = max(LEAST_ROWS, runtime.settings.inference_cache_rows)
        await conn.execute(statement("trim_embeddings"), {"rows": rows})
