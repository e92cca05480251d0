"""Stores objects: checked in one transaction, their blobs brought to the store, put in another one.

No transaction is open while bytes are on their way; when the store fails, no row was written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.domain.catalog.namespaces import lock_catalog
from app.domain.content import blobs, buckets, objects, uploads
from app.domain.content.buckets import Held
from app.domain.content.new_objects import NewObject, RawObject, check
from app.domain.content.objects import Object
from app.domain.runtime import Runtime
from app.errors import Conflict, InvalidRequest, NotFound, PgretrieveError, Problems

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is now; `replayed_by` says what made it an old one that was left as it is."""

    object: Object
    replayed_by: str | None


async def store(
    runtime: Runtime, namespace: str, bucket: str, sent: Sequence[tuple[RawObject, Location]], policy: str | None
) -> list[Stored | PgretrieveError]:
    """What became of each object, in their order: each is stored or refused by itself."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace, exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket)
        chosen = buckets.policy_of(held.schema, policy)
        checked = await _check(conn, runtime, held, sent)
        sources = [source for new in checked if isinstance(new, NewObject) for source in new.sources]
        there = await blobs.known(conn, sources)
    written = await blobs.write_all(runtime.blobs, sources, there)
    async with transaction(runtime.engine, runtime.settings) as conn:
        again = await buckets.hold(conn, catalog.namespace_id, held.bucket_id)
        if again != held:
            raise Conflict("The bucket was changed meanwhile; send the request again.", code="changing", retryable=True)
        await blobs.put(conn, written, sources)
        done: dict[int, Stored | PgretrieveError] = {}
        # In the order of their keys, in which others with the same ones take them, too: else they could deadlock.
        for n in sorted(range(len(checked)), key=lambda n: _key(checked[n])):
            done[n] = await _put(conn, held, checked[n], chosen)
    return [done[n] for n in range(len(checked))]


async def _check(
    conn: AsyncConnection, runtime: Runtime, held: Held, sent: Sequence[tuple[RawObject, Location]]
) -> list[NewObject | PgretrieveError]:
    asked = {blob.upload_id for raw, _ in sent for blob in raw.blobs if blob.upload_id is not None}
    uploaded = await uploads.uploaded(conn, held.bucket_id, asked)
    found: list[NewObject | PgretrieveError] = []
    for raw, here in sent:
        problems = Problems()
        new = check(raw, uploaded, held.schema, runtime.settings, problems, here)
        found.append(InvalidRequest(problems.found) if new is None else new)
    return found


def _key(new: NewObject | PgretrieveError) -> str:
    return (new.unique_key or new.idempotency_key or new.content_hash) if isinstance(new, NewObject) else ""


async def _put(
    conn: AsyncConnection, held: Held, new: NewObject | PgretrieveError, policy: str
) -> Stored | PgretrieveError:
    if not isinstance(new, NewObject):
        return new
    try:
        put = await objects.put(conn, held, new, policy)
    except (Conflict, NotFound) as error:
        return error
    return Stored(await objects.find(conn, held.bucket_id, put.object_id), put.replayed_by)
